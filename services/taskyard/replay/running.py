"""One replay: the recorded commands, at their times, given to the real machines with other slots, workers or policy."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from taskyard.api.past.state import PastState
from taskyard.contracts.events import (
    PoolConfigured,
    QueueConfigured,
    QueueLocked,
    QueuePaused,
    QueueResumed,
    QueueUnlocked,
    TaskSubmitted,
    WorkerDrainRequested,
)
from taskyard.contracts.kinds import KINDS
from taskyard.contracts.values import SECOND, Instant, TaskId, digest_bits, format_instant, make_uuid7, seconds
from taskyard.eventlog.commit import StoredCommit
from taskyard.eventlog.log import StreamMessage
from taskyard.replay.comparing import OrderDifference, compare_orders
from taskyard.replay.crew import Crew
from taskyard.replay.errors import NothingToReplay
from taskyard.replay.measuring import Measurer, Measures
from taskyard.replay.recorded import Asked, RecordedTask, RecordedWorker, Recording, Setting
from taskyard.replay.recording import Recorder
from taskyard.replay.yard import Yard
from taskyard.scheduler.messages import CommandMessage

SLOTS_DEFAULT = (("any",), ("plan",), ("plan",))
OVERTIME_SECONDS = 3600.0
"""The replay may take so much longer than three times what was recorded; then what still waits is told as waiting."""

Progress = Callable[[Instant], None]


class WhatIf(Struct, frozen=True, kw_only=True):
    """What is to be otherwise; None leaves it as it was recorded.

    `slots` is what each slot of a worker accepts, `workers` how many there are in each pool, `policy` the placement.
    """

    slots: tuple[tuple[str, ...], ...] | None = None
    workers: int | None = None
    policy: str | None = None


class Report(Struct, frozen=True, kw_only=True):
    """What a stretch of a log came to, and what it would have come to. `notes` say what the comparison rests on."""

    began: str
    ended: str
    first: int
    last: int
    what_if: WhatIf
    workers: list[str]
    recorded: Measures
    replayed: Measures
    order: OrderDifference
    estimated: int
    notes: list[str]


def replay(
    before: PastState, commits: Iterable[StoredCommit[Any]], what_if: WhatIf, progress: Progress = lambda _: None
) -> Report:
    """Replay the commits that follow the state `before` (which is used up), and compare.

    Raises:
        NothingToReplay: there are no tasks in them, or nobody knows what workers there were.
        ReplayTooLong: see `Yard.run`.
    """
    recorder = Recorder(before)
    measurer = Measurer(PastState.restored(before.save()), lambda id: id)
    first = last = 0
    for stored in commits:
        first, last = first or stored.sequence, stored.sequence
        recorder.see(stored)
        measurer.see(stored)
    recording = recorder.recording()
    if not recording.tasks:
        raise NothingToReplay(f"commits {first} to {last} hold no tasks")
    workers = _workers(recording, what_if)
    run = _Replay(recording, workers, what_if)
    run.run(progress)
    in_both = {task.id for task in recording.tasks if not task.is_carried_over}
    recorded, replayed = measurer.measures(in_both.__contains__), run.measures(in_both.__contains__)
    return Report(
        began=format_instant(recording.began),
        ended=format_instant(recording.ended),
        first=first,
        last=last,
        what_if=what_if,
        workers=[f"{worker.name} ({', '.join(map('+'.join, worker.slots))})" for worker in workers],
        recorded=recorded,
        replayed=replayed,
        order=compare_orders(recorded.order, replayed.order),
        estimated=len(run.estimated),
        notes=_notes(recording, run, recorded, replayed),
    )


class Rerun(Struct, frozen=True, kw_only=True):
    """The log that recorded commands made once more; `is_over` says whether everything has ended in it."""

    log: list[StreamMessage]
    is_over: bool


def rerun(before: PastState, commits: Iterable[StoredCommit[Any]]) -> Rerun:
    """Run what was recorded once more, with nothing otherwise. Raises as `replay`."""
    recorder = Recorder(before)
    for stored in commits:
        recorder.see(stored)
    recording = recorder.recording()
    if not recording.tasks:
        raise NothingToReplay("the commits hold no tasks")
    as_it_was = WhatIf()
    return _Replay(recording, _workers(recording, as_it_was), as_it_was).rerun()


class _Replay:
    """The run: puts everything that was recorded on the agenda of a yard, and reads what it comes to."""

    def __init__(self, recording: Recording, workers: Sequence[RecordedWorker], what_if: WhatIf) -> None:
        self._recording = recording
        self._what_if = what_if
        self._names: dict[TaskId, TaskId] = {}
        self._tasks: dict[TaskId, RecordedTask] = {}
        for task in recording.tasks:
            # An id must be of the time at which it is submitted, and a task of before is submitted when this begins.
            id = TaskId(make_uuid7(task.submitted_at, digest_bits(task.id)))
            self._names[id] = task.id
            self._tasks[id] = replace(task, id=id)
        self._waiting_for: dict[tuple[TaskId, str], list[Asked]] = {}
        self._commands = 0
        self._crew = Crew(self._tasks, recording.typical)
        self._yard = self._crew.yard = Yard(recording.began, self._crew.take, hop_seconds=recording.hop_seconds)
        self._crew.on_begin = self._begun
        self._put_on_agenda(workers)

    def run(self, progress: Progress) -> None:
        """Run it to its end."""
        span = self._recording.ended - self._recording.began
        until = Instant(self._recording.ended + 2 * span + seconds(OVERTIME_SECONDS))
        self._yard.run(until, lambda: not self._yard.has_live_tasks, progress)

    def rerun(self) -> Rerun:
        """Run it to its end; the log that it made."""
        self.run(lambda _: None)
        return Rerun(log=self._yard.stored(), is_over=not self._yard.has_live_tasks)

    @property
    def estimated(self) -> set[TaskId]:
        """Tasks of which some run was not recorded."""
        return {self._names[id] for id in self._crew.estimated}

    def measures(self, kept: Callable[[TaskId], bool]) -> Measures:
        """What it came to, under the recorded names."""
        measurer = Measurer(PastState(), self._names.get)
        for stored in self._yard.commits:
            measurer.see(stored)
        return measurer.measures(kept)

    @property
    def not_taken(self) -> int:
        """Submissions that the scheduler refused."""
        taken = sum(isinstance(event, TaskSubmitted) for stored in self._yard.commits for event in stored.commit.events)
        return len(self._tasks) - taken

    # -- the agenda ----------------------------------------------------------------------------------------------------

    def _put_on_agenda(self, workers: Sequence[RecordedWorker]) -> None:
        yard, recording = self._yard, self._recording

        def asked_at(logged: Instant) -> Instant:
            """When it was asked for, so that it is in the log at the time of then."""
            return Instant(logged - seconds(recording.hop_seconds))

        # A pool that then had its first worker, or was configured, before the stretch.
        body = {} if self._what_if.policy is None else {"placement": self._what_if.policy}
        pools = {task.pool for task in recording.tasks} | {setting.event.pool for setting in recording.settings}
        for pool in sorted(pools):
            yard.at(asked_at(recording.began), lambda pool=pool: self._command("configure-pool", pool, body))
        for setting in recording.settings:
            yard.at(asked_at(setting.at), lambda setting=setting: self._set(setting))
        for worker in workers:
            yard.at(worker.joined, lambda worker=worker: self._crew.join(worker))
        for task in self._tasks.values():
            yard.at(asked_at(task.submitted_at), lambda task=task: self._submit(task))
            for asked in task.asked:
                if asked.since:
                    self._waiting_for.setdefault((task.id, asked.since), []).append(asked)
                else:
                    yard.at(asked_at(asked.at), lambda task=task, asked=asked: self._ask(task, asked))

    def _submit(self, task: RecordedTask) -> None:
        body: dict[str, object] = {
            "id": task.id,
            "kind": task.kind,
            "queue": task.queue,
            "priority": task.priority,
            "timeout_seconds": task.timeout_seconds,
            "max_attempts": task.max_attempts,
            "input": _input(task),
        }
        if task.not_before is not None and task.not_before > self._yard.now:
            body["not_before"] = format_instant(task.not_before)
        if task.schedule_to_start_timeout_seconds is not None:
            body["schedule_to_start_timeout_seconds"] = task.schedule_to_start_timeout_seconds
        self._command("submit", task.pool, body, by=task.by)

    def _set(self, setting: Setting) -> None:
        event = setting.event
        match event:
            case PoolConfigured():
                placement = event.placement if self._what_if.policy is None else None
                body: Mapping[str, object] = {
                    "max_waiting": event.max_waiting,
                    "approval_timeout_seconds": event.approval_timeout_seconds,
                    "placement": placement,
                }
                verb = "configure-pool"
            case QueueConfigured():
                verb, body = "configure-queue", {"queue": event.queue, "max_running": event.max_running, "create": True}
            case QueuePaused() | QueueResumed():
                verb, body = (
                    "pause" if isinstance(event, QueuePaused) else "resume",
                    {"queue": event.queue, "create": True},
                )
            case QueueLocked() | QueueUnlocked():
                verb, body = (
                    "lock" if isinstance(event, QueueLocked) else "unlock",
                    {"queue": event.queue, "create": True},
                )
            case WorkerDrainRequested():
                verb, body = "drain", {"worker": event.worker}
            case _:
                return
        given = {name: value for name, value in body.items() if value is not None}
        self._command(verb, event.pool, given, by=event.by)

    def _begun(self, task: TaskId, what: str) -> None:
        """A task started, or made its plan: who answered or stopped it then does so after the same time."""
        asked = self._waiting_for.get((task, what))
        if asked:
            next_one = asked.pop(0)
            self._yard.later(next_one.seconds, lambda: self._ask(self._tasks[task], next_one))

    def _ask(self, task: RecordedTask, asked: Asked) -> None:
        body: dict[str, object] = {"task": task.id}
        if asked.verb == "reprioritise":
            body["priority"] = asked.priority
        elif asked.verb == "force-stop":
            body["reason"] = "as recorded"
        self._command(asked.verb, task.pool, body, by=asked.by)

    def _command(self, verb: str, pool: str, body: Mapping[str, object], *, by: str = "replay") -> None:
        self._commands += 1
        message = CommandMessage(
            sequence=self._commands,
            at=self._yard.now,
            principal=by,
            pool=pool,
            verb=verb,
            data=msgspec.json.encode(body),
        )
        self._yard.command(message)


def _workers(recording: Recording, what_if: WhatIf) -> list[RecordedWorker]:
    """Who works in the replay."""
    known = recording.workers
    if what_if.workers is not None:
        return [
            RecordedWorker(
                name=f"replay-{pool}-{number}"[:63],
                pool=pool,
                slots=what_if.slots or next((worker.slots for worker in known if worker.pool == pool), SLOTS_DEFAULT),
                kinds=tuple(KINDS),
                joined=recording.began,
            )
            for pool in sorted({task.pool for task in recording.tasks})
            for number in range(1, what_if.workers + 1)
        ]
    if not known:
        raise NothingToReplay("this stretch of the log does not tell what workers there were: name them with --workers")
    return [replace(worker, slots=what_if.slots or worker.slots) for worker in known]


def _input(task: RecordedTask) -> object:
    """An input of the kind. What a task really did is history: only its duration matters here."""
    kind = KINDS.get(task.kind)
    if kind is None:
        return {}
    return {**kind.example, "auto_confirm": True} if kind.approval and task.auto_confirm else kind.example


def _notes(recording: Recording, run: _Replay, recorded: Measures, replayed: Measures) -> list[str]:
    """What the comparison rests on, and what it cannot tell."""
    notes = ["durations and outcomes of attempts are those of history, also on other slots"]
    if run.estimated:
        kinds = ", ".join(f"{kind} {median:.1f} s" for kind, median in sorted(recording.typical.items()))
        notes.append(
            f"{len(run.estimated)} tasks ran longer than was recorded, or not at all: they get the median of their kind "
            f"({kinds or 'none was recorded, so 0 s'}) and succeed"
        )
    carried = sum(task.is_carried_over for task in recording.tasks)
    if carried:
        notes.append(f"{carried} tasks were there before: they are replayed from the beginning on, and not measured")
    if any(worker.left is not None for worker in recording.workers):
        notes.append("a worker that was lost finishes what it has; what it lost then is not lost here")
    if not recorded.slots:
        notes.append("the stretch does not tell what workers there were then: how their slots were used is not known")
    if run.not_taken:
        notes.append(f"{run.not_taken} submissions were refused in the replay")
    if replayed.started < recorded.started:
        notes.append(f"{recorded.started - replayed.started} tasks that started then do not start in the replay")
    span = (recording.ended - recording.began) / SECOND
    notes.append(f"the stretch is {span:.0f} s long")
    return notes
