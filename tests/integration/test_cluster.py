"""`make cluster` as a person uses it: submit a campaign, lose a machine it trains on, compare, stop all; no secret is left.

One test, because what it needs takes a minute to start: an S3 server, MLflow, a Ray head and two workers, each a real one.
What is submitted is a checkout of its own, with a campaign that only it has, and with a secret that is not to travel.
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
from orchestrator.datasets.catalog import publish
from orchestrator.records.schema import StepRecord
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from tests.support.datasets import build_dataset
from tests.support.paths import ROOT
from training.data.digits import Digits

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.s3, pytest.mark.timeout(1500)]
SENT = ("jobs", "orchestrator", "stepchain", "training", ".gitignore", ".rayignore")
CAMPAIGN = '''"""Does a campaign outlive a machine?"""

from stepchain.presets import digits_mib
from orchestrator.planning.campaign import sweep, with_field
from training.methods import mib


def chains():
    start = with_field(digits_mib(), "scenario.groups", (("0", "1", "2"), ("3", "4")))
    for optimization, epochs in (("base.optimization", 4), ("optimization", 40)):
        start = with_field(with_field(start, optimization + ".batch", 8), optimization + ".epochs", epochs)
    return sweep(start, {"method": (mib.Config(),)})  # one step at a time, so whoever trains is known
'''
RUN = (
    "python",
    "-m",
    "jobs.campaign",
    "run",
    "outlives",
    "--cpus-per-worker",
    "1",
    "--checkpoint-every",
    "0.3",
)
CANARIES = {  # what a person's shell may hold; a submission must not carry it
    "AWS_SECRET_ACCESS_KEY": "canary-of-a-cloud-4710",
    "CANARY_PASSWORD": "canary-in-the-shell-4711",
    "HF_TOKEN": "canary-of-a-hub-4712",
    "MLFLOW_TRACKING_PASSWORD": "canary-of-mlflow-4713",
}
PLANTED = "canary-in-the-folder-4714"  # in a file that .gitignore names
KEEPERS = {"settings.json", "environment", "token", "proxy.conf"}  # files whose purpose is a secret


@pytest.fixture
def folder() -> Iterator[Path]:
    """Whom root starts PostgreSQL as must pass through here, and may not through pytest's folders."""
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
    there, here = open_store(known["STEPCHAIN_STORE"]), open_store(str(tmp_path / "local"))
    manifest, _ = build_dataset(Digits(seed=2, train=160, val=12), tmp_path / "built")
    for store in (there, here):
        publish(store, "digits", tmp_path / "built", manifest)

    with submitted(folder, tmp_path, "first") as job:
        wait_for_a_checkpoint_of_a_later_step(there, job, tmp_path)
        lost = lose_a_machine_that_trains(folder)
        members |= set(family(folder))
        assert job.wait(timeout=900) == 0, said(tmp_path)
    found = records(there)
    assert len(found) == 2
    assert max(record.resources["restarts"] for record in found) >= 1, (
        f"{lost} was lost, and no step noticed\n{said(tmp_path)}"
    )
    assert {(record.provenance.commit, record.provenance.dirty) for record in found} == {
        (commit, None)
    }
    for words in (
        "store    s3://stepchain/results",
        f"MLflow   {known['MLFLOW_TRACKING_URI']}",
        "/#/jobs/first",
        "jobs.submit -- ",
    ):
        assert words in said(tmp_path), words
    runs = tracked(known["MLFLOW_TRACKING_URI"])
    assert {
        run["tags"].get("stepchain.submission")
        for run in runs
        if run["tags"]["stepchain.kind"] == "step"
    } == {"first"}
    assert {run["status"] for run in runs} == {"FINISHED"}

    with submitted(folder, tmp_path, "second") as job:
        assert job.wait(timeout=300) == 0, said(tmp_path)
    assert records(there) == found, "what was published was trained again"
    runs = tracked(known["MLFLOW_TRACKING_URI"])
    members |= set(family(folder))

    secrets = secrets_of(folder)
    assert command_lines_with(secrets) == []
    assert (
        files_with(secrets, [folder, Settings.open(folder).ray_folder, tmp_path / "job.log"]) == []
    )
    control("down", folder)
    assert [
        process
        for process in members
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ] == []

    control("up", folder, "s3", "postgres", "mlflow")
    assert records(there) == found
    assert tracked(known["MLFLOW_TRACKING_URI"]) == runs
    assert table(there, tmp_path, known) == local_table(here, tmp_path)


def check_out(folder: Path) -> str:
    """The code in a repository of its own, one commit; returns that."""
    folder.mkdir()
    for name in SENT:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, folder)
    (folder / "jobs" / "campaigns" / "outlives.py").write_text(CAMPAIGN)
    (folder / ".env").write_text(f"PASSWORD={PLANTED}\n")
    identity = ("-c", "user.name=x", "-c", "user.email=x@localhost", "-c", "commit.gpgsign=false")
    for arguments in (
        ("init", "--quiet"),
        ("add", "."),
        ("commit", "--quiet", "--message", "first"),
    ):
        subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, env=without_git())
    return subprocess.check_output(
        ["git", "rev-parse", "HEAD"], cwd=folder, text=True, env=without_git()
    ).strip()


