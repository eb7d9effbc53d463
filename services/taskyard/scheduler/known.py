"""The ids that the scheduler remembers: tasks that were submitted, and the outcomes of other commands.

A window of each is enough to decide every command once: see `id_window`.
"""

from collections.abc import Iterable

from msgspec import Struct

from taskyard.contracts.commands import Answer
from taskyard.contracts.lifecycle import NO_INSTANT
from taskyard.contracts.values import CommandId, Instant, is_uuid7
from taskyard.scheduler.id_window import Window, id_bytes, is_ahead
from taskyard.scheduler.known_tasks import KnownTasks, SavedTasks


class SavedCommands(Struct, frozen=True, kw_only=True):
    """The snapshot of `KnownCommands`: pairs in the order in which they came."""

    answers: list[tuple[CommandId, Answer]]
    horizon: Instant


class SavedIds(Struct, frozen=True, kw_only=True):
    """The snapshot of `KnownIds`."""

    tasks: SavedTasks
    commands: SavedCommands


class KnownCommands:
    """Outcomes of commands other than `submit`, by id."""

    def __init__(self, answers: Iterable[tuple[CommandId, Answer]] = (), horizon: Instant = NO_INSTANT) -> None:
        self._answers = {id_bytes(answer[0]): answer for answer in answers}
        self.window = Window(self._answers, horizon)

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, command: CommandId) -> Answer | None:
        """The outcome of a command; None if it was not decided."""
        known = self._answers.get(id_bytes(command))
        return known[1] if known is not None else None

    def remember(self, command: CommandId, answer: Answer, at: Instant) -> None:
        """A command was decided at log time `at`, which may be long before its own: the log's clock may have been set back."""
        id = id_bytes(command)
        if not id or id in self._answers:
            return
        self._answers[id] = (command, answer)
        for forgotten in self.window.add(id, at):
            del self._answers[forgotten]

    def remember_rejected(self, command: CommandId, answer: Answer, at: Instant) -> None:
        """A command was rejected at log time `at`. One whose id cannot be is rejected again whenever it comes."""
        if is_uuid7(command) and not is_ahead(command, at):
            self.remember(command, answer, at)

    def saved(self) -> SavedCommands:
        """The outcomes for a snapshot."""
        return SavedCommands(answers=list(self._answers.values()), horizon=self.window.horizon)

    @classmethod
    def restored(cls, saved: SavedCommands) -> "KnownCommands":
        """The outcomes of a snapshot."""
        return cls(saved.answers, saved.horizon)


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
