"""What is shown while it happens, and how a program that started a system ends."""

import asyncio
import io
import os
import signal
from argparse import ArgumentTypeError

import pytest
from rich.console import Console, RenderableType
from rich.text import Text

from taskyard.bench.command_line import count, ended_in_order, positive, uninterrupted
from taskyard.bench.live import LiveDisplay
from taskyard.demo.app import parse

SECONDS_MAX = 10


def show(*, is_terminal: bool, stays: bool, fails: bool = False) -> str:
    """What a display of a counter writes while it is drawn three times, or once elsewhere than on a terminal."""
    written = io.StringIO()
    console = Console(file=written, force_terminal=is_terminal, width=40, height=10, highlight=False)

    async def scenario() -> None:
        drawn, enough = 0, asyncio.Event()

        async def draw() -> RenderableType:
            nonlocal drawn
            drawn += 1
            if drawn >= 3 or not is_terminal:
                enough.set()
            return Text(f"drawn {drawn}")

        async with LiveDisplay(console, draw, refresh_seconds=0.01, stays=stays), asyncio.timeout(SECONDS_MAX):
            console.print("said")
            if is_terminal:
                await enough.wait()
            if fails:
                raise KeyError

    if fails:
        with pytest.raises(KeyError):
            asyncio.run(scenario())
    else:
        asyncio.run(scenario())
    return written.getvalue()


def test_on_a_terminal_it_is_drawn_again_and_again_and_the_cursor_is_given_back() -> None:
    text = show(is_terminal=True, stays=True)
    assert "drawn 1" in text
    assert "drawn 3" in text
    assert text.index("\x1b[?25l") < text.index("\x1b[?25h")


def test_one_that_does_not_stay_is_gone_at_the_end() -> None:
    text = show(is_terminal=True, stays=False)
    assert text.endswith("\x1b[2K"), "the last line is erased"


@pytest.mark.parametrize(("stays", "text"), [(True, "said\ndrawn 1\n"), (False, "said\n")])
def test_elsewhere_nothing_is_drawn_but_what_stays_and_without_control_codes(stays: bool, text: str) -> None:
    assert show(is_terminal=False, stays=stays) == text


def test_what_failed_is_not_drawn_once_more() -> None:
    assert show(is_terminal=False, stays=True, fails=True) == "said\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_program_so_that_it_stops_what_it_started(number: int) -> None:
    before, stopped = signal.getsignal(number), False

    def work() -> None:
        nonlocal stopped
        try:
            os.kill(os.getpid(), number)
        finally:
            with uninterrupted():
                for another in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                    os.kill(os.getpid(), another)
                stopped = True

    with ended_in_order(), pytest.raises(SystemExit) as ended:
        work()
    assert ended.value.code == 128 + number
    assert stopped
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x", ""])
def test_what_is_no_count_is_said_so(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is no whole number from 1 on"):
        count(text)


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "x", ""])
def test_what_is_no_positive_number_is_said_so(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is no number above 0"):
        positive(text)


def test_the_demo_takes_no_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--fast"])
    assert ended.value.code == 2
    assert "unrecognized arguments: --fast" in capsys.readouterr().err
