"""Use `make cluster` as a person does.

A campaign is submitted, a machine that trains is lost, the numbers are compared, everything is
stopped, and no secret is left behind.

This is one test, because an S3 server, MLflow, a Ray head and two workers take a minute to start.
The job is submitted from a checkout of its own. It holds a campaign that only it has, and a secret
that must not travel.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.local.processes import Ledger
from infra.local.settings import Settings
from orchestrator.records import layout
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from tests.support.datasets import publish_digits
from tests.support.paths import ROOT
from tests.support.stored_steps import read_step_records

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.s3, pytest.mark.timeout(1500)]
SENT = ("jobs", "orchestrator", "stepchain", "training", ".gitignore", ".rayignore")
CAMPAIGN = '''"""Does a campaign outlive a machine?"""

from stepchain import MiB, digits_mib, sweep, with_field


def chains():
    start = with_field(digits_mib(), "scenario.groups", (("0", "1", "2"), ("3", "4")))
    for optimization, epochs in (("base.optimization", 4), ("optimization", 40)):
        start = with_field(start, optimization + ".batch", 8)
        start = with_field(start, optimization + ".epochs", epochs)
    # With one chain only one machine trains at a time.
    return sweep(start, {"method": (MiB(),)})
'''
OPTIONS = ("--cpus-per-worker", "1", "--checkpoint-every", "0.3")
RUN = ("python", "-m", "jobs.campaign", "run", "outlives", *OPTIONS)
# Secrets that a person's shell may hold, and that a submission must not carry.
CANARIES = {
    "AWS_SECRET_ACCESS_KEY": "canary-of-a-cloud-4710",
    "CANARY_PASSWORD": "canary-in-the-shell-4711",
    "HF_TOKEN": "canary-of-a-hub-4712",
    "MLFLOW_TRACKING_PASSWORD": "canary-of-mlflow-4713",
}
# A secret in a file that .gitignore names.
PLANTED = "canary-in-the-folder-4714"
# Files whose purpose is to hold a secret.
KEEPERS = {"settings.json", "environment", "token", "proxy.conf"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a folder for the cluster, and stop the cluster at the end.

    Root runs PostgreSQL as another user, who may pass through this folder but not through pytest's.
    """
    above = Path(tempfile.mkdtemp(prefix="stepchain-"))
    above.chmod(0o711)
    yield above / "cluster"
    control("down", above / "cluster", "--forget")
    above.rmdir()


def test_a_submitted_campaign_outlives_a_machine_it_trains_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = check_out(tmp_path / "checkout")
    control("up", folder, "--workers", "2", "--cpus", "1", "--any-ports")
    members = set(family(folder))
    assert listening_beyond_loopback(members) == []
    known = client(folder)
    for name, value in known.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    there = open_store(known["STEPCHAIN_STORE"])
    here = open_store(str(tmp_path / "local"))
    for store in (there, here):
        publish_digits(store, tmp_path / "built", seed=2, train=160, val=12)

    with submitted(folder, tmp_path, "first") as job:
        wait_for_a_checkpoint_of_a_later_step(there, job, tmp_path)
        lost = lose_a_machine_that_trains(folder)
        members |= set(family(folder))
        assert job.wait(timeout=900) == 0, log_of(tmp_path)
    found = read_step_records(there)
    assert len(found) == 2
    restarts = max(record.resources["restarts"] for record in found)
    assert restarts >= 1, f"{lost} was lost, and no step noticed\n{log_of(tmp_path)}"
    for record in found:
        assert record.provenance.commit == commit
        assert record.provenance.dirty is None
    addresses = ("store     s3://stepchain/results", f"MLflow    {known['MLFLOW_TRACKING_URI']}")
    for words in (*addresses, "/#/jobs/first", "jobs.submit -- "):
        assert words in log_of(tmp_path), words
    runs = tracked(known["MLFLOW_TRACKING_URI"])
    of_steps = [run for run in runs if run["tags"]["stepchain.kind"] == "step"]
    assert {run["tags"].get("stepchain.submission") for run in of_steps} == {"first"}
    assert {run["status"] for run in runs} == {"FINISHED"}

    with submitted(folder, tmp_path, "second") as job:
        assert job.wait(timeout=300) == 0, log_of(tmp_path)
    assert read_step_records(there) == found, "what was published was trained again"
    runs = tracked(known["MLFLOW_TRACKING_URI"])
    members |= set(family(folder))

    secrets = secrets_of(folder)
    assert command_lines_with(secrets) == []
    searched = [folder, Settings.open(folder).ray_folder, tmp_path / "job.log"]
    assert files_with(secrets, searched) == []
    control("down", folder)
    left = [process for process in members if process.is_running()]
    assert [process for process in left if process.status() != psutil.STATUS_ZOMBIE] == []

    control("up", folder, "s3", "postgres", "mlflow")
    assert read_step_records(there) == found
    assert tracked(known["MLFLOW_TRACKING_URI"]) == runs
    assert table(there, tmp_path, known) == local_table(here, tmp_path)