def without_git() -> dict[str, str]:
    """The environment, but for what a hook of git sets, which names another repository."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}


def control(verb: str, folder: Path, *options: str) -> None:
    """`python -m infra.local.cluster`, as from a shell."""
    command = [sys.executable, "-m", "infra.local.cluster", verb, "--folder", str(folder), *options]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def client(folder: Path) -> dict[str, str]:
    """What `source environment` gives a shell."""
    lines = (folder / "environment").read_text().splitlines()
    return dict(line.removeprefix("export ").replace("'", "").split("=", 1) for line in lines)


@contextmanager
def submitted(folder: Path, scratch: Path, name: str) -> Iterator[subprocess.Popen]:
    """`jobs.submit` from a shell that knows where the cluster is, and has other secrets than the cluster's."""
    ray = {name: value for name, value in client(folder).items() if name.startswith("RAY_")}
    command = [sys.executable, "-m", "jobs.submit", "--submission-id", name, "--", *RUN]
    with (scratch / "job.log").open("a") as log:
        environment = without_git() | {"PYTHONPATH": ""} | CANARIES | ray
        job = subprocess.Popen(
            command, cwd=scratch / "checkout", env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield job
    finally:
        job.kill()
        job.wait()


def said(scratch: Path) -> str:
    return (scratch / "job.log").read_text()


def records(store: Store) -> list[StepRecord]:
    names = sorted(name for name in store.list("steps/") if name.endswith("/record.json"))
    return [StepRecord.model_validate_json(store.read(name)) for name in names]


def wait_for_a_checkpoint_of_a_later_step(
    store: Store, job: subprocess.Popen, scratch: Path
) -> None:
    while job.poll() is None:
        names = list(store.list("steps/"))
        published = {name.split("/")[1] for name in names if name.endswith("/record.json")}
        if published and any(
            name.endswith("/done.json") and name.split("/")[1] not in published for name in names
        ):
            return
        time.sleep(0.1)
    raise AssertionError(f"the job ended before a machine could be lost: {said(scratch)}")


def lose_a_machine_that_trains(folder: Path) -> str:
    """`kill -9` of a worker node with all that runs on it; returns its name."""
    ledger = Ledger(folder)
    for name in ("worker-1", "worker-2"):
        node = ledger.alive(name)
        assert node
        there = [node, *node.children(recursive=True)]
        if any("RayTrainWorker" in " ".join(command_of(process)) for process in there):
            for process in there:
                if process.is_running():
                    process.send_signal(signal.SIGKILL)
            return name
    raise AssertionError("no machine trains")


def tracked(uri: str) -> list[dict[str, Any]]:
    """All runs that MLflow holds."""

    def ask(path: str, question: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{uri}/api/2.0/mlflow/{path}",
            json.dumps(question).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    experiments = [
        each["experiment_id"]
        for each in ask("experiments/search", {"max_results": 100})["experiments"]
    ]
    runs = ask("runs/search", {"experiment_ids": experiments, "order_by": ["attributes.run_id"]})[
        "runs"
    ]
    return [
        {
            "status": run["info"]["status"],
            "tags": {tag["key"]: tag["value"] for tag in run["data"]["tags"]},
        }
        for run in runs
    ]


def local_table(store: Store, scratch: Path) -> dict[str, Any]:
    """The same campaign on a Ray of its own."""
    environment = without_git() | {
        "PYTHONPATH": "",
        "STEPCHAIN_CACHE": str(scratch / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, *RUN[1:], "--store", store.uri, "--no-tracking"]
    done = subprocess.run(
        command,
        cwd=scratch / "checkout",
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return table(store, scratch, {})


def table(store: Store, scratch: Path, known: dict[str, str]) -> dict[str, Any]:
    """What `jobs.campaign table` tells of the campaign."""
    command = [
        sys.executable,
        "-m",
        "jobs.campaign",
        "table",
        "outlives",
        "--store",
        store.uri,
        "--format",
        "json",
    ]
    environment = (
        without_git() | {"PYTHONPATH": "", "STEPCHAIN_CACHE": str(scratch / "cache")} | known
    )
    return json.loads(
        subprocess.check_output(command, cwd=scratch / "checkout", env=environment, text=True)
    )


def secrets_of(folder: Path) -> list[bytes]:
    settings, token = Settings.open(folder), (folder / "token").read_text()
    found = (*CANARIES.values(), PLANTED, settings.secret_key, settings.database_password, token)
    return [secret.encode() for secret in found]


def family(folder: Path) -> Iterator[psutil.Process]:
    """All that was started, with what it started."""
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
    """Of all processes of this machine."""
    lines = [" ".join(command_of(process)) for process in psutil.process_iter()]
    assert len(lines) > 10
    return [line for line in lines if any(secret in line.encode() for secret in secrets)]


def files_with(secrets: list[bytes], places: list[Path]) -> list[str]:
    """Files that hold one of the secrets: records, logs, databases, pickles, Ray's session with the code that was sent."""
    files = [
        path
        for place in places
        for path in ([place] if place.is_file() else place.rglob("*"))
        if path.is_file()
    ]
    for part in (
        "s3/disk/objects",
        "logs/mlflow.log",
        "working_dir_files",
        "job-driver-first.log",
        "job.log",
    ):
        assert any(part in str(path) for path in files), f"nothing was looked at of {part}"
    return [
        str(path)
        for path in files
        if path.name not in KEEPERS and any(secret in path.read_bytes() for secret in secrets)
    ]


def listening_beyond_loopback(processes: set[psutil.Process]) -> list[tuple[str, str]]:
    found = []
    for process in processes:
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN and not connection.laddr.ip.removeprefix(
                "::ffff:"
            ).startswith("127."):
                found.append((process.name(), connection.laddr.ip))
    return found
