"""Output of tasks on a terminal: colours pass, and nothing else that a terminal would obey. Pure.

Whoever writes a task's output could otherwise set the title, fill the clipboard, answer for who reads it, or write over what
stands above. Control characters are shown as their pictures, so that nothing is hidden either.
"""

import codecs
import re

COLOUR_CHARACTERS_MAX = 32
"""A sequence of colours that is longer is none."""
RESET = "\x1b[0m"

_COLOUR = rf"\x1b\[[0-9;:]{{0,{COLOUR_CHARACTERS_MAX}}}m"
_OBEYED = re.compile(rf"({_COLOUR})|\r\n|[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_BEGUN = re.compile(rf"(?:\x1b(?:\[[0-9;:]{{0,{COLOUR_CHARACTERS_MAX}}})?|\r)\Z")
"""What the next piece may yet make a colour, or the end of a line."""
_PICTURES = {**{code: chr(0x2400 + code) for code in range(0x20)}, 0x7F: "\u2421"}
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"


class TerminalText:
    """Makes text for a terminal of the pieces of an output, however they are cut."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self._is_coloured = False

    def add(self, piece: bytes) -> str:
        """What can be shown now."""
        text = self._held + self._decoder.decode(piece)
        begun = _BEGUN.search(text)
        self._held = begun.group() if begun else ""
        return self._shown(text[: len(text) - len(self._held)])

    def end(self) -> str:
        """What is left, and an end of its colours."""
        text = self._shown(self._held + self._decoder.decode(b"", final=True))
        self._held = ""
        return text + (RESET if self._is_coloured else "")

    def _shown(self, text: str) -> str:
        return _OBEYED.sub(self._replace, text)

    def _replace(self, found: re.Match[str]) -> str:
        if found[1]:
            self._is_coloured = True
            return found[1]
        return "\n" if found[0] == "\r\n" else _PICTURES.get(ord(found[0]), _UNKNOWN)
