"""How deeply JSON of strangers may nest that becomes part of an event.

A decoder calls itself for each level, and how often it may do so depends on the version of Python and on how deep the
caller stands within its own calls. What one program was just able to read could so be more than another one can, and who
cannot read an event of the log stands still for ever. So the limit is far below what anybody can read.
"""

import re

NESTING_MAX = 100
"""Levels of arrays and objects."""

_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_BRACKET = re.compile(rb"[][{}]")


def nests_too_deeply(data: bytes) -> bool:
    """Whether valid JSON has more than NESTING_MAX levels."""
    # As good as always one of these tells at once: a level takes two bytes, of which one opens it.
    if len(data) <= 2 * NESTING_MAX or data.count(b"[") + data.count(b"{") <= NESTING_MAX:
        return False
    depth = 0
    for bracket in _BRACKET.findall(_TEXT.sub(b"", data)):
        depth += 1 if bracket in b"[{" else -1
        if depth > NESTING_MAX:
            return True
    return False
