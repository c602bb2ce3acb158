"""Test the Slurm script on stand-ins for Slurm and Ray: what it starts, and how it ends."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SCRIPT = ROOT / "infra" / "slurm" / "job.sh"
# Each stand-in notes how it was called. Ray runs until it is ended, as `ray start --block` does.
STUBS = {
    "srun": """
        echo "srun $*" >> "$CALLS"
        # The other nodes are of another kind than the first.
        case "$*" in *--exclude=*) export SLURM_CPUS_ON_NODE=8 SLURM_GPUS_ON_NODE=4 ;; esac
        while [ "$1" != bash ]; do shift; done
        exec "$@"
    """,
    "ray": """
        echo "ray $* token=${#RAY_AUTH_TOKEN} mode=$RAY_AUTH_MODE" >> "$CALLS"
        [ -z "${RAY_FAILS:-}" ] || exit 1
        trap 'echo "ray ended" >> "$CALLS"; exit' TERM
        while :; do sleep 0.1; done
    """,
    "scontrol": """
        echo "scontrol $*" >> "$CALLS"
        [ "$1" = requeue ] || printf 'one\\ntwo\\nthree\\n'
    """,
    "python": """
        echo "python $* address=${RAY_ADDRESS:-}" >> "$CALLS"
        [ "$1" != -c ] || echo 10.0.0.1
    """,
}
ALLOCATION = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NUM_NODES": "3",
    "SLURM_JOB_NODELIST": "node[1-3]",
    "SLURM_CPUS_ON_NODE": "16",
    "SLURM_GPUS_ON_NODE": "2",
}


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts the script with a command in a made-up allocation."""
    stubs = tmp_path / "bin"
    stubs.mkdir()
    for name, body in STUBS.items():
        (stubs / name).write_text(f"#!/bin/bash\n{body}")
        (stubs / name).chmod(0o755)
    environment = {"PATH": f"{stubs}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}

    def started(*command: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(SCRIPT), *command],
            env=environment | ALLOCATION | variables,
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    return started


def calls(folder: Path) -> list[str]:
    """Return the calls of the stand-ins so far."""
    return (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []


def one(lines: list[str], start: str) -> str:
    (line,) = [line for line in lines if line.startswith(start)]
    return line


def test_ray_runs_on_every_node_and_the_command_on_the_first(start: Callable, tmp_path: Path):
    job = start("bash", "-c", 'echo "the command at $RAY_ADDRESS"; exit 3')
    output, _ = job.communicate(timeout=30)
    assert job.returncode == 3
    assert "the command at 10.0.0.1:20028" in output
    found = calls(tmp_path)
    (head,) = [line for line in found if line.startswith("ray start") and "--head" in line]
    assert "--node-ip-address=10.0.0.1 --port=20028" in head
    assert "--num-cpus=16 --num-gpus=2" in head
    assert "token=64 mode=token" in head
    (others,) = [line for line in found if line.startswith("ray start") and "--head" not in line]
    assert "--num-cpus=8 --num-gpus=4 --address=10.0.0.1:20028" in others
    assert "token=64" in others
    assert "--ntasks=1 " in one(found, "srun --nodes=1")
    assert "--nodelist=one" in one(found, "srun --nodes=1")
    assert "--ntasks=2 " in one(found, "srun --nodes=2")
    assert "--exclude=one" in one(found, "srun --nodes=2")
    waits = "python -m infra.slurm.wait_for_nodes 3 address=10.0.0.1:20028"
    assert one(found, "python -m") == waits
    assert found.count("ray ended") == 2
    assert not [line for line in found if "requeue" in line]


@pytest.mark.parametrize(
    ("sent", "again"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)], ids=["limit", "cancelled"]
)
def test_a_stopped_driver_writes_checkpoints_and_only_the_time_limit_puts_the_job_back(
    start: Callable, tmp_path: Path, sent: signal.Signals, again: bool
):
    driver = 'trap "echo saved; exit 143" TERM; touch "$0"; while :; do sleep 0.1; done'
    job = start("bash", "-c", driver, str(tmp_path / "runs"))
    while not (tmp_path / "runs").exists():
        time.sleep(0.05)
    job.send_signal(sent)
    output, _ = job.communicate(timeout=30)
    assert "saved" in output
    assert job.returncode == 143
    assert (calls(tmp_path)[-1] == "scontrol requeue 7") == again


def test_a_head_that_does_not_start_ends_the_job(start: Callable, tmp_path: Path):
    # The nodes do not come.
    python = tmp_path / "bin" / "python"
    python.write_text(python.read_text() + '\n[ "$1" = -c ] || exec sleep 60\n')
    job = start("touch", str(tmp_path / "ran"), RAY_FAILS="yes")
    output, _ = job.communicate(timeout=30)
    assert job.returncode != 0
    assert "Ray ended on the first node" in output
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("command", "variables", "said"),
    [((), {}, "name a command"), (("true",), {"SLURM_JOB_ID": ""}, "runs inside a Slurm")],
)
def test_a_mistake_gets_one_sentence(
    start: Callable, command: tuple[str, ...], variables: dict[str, str], said: str
):
    job = start(*command, **variables)
    output, _ = job.communicate(timeout=30)
    assert job.returncode == 2
    assert said in output


def test_shellcheck_finds_nothing():
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed: apt install shellcheck")
    subprocess.run([shellcheck, str(SCRIPT)], check=True)
