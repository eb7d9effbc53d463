"""The live feed of events as server-sent events: from any position, resumable, filtered, with heartbeats."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Struct

from taskyard.api.directory import Place, TaskDirectory
from taskyard.api.errors import ReadModelUnavailable, invalid
from taskyard.api.inputs import shown_to
from taskyard.contracts.events import (
    AnyEvent,
    CommandRejected,
    FieldError,
    QueueConfigured,
    QueueLocked,
    QueuePaused,
    QueueResumed,
    QueueUnlocked,
    RefusalsCounted,
    TaskSubmitted,
    UnknownEvent,
    event_name,
    refused_ids,
)
from taskyard.contracts.readable import UNREADABLE_SHOWN
from taskyard.contracts.values import (
    EVENTS_PER_COMMIT_MAX,
    Position,
    commit_sequence,
    format_instant,
    format_position,
    make_position,
)
from taskyard.eventlog.commit import StoredCommit
from taskyard.eventlog.errors import EventLogError
from taskyard.eventlog.log import Batches, EventLog

HEARTBEAT_SECONDS = 10.0
RECONNECT_MILLISECONDS = 2_000

LogEvent = AnyEvent | UnknownEvent
_OF_QUEUE = (QueueConfigured, QueuePaused, QueueResumed, QueueLocked, QueueUnlocked)
_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode


class EventFilter(Struct, frozen=True, kw_only=True):
    """Which events are wanted; `sees_only` is the one principal whose tasks the caller may see, and
    `reads_inputs_of` the one whose inputs.
    """

    task: str | None = None
    queue: str | None = None
    types: frozenset[str] = frozenset()
    sees_only: str | None = None
    reads_inputs_of: str | None = None


class EventFeed:
    """Streams events of the log to readers. `closing` ends all streams when the service stops."""

    def __init__(
        self,
        log: EventLog[LogEvent],
        directory: TaskDirectory,
        closing: asyncio.Event,
        *,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._log = log
        self._directory = directory
        self._closing = closing
        self._heartbeat_seconds = heartbeat_seconds
        self.streams = 0

    async def start_of(self, resume_after: Position | None, *, said_by: str) -> Position:
        """Where a stream begins: after the position that the parameter `said_by` gave, or at the live end.

        Raises:
            Refusal: the log does not reach there.
        """
        head = await self._log.head()
        if resume_after is None:
            return make_position(head + 1, 0)
        if commit_sequence(resume_after) > head:
            raise invalid(FieldError(path=said_by, message="the log ends before this position"))
        return Position(resume_after + 1)

    async def stream(self, first: Position, wanted: EventFilter) -> AsyncGenerator[bytes, None]:
        """Events from position `first` on, as the text of server-sent events.

        The reader is told where it stands also while there is nothing for it: by an `id:` without an event, from which it
        resumes without a hole, and without reading again what was not for it.
        """
        self.streams += 1
        try:
            yield b"retry: %d\n%s" % (RECONNECT_MILLISECONDS, _standing_at(_just_before(first)))
            after = max(commit_sequence(first) - 1, 0)
            async with self._log.follow(after) as batches, aclosing(self._batches(batches)) as live:
                async for commits in live:
                    text = await self._format(commits, first, wanted)
                    if text or not commits:
                        yield text or b": alive\n\n"
                    else:
                        yield _standing_at(_end_of(commits[-1].sequence))
        except EventLogError:
            # The reader connects again and resumes by the last id that it has.
            _log.exception("event feed ended early")
        except ReadModelUnavailable as error:
            # Whether an event is the reader's cannot be told now: an end, after which it resumes, instead of a hole.
            _log.warning("event feed ended early", extra={"cause": str(error)})
        finally:
            self.streams -= 1

    async def _batches(
        self, batches: Batches[StoredCommit[LogEvent]]
    ) -> AsyncGenerator[list[StoredCommit[LogEvent]], None]:
        """What arrives, an empty list where nothing did for a heartbeat, until the service stops."""
        closing = asyncio.ensure_future(self._closing.wait())
        arriving: asyncio.Future[list[StoredCommit[LogEvent]]] | None = None
        try:
            while not closing.done():
                arriving = arriving or asyncio.ensure_future(anext(batches))
                await asyncio.wait((arriving, closing), timeout=self._heartbeat_seconds, return_when="FIRST_COMPLETED")
                if not arriving.done():
                    yield []
                    continue
                arrived, arriving = arriving.result(), None
                yield arrived
        finally:
            closing.cancel()
            if arriving is not None:
                arriving.cancel()

    async def _format(self, commits: list[StoredCommit[LogEvent]], first: Position, wanted: EventFilter) -> bytes:
        parts: list[bytes] = []
        for stored in commits:
            for index, event in enumerate(stored.commit.events):
                position = make_position(stored.sequence, index)
                if position >= first and await self._matches(event, wanted):
                    parts.append(_message(position, stored, event, wanted.reads_inputs_of))
        return b"".join(parts)

    async def _matches(self, event: LogEvent, wanted: EventFilter) -> bool:
        task: str | None = getattr(event, "task", None)
        if isinstance(event, TaskSubmitted):
            place = Place(pool=event.pool, queue=event.queue, submitted_by=event.by)
            self._directory.remember(event.task, place)
        if wanted.types and event_name(event) not in wanted.types:
            return False
        if wanted.task is not None and task != wanted.task and not _refuses(event, wanted.task):
            return False
        if wanted.sees_only is not None and not await self._may_see(event, task, wanted.sees_only):
            return False
        if wanted.queue is None:
            return True
        if isinstance(event, _OF_QUEUE):
            return event.queue in (wanted.queue, None)  # a pause of a whole pool is one of each of its queues
        place = await self._directory.find(task) if task else None
        return place is not None and place.queue == wanted.queue

    async def _may_see(self, event: LogEvent, task: str | None, principal: str) -> bool:
        """Whether a principal that sees own tasks only may see the event; workers, pools and queues are for all."""
        if isinstance(event, CommandRejected | RefusalsCounted):
            return event.by == principal
        if isinstance(event, UnknownEvent):
            return False
        if task is None:
            return True
        place = await self._directory.find(task)
        return place is not None and place.submitted_by == principal


class FeedEvent(Struct, frozen=True, kw_only=True):
    """The data of one server-sent event. `at` is the log's time; `data` holds the event's own fields."""

    position: str
    at: str
    type: str
    data: Any


def _refuses(event: LogEvent, task: str) -> bool:
    """Whether the event refuses the submission of the task: a command that bears its id, or a batch that it was in."""
    return isinstance(event, CommandRejected) and (
        event.command == task or any(refused == task for refused, _ in refused_ids(event))
    )


def _end_of(sequence: int) -> Position:
    return make_position(sequence, EVENTS_PER_COMMIT_MAX - 1)


def _just_before(position: Position) -> Position:
    """The position after which a reader begins that begins with this one."""
    sequence = commit_sequence(position)
    is_first = position == make_position(sequence, 0)
    return _end_of(max(sequence - 1, 0)) if is_first else Position(position - 1)


def _standing_at(position: Position) -> bytes:
    """Tells the reader where it stands: there is no event in it."""
    return b"id: %s\n\n" % format_position(position).encode()


def _message(position: Position, stored: StoredCommit[LogEvent], event: LogEvent, reads_inputs_of: str | None) -> bytes:
    name = event_name(event)
    text = format_position(position)
    told = FeedEvent(position=text, at=format_instant(stored.at), type=name, data=UNREADABLE_SHOWN)
    try:
        data = _encode(msgspec.structs.replace(told, data=shown_to(event, reads_inputs_of)))
    except Exception:  # noqa: BLE001 - or nobody who reads from here on would ever come past it
        _log.exception("an event could not be shown", extra={"position": text, "type": name})
        data = _encode(told)
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (text.encode(), _one_line(name.encode()), _one_line(data))


def _one_line(data: bytes) -> bytes:
    """A raw value may hold line breaks between its parts, and a line break would end the field."""
    return data.replace(b"\r", b" ").replace(b"\n", b" ")
