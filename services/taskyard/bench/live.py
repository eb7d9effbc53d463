"""Something that is shown while it happens: on a terminal drawn again and again, below the lines that are said meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live


class LiveDisplay:
    """Shows what `draw` returns for as long as the context lasts, every `refresh_seconds`.

    One that `stays` is drawn a last time when all went well, also where there is no terminal; others are gone at the end.
    """

    def __init__(
        self, console: Console, draw: Callable[[], Awaitable[RenderableType]], *, refresh_seconds: float, stays: bool
    ) -> None:
        self._console = console
        self._draw = draw
        self._refresh_seconds = refresh_seconds
        self._stays = stays
        self._live = Live(console=console, auto_refresh=False, transient=not stays)
        self._drawing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to draw."""
        if self._console.is_terminal:
            self._live.start()
            self._drawing = asyncio.create_task(self._draw_again_and_again())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Draw no more."""
        try:
            if self._drawing is not None:
                self._drawing.cancel()
                with suppress(asyncio.CancelledError):
                    await self._drawing
            if self._stays and kind is None:
                self._show(await self._draw())
        finally:
            self._live.stop()

    async def _draw_again_and_again(self) -> None:
        while True:
            self._show(await self._draw())
            await asyncio.sleep(self._refresh_seconds)

    def _show(self, drawn: RenderableType) -> None:
        if self._console.is_terminal:
            self._live.update(drawn, refresh=True)
        else:
            self._console.print(drawn)
