"""What a program said last: the reason why it ended is usually in there."""

import re
from pathlib import Path

import msgspec

BYTES_MAX = 16 << 10
CHARACTERS_MAX = 300
LINES_SEARCHED = 5
_STAMP = re.compile(r"^(\[\d+\] [\d/]+ [\d:.]+|[\d-]+ [\d:.]+ \w+ \[\d+\]) ")
"""What nats-server and PostgreSQL put before each line: the pid and the time."""
_GRAVE = re.compile(r"\b(FATAL|PANIC): ")
"""PostgreSQL says why it ends, and then, last, that it has."""


class _Line(msgspec.Struct):
    """A line of our own logs."""

    message: str = ""
    exception: str = ""
    reason: str = ""
    error: str = ""


def last_words(log_file: Path) -> str:
    """The last line that a program has logged, or the one before that is fatal, for people; empty if it logged nothing."""
    try:
        with log_file.open("rb") as log:
            log.seek(max(log.seek(0, 2) - BYTES_MAX, 0))
            text = log.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line for line in text.splitlines() if line.strip(" |+-")]
    grave = [line for line in lines[-LINES_SEARCHED:] if _GRAVE.search(line)]
    return _readable((grave or lines)[-1])[:CHARACTERS_MAX] if lines else ""


def _readable(line: str) -> str:
    try:
        said = msgspec.json.decode(line, type=_Line)
    except msgspec.DecodeError:
        return _STAMP.sub("", line.strip(" |+-"))
    last = said.exception.strip().rpartition("\n")[2].strip(" |+-")
    return ": ".join(text for text in (said.message.strip(), said.reason or said.error, last) if text)
