"""Show people addresses without the passwords in them."""

import re


def without_passwords(text: str) -> str:
    """Return a text without the user and password of each URI in it."""
    # A password may hold @, so the last one before the path ends it.
    return re.sub(r"//[^/\s]+@", "//", text)
