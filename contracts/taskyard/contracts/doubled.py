"""Keys that one JSON object holds twice. A decoder takes the last of them, and another reader perhaps the first. Pure.

To look for them costs more than to decode, so it is first counted whether there can be any: whoever keeps one of two has lost
a colon. Colons in texts are as many as before, unless one is written as an escape.
"""

from collections.abc import Mapping
from json import JSONDecodeError, JSONDecoder
from typing import Any, cast

from msgspec import Raw

from taskyard.contracts.events import FieldError

DOUBLED = "appears twice; leave one out"

_COLON = b":"
_ESCAPE = rb"\u"


def doubled_fault(data: bytes | Raw, fields: Mapping[str, Raw]) -> FieldError | None:
    """The fault of an object in which a field stands twice, whose `fields` are as a decoder took them.

    What the fields hold is not looked into.
    """
    data = bytes(data)
    kept = len(fields) + sum(bytes(value).count(_COLON) for value in fields.values())
    if data.count(_COLON) == kept:
        return None
    path = doubled_key(data, within=False)
    return None if path is None else FieldError(path=path, message=DOUBLED)


def may_be_doubled(data: bytes, kept: int) -> bool:
    """Whether a key may stand twice in JSON of which so many colons are left once it was decoded and encoded again."""
    return data.count(_COLON) != kept or _ESCAPE in data


def doubled_key(data: bytes, *, within: bool = True) -> str | None:
    """The path of a key that stands twice in one object of this JSON; only of the outermost one if not `within`.

    What is no JSON for this reader has none: who decodes it says what is wrong.
    """
    try:
        return _first(_decoder.decode(data.decode(errors="surrogateescape")), "", within=within)
    except (JSONDecodeError, RecursionError):
        return None


class _Pairs(list[tuple[str, Any]]):
    """An object as it is written."""


# What numbers are does not matter here, and `int` refuses some that JSON allows.
_decoder = JSONDecoder(object_pairs_hook=_Pairs, parse_int=len, parse_float=len, strict=False)


def _first(value: object, path: str, *, within: bool) -> str | None:
    pairs: list[tuple[str, Any]] = []
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, _ in value:
            if key in seen:
                return f"{path}.{key}" if path else key
            seen.add(key)
        pairs = [(f"{path}.{key}" if path else key, each) for key, each in value]
    elif isinstance(value, list):
        pairs = [(f"{path}[{index}]", each) for index, each in enumerate(cast("list[Any]", value))]
    if not within:
        return None
    return next((found for at, each in pairs if (found := _first(each, at, within=True)) is not None), None)
