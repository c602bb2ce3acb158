"""Kill a running campaign with `kill -9`, again and again. Run once more, it ends as if undisturbed.

At a random moment of a step's training the test kills the driver with all its children, a worker, or
the whole Ray instance, and gives the same command again. Each time the campaign has more seeds, so
that something is left to kill on the fastest machine. STEPCHAIN_KILLS says how often (`make soak`:
30), and STEPCHAIN_SEED changes the moments. A sample of few kills trains one alpha only.
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

from orchestrator.datasets.catalog import publish
from orchestrator.records.schema import StepRecord
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from tests.support.datasets import build_dataset
from training.data.digits import Digits

KILLS = int(os.environ.get("STEPCHAIN_KILLS", "3"))
SEED = int(os.environ.get("STEPCHAIN_SEED", "0"))
pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600 + 180 * KILLS)]
CHECKPOINT_SECONDS = 0.5
# Training that one kill may cost: a checkpoint interval, and a checkpoint that was being written.
LOST_SECONDS = CHECKPOINT_SECONDS + 3
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
    chance, published = random.Random(SEED), dict[str, bytes]()
    for number in range(KILLS):
        victim, delay = VICTIMS[number % len(VICTIMS)], chance.uniform(0, 5)
        (tmp_path / "survives.py").write_text(campaign(seeds(number)))
        job = start(disturbed, tmp_path)
        wait_for_training(disturbed, job, tmp_path)
        assert not ends_within(job, delay), (
            f"nothing was left to kill: {(tmp_path / 'job.log').read_text()}"
        )
        killed = kill(victim, job)
        assert killed
        print(
            f"kill {number + 1}, {delay:.1f} s into training: {victim}, {killed} processes",
            flush=True,
        )
        if victim == "a worker":
            ends_within(job, 10)  # a lost worker is the campaign's to mend
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
    assert any(
        StepRecord.model_validate_json(data).resources["resumed_from"]
        for data in records(disturbed).values()
    )
    lost = lost_seconds(disturbed)
    print(
        f"{len(lost)} interruptions of a training step; seconds lost: {[round(each, 1) for each in lost]}",
        flush=True,
    )
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
    manifest, _ = build_dataset(Digits(seed=2, train=160, val=12), folder / "built")
    publish(store, "digits", folder / "built", manifest)
    return store


def start(store: Store, scratch: Path) -> subprocess.Popen:
    """The campaign in a process group of its own, as a terminal would start it."""
    command = [
        sys.executable,
        "-m",
        "jobs.campaign",
        "run",
        str(scratch / "survives.py"),
        "--store",
        store.uri,
    ]
    command += ["--no-tracking", "--cpus-per-worker", "1", "--max-concurrent", "2"]
    command += ["--checkpoint-every", str(CHECKPOINT_SECONDS), "--lease-seconds", "6"]
    environment = os.environ | {"STEPCHAIN_CACHE": str(scratch / "cache"), "OMP_NUM_THREADS": "1"}
    with (scratch / "job.log").open("w") as log:
        return subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=log, stderr=subprocess.STDOUT
        )


def wait_for_training(store: Store, job: subprocess.Popen, scratch: Path) -> None:
    """Until a step that is not published has a checkpoint of an attempt that is going on."""
    known = set(store.list("steps/"))
    while job.poll() is None:
        published = {name.split("/")[1] for name in records(store)}
        new = [name for name in set(store.list("steps/")) - known if name.endswith("/done.json")]
        if any(name.split("/")[1] not in published for name in new):
            return
        time.sleep(0.05)
    raise AssertionError(
        f"the campaign ended before it could be killed: {(scratch / 'job.log').read_text()}"
    )


def ends_within(job: subprocess.Popen, seconds: float) -> bool:
    """Whether the job ends by itself within that time."""
    try:
        job.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def kill(victim: str, job: subprocess.Popen) -> int:
    """Kill without warning; says how many processes."""
    family = all_of(job)
    if victim == "a worker":
        while job.poll() is None and not any("TrainWorker" in title(process) for process in family):
            time.sleep(0.1)
            family = all_of(job)
        family = [process for process in family if "TrainWorker" in title(process)][:1]
    elif victim == "the Ray instance":
        family = [
            process
            for process in family
            if any(part in title(process) for part in ("raylet", "gcs_server", "ray::"))
        ]
    return sum(killed(process) for process in family)


def all_of(job: subprocess.Popen) -> list[psutil.Process]:
    """The driver and all it started."""
    try:
        driver = psutil.Process(job.pid)
        return [driver, *driver.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def killed(process: psutil.Process) -> bool:
    """Whether there still was such a process."""
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
    """Stop what is left of the job, as whoever starts it again would."""
    if job.poll() is None:
        for process in psutil.Process(job.pid).children(recursive=True):
            killed(process)
        job.kill()
        job.wait()


def records(store: Store) -> dict[str, bytes]:
    """All step records as they are written."""
    return {
        name: store.read(name) for name in store.list("steps/") if name.endswith("/record.json")
    }


def weights(store: Store) -> dict[str, dict[str, str]]:
    """Digests of each step's model, and of what else its method keeps."""
    found = (StepRecord.model_validate_json(data) for data in records(store).values())
    return {
        record.key: {
            name: file.sha256
            for name, file in record.files.items()
            if name.endswith(".safetensors")
        }
        for record in found
    }


def table(store: Store, scratch: Path) -> dict:
    """What `jobs.campaign table` tells of the campaign."""
    command = [
        sys.executable,
        "-m",
        "jobs.campaign",
        "table",
        str(scratch / "survives.py"),
        "--store",
        store.uri,
    ]
    environment = os.environ | {"STEPCHAIN_CACHE": str(scratch / "cache")}
    done = subprocess.run(
        [*command, "--format", "json"], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def lost_seconds(store: Store) -> list[float]:
    """Of each interruption: for how long the attempt had trained beyond the iteration that the next one went on from."""
    curves: dict[str, dict[str, list[dict]]] = {}
    for name in store.list("steps/"):
        if "/curves/" in name:
            _, key, _, attempt, *_ = name.split("/")
            curves.setdefault(key, {}).setdefault(attempt, []).extend(json.loads(store.read(name)))
    lost = []
    for attempts in curves.values():
        rows = [
            sorted(rows, key=lambda row: row["iteration"]) for _, rows in sorted(attempts.items())
        ]
        for before, after in pairwise(rows):
            beyond = [row["time"] for row in before if row["iteration"] >= after[0]["iteration"]]
            lost.append(max(beyond) - min(beyond) if beyond else 0.0)
    return lost
