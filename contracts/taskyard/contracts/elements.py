"""The elements of a JSON list, one after the other: who stops early has not paid for the rest.

A list of a mebibyte may have half a million elements. To split it as a whole takes fifty times as long as to see that it can
be read, and nobody else has a turn meanwhile.
"""

import re
from collections.abc import Iterator
from itertools import islice
from json import JSONDecodeError, JSONDecoder

import msgspec
from msgspec import Raw

from taskyard.contracts.readable import UNREADABLE

SPLIT_AT_ONCE_MAX = 20_000
"""A list with fewer commas is split as a whole, which takes 2 ms at most, and less than to find the elements one by one."""


class NotReadOn(Exception):
    """The elements before were as they are, and behind them is something that cannot be read."""


_raws = msgspec.json.Decoder(list[Raw])
# What numbers are does not matter here, and `int` refuses some that JSON allows.
_decoder = JSONDecoder(parse_int=len, parse_float=len, strict=False)
_gap = re.compile(r"[ \t\n\r]*,?[ \t\n\r]*")


def elements_of(raw: Raw) -> Iterator[bytes | Raw]:
    """The elements of a list that is known to be JSON. What is no list, or is nested too deeply, has none.

    Raises:
        NotReadOn: it cannot be read further.
    """
    data = bytes(raw)
    if data.count(b",") > SPLIT_AT_ONCE_MAX and data.startswith(b"["):
        return _one_by_one(data)
    try:
        return iter(_raws.decode(raw))
    except UNREADABLE:
        return iter(())


def is_far_longer_than(raw: Raw, count: int) -> bool:
    """Whether a list that would take long to split has more elements. Where it would not, splitting tells as well."""
    if bytes(raw).count(b",") <= SPLIT_AT_ONCE_MAX:
        return False
    try:
        return next(islice(elements_of(raw), count, None), None) is not None
    except NotReadOn:
        return False


def _one_by_one(data: bytes) -> Iterator[bytes]:
    text = data.decode(errors="surrogateescape")
    at = _end_of_gap(text, 1)
    while text[at] != "]":
        try:
            _, end = _decoder.raw_decode(text, at)
        except (JSONDecodeError, RecursionError) as error:
            raise NotReadOn from error
        yield text[at:end].encode(errors="surrogateescape")
        at = _end_of_gap(text, end)


def _end_of_gap(text: str, at: int) -> int:
    found = _gap.match(text, at)
    assert found is not None
    return found.end()
