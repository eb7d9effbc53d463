"""Commands: each is decided once, by a commit that accounts for it, and what doors were told stands in the log."""

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from taskyard.contracts.commands import ID_AGE_SECONDS_MAX, ID_AHEAD_SECONDS_MAX
from taskyard.contracts.events import AnyEvent, CommandRejected, RefusalsCounted, TaskSubmitted, UnknownEvent
from taskyard.contracts.subjects import COMMANDS
from taskyard.contracts.values import Instant, Position, format_position, is_uuid7, seconds, uuid7_instant
from taskyard.judge.accounts import Account
from taskyard.judge.commits import Commit
from taskyard.judge.evidence import Asked, Told
from taskyard.judge.faults import Faults, Rule

ID_CHARACTERS_MAX = 64

OVERLAPPING_MAX = 16
"""Counts of one principal do not overlap, but for those of a stream that lost its end and was read again."""

FOR_NOW = frozenset((422, 503))
"""Refusals of which nothing is remembered: what cannot be read, and what has to wait."""


class _Identified(Struct):
    id: str | None = None


class _Command(Struct):
    id: str | None = None
    tasks: tuple[_Identified, ...] = ()


_decode = msgspec.json.Decoder(_Command).decode
_decode_id = msgspec.json.Decoder(_Identified).decode


class Commands:
    """Which ids were decided, and where."""

    def __init__(self, faults: Faults, asked: Sequence[Asked]) -> None:
        self._faults = faults
        self._asked = asked
        self._account = Account(COMMANDS)
        self._asked_at: dict[str, list[tuple[str | None, int]]] = {}
        for each in asked:
            # A command may be stored again, and a task asked for in a batch and then alone.
            command, tasks = _ids_of(each.data)
            for id in (command, *tasks):
                if id is not None:
                    self._asked_at.setdefault(id, []).append((each.stream, each.sequence))
        self._ids: set[str] = set()
        self._decided: dict[str, str] = {}
        self._counts: list[tuple[RefusalsCounted, str]] = []
        self._counts_by: dict[str, dict[str, list[tuple[int, int]]]] = {}

    def see_commit(self, commit: Commit) -> None:
        """The next commit begins."""
        self._account.see_commit(commit)

    def see(self, event: AnyEvent | UnknownEvent, where: str) -> None:
        """A command bears one id and is decided once, whole: all that it brings stands in a commit that accounts for it.

        A submission is told by its tasks' ids, and may come again when it was refused; what cannot be read is refused as
        often as it comes, since whether its id is one is not known, and so is what bears an id of quite another time. What
        had to wait for something that is away may be asked for again.
        """
        if isinstance(event, RefusalsCounted):
            self._count(event, where)
            return
        command: str | None = getattr(event, "command", None)
        task = event.task if isinstance(event, TaskSubmitted) else None
        self._ids.update(id for id in (command, task) if id is not None)
        asked = self._asked_at.get(command or "") or self._asked_at.get(task or "", [])
        is_passed = not asked or any(self._account.passes(*one) for one in asked)
        text = f"{where}: it was asked for in {asked}, which this commit does not account for"
        self._faults.require(is_passed, Rule.DECIDED_ONCE, text, task=task)
        is_submission = (isinstance(event, TaskSubmitted) and event.retry_of is None) or (
            isinstance(event, CommandRejected)
            and (
                event.verb == "submit"
                or event.status in FOR_NOW
                or self._is_untimely(event.command)
                or self._is_others(event)
            )
        )
        if command is not None and not is_submission:
            text = f"{where}: {command} was decided by {self._decided.get(command)}"
            self._faults.require(command not in self._decided, Rule.DECIDED_ONCE, text, task=task)
            self._decided[command] = where

    def _count(self, event: RefusalsCounted, where: str) -> None:
        """What was only counted stands in a commit that accounts for it."""
        ends = (event.first, event.last)  # a stream that lost its end meanwhile has its last ones first
        is_passed = any(self._account.passes(event.stream, sequence) for sequence in ends)
        text = f"{where}: {event.count} were counted of {ends}, which this commit does not account for"
        self._faults.require(is_passed and event.count > 0, Rule.DECIDED_ONCE, text)
        self._counts.append((event, where))

    def _is_others(self, event: CommandRejected) -> bool:
        """Whether it was refused for bearing the id of a command that asked for something else."""
        return event.code == "id_conflict" and event.command in self._decided

    def _is_untimely(self, id: str) -> bool:
        now = self._faults.at or Instant(0)
        earliest, latest = now - seconds(ID_AGE_SECONDS_MAX), now + seconds(ID_AHEAD_SECONDS_MAX)
        return is_uuid7(id) and not earliest <= uuid7_instant(id) <= latest

    def end(self) -> None:
        """Everything that was stored must have been decided: by its own id, or each task of it by its own before; or it is one
        of those that were counted, of which there are as many as the count says, and no more were stored.
        """
        for index, (event, _) in enumerate(self._counts):
            insort(self._counts_by.setdefault(event.by, {}).setdefault(event.stream, []), (event.first, index))
        left = [event.count for event, _ in self._counts]
        for asked in self._asked:
            command, tasks = _ids_of(asked.data)
            is_decided = command in self._ids or (tasks and self._ids.issuperset(tasks))
            if command is None or is_decided or asked.is_gone:
                continue
            index = next((index for index in self._counts_of(asked) if left[index]), None)
            if index is None:
                text = f"command {asked.sequence} ({asked.verb}) was stored and never decided: {asked.data[:200]!r}"
                self._faults.add(Rule.LOST, text)
            else:
                left[index] -= 1
        if self._asked:
            stored = Counter(index for asked in self._asked for index in self._counts_of(asked))
            for index, (event, where) in enumerate(self._counts):
                text = f"{where}: {event.count} refusals of {event.by} were counted, of {stored[index]} commands"
                self._faults.require(event.count <= stored[index], Rule.DECIDED_ONCE, text)

    def _counts_of(self, asked: Asked) -> list[int]:
        """The counts that may have counted the command, by their places in `_counts`."""
        found: list[int] = []
        for stream, counts in self._counts_by.get(asked.principal, {}).items():
            if asked.stream not in (None, stream):
                continue
            behind = bisect_right(counts, (asked.sequence, len(self._counts)))
            near = counts[max(0, behind - OVERLAPPING_MAX) : behind]
            found += [index for _, index in near if asked.sequence <= self._counts[index][0].last]
        return found


