"""Make the console that every job prints to."""

import signal
from contextlib import suppress

from rich.console import Console


class _JobConsole(Console):
    """A console by which a job ends as `user_errors` says when nobody reads its output."""

    def on_broken_pipe(self) -> None:
        with suppress(SystemExit):
            super().on_broken_pipe()
        raise SystemExit(128 + signal.SIGPIPE)


def open_console() -> Console:
    """Return a console that prints text as it is: no markup, no colours of its own, no wrapping."""
    return _JobConsole(highlight=False, markup=False, soft_wrap=True)
