"""What strangers say, so that everybody can read it: checked where it enters, and once more where it is shown.

A decoder looks into no part that it only carries along (`Raw`), and what nobody has looked at may be no text, no JSON for
another decoder, or nest without end. In the log it would stand for ever, so it must not get there; what stands there all
the same must stop nobody who reads.
"""

import re
import sys
from typing import Any

import msgspec
from msgspec import Raw

from taskyard.contracts.nesting import nests_too_deeply

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a decoder raises for bytes of strangers."""
UNREADABLE_SHOWN = Raw(b'{"unreadable":true}')
"""Stands where something is shown that nobody could read."""
REPLACEMENT = "\ufffd"

INTEGER_MIN, INTEGER_MAX = -(1 << 63), (1 << 63) - 1
FLOAT_MAX = int(sys.float_info.max)

_NULL = Raw(b"null")
_SHORTEST = (_NULL, Raw(b"{}"))
"""What most results are, as it stands."""
_ESCAPE = re.compile(r"\\(?:u[dD][89aAbB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[dD][89a-fA-F][0-9a-fA-F]{2}|.)")
_LONE_LENGTH = len(r"\ud800")
"""Half of a character; whole ones, and the other escapes, are longer or shorter."""


def is_readable(data: bytes | Raw) -> bool:
    """Whether every reader takes this for JSON: strict UTF-8, whole characters, numbers in range, not nested too deeply."""
    if data == _NULL:
        return True
    if nests_too_deeply(bytes(data)):
        return False
    try:
        msgspec.json.decode(data)
    except UNREADABLE:
        return False
    return True


def canonical(data: bytes | Raw) -> Raw | None:
    """This JSON as we store it, with numbers as everybody can hold them, or None if somebody could not read it."""
    if data in _SHORTEST:
        return Raw(data)
    if nests_too_deeply(bytes(data)):
        return None
    try:
        value = msgspec.json.decode(data)
    except UNREADABLE:
        return None
    return Raw(msgspec.json.encode(held(value)))


def held(value: Any) -> Any:
    """Integers of more than 64 bits are floats, as many clients read all numbers; some fail on thousands of digits."""
    match value:
        case dict():
            return {key: held(each) for key, each in value.items()}  # pyright: ignore[reportUnknownVariableType]
        case list():
            return [held(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
        case int() if not INTEGER_MIN <= value <= INTEGER_MAX:
            return float(value) if abs(value) <= FLOAT_MAX else None
        case _:
            return value


def mended(data: bytes) -> bytes:
    """JSON whose texts can be read: what is no UTF-8, or half of a character, becomes the replacement character."""
    return _ESCAPE.sub(_whole, data.decode("utf-8", "replace")).encode()


def plain_text(text: str) -> str:
    """The text as every store can keep it: PostgreSQL knows no NUL."""
    return text if "\x00" not in text else text.replace("\x00", REPLACEMENT)


def _whole(escape: re.Match[str]) -> str:
    return r"\ufffd" if len(escape[0]) == _LONE_LENGTH else escape[0]
