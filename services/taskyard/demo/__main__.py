"""`python -m taskyard.demo`."""

import asyncio
import sys

import httpx
from rich.console import Console

from taskyard.demo.screen import Screen
from taskyard.demo.story import tell
from taskyard.demo.yard import Unexpected, yard


async def main() -> int:
    """Run the story; 0 if every history is as expected."""
    console = Console()
    console.print("Taskyard: starting nats-server, PostgreSQL, five services and a worker in a temporary folder …")
    try:
        async with yard() as running, Screen(console, running) as screen:
            broken = await tell(running, screen.note)
    except (Unexpected, httpx.HTTPError) as error:
        console.print(f"[red]demo: {error}[/red]")
        return 1
    for fault in broken:
        console.print(f"[red]not as expected: {fault}[/red]")
    console.print("[red]failed[/red]" if broken else "[green]every history is as expected[/green]")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
