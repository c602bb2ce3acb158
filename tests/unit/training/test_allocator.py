"""Freed memory stays in the process while a step trains on a CPU, and goes back afterwards."""

import platform
import subprocess
import sys

import psutil
import pytest
import torch

from tests.support.paths import ROOT
from training.allocator import give_memory_back, keep_freed_memory

CPU = torch.device("cpu")
MEGABYTES = 200

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")


def resident() -> float:
    """Return the memory of this process in megabytes."""
    return psutil.Process().memory_info().rss / 1e6


def show_memory() -> None:
    """Print the memory after tensors were freed, and after it was given back; run as a script."""
    before = resident()
    assert keep_freed_memory(CPU)
    torch.ones(MEGABYTES, 250_000)
    kept = resident() - before
    give_memory_back(CPU)
    print(kept, resident() - before)


@glibc
def test_freed_memory_is_kept_until_it_is_given_back():
    """A process of its own, because the settings cannot be undone."""
    command = [sys.executable, "-m", "tests.unit.training.test_allocator"]
    answer = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    kept, left = map(float, answer.stdout.split())
    assert kept > 0.9 * MEGABYTES
    assert left < 0.1 * MEGABYTES


def test_nothing_happens_where_a_step_trains_on_a_gpu_or_without_glibc(
    monkeypatch: pytest.MonkeyPatch,
):
    assert not keep_freed_memory(torch.device("cuda"))
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory(CPU)
    give_memory_back(CPU)


if __name__ == "__main__":
    show_memory()
