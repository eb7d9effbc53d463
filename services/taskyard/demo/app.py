"""The demo from its start to its verdict."""

from argparse import ArgumentParser

import httpx
from rich.console import Console
from rich.text import Text

from taskyard.demo.screen import Screen
from taskyard.demo.story import tell
from taskyard.demo.yard import Unexpected, yard


def parse(argv: list[str]) -> None:
    """Read the command line, which has no options; what is wrong there ends the program with status 2."""
    ArgumentParser(
        prog="./dev demo",
        description="Starts the whole system in a temporary folder and shows the main job on it: plans side by side, a"
        " change that a person confirms, and what becomes of tasks when a worker and a scheduler are killed."
        " Ends with 0 only if the history of every task is as expected. Takes about half a minute.",
    ).parse_args(argv)


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
        console.print(Text(f"demo: {error}", style="red"))
        return 1
    for fault in broken:
        console.print(Text(f"not as expected: {fault}", style="red"))
    console.print("[red]failed[/red]" if broken else "[green]every history is as expected[/green]")
    return 1 if broken else 0
