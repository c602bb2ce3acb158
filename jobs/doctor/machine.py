"""Check this machine: Python, packages, devices, disk and shared memory."""

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from tempfile import NamedTemporaryFile

from jobs.doctor.services import Finding
from orchestrator.store.locks import NoLocks, lock

GIGABYTE = 1e9
LEAST_DISK = 5  # GB for the cache
# Ray's object store takes a share of the memory, and goes to disk where /dev/shm is smaller.
LEAST_SHARED_MEMORY = 0.25


def check_python(version: tuple[int, int]) -> Finding:
    """Check the version of Python."""
    fix = ""
    if version < (3, 11):
        fix = "install Python 3.11 or newer, and make a new environment"
    return Finding("python", platform.python_version(), fix)


def check_package(name: str) -> Finding:
    """Check that a package is installed."""
    try:
        return Finding(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, "not installed", "pip install -e . in the environment that runs this")


def check_devices() -> Finding:
    """Check that PyTorch sees the GPUs that there are."""
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    fix = ""
    if not gpus and shutil.which("nvidia-smi"):
        fix = (
            "there is an NVIDIA driver, and torch does not see a GPU: "
            "install torch's CUDA build for that driver"
        )
    return Finding("devices", f"{os.cpu_count()} CPUs, {', '.join(gpus) or 'no GPU'}", fix)


def check_disk(folder: Path) -> Finding:
    """Check that the cache has enough space, and locks for the processes that share it."""
    there = existing_folder(folder)
    free = shutil.disk_usage(there).free / GIGABYTE
    found = f"{free:.0f} GB free"
    fix = ""
    if free < LEAST_DISK:
        fix = "free some space, or set STEPCHAIN_CACHE to a folder on a larger disk"
    try:
        with NamedTemporaryFile(dir=there) as file:
            lock(file)
    except NoLocks as error:
        found = str(error)
        fix = "set STEPCHAIN_CACHE to a folder on a local disk"
    except OSError as error:
        found = f"cannot be written to ({error.strerror})"
        fix = "check its rights, or set STEPCHAIN_CACHE to another folder"
    return Finding(f"cache {folder}", found, fix)


def existing_folder(folder: Path) -> Path:
    """Return the folder, or the nearest above it that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def check_shared_memory(folder: Path) -> Finding:
    """Check that Ray's object store fits into shared memory."""
    if not folder.exists():
        return Finding(f"{folder}", "does not exist here, and Ray does without it")
    total = shutil.disk_usage(folder).total
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    fix = ""
    if total < min(LEAST_SHARED_MEMORY * memory, 2 * GIGABYTE):
        fix = "give the container more shared memory, such as docker run --shm-size=4g"
    return Finding(f"{folder}", f"{total / GIGABYTE:.1f} GB", fix)
