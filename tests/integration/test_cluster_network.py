"""Cut the wire of one of three hosts while it trains a step.

The hosts are network namespaces of this machine, each with a network of its own, on one switch. The
first has Ray's head and the job, and the other two train. A host that is cut off is not dead. Its
worker goes on for a while and still reaches the store, as it might reach S3 by another route.
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

from orchestrator.records import layout
from orchestrator.records.attempts import fetch_folder
from orchestrator.store.open import open_store
from tests.support.datasets import publish_digits
from tests.support.stored_steps import has_checkpoint, read_step_records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.getuid() != 0, reason="only root makes network namespaces"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="apt-get install iproute2 brings `ip`"),
]
SWITCH = "stepchain-switch"
HOSTS = ("stepchain-1", "stepchain-2", "stepchain-3")
ADDRESSES = dict(zip(HOSTS, ("10.254.77.1", "10.254.77.2", "10.254.77.3"), strict=True))
HEAD = f"{ADDRESSES[HOSTS[0]]}:6379"
JOB = (
    "digits_finetuning --groups 0,1,2 3,4 "
    "--base.optimization.epochs 80 --optimization.epochs 1 "
    "--base.optimization.batch 8 --optimization.batch 8 "
    "--no-tracking --checkpoint-every 0.3 --cpus-per-worker 1"
)
Start = Callable[[str, list[str], Path], subprocess.Popen]
SURROUNDINGS = {
    # Only this test can reach the network.
    "RAY_AUTH_MODE": "disabled",
    # By default Ray waits half a minute for a host that does not answer.
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "4000",
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
}


def ip(*arguments: str) -> str:
    """Run `ip`, and return what it printed."""
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def short() -> Iterator[Path]:
    """Yield a folder with a short path, as Ray's sockets need one."""
    with tempfile.TemporaryDirectory(prefix="stepchain-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def hosts(short: Path) -> Iterator[Start]:
    """Yield a function that starts a program of our environment on one of the hosts.

    At the end all processes of the hosts are killed.
    """
    started: list[subprocess.Popen] = []

    def start(host: str, command: list[str], log: Path) -> subprocess.Popen:
        program = str(Path(sys.executable).with_name(command[0]))
        on_host = ["ip", "netns", "exec", host, program, *command[1:]]
        environment = os.environ | SURROUNDINGS | {"STEPCHAIN_CACHE": str(log.parent / "cache")}
        if command[0] != "ray":
            environment["RAY_ADDRESS"] = HEAD
        with log.open("ab") as file:
            process = subprocess.Popen(
                on_host, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        started.append(process)
        return process

    try:
        ip("netns", "add", SWITCH)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine makes no network namespaces: {error.stderr.strip()}")
    try:
        ip("-n", SWITCH, "link", "add", "name", "switch", "up", "type", "bridge")
        for host, address in ADDRESSES.items():
            ip("netns", "add", host)
            ip("-n", host, "link", "set", "lo", "up")
            other_end = ("peer", "name", f"to-{host}", "netns", SWITCH)
            ip("-n", host, "link", "add", "wire", "type", "veth", *other_end)
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
    """Return the processes of a host."""
    command = ["ip", "netns", "pids", host]
    listed = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    pids = [int(number) for number in listed.split()]
    return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]


def wait_until(done: Callable[[], bool], seconds: float, log: Path) -> None:
    """Wait until `done` is true; fail with the log after so many seconds."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)


def start_ray(start: Start, scratch: Path, short: Path) -> None:
    """Start a head that trains nothing, and two machines that train."""
    for host, address in ADDRESSES.items():
        log = scratch / f"{host}.log"
        if host == HOSTS[0]:
            role = ["--head", "--port=6379", "--num-cpus=0", '--resources={"orchestrator": 4}']
        else:
            role = [f"--address={HEAD}", "--num-cpus=1"]
        node = [f"--node-ip-address={address}", f"--temp-dir={short / host[-1]}", *role]
        start(host, ["ray", "start", "--block", "--disable-usage-stats", *node], log)
        wait_until(lambda log=log: "Ray runtime started" in log.read_text(), 180, log)


def trains(host: str) -> bool:
    """Return whether a worker of a step runs on the host."""
    for process in processes(host):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                return True
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return False


def test_a_step_ends_though_the_host_that_trains_it_is_cut_off(
    hosts: Start, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    store = open_store(str(tmp_path / "store"))
    log = tmp_path / "job.log"
    publish_digits(store, tmp_path / "built", seed=2, train=120, val=12)
    start_ray(hosts, tmp_path, short)
    job = hosts(HOSTS[0], ["python", "-m", "jobs.train", *JOB.split(), "--store", store.uri], log)
    while job.poll() is None and not has_checkpoint(store):
        time.sleep(0.1)
    assert job.poll() is None, log.read_text()
    (cut,) = (host for host in HOSTS[1:] if trains(host))
    ip("-n", SWITCH, "link", "set", f"to-{cut}", "down")
    assert trains(cut), "the host is cut off, not dead"
    assert job.wait(timeout=600) == 0, log.read_text()
    base, last = read_step_records(store)
    assert base.resources["restarts"] >= 1, log.read_text()
    assert base.resources["resumed_from"] > 0

    ip("-n", SWITCH, "link", "set", f"to-{cut}", "up")
    # The host has time to join the cluster again.
    time.sleep(5)
    assert read_step_records(store) == [base, last]
    for record in (base, last):
        # This raises for a file that is not the one that the record names.
        folder = layout.files_folder(record.key, record.attempt)
        fetch_folder(store, folder, record.files, tmp_path / f"files-{record.index}")
