"""Where attempts work: a folder for each, and beside it what the agent hands to the program in a file of its own."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from taskyard.agent.executors import Context
from taskyard.agent.executors.directories import make_passable
from taskyard.contracts.values import Position
from taskyard.private_files import make_folder, write_passing

HANDED_SUFFIX = "-handed"


class WorkFolders:
    """The folders below `directory`, of which those of attempts that do not live are removed at once."""

    def __init__(self, directory: Path, live: Collection[Position] = ()) -> None:
        self._directory = directory.resolve()
        make_passable(directory)
        kept = {f"{position}{suffix}" for position in live for suffix in ("", HANDED_SUFFIX)}
        for left in directory.iterdir():
            if left.name not in kept:
                # What cannot be removed (a command may have mounted something there) is no reason not to work.
                shutil.rmtree(left, ignore_errors=True)

    @asynccontextmanager
    async def working(self, position: Position, context: Context) -> AsyncIterator[Path]:
        """The folder of an attempt, which its user alone may open. It goes with the attempt, and with it what was handed over.

        Not where the block is cancelled: an agent that goes leaves the programs in it running.
        """
        folder = self._directory / str(position)
        make_folder(folder)
        if context.user is not None:
            context.user.owns(folder)
        try:
            yield folder
        except Exception:
            await self._remove(position)
            raise
        await self._remove(position)

    def hand(self, position: Position, name: str, data: bytes, context: Context) -> Path:
        """A file for the program: everybody on the host could read as an argument what stands in it.

        It has its name only when it is whole: an agent that is killed on the way leaves none, and the next one writes it anew.
        """
        folder = self._handed(position)
        file = folder / name
        if not (context.is_resumed and file.exists()):
            make_folder(folder)
            unnamed = file.with_name(f"{name}.new")
            write_passing(unnamed, data)
            if context.user is not None:
                context.user.owns(unnamed)
            unnamed.replace(file)
        if context.user is not None:  # last: as long as the folder is ours nobody can put a link into it
            context.user.owns(folder)
        return file

    async def _remove(self, position: Position) -> None:
        """A command may leave a million files: removing them must not keep the agent from telling that it lives."""
        await asyncio.to_thread(shutil.rmtree, self._directory / str(position), ignore_errors=True)
        if (handed := self._handed(position)).exists():
            shutil.rmtree(handed, ignore_errors=True)

    def _handed(self, position: Position) -> Path:
        return self._directory / f"{position}{HANDED_SUFFIX}"
