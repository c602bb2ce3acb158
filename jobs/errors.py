"""End a job with one sentence for a mistake of its user, with a traceback for a fault of ours."""

import gc
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from jobs.places import describe_refusal
from orchestrator.cluster.stop_signals import hung_up, send_again, stop_signals, takes
from orchestrator.records.schema import StepFailed
from orchestrator.store.base import StoreError
from training.config import InputError


@contextmanager
def user_errors() -> Iterator[None]:
    """Print `error: ...` and exit with a code for what a user can fix.

    Use it around a job's body, or as a decorator of its function. Exit codes:

        2    InputError, StoreError, a document that pydantic refuses, or a file or disk that the
             machine refuses
        1    StepFailed: the input was accepted, and the message says where the traceback is
        141  nobody reads what the job prints any more, as in `... | head`; nothing is printed
        130  Ctrl-C
        143  SIGTERM, with which schedulers stop jobs
        129  SIGHUP: the terminal was closed, or the connection to it lost

    These signals unwind the job, so that leases are released and open runs are closed.
    Any other exception is a fault of ours and keeps its traceback.
    """
    try:
        with _signals_interrupt():
            yield
            # What is still in the buffer must not fail at the interpreter's exit. A closed stdout
            # is None.
            if sys.stdout is not None:
                sys.stdout.flush()
    except ValidationError as error:
        from orchestrator.planning.validation import describe_validation_error

        _end(describe_validation_error(error), 2)
    except (InputError, StoreError) as error:
        _end(str(error), 2)
    except StepFailed as error:
        _end(str(error), 1)
    except SystemExit:
        _drop_unread()
        raise
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _drop_unread():
            raise SystemExit(128 + signal.SIGPIPE) from None
        if (refusal := describe_refusal(error)) is None:
            raise
        _end(refusal, 2)
    except KeyboardInterrupt as interrupt:
        print("interrupted; the same command resumes the work", file=sys.stderr, flush=True)
        # Python ends by SIGINT, whatever is raised below, when an interruption left code that was
        # made from a text, such as the methods of a dataclass. Any other text resets that.
        exec("")
        # At its end the interpreter would look for garbage once more, for seconds on a busy
        # machine, and schedulers do not wait long.
        gc.freeze()
        number = interrupt.args[0] if interrupt.args else signal.SIGINT
        raise SystemExit(128 + number) from None


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let signals that stop a job raise KeyboardInterrupt(number)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []

    def stop(number: int, frame: object) -> None:
        if not takes(number, caught):
            return
        raise KeyboardInterrupt(number)

    def ignored(unraisable: "sys.UnraisableHookArgs") -> None:
        interrupt = unraisable.exc_value
        if not isinstance(interrupt, KeyboardInterrupt):
            show_ignored(unraisable)
            return
        # It came while the interpreter called back, such as for garbage, where it is lost. So the
        # signal comes again.
        number = interrupt.args[0] if interrupt.args else signal.SIGINT
        again = threading.Timer(0.05, send_again, (number,))
        again.daemon = True
        again.start()

    show_ignored = sys.unraisablehook
    sys.unraisablehook = ignored
    before = {number: signal.signal(number, stop) for number in stop_signals()}
    try:
        yield
    except (Exception, SystemExit) as error:
        # Some libraries turn the interruption into an error of their own.
        if caught:
            raise KeyboardInterrupt(caught[0]) from error
        raise
    finally:
        for number, handler in before.items():
            gone = number == signal.SIGHUP and hung_up.is_set()
            signal.signal(number, signal.SIG_IGN if gone else handler)
        sys.unraisablehook = show_ignored


def _drop_unread() -> bool:
    """Drop what is left to print if the reader of stdout is gone; return whether it is."""
    try:
        number = sys.stdout.fileno()
    except (AttributeError, io.UnsupportedOperation):  # it is no file, as in a notebook
        return False
    poll = select.poll()
    poll.register(number, 0)
    gone = any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return gone


def _end(message: str, code: int) -> None:
    """Print the message and exit."""
    _drop_unread()
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)