def check_out(folder: Path) -> str:
    """Copy the code into a repository of its own with one commit, and return the commit."""
    folder.mkdir()
    ignore = shutil.ignore_patterns("__pycache__")
    for name in SENT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, folder)
    (folder / "jobs" / "campaigns" / "outlives.py").write_text(CAMPAIGN)
    (folder / ".env").write_text(f"PASSWORD={PLANTED}\n")
    identity = ("-c", "user.name=x", "-c", "user.email=x@localhost", "-c", "commit.gpgsign=false")

    def git(*arguments: str) -> str:
        command = ["git", *identity, *arguments]
        return subprocess.check_output(command, cwd=folder, text=True, env=without_git())

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    return git("rev-parse", "HEAD").strip()


def without_git() -> dict[str, str]:
    """Return the environment without the variables of a git hook, which name another repository."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}


def control(verb: str, folder: Path, *options: str) -> None:
    """Run `python -m infra.local.cluster`, as from a shell."""
    command = [sys.executable, "-m", "infra.local.cluster", verb, "--folder", str(folder), *options]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def client(folder: Path) -> dict[str, str]:
    """Return the variables that `source environment` sets in a shell."""
    variables = {}
    for line in (folder / "environment").read_text().splitlines():
        name, _, value = line.removeprefix("export ").replace("'", "").partition("=")
        variables[name] = value
    return variables


@contextmanager
def submitted(folder: Path, scratch: Path, name: str) -> Iterator[subprocess.Popen]:
    """Run `jobs.submit` from a shell that knows the cluster's address and other secrets."""
    ray = {name: value for name, value in client(folder).items() if name.startswith("RAY_")}
    command = [sys.executable, "-m", "jobs.submit", "--submission-id", name, "--", *RUN]
    environment = without_git() | {"PYTHONPATH": ""} | CANARIES | ray
    cwd = scratch / "checkout"
    with (scratch / "job.log").open("a") as log:
        job = subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield job
    finally:
        job.kill()
        job.wait()


def log_of(scratch: Path) -> str:
    """Return the output of the submitted jobs."""
    return (scratch / "job.log").read_text()


def wait_for_a_checkpoint_of_a_later_step(
    store: Store, job: subprocess.Popen, scratch: Path
) -> None:
    while job.poll() is None:
        names = list(store.list("steps/"))
        published = {layout.step_of(name) for name in names if layout.is_step_record(name)}
        started = {layout.step_of(name) for name in names if layout.is_checkpoint_done(name)}
        if published and started - published:
            return
        time.sleep(0.1)
    raise AssertionError(f"the job ended before a machine could be lost: {log_of(scratch)}")


def lose_a_machine_that_trains(folder: Path) -> str:
    """Kill a worker node with all processes on it, and return its name."""
    ledger = Ledger(folder)
    for name in ("worker-1", "worker-2"):
        node = ledger.alive(name)
        assert node
        processes = [node, *node.children(recursive=True)]
        if any("RayTrainWorker" in " ".join(command_of(process)) for process in processes):
            for process in processes:
                if process.is_running():
                    process.send_signal(signal.SIGKILL)
            return name
    raise AssertionError("no machine trains")


