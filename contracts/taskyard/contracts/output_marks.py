"""The mark that stands in an answer for output which was stored and is not kept any more."""

import re

MARK_BYTES_MAX = 128
_MARK = re.compile(rb"\n\[taskyard: (\d{1,18}) bytes of output are missing here: they are not kept any more\]\n")


def missing_mark(count: int) -> bytes:
    """The mark for so many bytes."""
    return b"\n[taskyard: %d bytes of output are missing here: they are not kept any more]\n" % count


class OutputPlace:
    """Where a reader is in the output as it was written: what is missing counts, and the marks do not.

    A task that writes a mark by itself misleads who reads it, and only about where to go on after a break.
    """

    def __init__(self) -> None:
        self._passed = 0
        self._rest = b""

    @property
    def place(self) -> int:
        """The byte that comes next."""
        return self._passed + len(self._rest)

    def take(self, piece: bytes) -> None:
        """Go on behind a piece of an answer; a mark may be spread over several."""
        text = self._rest + piece
        while found := _MARK.search(text):
            self._passed += found.start() + int(found[1])
            text = text[found.end() :]
        told = max(len(text) - MARK_BYTES_MAX, 0)
        self._passed += told
        self._rest = text[told:]
