"""What happens, live: a line for each fault, and on a terminal below them how the tasks fare now."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from taskyard.bench.live import LiveDisplay

REFRESH_SECONDS = 0.5


class Screen:
    """Says the steps, and shows `figures`: on a terminal again and again, elsewhere with each step."""

    def __init__(self, console: Console, figures: Callable[[], dict[str, str]]) -> None:
        self._console = console
        self._figures = figures
        self._doing = "starting"
        self._begun = time.monotonic()
        self._display = LiveDisplay(console, self._draw, refresh_seconds=REFRESH_SECONDS, stays=False)

    def say(self, text: str) -> None:
        """A step is under way."""
        self._doing = text
        line = f"{self._elapsed}  {escape(text)}"
        if not self._console.is_terminal:
            figures = " ".join(f"{name}={value}" for name, value in self._figures().items())
            line += f"  [dim]{figures}[/dim]"
        self._console.print(line, highlight=False, soft_wrap=True)

    async def __aenter__(self) -> Self:
        await self._display.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._display.__aexit__(kind, error, trace)

    async def _draw(self) -> RenderableType:
        table = Table(show_header=False)
        for name, value in self._figures().items():
            table.add_row(name, value)
        return Group(Text(f"{self._elapsed}  {self._doing}", style="bold", no_wrap=True, overflow="ellipsis"), table)

    @property
    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._begun:6.1f} s"
