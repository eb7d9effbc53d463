"""Follows tasks until they have ended: live events tell when to look, the read model tells what is."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from taskyard.cli.client import Api, decode
from taskyard.cli.errors import Refused, Unreachable
from taskyard.cli.views import EventOfTask, FeedEvent, Task

UNREACHABLE_SECONDS_MAX = 60.0
"""How long the server may be away before following fails: restarts must pass unnoticed."""
RECONNECT_SECONDS = 0.5
LOOK_SECONDS_MIN = 0.1
"""Between two looks at the same tasks: what happens meanwhile is seen together."""
LOOK_ALL_SECONDS = 2.0
"""A lost worker ends tasks without an event of theirs, so all are looked at now and then, when the log moves."""
_OF_WORKERS = ("WorkerLost", "WorkerJoined")


class Absence:
    """How long the server has been away, and when that is too long."""

    def __init__(self) -> None:
        self._since: float | None = None

    def over(self) -> None:
        """The server has answered."""
        self._since = None

    def bear(self, error: Unreachable) -> None:
        """Wait a moment before the next try. Raises `error` once the server was away for longer than the limit."""
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since > UNREACHABLE_SECONDS_MAX:
            raise error
        time.sleep(RECONNECT_SECONDS)


@dataclass(frozen=True)
class Seen:
    """A task that has changed, and its JSON as the server gave it."""

    task: Task
    answer: bytes


class Follower:
    """Follows `ids`; `after` is a position that the first look waits for."""

    def __init__(self, api: Api, ids: Sequence[str], *, after: str | None = None) -> None:
        self._api = api
        self._after = after
        self._open: dict[str, bytes] = dict.fromkeys(ids, b"")
        self._looked_at = 0.0

    def run(self) -> Iterator[Seen]:
        """Each task whenever it has changed, until all have ended.

        Raises:
            Unreachable: the server was away for longer than the limit.
            Refused: a task was refused after all, or the caller may not see it.
        """
        absence = Absence()
        while self._open:
            try:
                for seen in self._follow():
                    absence.over()
                    yield seen
                if self._open:
                    time.sleep(RECONNECT_SECONDS)
            except Unreachable as error:
                absence.bear(error)

    def _follow(self) -> Iterator[Seen]:
        only = next(iter(self._open)) if len(self._open) == 1 else None
        with self._api.events(task=only) as arrivals:
            # What happened before the stream was there shows now, what happens later is in the stream.
            yield from self._look(list(self._open), self._after)
            while self._open:
                events = next(arrivals, None)
                if events is None:
                    return
                yield from self._look(self._touched(events), events[-1].position if events else None)

    def _touched(self, events: Sequence[FeedEvent]) -> list[str]:
        """Which of the open tasks to look at."""
        if time.monotonic() - self._looked_at > LOOK_ALL_SECONDS or any(e.type in _OF_WORKERS for e in events):
            return list(self._open)
        tasks = dict.fromkeys(event.task for event in map(self._of_task, events))
        return [task for task in tasks if task in self._open]

    def _of_task(self, event: FeedEvent) -> EventOfTask:
        try:
            concerned = msgspec.json.decode(event.data, type=EventOfTask)
        except msgspec.DecodeError:
            return EventOfTask()
        # A task that is submitted alone bears the id of its command. Other commands about it are refused without any effect.
        if event.type == "CommandRejected" and concerned.verb == "submit" and concerned.command in self._open:
            raise Refused(concerned.status, concerned.code, concerned.message)
        return concerned

    def _look(self, ids: Sequence[str], after: str | None) -> Iterator[Seen]:
        if not ids:
            return
        time.sleep(max(self._looked_at + LOOK_SECONDS_MIN - time.monotonic(), 0))
        if len(ids) == len(self._open):
            self._looked_at = time.monotonic()
        for id in ids:
            answer = self._task(id, after)
            if answer is None or answer == self._open[id]:
                continue
            task = decode(answer, Task)
            self._open[id] = answer
            if task.has_ended:
                del self._open[id]
            yield Seen(task, answer)

    def _task(self, id: str, after: str | None) -> bytes | None:
        """The task now; None while the read model does not have it yet."""
        try:
            return self._api.get(f"/tasks/{id}", after=after)
        except Refused as refused:
            # A task that was just stored may come later; one that was shown before is gone for good, and one that was
            # refused never comes.
            if refused.status == 404 and refused.error != "task_refused" and not self._open[id]:
                return None
            raise
