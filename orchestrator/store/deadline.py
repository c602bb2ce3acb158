"""Wait for an answer no longer than a deadline, whatever the library beneath waits for."""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")


def within(seconds: float, ask: Callable[[], Result]) -> Result:
    """Return what `ask` returns, or raise what it raises.

    Libraries limit the time without a byte, so a server that sends one now and then is waited for
    without end.

    Raises:
        TimeoutError: It takes longer. Its thread is left to itself, and keeps no process alive.
    """
    ended: SimpleQueue[tuple[bool, Any]] = SimpleQueue()

    def run() -> None:
        try:
            ended.put((True, ask()))
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            ended.put((False, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        returned, result = ended.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"no whole answer within {seconds:g} s") from None
    if not returned:
        raise result
    return result
