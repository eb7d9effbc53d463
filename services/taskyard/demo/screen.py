"""Draws the tasks of the story as a live table; where there is no terminal, notes and the last table."""

import textwrap
from collections import Counter
from types import TracebackType
from typing import Any, Self

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from taskyard.bench.live import LiveDisplay
from taskyard.demo.yard import Yard

REFRESH_SECONDS = 0.25
OTHER_COLUMNS_WIDTH = 54
WHAT_WIDTH_MIN, WHAT_WIDTH_MAX = 12, 72
WHAT_LINES_MAX = 3
HEADINGS = ("task", "kind", "status", "try", "slot")
STYLES = {
    "completed": "green",
    "failed": "red",
    "timeout": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "apply_pending": "magenta",
    "cancelling": "yellow",
}


class Screen:
    """The live table, and the notes above it."""

    def __init__(self, console: Console, yard: Yard) -> None:
        self._console = console
        self._yard = yard
        self._seen: dict[str, dict[str, Any]] = {}
        self._display = LiveDisplay(console, self._draw, refresh_seconds=REFRESH_SECONDS, stays=True)

    def note(self, text: str) -> None:
        """Say what the story does now."""
        self._console.print(f"[bold]·[/bold] {text}")

    async def __aenter__(self) -> Self:
        await self._display.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._display.__aexit__(kind, error, trace)
        self._console.print()

    async def _draw(self) -> RenderableType:
        await self._look()
        return self._table()

    async def _look(self) -> None:
        for name in list(self._yard.tasks):
            if self._seen.get(name, {}).get("finished_at") is None:
                self._seen[name] = await self._yard.see(name)

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, expand=False, pad_edge=False, padding=(0, 1, 0, 0))
        for heading in HEADINGS:
            table.add_column(heading, no_wrap=True)
        width = min(max(self._console.width - OTHER_COLUMNS_WIDTH, WHAT_WIDTH_MIN), WHAT_WIDTH_MAX)
        table.add_column("what", max_width=width)
        for name, task in self._seen.items():
            if task.get("kind") != "noop":
                table.add_row(*_row(name, task, WHAT_LINES_MAX * width))
        noops = Counter(task["status"] for task in self._seen.values() if task.get("kind") == "noop")
        for status, count in sorted(noops.items()):
            table.add_row(f"{count} no-ops", "noop", Text(status, style=STYLES.get(status, "")))
        return table


def _row(name: str, task: dict[str, Any], characters_max: int) -> tuple[str | Text, ...]:
    status, slot = task["status"], task.get("slot")
    return (
        name,
        task.get("kind", ""),
        Text(status, style=STYLES.get(status, "")),
        str(task.get("attempt", "")),
        "" if slot is None else str(slot),
        textwrap.shorten(_what(task), characters_max, placeholder=" …"),
    )


def _what(task: dict[str, Any]) -> str:
    """Why it waits, why it failed, or what came of it."""
    if task.get("error"):
        return task["error"]["message"].split("\n")[0]
    if task.get("pending_reason"):
        return task["pending_reason"]["message"]
    changes = (task.get("result") or {}).get("changes") if isinstance(task.get("result"), dict) else None
    if not changes:
        return ""
    return ", ".join(f"{count} to {verb}" for verb, count in changes.items() if count) or "nothing to change"
