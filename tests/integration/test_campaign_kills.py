"""Kill a running campaign with SIGKILL, again and again. Run once more, it ends as if undisturbed.

At a random moment of a step's training the test kills the driver with all its children, a worker,
or the whole Ray instance, and gives the same command again. Each time the campaign has more seeds,
so that something is left to kill on the fastest machine. STEPCHAIN_KILLS says how often (`make
soak`: 30), and STEPCHAIN_SEED changes the moments. A sample of few kills trains one alpha only.
"""

import json
import os
import random
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from orchestrator.records import layout
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from tests.support.datasets import publish_digits
from tests.support.stored_steps import read_step_records, step_record_names

KILLS = int(os.environ.get("STEPCHAIN_KILLS", "3"))
SEED = int(os.environ.get("STEPCHAIN_SEED", "0"))
pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600 + 180 * KILLS)]
CHECKPOINT_SECONDS = 0.5
# Training that one kill may cost: a checkpoint interval, and a checkpoint that was being written.
LOST_SECONDS = CHECKPOINT_SECONDS + 3
# Two steps, the least that is left to train, take twice as long on the fastest machine we saw.
LATEST = 2  # seconds after the first checkpoint
ALPHAS = (0.5, 1) if KILLS > 3 else (0.5,)
CAMPAIGN = '''"""Does a campaign survive?"""

from stepchain import digits_wilson, sweep, with_field


def chains():
    start = with_field(digits_wilson(), "scenario.groups", (("0", "1", "2"), ("3", "4")))
    for optimization in ("base.optimization", "optimization"):
        start = with_field(start, optimization + ".batch", 8)
        start = with_field(start, optimization + ".epochs", 8)
    return sweep(start, {"method.alpha": ALPHAS, "seed": range(SEEDS)})
'''
VICTIMS = ("the driver and all it started", "a worker", "the Ray instance")


def test_a_campaign_killed_again_and_again_ends_with_the_same_table(tmp_path: Path) -> None:
    disturbed, quiet = (new_store(tmp_path / name) for name in ("disturbed", "quiet"))
    chance = random.Random(SEED)
    published: dict[str, bytes] = {}
    for number in range(KILLS):
        victim = VICTIMS[number % len(VICTIMS)]
        delay = chance.uniform(0, LATEST)
        (tmp_path / "survives.py").write_text(campaign(seeds(number)))
        job = start(disturbed, tmp_path)
        wait_for_training(disturbed, job, tmp_path)
        log = tmp_path / "job.log"
        assert not ends_within(job, delay), f"nothing was left to kill: {log.read_text()}"
        killed = kill(victim, job)
        assert killed
        moment = f"{delay:.1f} s into training"
        print(f"kill {number + 1}, {moment}: {victim}, {killed} processes", flush=True)
        if victim == "a worker":
            # The campaign itself replaces a lost worker.
            ends_within(job, 10)
        end(job)
        found = records(disturbed)
        assert published.items() <= found.items(), "what was published was published again"
        published = found
    for store in (disturbed, quiet):
        job = start(store, tmp_path)
        assert job.wait(timeout=100 * KILLS) == 0, (tmp_path / "job.log").read_text()
    assert published.items() <= records(disturbed).items()
    assert table(disturbed, tmp_path) == table(quiet, tmp_path)
    assert weights(disturbed) == weights(quiet), "other weights than undisturbed"
    assert any(record.resources["resumed_from"] for record in read_step_records(disturbed))
    lost = lost_seconds(disturbed)
    rounded = [round(each, 1) for each in lost]
    print(f"{len(lost)} interruptions of a step; seconds lost: {rounded}", flush=True)
    assert max(lost, default=0) <= LOST_SECONDS


def campaign(count: int) -> str:
    """Return the campaign's file with this many seeds."""
    return CAMPAIGN.replace("SEEDS", str(count)).replace("ALPHAS", repr(ALPHAS))


def seeds(number: int) -> int:
    """Return the seeds at kill `number` from 0: one more for each of seven, then two for three.

    With one more for every kill, an hour would go into steps that are never killed.
    """
    return min(number, 6) + 1 + max(0, number - 6) * 2 // 3


def new_store(folder: Path) -> Store:
    store = open_store(str(folder))
    publish_digits(store, folder / "built", seed=2, train=160, val=12)
    return store


