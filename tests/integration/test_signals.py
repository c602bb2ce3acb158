"""SIGINT, SIGTERM and SIGHUP at any moment end a job cleanly: 130, 143, 129; nothing is left open.

`STEPCHAIN_SIGNALS=200` tries so many random moments; `STEPCHAIN_SEED` repeats a run. Each round
prints what it did.
"""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from orchestrator.records import layout
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from tests.support.datasets import publish_digits

ROUNDS = int(os.environ.get("STEPCHAIN_SIGNALS", "3"))
pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(300 + 240 * ROUNDS)]
CAMPAIGN = '''"""Does a signal end a campaign at any moment?"""

from stepchain import digits_finetuning, sweep, with_field


def chains():
    start = with_field(digits_finetuning(), "scenario.groups", (("0", "1", "2"), ("3", "4")))
    for optimization in ("base.optimization", "optimization"):
        start = with_field(start, optimization + ".batch", 8)
        start = with_field(start, optimization + ".epochs", 90)
    return sweep(start, {"seed": (1, 2)})
'''
TRAIN = (
    "jobs.train digits_finetuning --groups 0,1,2 3,4 --base.optimization.epochs 90 "
    "--base.optimization.batch 8 --optimization.batch 8 --optimization.epochs 90"
)
JOBS = {
    "train": f"{TRAIN} --checkpoint-every 3600 --cpus-per-worker 1",
    "campaign": "jobs.campaign run campaign.py --checkpoint-every 3600 --cpus-per-worker 1",
    "ingest": "jobs.ingest digits --train 3000 --val 100 --name more",
}
# Seconds from the start in which the signal comes in a sample, while a job and Ray start. In a
# storm it may come until the job would end.
SAMPLE = {"train": 8.0, "campaign": 8.0, "ingest": 4.0}


STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 180  # seconds in which a job must end; on a machine with free CPUs it takes 2 to 10


class Round(NamedTuple):
    """What happens to one job."""

    job: str
    number: signal.Signals
    moment: float  # seconds after the start


def rounds(rng: random.Random, seconds: Mapping[str, float]) -> list[Round]:
    """Return the jobs and moments; half of them are in the first quarter of the job's seconds."""
    made = []
    for count in range(ROUNDS):
        job = list(JOBS)[count % len(JOBS)]
        number = rng.choice(STOPS)
        made.append(Round(job, number, rng.random() ** 2 * seconds[job]))
    return made


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    publish_digits(open_store(str(folder / "store")), folder / "built", seed=2, train=120, val=12)
    return folder / "store"


