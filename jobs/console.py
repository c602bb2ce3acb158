"""Make the console that every job prints to."""

from rich.console import Console


def open_console() -> Console:
    """Return a console that prints text as it is: no markup, no colours of its own, no wrapping."""
    return Console(highlight=False, markup=False, soft_wrap=True)