def check_told(faults: Faults, told: Iterable[Told], tasks: dict[int, str | None]) -> None:
    """A position that a client was told names the event that decided. `tasks` are the tasks of all events, by position."""
    for each in told:
        if each.code >= 300 or each.position is None:
            continue
        is_there = each.position in tasks
        if not is_there or (each.task is not None and tasks[each.position] != each.task):
            stands = f"an event of {tasks[each.position]}" if is_there else "nothing"
            where = format_position(Position(each.position))
            text = f"{each.command} was answered with {where} for {each.task}, where {stands} stands"
            faults.add(Rule.ANSWERS, text, task=each.task)


def _ids_of(data: bytes) -> tuple[str | None, list[str]]:
    """The id of a command, and those of its tasks; as far as they are given and can be read."""
    try:
        command = _decode(data)
    except msgspec.DecodeError:
        return _id_alone(data), []
    return _bounded(command.id), [task.id for task in command.tasks if task.id is not None]


def _id_alone(data: bytes) -> str | None:
    """The id of a command of which the rest is nonsense: it is refused under that id."""
    try:
        return _bounded(_decode_id(data).id)
    except msgspec.DecodeError:
        return None


def _bounded(id: str | None) -> str | None:
    """What is longer is no id: it is refused under another one."""
    return id if id is None or len(id) <= ID_CHARACTERS_MAX else None
