"""End a job with one sentence for a mistake of its user, with a traceback for a fault of ours."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from orchestrator.records.schema import StepFailed
from orchestrator.store.base import StoreError
from training.config import InputError


@contextmanager
def user_errors() -> Iterator[None]:
    """Print `error: ...` and exit with a code for what a user can fix.

    Use it around a job's body, or as a decorator of its function. Exit codes:

        2    InputError, StoreError, or a document that pydantic refuses
        1    StepFailed: the input was accepted, and the message says where the traceback is
        130  Ctrl-C
        143  SIGTERM, with which schedulers stop jobs

    Ctrl-C and SIGTERM unwind the job, so that leases are released and open runs are closed.
    Any other exception is a fault of ours and keeps its traceback.
    """
    try:
        with _sigterm_interrupts():
            yield
    except ValidationError as error:
        from orchestrator.planning.validation import describe_validation_error

        _end(describe_validation_error(error), 2)
    except (InputError, StoreError) as error:
        _end(str(error), 2)
    except StepFailed as error:
        _end(str(error), 1)
    except KeyboardInterrupt as interrupt:
        print("interrupted; the same command resumes the work", file=sys.stderr, flush=True)
        number = interrupt.args[0] if interrupt.args else signal.SIGINT
        raise SystemExit(128 + number) from None


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt(SIGTERM), as Ctrl-C raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(message: str, code: int) -> None:
    """Print the message and exit."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)
