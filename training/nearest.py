"""Find the name that somebody meant who wrote another."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the name that comes nearest, in whichever case; None if none comes near."""
    by_spelling = {known.casefold(): known for known in names}
    near = get_close_matches(name.strip().casefold(), by_spelling, n=1, cutoff=0.5)
    return by_spelling[near[0]] if near else None
