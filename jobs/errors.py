"""What a person did wrong ends a job with one sentence and exit code 2; what we did wrong ends it with a traceback."""

import dis
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

PACKAGES = {"jobs", "orchestrator", "training"}


@contextmanager
def user_errors() -> Iterator[None]:
    """Around a job's body, or as a decorator of its function: turn our own errors into `error: ...` on stderr and exit code 2.

    Ours are the exception classes that our packages define, refused documents, and ValueError, LookupError and
    FileNotFoundError where our code says `raise`. Whatever else happens is unexpected and keeps its traceback.
    """
    try:
        yield
    except ValidationError as error:
        _end("; ".join(_told(problem) for problem in error.errors()), error)
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in PACKAGES and not _raised_by_us(error):
            raise
        _end(str(error), error)


def _end(message: str, error: Exception) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2) from error


def _told(problem) -> str:
    """One of pydantic's problems as a sentence: where in the document, what is wrong, what was given."""
    message = problem["msg"].removeprefix("Value error, ")
    place = ".".join(map(str, problem["loc"]))
    return f"{place}: {message} (given: {problem['input']!r})" if place else message


def _raised_by_us(error: Exception) -> bool:
    """Whether a `raise` of our own code made the error, rather than a call that failed (`int("x")`, a missing dict key)."""
    trace = error.__traceback__
    if type(error) not in (ValueError, LookupError, FileNotFoundError) or trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    package = (trace.tb_frame.f_globals.get("__package__") or "").partition(".")[0]  # __name__ is __main__ in a job
    return package in PACKAGES and trace.tb_frame.f_code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
