"""Ends: a task that has ended has ended for good, so whoever has read that goes on with it no more."""

from taskyard.contracts.events import AnyEvent, UnknownEvent
from taskyard.judge.commits import Commit
from taskyard.judge.faults import Faults, Rule
from taskyard.judge.lives import Step


class Ends:
    """Since which commit each task is over, and up to which one the author of the next events has read.

    That is its own commit before: nobody decides without having folded it. What a command asks for is appended whenever
    the task is known, and says nothing of what its writer takes it for.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._sequence = 0
        self._writer = ""
        self._last: dict[str, int] = {}
        self._ended: dict[str, int] = {}

    def see_commit(self, commit: Commit, sequence: int) -> None:
        """The next commit begins."""
        self._last[self._writer] = self._sequence
        self._writer, self._sequence = commit.writer, sequence

    def check(self, event: AnyEvent | UnknownEvent, step: Step, where: str) -> None:
        """What an event, of this commit, did to a task."""
        life = step.life
        since = self._ended.get(life.id)
        if life.is_over and since is None:
            self._ended[life.id] = self._sequence
        elif since is not None and getattr(event, "task", None) == life.id and getattr(event, "command", None) is None:
            has_read = self._last.get(self._writer, 0)
            text = f"{where}: {life.id} has been {life.stage.value} since commit {since}, and {has_read} was read"
            self._faults.require(since > has_read, Rule.ENDED_ONCE, text, task=life.id)
