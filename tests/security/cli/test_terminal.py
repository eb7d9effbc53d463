"""What a task has written commands no terminal: colours pass, everything else is shown and not obeyed."""

import json
import random
import re
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.cli.screen import Screen
from taskyard.cli.tasks import _show
from taskyard.cli.terminal import RESET, TerminalText

COLOURED = "\x1b[1;31mred\x1b[0m and \x1b[38:2::255:0:0mmore\x1b[m\n"
COLOUR = re.compile(r"\x1b\[[0-9;:]{0,32}m")
ATTACKS = {
    "title": "\x1b]0;owned\x07",
    "clipboard": "\x1b]52;c;cm0gLXJmIC8=\x1b\\",
    "answer": '\x1b[c\x1b[6n\x1bP$q"p\x1b\\',
    "moves": "\x1b[2J\x1b[H\x1b[1A\x1b[?1049h\x1b[8;1;1t",
    "overwrites": "password\rnothing\b\b\x7f",
    "eight bits": "\x9b2J\x9d0;owned\x9c\x84\x85",
    "directions": "\u202eevil\u2066\u200f\u061c",
    "no end of a colour": "\x1b[31",
    "no colour": "\x1b[31;?m\x1b[>4;2m\x1b[31 m\x1b[" + "1;" * 40 + "m",
    "character set": "\x1b(0\x0e\x0f\x1bc\x1b#8",
}


def show(text: bytes, cuts: tuple[int, ...] = ()) -> str:
    shown = TerminalText()
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return "".join(shown.add(text[begin:end]) for begin, end in pairwise(edges)) + shown.end()


def is_tame(text: str) -> bool:
    return not re.search(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]", COLOUR.sub("", text)
    )


def test_colours_pass_and_do_not_outlast_the_output() -> None:
    assert show(COLOURED.encode()) == COLOURED + RESET
    assert show(b"plain\ttext\n") == "plain\ttext\n"
    assert show(b"of windows\r\n", (11,)) == "of windows\n"


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_nothing_else_is_obeyed_and_nothing_is_hidden(attack: str) -> None:
    shown = show(f"before{attack}after\n".encode())
    assert is_tame(shown)
    assert shown.startswith("before")
    assert shown.rstrip().removesuffix(RESET.rstrip()).rstrip().endswith("after")
    printable = re.sub(r"[^ -~]", "", attack)
    assert printable in re.sub(r"[^ -~]", "", COLOUR.sub("", shown)) or COLOUR.search(attack)


@given(
    st.lists(st.sampled_from([*ATTACKS.values(), COLOURED, "zw\u00f6lf", "\r\n", "\x1b", "["])),
    st.lists(st.integers(0, 400)),
)
def test_however_the_output_is_cut_the_same_is_shown(parts: list[str], cuts: list[int]) -> None:
    text = "".join(parts).encode()
    whole = show(text)
    assert show(text, tuple(cuts)) == whole
    assert is_tame(whole)


def test_of_random_bytes_nothing_is_obeyed() -> None:
    source = random.Random(8)
    for _ in range(300):
        text = bytes(source.choice((0x1B, 0x5B, 0x6D, 0x9B, 0xC2, 0x0D, source.randrange(256))) for _ in range(200))
        assert is_tame(show(text, (source.randrange(200), source.randrange(200))))


def test_an_output_that_breaks_off_still_ends_its_colours(capsys: pytest.CaptureFixture[str]) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"\x1b[31mred"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        _show(pieces())
    assert capsys.readouterr().out == f"\x1b[31mred{RESET}"


def test_json_holds_no_character_that_a_terminal_obeys_and_the_same_values(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"line": "".join(ATTACKS.values())}
    Screen(as_json=True).json(value)
    out = capsys.readouterr().out
    assert is_tame(out)
    assert json.loads(out) == value