def start(store: Store, scratch: Path) -> subprocess.Popen:
    """Start the campaign in a process group of its own, as a terminal would."""
    command = [sys.executable, "-m", "jobs.campaign", "run", str(scratch / "survives.py")]
    command += ["--store", store.uri]
    command += ["--no-tracking", "--cpus-per-worker", "1", "--max-concurrent", "2"]
    command += ["--checkpoint-every", str(CHECKPOINT_SECONDS), "--lease-seconds", "6"]
    environment = os.environ | {"STEPCHAIN_CACHE": str(scratch / "cache"), "OMP_NUM_THREADS": "1"}
    with (scratch / "job.log").open("w") as log:
        return subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=log, stderr=subprocess.STDOUT
        )


def wait_for_training(store: Store, job: subprocess.Popen, scratch: Path) -> None:
    """Wait until a step that is not published has a new checkpoint."""
    known = set(store.list("steps/"))
    while job.poll() is None:
        published = {layout.step_of(name) for name in step_record_names(store)}
        new = set(store.list("steps/")) - known
        checkpoints = [name for name in new if layout.is_checkpoint_done(name)]
        if any(layout.step_of(name) not in published for name in checkpoints):
            return
        time.sleep(0.05)
    log = (scratch / "job.log").read_text()
    raise AssertionError(f"the campaign ended before it could be killed: {log}")


def ends_within(job: subprocess.Popen, seconds: float) -> bool:
    """Wait, and return whether the job has ended by itself within that time."""
    try:
        job.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def kill(victim: str, job: subprocess.Popen) -> int:
    """Kill processes without warning, and return how many."""
    victims = family(job)
    if victim == "a worker":
        while job.poll() is None and not titled(family(job), "TrainWorker"):
            time.sleep(0.1)
        victims = titled(family(job), "TrainWorker")[:1]
    elif victim == "the Ray instance":
        victims = titled(victims, "raylet", "gcs_server", "ray::")
    return sum(killed(process) for process in victims)


def titled(processes: list[psutil.Process], *words: str) -> list[psutil.Process]:
    """Return the processes with one of these words in their command line."""

    def has_word(process: psutil.Process) -> bool:
        return any(word in title(process) for word in words)

    return [process for process in processes if has_word(process)]


def family(job: subprocess.Popen) -> list[psutil.Process]:
    """Return the driver and all processes that it started."""
    try:
        driver = psutil.Process(job.pid)
        return [driver, *driver.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def killed(process: psutil.Process) -> bool:
    """Kill a process, and return whether there still was one."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def end(job: subprocess.Popen) -> None:
    """Kill what is left of the job, as a person would before starting it again."""
    if job.poll() is None:
        for process in psutil.Process(job.pid).children(recursive=True):
            killed(process)
        job.kill()
        job.wait()


def records(store: Store) -> dict[str, bytes]:
    """Return the bytes of all step records."""
    return {name: store.read(name) for name in step_record_names(store)}


def weights(store: Store) -> dict[str, dict[str, str]]:
    """Return the digests of each step's model and of the other tensors that its method keeps."""
    found: dict[str, dict[str, str]] = {}
    for record in read_step_records(store):
        tensors = [name for name in record.files if name.endswith(".safetensors")]
        found[record.key] = {name: record.files[name].sha256 for name in tensors}
    return found


def table(store: Store, scratch: Path) -> dict:
    """Return what `jobs.campaign table` prints for the campaign."""
    command = [sys.executable, "-m", "jobs.campaign", "table", str(scratch / "survives.py")]
    command += ["--store", store.uri, "--format", "json"]
    environment = os.environ | {"STEPCHAIN_CACHE": str(scratch / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def lost_seconds(store: Store) -> list[float]:
    """Return the training time that each interruption lost.

    An interrupted attempt trained beyond the iteration from which the next attempt went on.
    """
    curves: dict[str, dict[str, list[dict]]] = {}
    for name in store.list("steps/"):
        if "/curves/" in name:
            _, key, _, attempt, *_ = name.split("/")
            curves.setdefault(key, {}).setdefault(attempt, []).extend(json.loads(store.read(name)))
    lost = []
    for attempts in curves.values():
        for rows in attempts.values():
            rows.sort(key=lambda row: row["iteration"])
        in_order = [attempts[name] for name in sorted(attempts)]
        for before, after in pairwise(in_order):
            beyond = [row["time"] for row in before if row["iteration"] >= after[0]["iteration"]]
            lost.append(max(beyond) - min(beyond) if beyond else 0.0)
    return lost
