"""What happens, live: the fault that is being done, and how the tasks fare. Without a terminal one line for each fault."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

REFRESH_SECONDS = 0.5


class Screen:
    """Shows `figures`, asked for again and again, below the name of the step that is under way."""

    def __init__(self, console: Console, figures: Callable[[], dict[str, str]]) -> None:
        self._console = console
        self._figures = figures
        self._doing = "starting"
        self._begun = time.monotonic()
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._drawing: asyncio.Task[None] | None = None

    def say(self, text: str) -> None:
        """A step is under way."""
        self._doing = text
        if not self._console.is_terminal:
            figures = " ".join(f"{name}={value}" for name, value in self._figures().items())
            self._console.print(f"{self._elapsed}  {text}  [dim]{figures}[/dim]", highlight=False, soft_wrap=True)

    async def __aenter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
            self._drawing = asyncio.create_task(self._draw())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawing is not None:
            self._drawing.cancel()
            with suppress(asyncio.CancelledError):
                await self._drawing
            self._live.stop()

    async def _draw(self) -> None:
        while True:
            table = Table(show_header=False, title=f"{self._elapsed}  {self._doing}", title_justify="left")
            for name, value in self._figures().items():
                table.add_row(name, value)
            self._live.update(table, refresh=True)
            await asyncio.sleep(REFRESH_SECONDS)

    @property
    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._begun:6.1f} s"
