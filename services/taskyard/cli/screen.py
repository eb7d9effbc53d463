"""Standard output and standard error: tables for people, or JSON and nothing else."""

import os
import re
import shutil
import sys
import time
from collections.abc import Iterable
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

PLAIN_WIDTH = 1 << 16
"""Wider than any line: what is not a terminal gets lines as they are."""
PROGRESS_SECONDS = 0.2
_OBEYED = re.compile(r"[\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class SequenceProgress:
    """Says on a terminal how far something is that goes through a log, now and then; the line is gone at the end."""

    def __init__(self) -> None:
        self._told_at = 0.0

    def __call__(self, sequence: int, last: int) -> None:
        """It is at `sequence` of `last`."""
        if not sys.stderr.isatty():
            return
        now = time.monotonic()
        if sequence >= last:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        elif now - self._told_at >= PROGRESS_SECONDS:
            self._told_at = now
            print(f"\r\033[Kcommit {sequence} of {last}", end="", file=sys.stderr, flush=True)


class Screen:
    """Where a command shows what it found. `as_json` says that programs read it."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.is_terminal = sys.stdout.isatty()
        self.console = Console(
            file=sys.stdout, width=self.width or PLAIN_WIDTH, highlight=False, markup=False, emoji=False
        )

    @property
    def width(self) -> int | None:
        """The width to fit tables to: that of the terminal, or what COLUMNS says; otherwise none."""
        if self.is_terminal:
            return shutil.get_terminal_size().columns
        columns = os.environ.get("COLUMNS", "")
        return int(columns) if columns.isdigit() and int(columns) > 0 else None

    def lines(self, lines: Iterable[Text]) -> None:
        """Show lines as they are, and at once."""
        for line in lines:
            self.console.print(line, soft_wrap=True, no_wrap=True, crop=False)
        sys.stdout.flush()

    def text(self, text: str, style: str = "") -> None:
        """Show one line."""
        self.lines([Text(text, style=style)])

    def json(self, value: Any) -> None:
        """Write one JSON value on a line of its own, at once. JSON that came as bytes keeps all its fields."""
        plain = msgspec.json.decode(value) if isinstance(value, bytes | msgspec.Raw) else value
        text = msgspec.json.encode(plain).decode()
        # JSON leaves some characters as they are that a terminal obeys; written by their numbers they are the same value.
        sys.stdout.write(_OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Tell people something beside the result."""
        print(f"taskyard: {text}", file=sys.stderr, flush=True)
