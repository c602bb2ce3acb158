"""`make cluster` as a person uses it: submit a job, lose the machine it trains on, stop all, start again; no secret is left.

One test, because what it needs takes a minute to start: an S3 server, MLflow, a Ray head and two workers, each a real one.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.local.processes import Ledger
from infra.local.settings import Settings
from orchestrator.datasets import publish
from orchestrator.record import StepRecord
from orchestrator.store import Store, open_store
from training.data.digits import Digits
from training.data.shards import build

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
JOB = (
    "python -m jobs.train digits_wilson --groups 0,1,2 3,4 --base.optimization.epochs 2 --optimization.epochs 20 "
    "--base.optimization.batch 8 --optimization.batch 8 --method.warmup_epochs 1 --checkpoint-every 0.2 --cpus-per-worker 1"
)
CANARIES = {  # what a person's shell may hold; a submission must not carry it
    "CANARY_PASSWORD": "canary-in-the-shell-4711",
    "HF_TOKEN": "canary-of-a-hub-4712",
    "MLFLOW_TRACKING_PASSWORD": "canary-of-mlflow-4713",
}
KEEPERS = {
    "settings.json",
    "environment",
    "token",
    "proxy.conf",
}  # files whose purpose is a secret; only their owner reads them


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "cluster"
    yield folder
    control("down", folder)


def control(verb: str, folder: Path, *options: str) -> str:
    """`python -m infra.local.cluster`, as from a shell."""
    command = [sys.executable, "-m", "infra.local.cluster", verb, "--folder", str(folder), *options]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def client(folder: Path) -> dict[str, str]:
    """What `source environment` gives a shell, which holds other secrets as well."""
    lines = (folder / "environment").read_text().splitlines()
    return dict(line.removeprefix("export ").replace("'", "").split("=", 1) for line in lines)


def submit(folder: Path, scratch: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "jobs.submit", "--", *JOB.split()]
    with (scratch / "job.log").open("a") as log:
        environment = os.environ | CANARIES | client(folder)
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)


def records(store: Store) -> list[StepRecord]:
    names = [name for name in store.list("steps/") if name.endswith("record.json")]
    return sorted((StepRecord.model_validate_json(store.read(name)) for name in names), key=lambda record: record.index)


def lose_the_machine_that_trains(folder: Path) -> str:
    """`kill -9` of the worker node, with all that runs on it, that trains now; returns its name."""
    ledger = Ledger(folder)
    for name in ("worker-1", "worker-2"):
        node = ledger.alive(name)
        assert node
        family = [node, *node.children(recursive=True)]
        if any("RayTrainWorker" in " ".join(process.cmdline()) for process in family):
            for process in family:
                if process.is_running():
                    process.send_signal(signal.SIGKILL)
            return name
    raise AssertionError("no machine trains")


def test_a_submitted_job_outlives_the_machine_it_trains_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control("up", folder, "--workers", "2", "--cpus", "1")
    assert listening_beyond_loopback(folder) == []
    for name, value in client(folder).items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    store = open_store(client(folder)["STEPCHAIN_STORE"])
    manifest, _ = build(Digits(seed=2, train=120, val=12), tmp_path / "built")
    publish(store, "digits", tmp_path / "built", manifest)

    job = submit(folder, tmp_path)
    wait_for_a_checkpoint_of_the_last_step(store, job, tmp_path)
    lost = lose_the_machine_that_trains(folder)
    assert job.wait(timeout=500) == 0, (tmp_path / "job.log").read_text()
    base, last = records(store)
    assert last.resources["restarts"] >= 1, f"{lost} was lost, and the step did not notice"
    assert last.resources["attempts"] == 1

    secrets = secrets_of(folder)
    assert found_in_command_lines(folder, secrets) == []
    assert found_in_files([folder, Settings.open(folder).ray_folder, tmp_path / "job.log"], secrets) == []
    control("down", folder)
    assert not [process.cmdline() for process in psutil.process_iter() if str(folder) in " ".join(command_of(process))]

    control("up", folder)
    assert records(store) == [base, last]
    begun = time.monotonic()
    assert submit(folder, tmp_path).wait(timeout=300) == 0, (tmp_path / "job.log").read_text()
    assert records(store) == [base, last]
    print(f"the same job again took {time.monotonic() - begun:.0f} s")


def wait_for_a_checkpoint_of_the_last_step(store: Store, job: subprocess.Popen, scratch: Path) -> None:
    while job.poll() is None:
        names = list(store.list("steps/"))
        published = {name.split("/")[1] for name in names if name.endswith("record.json")}
        if published and any(name.endswith("/done.json") and name.split("/")[1] not in published for name in names):
            return
        time.sleep(0.2)
    raise AssertionError(f"the job ended before its machine could be lost: {(scratch / 'job.log').read_text()}")


def secrets_of(folder: Path) -> list[str]:
    settings = Settings.open(folder)
    token = (folder / "token").read_text()
    return [*CANARIES.values(), settings.secret_key, settings.database_password, token]


def family(folder: Path) -> Iterator[psutil.Process]:
    ledger = Ledger(folder)
    for name in ledger.names():
        if process := ledger.alive(name):
            yield from (process, *process.children(recursive=True))


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def found_in_command_lines(folder: Path, secrets: list[str]) -> list[str]:
    lines = [" ".join(command_of(process)) for process in family(folder)]
    assert len(lines) > 10
    return [line for line in lines if any(secret in line for secret in secrets)]


def found_in_files(places: list[Path], secrets: list[str]) -> list[str]:
    """Files that hold one of the secrets: records, logs, databases, pickles, Ray's session."""
    wanted = [secret.encode() for secret in secrets]
    assert all(place.exists() for place in places)
    files = [path for place in places for path in ([place] if place.is_file() else place.rglob("*")) if path.is_file()]
    assert len(files) > 20
    return [str(path) for path in files if path.name not in KEEPERS and any(secret in path.read_bytes() for secret in wanted)]


def listening_beyond_loopback(folder: Path) -> list[tuple[str, str]]:
    found = []
    for process in family(folder):
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN and not connection.laddr.ip.removeprefix("::ffff:").startswith("127."):
                found.append((process.name(), connection.laddr.ip))
    return found