def tracked(uri: str) -> list[dict[str, Any]]:
    """Return status and tags of all runs that MLflow holds."""

    def ask(path: str, question: dict[str, Any]) -> dict[str, Any]:
        address = f"{uri}/api/2.0/mlflow/{path}"
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(address, json.dumps(question).encode(), kind)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    experiments = ask("experiments/search", {"max_results": 100})["experiments"]
    ids = [experiment["experiment_id"] for experiment in experiments]
    found = []
    for run in ask("runs/search", {"experiment_ids": ids, "order_by": ["attributes.run_id"]})[
        "runs"
    ]:
        tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
        found.append({"status": run["info"]["status"], "tags": tags})
    return found


def local_table(store: Store, scratch: Path) -> dict[str, Any]:
    """Run the same campaign on a Ray of its own, and return its table."""
    cache = {"STEPCHAIN_CACHE": str(scratch / "cache")}
    environment = without_git() | cache | {"PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *RUN[1:], "--store", store.uri, "--no-tracking"]
    cwd = scratch / "checkout"
    done = subprocess.run(
        command, cwd=cwd, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return table(store, scratch, {})


def table(store: Store, scratch: Path, known: dict[str, str]) -> dict[str, Any]:
    """Return what `jobs.campaign table` prints for the campaign."""
    command = [sys.executable, "-m", "jobs.campaign", "table", "outlives"]
    command += ["--store", store.uri, "--format", "json"]
    cache = {"STEPCHAIN_CACHE": str(scratch / "cache")}
    environment = without_git() | cache | {"PYTHONPATH": ""} | known
    cwd = scratch / "checkout"
    return json.loads(subprocess.check_output(command, cwd=cwd, env=environment, text=True))


def secrets_of(folder: Path) -> list[bytes]:
    """Return the cluster's secrets and the planted ones."""
    settings = Settings.open(folder)
    token = (folder / "token").read_text()
    found = (*CANARIES.values(), PLANTED, settings.secret_key, settings.database_password, token)
    return [secret.encode() for secret in found]


def family(folder: Path) -> Iterator[psutil.Process]:
    """Yield all processes that were started, with their children."""
    ledger = Ledger(folder)
    for name in ledger.names():
        if process := ledger.alive(name):
            yield from (process, *process.children(recursive=True))


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
        return []


def command_lines_with(secrets: list[bytes]) -> list[str]:
    """Return the command lines on this machine that hold one of the secrets."""
    lines = [" ".join(command_of(process)) for process in psutil.process_iter()]
    assert len(lines) > 10
    return [line for line in lines if holds_any(line.encode(), secrets)]


def files_with(secrets: list[bytes], roots: list[Path]) -> list[str]:
    """Return the files that hold one of the secrets.

    They are records, logs, databases, pickles, and Ray's session with the code that was sent.
    """
    files: list[Path] = []
    for root in roots:
        below = [root] if root.is_file() else root.rglob("*")
        files += [path for path in below if path.is_file()]
    logs = ("logs/mlflow.log", "job-driver-first.log", "job.log")
    for searched in ("s3/disk/objects", "working_dir_files", *logs):
        assert any(searched in str(path) for path in files), f"no file of {searched} was searched"
    others = [path for path in files if path.name not in KEEPERS]
    return [str(path) for path in others if holds_any(path.read_bytes(), secrets)]


def holds_any(data: bytes, secrets: list[bytes]) -> bool:
    """Return whether one of the secrets is in the data."""
    return any(secret in data for secret in secrets)


def listening_beyond_loopback(processes: set[psutil.Process]) -> list[tuple[str, str]]:
    """Return name and address of the processes that other machines can reach."""
    found = []
    for process in processes:
        for connection in process.net_connections("inet"):
            if connection.status != psutil.CONN_LISTEN:
                continue
            if not connection.laddr.ip.removeprefix("::ffff:").startswith("127."):
                found.append((process.name(), connection.laddr.ip))
    return found
