"""A log of finished tasks, written as the three writers would have written it: same events, same codec, same hash chain."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Raw

from taskyard.bench.load import make_task
from taskyard.contracts.events import (
    DISPATCHER,
    SCHEDULER,
    SLOT_ALLOCATOR,
    AnyEvent,
    AttemptSucceeded,
    Event,
    SlotAssigned,
    TaskDispatched,
    TaskScheduled,
    TaskStarted,
    TaskSubmitted,
    UnknownEvent,
    WorkerJoined,
    decode_event,
)
from taskyard.contracts.kinds import KINDS
from taskyard.contracts.values import POOL_DEFAULT, QUEUE_DEFAULT, Instant, TaskId
from taskyard.eventlog.commit import Commit, CommitCodec, hash_commit
from taskyard.eventlog.log import EventLog

TASKS_PER_ROUND = 250
"""A round is one commit of each writer but the scheduler, which submits in one and schedules in the next."""
EVENTS_PER_TASK = 6
WORKER = "worker-1"

Progress = Callable[[int], None]


async def write_finished_tasks(log: EventLog[Any], tasks: int, progress: Progress) -> None:
    """Append the life of so many no-op tasks to an empty log; `progress` is told how many there are so far.

    Raises:
        LogUnavailable: the log gave no answer within its limit.
    """
    scheduler, allocator, dispatcher = (_Writer(log, writer) for writer in (SCHEDULER, SLOT_ALLOCATOR, DISPATCHER))
    for writer in (scheduler, allocator, dispatcher):
        await writer.append([])  # its epoch: nobody decides before
    slots = (("any",),) * TASKS_PER_ROUND
    await allocator.append(
        [WorkerJoined(worker=WORKER, incarnation=1, pool=POOL_DEFAULT, slots=slots, kinds=tuple(sorted(KINDS)))]
    )
    for begun in range(0, tasks, TASKS_PER_ROUND):
        submitted = [_submitted() for _ in range(min(TASKS_PER_ROUND, tasks - begun))]
        ids = [event.task for event in submitted]
        await scheduler.append(submitted)
        await scheduler.append([TaskScheduled(task=id) for id in ids])
        await allocator.append(
            [SlotAssigned(task=id, attempt=1, worker=WORKER, incarnation=1, slot=slot) for slot, id in enumerate(ids)]
        )
        await dispatcher.append([TaskDispatched(task=id, attempt=1) for id in ids])
        await dispatcher.append([event for id in ids for event in _ran(id)])
        progress(begun + len(ids))


class _Writer:
    """One writer of an empty log: its sequence and its hash chain."""

    def __init__(self, log: EventLog[Any], writer: str) -> None:
        self._log = log
        self._writer = writer
        self._codec: CommitCodec[Any] = CommitCodec[AnyEvent | UnknownEvent](AnyEvent, decode_event)
        self._sequence = 0
        self._hash = ""

    async def append(self, events: Sequence[Event]) -> None:
        data = self._codec.encode(
            Commit(
                writer=self._writer,
                instance="bench",
                epoch=1,
                at=_now(),
                previous=self._hash,
                events=tuple(events),
            )
        )
        self._sequence = await self._log.append(data, writer=self._writer, expected=self._sequence)
        self._hash = hash_commit(data)


def _submitted() -> TaskSubmitted:
    task, kind = make_task(), KINDS["noop"]
    return TaskSubmitted(
        task=TaskId(str(task["id"])),
        kind=kind.name,
        pool=POOL_DEFAULT,
        queue=QUEUE_DEFAULT,
        by="admin",
        input=Raw(b'"%s"' % str(task["input"]).encode()),
        digest=str(task["id"]).replace("-", "")[-16:],
        timeout_seconds=kind.timeout_seconds,
        max_attempts=kind.max_attempts,
        retry_delays_seconds=kind.retry_delays_seconds,
    )


def _ran(task: TaskId) -> tuple[Event, Event]:
    return TaskStarted(task=task, attempt=1, at=_now()), AttemptSucceeded(task=task, attempt=1)


def _now() -> Instant:
    return Instant(time.time_ns() // 1_000)
