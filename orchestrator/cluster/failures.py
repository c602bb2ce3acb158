"""Tell what a new team of workers may mend from what it would meet again."""

import errno
from collections.abc import Sequence

from orchestrator.store.base import StoreError
from orchestrator.store.cache_folder import FULL, CacheError

UNWRITABLE = FULL | {errno.EACCES, errno.EROFS}


class WorkersFailed(Exception):
    """The workers did not finish.

    Attributes:
        reason: What their code raised and would raise again. None when workers died or could not
            reach the store, so that trying again may help.
        details: The traceback.
    """

    def __init__(self, message: str, reason: BaseException | None, details: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.details = details


class NeverStarted(WorkersFailed):
    """Ray Train found no room for the workers in its time."""


def judge(failures: Sequence[BaseException], details: str) -> WorkersFailed:
    """Return what the failures of a team's workers mean.

    Args:
        failures: What the workers raised, or what Ray says of those that are gone.
        details: The traceback.
    """
    for each in failures:
        # A cache, or a disk that is full or must not be written to, would refuse again.
        if isinstance(each, CacheError) or (isinstance(each, OSError) and each.errno in UNWRITABLE):
            return WorkersFailed(str(each), each, details)
    # When one worker dies, the others fail in ways of their own, so a lost worker is looked for
    # first.
    for each in failures:
        name = type(each).__name__
        if isinstance(each, StoreError | OSError):
            return WorkersFailed(f"workers were lost ({name}: {each})", None, details)
        # Ray's own exceptions are about processes and machines, and not all of their classes are
        # public.
        if type(each).__module__.startswith("ray."):
            return WorkersFailed(f"workers were lost ({name})", None, details)
    first = failures[0]
    return WorkersFailed(f"{type(first).__name__}: {first}", first, details)