def test_no_native_handler_of_ray_comes_between() -> None:
    """It would abort a process that is still there three seconds after SIGTERM."""
    code = """
import ctypes, signal
from orchestrator.cluster import connection

set_handler = ctypes.CDLL(None).signal
set_handler.argtypes = [ctypes.c_int, ctypes.c_void_p]
set_handler.restype = ctypes.c_void_p

def handler():
    found = set_handler(signal.SIGTERM, None)
    set_handler(signal.SIGTERM, found)
    return found

import ray
with connection.signals_wait():
    before = handler()
    ray.init(address="local", include_dashboard=False, **connection.QUIET)
    assert handler() == before
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_signal_at_any_moment_ends_a_job_cleanly(digits: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("STEPCHAIN_SEED", "1"))
    seconds_of = SAMPLE if ROUNDS < 10 else measure(digits, tmp_path)
    for count, each in enumerate(rounds(random.Random(seed), seconds_of)):
        folder = prepare(digits, tmp_path / str(count))
        code, seconds, trained = disturb(each, folder)
        log = (folder / "log").read_text()
        print(
            f"round {count} of seed {seed}: {each.job}, {each.number.name} after "
            f"{each.moment:.1f} s: exit code {code} after {seconds:.1f} s, trained: {trained}",
            flush=True,
        )
        # Before the first line of ours has run, the system itself ends the process, and a shell
        # shows the same codes. For an instant before that, Python answers SIGINT by 1.
        before_us = code == 1 and ("import the site module" in log or "Fatal Python error" in log)
        assert code in (0, 128 + each.number, -each.number) or before_us, log
        # A job that has nothing left to do but to end may end as if no signal came.
        assert code != 0 or seconds < 15, f"the signal was lost: {log}"
        check_what_is_left(open_store(str(folder / "store")), folder / "store", trained, log)
        if code == 128 + each.number:
            assert "Traceback" not in log, log
            assert "the same command resumes" in log
        shutil.rmtree(folder)


def prepare(digits: Path, folder: Path) -> Path:
    """Make a folder with a store of digits and the campaign."""
    shutil.copytree(digits, folder / "store")
    (folder / "campaign.py").write_text(CAMPAIGN)
    return folder


def measure(digits: Path, tmp_path: Path) -> dict[str, float]:
    """Return how many seconds each job takes on this machine."""
    seconds = {}
    for job in JOBS:
        folder = prepare(digits, tmp_path / job)
        begun = time.monotonic()
        assert begin(job, folder).wait() == 0, (folder / "log").read_text()
        seconds[job] = time.monotonic() - begun
        print(f"{job} takes {seconds[job]:.0f} s", flush=True)
    return seconds


def begin(job: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start a job in its folder."""
    environment = os.environ | {
        "STEPCHAIN_CACHE": str(folder / "cache"),
        "STEPCHAIN_STORE": str(folder / "store"),
        "OMP_NUM_THREADS": "1",
    }
    arguments = JOBS[job].replace("campaign.py", str(folder / "campaign.py")).split()
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=environment,
            stdout=log,
            stderr=log,
            # A shell lets what it starts in the background ignore SIGINT, and nohup SIGHUP.
            preexec_fn=lambda: [signal.signal(each, signal.SIG_DFL) for each in STOPS],
        )


def disturb(each: Round, folder: Path) -> tuple[int, float, bool]:
    """Start a job and send it a signal.

    Returns:
        Its exit code, the seconds that it still took, and whether a step was training.
    """
    store = open_store(str(folder / "store"))
    process = begin(each.job, folder)
    family: list[psutil.Process] = []
    try:
        time.sleep(each.moment)
        trained = is_training(store)
        if process.poll() is None:
            family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(each.number)
        begun = time.monotonic()
        code = process.wait(timeout=PATIENCE)
        seconds = time.monotonic() - begun
    except subprocess.TimeoutExpired:
        pytest.fail(f"{each} did not end it within {PATIENCE} s: {(folder / 'log').read_text()}")
    finally:
        process.kill()
        process.wait()
    _, left = psutil.wait_procs(family, timeout=60)
    assert left == [], left
    return code, seconds, trained


def is_training(store: Store) -> bool:
    """Return whether some step has written a piece of its curve and is not published."""
    names = list(store.list("steps/"))
    curves = {name.split("/")[1] for name in names if "/curves/" in name}
    return bool(curves - {name.split("/")[1] for name in names if name.endswith("/record.json")})


def check_what_is_left(store: Store, folder: Path, trained: bool, log: str) -> None:
    """Check that no lease and no run is open, and that what was trained has a checkpoint."""
    names = list(store.list("steps/"))
    assert not [name for name in names if name.endswith("/lease.json")], log
    if trained:
        kept = [name for name in names if layout.is_checkpoint_done(name)]
        assert kept or [name for name in names if layout.is_step_record(name)], log
    assert not [name for name in names if name.endswith("/error.txt")], log
    if (folder / "mlflow.db").exists():
        with closing(sqlite3.connect(folder / "mlflow.db")) as database:
            open_runs = database.execute(
                "SELECT name FROM runs WHERE status NOT IN ('FINISHED', 'KILLED', 'FAILED')"
            ).fetchall()
        assert open_runs == [], log
