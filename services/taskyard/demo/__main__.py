"""`python -m taskyard.demo`."""

import asyncio
import sys

import httpx
from rich.console import Console
from rich.text import Text

from taskyard.demo.screen import Screen
from taskyard.demo.story import tell
from taskyard.demo.yard import Unexpected, yard

INTERRUPTED = 130
"""The exit status of a program that was ended by Ctrl-C."""


async def main() -> int:
    """Run the story; 0 if every history is as expected."""
    console = Console()
    console.print("Taskyard: starting nats-server, PostgreSQL, five services and a worker in a temporary folder …")
    try:
        async with (
            yard(lambda text: console.print(Text(text, style="dim"))) as running,
            Screen(console, running) as screen,
        ):
            broken = await tell(running, screen.note)
    except (Unexpected, httpx.HTTPError) as error:
        console.print(f"[red]demo: {error}[/red]")
        return 1
    for fault in broken:
        console.print(f"[red]not as expected: {fault}[/red]")
    console.print("[red]failed[/red]" if broken else "[green]every history is as expected[/green]")
    return 1 if broken else 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
