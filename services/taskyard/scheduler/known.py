"""The ids that the scheduler remembers: tasks that were submitted, and the outcomes of other commands.

A window of each is enough to decide every command once: see `id_window`.
"""

from collections.abc import Iterable
from itertools import chain, repeat
from typing import NamedTuple

from msgspec import Struct

from taskyard.contracts.commands import Answer
from taskyard.contracts.lifecycle import NO_INSTANT
from taskyard.contracts.values import CommandId, Instant, is_uuid7
from taskyard.scheduler.id_window import Window, id_bytes, is_ahead
from taskyard.scheduler.known_tasks import KnownTasks, SavedTasks


class SavedCommands(Struct, frozen=True, kw_only=True):
    """The snapshot of `KnownCommands`: pairs in the order in which they came, and beside them who asked and for what.

    `horizon` is what an earlier version knew, which forgot for everybody alike; it told neither of the latter.
    """

    answers: list[tuple[CommandId, Answer]]
    asked: list[tuple[str, str]] = []
    horizon: Instant = NO_INSTANT
    horizons: dict[str, Instant] = {}


class SavedIds(Struct, frozen=True, kw_only=True):
    """The snapshot of `KnownIds`."""

    tasks: SavedTasks
    commands: SavedCommands


class KnownCommand(NamedTuple):
    """The outcome of a command, who sent it, and a digest of what it asked for, where that is known."""

    id: CommandId
    answer: Answer
    by: str
    asked: str


class KnownCommands:
    """Outcomes of commands other than `submit`, by id."""

    def __init__(self, commands: Iterable[KnownCommand] = (), window: Window | None = None) -> None:
        self._commands = {id_bytes(command.id): command for command in commands}
        self.window = window or Window()

    def __len__(self) -> int:
        return len(self._commands)

    def get(self, command: CommandId) -> KnownCommand | None:
        """What became of a command; None if it was not decided."""
        return self._commands.get(id_bytes(command))

    def remember(self, command: CommandId, answer: Answer, at: Instant, *, by: str, asked: str | None) -> None:
        """A command was decided at log time `at`, which may be long before its own: the log's clock may have been set back."""
        id = id_bytes(command)
        if not id or id in self._commands:
            return
        self._commands[id] = KnownCommand(command, answer, by, asked or "")
        for forgotten in self.window.add(id, by, at):
            del self._commands[forgotten]

    def remember_rejected(self, command: CommandId, answer: Answer, at: Instant, *, by: str, asked: str | None) -> None:
        """A command was rejected at log time `at`. One whose id cannot be is rejected again whenever it comes."""
        if is_uuid7(command) and not is_ahead(command, at):
            self.remember(command, answer, at, by=by, asked=asked)

    def saved(self) -> SavedCommands:
        """The outcomes for a snapshot."""
        commands = self._commands.values()
        return SavedCommands(
            answers=[(command.id, command.answer) for command in commands],
            asked=[(command.by, command.asked) for command in commands],
            horizon=self.window.horizon,
            horizons=dict(self.window.horizons),
        )

    @classmethod
    def restored(cls, saved: SavedCommands) -> "KnownCommands":
        """The outcomes of a snapshot."""
        asked = chain(saved.asked, repeat(("", "")))
        commands = [
            KnownCommand(id, answer, by, digest)
            for (id, answer), (by, digest) in zip(saved.answers, asked, strict=False)
        ]
        ids = ((command.by, id_bytes(command.id)) for command in commands)
        return cls(commands, Window(ids, saved.horizon, saved.horizons))


class KnownIds:
    """What is remembered of tasks and of commands."""

    def __init__(self) -> None:
        self.tasks = KnownTasks()
        self.commands = KnownCommands()

    def saved(self) -> SavedIds:
        """Both for a snapshot."""
        return SavedIds(tasks=self.tasks.saved(), commands=self.commands.saved())

    @classmethod
    def restored(cls, saved: SavedIds) -> "KnownIds":
        """Both of a snapshot. Raises `ValueError` if they are none."""
        known = cls()
        known.tasks = KnownTasks.restored(saved.tasks)
        known.commands = KnownCommands.restored(saved.commands)
        return known
