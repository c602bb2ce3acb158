"""Keep freed memory in the process while a step trains on a CPU, and give it back afterwards.

A training iteration frees large tensors and takes others of the same sizes. By default glibc
returns such memory to the system at once, and the system then clears every page again. `mallopt`
tells glibc to keep it. Only glibc on Linux knows these functions; elsewhere nothing happens.
"""

import ctypes
import gc
import platform

import torch

# Parameters of mallopt, from glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
M_ARENA_MAX = -8
MOST_BYTES = 2**31 - 1


def keep_freed_memory(device: torch.device) -> bool:
    """Let this process keep the memory that it frees; return whether the system can.

    Only steps on a CPU gain by it. Calling it again changes nothing. Results do not depend on it.
    """
    libc = _glibc() if device.type == "cpu" else None
    if libc is None:
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: MOST_BYTES, M_ARENA_MAX: 1}
    return all(libc.mallopt(name, value) for name, value in settings.items())


def give_memory_back(device: torch.device) -> None:
    """Give memory that a finished step freed back to the system, or to other users of the GPU.

    The next step takes it again, at the cost of one iteration's page faults.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """Return the C library of this process if it is glibc, else None."""
    if platform.libc_ver()[0] != "glibc":
        return None
    return ctypes.CDLL(None)
