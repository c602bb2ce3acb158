"""What a person did wrong ends a job with one sentence and exit code 2; what we did wrong ends it with a traceback."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from orchestrator.planning.validation import describe_validation_error
from orchestrator.records.schema import StepFailed
from orchestrator.store.base import StoreError
from training.config import InputError


@contextmanager
def user_errors() -> Iterator[None]:
    """Around a job's body, or as a decorator of its function: `error: ...` on stderr and exit code 2 for what people can mend.

    That is an InputError, a document that pydantic refuses, and a StoreError. A StepFailed reads alike and exits with 1: the
    input passed, and the workers' traceback lies where the message says. Ctrl-C exits with 130, and SIGTERM, with which
    schedulers stop jobs, with 143: leases are given back, runs that were begun are closed. Anything else is unexpected.
    """
    try:
        with _sigterm_interrupts():
            yield
    except ValidationError as error:
        _end(describe_validation_error(error), 2)
    except (InputError, StoreError) as error:
        _end(str(error), 2)
    except StepFailed as error:
        _end(str(error), 1)
    except KeyboardInterrupt as interrupt:
        print(
            "interrupted; the same command goes on where this one stopped",
            file=sys.stderr,
            flush=True,
        )
        number = interrupt.args[0] if interrupt.args else signal.SIGINT
        raise SystemExit(128 + number) from None


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt(SIGTERM), as Ctrl-C raises KeyboardInterrupt."""
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
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)
