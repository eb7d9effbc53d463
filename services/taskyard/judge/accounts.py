"""Inputs, and the commits that account for them: what a message brings stands in the commit whose cursor passes it."""

from taskyard.judge.commits import Commit

CURSOR_SEPARATOR = "@"


class Account:
    """How far commits account for the streams of one name.

    The name of a cursor tells after the stream's own when that was made: one that was made anew is counted from its start.
    """

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._reached: dict[str, int] = {}
        self._passed: dict[str, tuple[int, int]] = {}

    def see_commit(self, commit: Commit) -> None:
        """The next commit begins."""
        self._passed = {}
        for name, sequence in commit.cursors.items():
            if name.partition(CURSOR_SEPARATOR)[0] == self._stream:
                before = self._reached.get(name, 0)
                # One that goes back is of a stream that lost its end and was read again.
                self._passed[name] = (before if sequence > before else 0, sequence)
                self._reached[name] = sequence

    def passes(self, name: str | None, sequence: int) -> bool:
        """Whether this commit accounts for a message; `name` is its stream's cursor, None if there was only one stream."""
        passed = self._passed.values() if name is None else [self._passed.get(name, (0, 0))]
        return any(before < sequence <= after for before, after in passed)
