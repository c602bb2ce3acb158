"""Three hosts, each with a network of its own, on one switch: the wire of one is cut in mid-step.

Hosts are network namespaces of this machine: the first has Ray's head and the job, the other two train. A host that is cut
off is not dead: its worker goes on for a while, and still reaches the store, as it might reach S3 by another way.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.datasets.catalog import publish
from orchestrator.records import layout
from orchestrator.records.attempts import fetch_folder
from orchestrator.records.schema import StepRecord
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from tests.support.datasets import build_dataset
from training.data.digits import Digits

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.getuid() != 0, reason="only root makes network namespaces"),
    pytest.mark.skipif(
        shutil.which("ip") is None, reason="there is no `ip` (Debian: apt-get install iproute2)"
    ),
]
SWITCH, HOSTS = "stepchain-switch", ("stepchain-1", "stepchain-2", "stepchain-3")
ADDRESSES = dict(zip(HOSTS, ("10.254.77.1", "10.254.77.2", "10.254.77.3"), strict=True))
HEAD = f"{ADDRESSES[HOSTS[0]]}:6379"
JOB = (
    "digits_finetuning --groups 0,1,2 3,4 --base.optimization.epochs 80 --optimization.epochs 1 --base.optimization.batch 8 "
    "--optimization.batch 8 --no-tracking --checkpoint-every 0.3 --cpus-per-worker 1"
)
Start = Callable[[str, list[str], Path], subprocess.Popen]
SURROUNDINGS = {
    "RAY_AUTH_MODE": "disabled",  # nobody else is on this network
    # Ray's own patience with a host that does not answer is half a minute.
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "4000",
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
}


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder of a short name, as those of Ray's sockets must be."""
    with tempfile.TemporaryDirectory(prefix="stepchain-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def hosts(short: Path) -> Iterator[Start]:
    """Function that starts a program of our environment on one of the hosts; in the end all that runs there is killed."""
    started: list[subprocess.Popen] = []

    def start(host: str, command: list[str], log: Path) -> subprocess.Popen:
        there = [
            "ip",
            "netns",
            "exec",
            host,
            str(Path(sys.executable).with_name(command[0])),
            *command[1:],
        ]
        environment = os.environ | SURROUNDINGS | {"STEPCHAIN_CACHE": str(log.parent / "cache")}
        if command[0] != "ray":
            environment["RAY_ADDRESS"] = HEAD
        with log.open("ab") as file:
            started.append(
                subprocess.Popen(
                    there, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file
                )
            )
        return started[-1]

    try:
        ip("netns", "add", SWITCH)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine makes no network namespaces: {error.stderr.strip()}")
    try:
        ip("-n", SWITCH, "link", "add", "name", "switch", "up", "type", "bridge")
        for host, address in ADDRESSES.items():
            ip("netns", "add", host)
            ip("-n", host, "link", "set", "lo", "up")
            ip(
                "-n",
                host,
                "link",
                "add",
                "wire",
                "type",
                "veth",
                "peer",
                "name",
                f"to-{host}",
                "netns",
                SWITCH,
            )
            ip("-n", SWITCH, "link", "set", f"to-{host}", "master", "switch", "up")
            ip("-n", host, "address", "add", f"{address}/24", "dev", "wire")
            ip("-n", host, "link", "set", "wire", "up")
        yield start
    finally:
        for host in HOSTS:
            for process in processes(host):
                process.kill()
        for each in started:
            each.wait(30)
        for name in (*HOSTS, SWITCH):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def processes(host: str) -> list[psutil.Process]:
    """What runs on a host."""
    listed = subprocess.run(
        ["ip", "netns", "pids", host], check=False, capture_output=True, text=True
    ).stdout
    return [
        psutil.Process(int(number)) for number in listed.split() if psutil.pid_exists(int(number))
    ]


def wait_until(done: Callable[[], bool], seconds: float, log: Path) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)


def start_ray(start: Start, scratch: Path, short: Path) -> None:
    """A head that trains nothing, and two machines that train."""
    for host, address in ADDRESSES.items():
        log = scratch / f"{host}.log"
        if host == HOSTS[0]:
            role = ["--head", "--port=6379", "--num-cpus=0", '--resources={"orchestrator": 4}']
        else:
            role = [f"--address={HEAD}", "--num-cpus=1"]
        start(
            host,
            [
                "ray",
                "start",
                "--block",
                f"--node-ip-address={address}",
                f"--temp-dir={short / host[-1]}",
                "--disable-usage-stats",
                *role,
            ],
            log,
        )
        wait_until(lambda log=log: "Ray runtime started" in log.read_text(), 180, log)


def trains(host: str) -> bool:
    for process in processes(host):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                return True
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return False


def records(store: Store) -> list[StepRecord]:
    names = [name for name in store.list("steps/") if name.endswith("/record.json")]
    found = (StepRecord.model_validate_json(store.read(name)) for name in names)
    return sorted(found, key=lambda record: record.index)


def test_a_step_ends_though_the_host_that_trains_it_is_cut_off(
    hosts: Start, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    store, log = open_store(str(tmp_path / "store")), tmp_path / "job.log"
    manifest, _ = build_dataset(Digits(seed=2, train=120, val=12), tmp_path / "built")
    publish(store, "digits", tmp_path / "built", manifest)
    start_ray(hosts, tmp_path, short)
    job = hosts(HOSTS[0], ["python", "-m", "jobs.train", *JOB.split(), "--store", store.uri], log)
    while job.poll() is None and not any(
        name.endswith("/done.json") for name in store.list("steps/")
    ):
        time.sleep(0.1)
    assert job.poll() is None, log.read_text()
    (cut,) = (host for host in HOSTS[1:] if trains(host))
    ip("-n", SWITCH, "link", "set", f"to-{cut}", "down")
    assert trains(cut), "the host is cut off, not dead"
    assert job.wait(timeout=600) == 0, log.read_text()
    base, last = records(store)
    assert base.resources["restarts"] >= 1, log.read_text()
    assert base.resources["resumed_from"] > 0

    ip("-n", SWITCH, "link", "set", f"to-{cut}", "up")
    time.sleep(5)  # to be heard again
    assert records(store) == [base, last]
    for record in (base, last):  # raises for a file that is not what the record says
        folder = f"{layout.attempt_folder(record.key, record.attempt)}/files"
        fetch_folder(store, folder, record.files, tmp_path / f"files-{record.index}")
