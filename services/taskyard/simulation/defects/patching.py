"""Replacing parts of the code that runs, and putting them back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Replace = Callable[[Any, str, Any], None]
Defect = Callable[[Replace], None]


class Patches:
    """What is replaced now, and what stood there."""

    def __init__(self) -> None:
        self._active: list[tuple[Any, str, Any, Any]] = []

    def replace(self, owner: Any, name: str, value: Any) -> None:
        """Put a value in the place of an attribute."""
        self._active.append((owner, name, getattr(owner, name), value))
        setattr(owner, name, value)

    def undo(self) -> None:
        """Put everything back, for good."""
        self._switch(on=False)
        self._active.clear()

    @contextmanager
    def put_back(self, *, but: object = None) -> Iterator[None]:
        """Everything as it was, for as long as this lasts, but for what one owner has."""
        self._switch(on=False, but=but)
        try:
            yield
        finally:
            self._switch(on=True, but=but)

    def _switch(self, *, on: bool, but: object = None) -> None:
        for owner, name, before, after in self._active if on else reversed(self._active):
            if owner is not but:
                setattr(owner, name, after if on else before)
