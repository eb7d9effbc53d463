"""What to ask whoever named something that is unknown. Pure."""

from collections.abc import Iterable
from difflib import get_close_matches

NAMES_COMPARED_MAX = 1_000
"""Among so many the nearest is sought: a wrong name must not cost more than a right one."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The name that may be meant, as a question; empty if nothing is near."""
    found = get_close_matches(name, list(known)[:NAMES_COMPARED_MAX], n=1)
    return f"; did you mean {found[0]}?" if found else ""
