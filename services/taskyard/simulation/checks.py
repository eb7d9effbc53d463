"""What must be true of every run, judged from the stored bytes of the log and from what really ran.

Apart from the code that decides: it knows the contracts and nothing else of Taskyard. What a task is at a position is the
fold of the contracts; who may hold what when, what may run, and what was promised is told here once more.
"""

from collections import Counter
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import msgspec
from msgspec import Raw, Struct

from taskyard.contracts.events import (
    OWNERS,
    SCHEDULER,
    ApplyConfirmed,
    AttemptSucceeded,
    CommandRejected,
    ForceStopped,
    NotDelivered,
    SlotAssigned,
    TaskPlanned,
    TaskScheduled,
    TaskSubmitted,
    UnknownEvent,
    WorkerJoined,
    WorkerLost,
    decode_event,
    event_name,
)
from taskyard.contracts.fleet import ANY_KIND
from taskyard.contracts.lifecycle import ATTEMPT_OPEN, Phase, TaskRecord, Verdict
from taskyard.contracts.subjects import COMMANDS
from taskyard.contracts.tasks import Change, TaskTable
from taskyard.contracts.values import Instant, Position, format_position, make_position
from taskyard.simulation.evidence import Evidence, Logged, Ran

_EXCLUSIVE = "plan_and_apply"
_DEFAULT_TEMPLATE = ((ANY_KIND,), ("plan",), ("plan",))
_SLOTS_FOR_PLANS = (1, 2)
_HASH_BYTES = 16


class _Commit(Struct, frozen=True):
    writer: str
    instance: str
    epoch: int
    at: int
    previous: str = ""
    cursors: dict[str, int] = {}
    events: tuple[Raw, ...] = ()


class _Id(Struct):
    id: str | None = None


_decode_commit = msgspec.json.Decoder(_Commit).decode
_decode_id = msgspec.json.Decoder(_Id).decode


class Verdicts(Struct, kw_only=True):
    """All that is wrong, and how much was looked at. `digest` is of the whole log."""

    faults: list[str]
    events: int
    tasks: int
    digest: str


def check(evidence: Evidence) -> Verdicts:
    """Judge a run that has come to its end."""
    log = _Log(evidence)
    for logged in evidence.log:
        log.see(logged)
    log.end()
    faults = [*log.faults, *_check_runs(log, evidence.ran), *_check_commands(log, evidence)]
    digest = blake2b(digest_size=_HASH_BYTES)
    for logged in evidence.log:
        digest.update(logged.data + str(logged.at).encode())
    return Verdicts(faults=faults, events=log.events, tasks=len(log.records), digest=digest.hexdigest())


class _Log:
    """Folds the log, and collects what should not be."""

    def __init__(self, evidence: Evidence) -> None:
        self.faults: list[str] = []
        self.events = 0
        self.records: dict[str, TaskRecord] = {}
        self.named: dict[int, Any] = {}
        self.assigned: dict[int, SlotAssigned] = {}
        self.closed: dict[tuple[str, int], tuple[float, Any]] = {}
        self.applies_allowed: set[int] = set()
        self.decided: set[str] = set()
        self.force_stopped: dict[str, float] = {}
        self._asked_at = _first_asked(evidence)
        self._ends: Counter[str] = Counter()
        self._head = 0
        self._at = Instant(0)
        self._table = TaskTable()
        self._chains: dict[str, tuple[int, str]] = {}
        self._leaders: dict[tuple[str, int], str] = {}
        self._commands: dict[str, str] = {}
        self._cursor = 0
        self._slots: dict[tuple[str, int], str] = {}
        self._workspaces: dict[tuple[str, str], str] = {}
        self._templates: dict[str, tuple[tuple[str, ...], ...]] = {}
        self._planned: dict[str, int] = {}
        self._confirmed: dict[str, int] = {}
        self._attempts: dict[str, int] = {}

    # -- commits -------------------------------------------------------------------------------------------------------

    def see(self, logged: Logged) -> None:
        """The next commit."""
        commit = _decode_commit(logged.data)
        where = f"commit {logged.sequence} of {logged.writer}"
        self._require(logged.sequence == self._head + 1, f"{where} follows {self._head}")
        self._require(commit.writer == logged.writer, f"{where} bears the name {commit.writer}")
        self._head = logged.sequence
        self._at = Instant(max(self._at, logged.at))
        epoch, hash_before = self._chains.get(commit.writer, (0, ""))
        self._require(commit.previous == hash_before, f"{where} names {commit.previous!r} and follows {hash_before!r}")
        self._require(commit.epoch >= epoch, f"{where} has epoch {commit.epoch} after {epoch}")
        if commit.epoch != epoch:
            self._require(not commit.events, f"{where} takes over and decides at once")
        leader = self._leaders.setdefault((commit.writer, commit.epoch), commit.instance)
        self._require(leader == commit.instance, f"{where} is {commit.instance}'s in the epoch of {leader}")
        hashed = blake2b(logged.data, digest_size=_HASH_BYTES).hexdigest()
        self._chains[commit.writer] = (commit.epoch, hashed)
        if commit.writer == SCHEDULER:
            self._cursor = max(self._cursor, commit.cursors.get(COMMANDS, 0))
        for index, raw in enumerate(commit.events):
            event = decode_event(raw)
            known = not isinstance(event, UnknownEvent) and isinstance(event, OWNERS[commit.writer])
            self._require(known, f"{where} holds a {event_name(event)}")
            self._event(event, logged, index)

    def _event(self, event: Any, logged: Logged, index: int) -> None:
        self.events += 1
        position = make_position(logged.sequence, index)
        where = f"{format_position(position)} {event_name(event)}"
        self.named[position] = event
        if isinstance(event, WorkerJoined):
            self._templates[event.worker] = event.slots
        if isinstance(event, TaskSubmitted):
            self._require(event.task not in self.records, f"{where}: {event.task} is accepted twice")
        self._decided_once(event, where)
        for change in self._table.apply(event, self._at, position):
            if change.record is None:
                task = getattr(event, "task", None)
                self._require(task in self.records, f"{where}: nobody knows {task}")
            elif change.verdict is Verdict.EFFECTIVE:
                self._changed(event, change, change.record, logged, position)

    def _decided_once(self, event: Any, where: str) -> None:
        """A command bears one id and is decided once. A submission is told by its tasks' ids, and may come again when it
        was refused; what cannot be read is refused as often as it comes. A decision accounts for the command it decides.
        """
        command = getattr(event, "command", None)
        task = event.task if isinstance(event, TaskSubmitted) else None
        for id in (command, task):
            if id is not None:
                self.decided.add(id)
                asked = self._asked_at.get(id, 0)
                self._require(self._cursor >= asked, f"{where}: command {asked} is decided and not accounted for")
        is_submission = (isinstance(event, TaskSubmitted) and event.retry_of is None) or (
            isinstance(event, CommandRejected) and (event.verb == "submit" or event.status == 422)
        )
        if command is not None and not is_submission:
            self._require(
                command not in self._commands, f"{where}: {command} was decided by {self._commands.get(command)}"
            )
            self._commands[command] = where

    # -- tasks ---------------------------------------------------------------------------------------------------------

    def _changed(self, event: Any, change: Change, record: TaskRecord, logged: Logged, position: Position) -> None:
        where = f"{format_position(make_position(logged.sequence, 0))} {event_name(event)}"
        self._require(not self._ends[record.id], f"{where}: {record.id} has ended and changes")
        self.records[record.id] = record
        self._slot(change, record, where)
        match event:
            case TaskScheduled() if record.kind == _EXCLUSIVE:
                holder = self._workspaces.setdefault((record.pool, record.queue), record.id)
                self._require(holder == record.id, f"{where}: {record.queue} is {holder}'s, not {record.id}'s")
            case SlotAssigned():
                self._slot_assigned(event, record, where, position)
            case TaskPlanned():
                self._planned[record.id] = event.attempt
            case ApplyConfirmed():
                is_shown = self._planned.get(record.id) == event.attempt
                self._require(is_shown, f"{where}: {record.id} has no plan of attempt {event.attempt}")
                self._confirmed[record.id] = event.attempt
            case ForceStopped():
                self.force_stopped[record.id] = logged.seconds
            case _:
                pass
        if record.phase is Phase.PENDING:
            self._planned.pop(record.id, None)
            self._confirmed.pop(record.id, None)
        if change.before in ATTEMPT_OPEN and record.phase not in ATTEMPT_OPEN:
            self.closed[record.id, record.attempt] = (logged.seconds, event)
        if record.has_ended:
            self._ends[record.id] += 1
            if self._workspaces.get((record.pool, record.queue)) == record.id:
                del self._workspaces[record.pool, record.queue]

    def _slot(self, change: Change, record: TaskRecord, where: str) -> None:
        if change.held is not None and change.held != record.held_slot:
            self._require(self._slots.pop(change.held, None) == record.id, f"{where}: {change.held} was not its own")
        if record.held_slot is not None:
            holder = self._slots.setdefault(record.held_slot, record.id)
            self._require(holder == record.id, f"{where}: {record.held_slot} is {holder}'s, not {record.id}'s")

    def _slot_assigned(self, event: SlotAssigned, record: TaskRecord, where: str, position: Position) -> None:
        before = self._attempts.get(record.id, 0)
        self._require(event.attempt > before, f"{where}: attempt {event.attempt} of {record.id} after {before}")
        self._attempts[record.id] = event.attempt
        self.assigned[position] = event
        if record.id in self._confirmed:
            self.applies_allowed.add(position)
        if record.id in self._confirmed:
            return  # on the slot of its plan, whatever its worker has said of it since
        template = self._templates[event.worker][event.slot]
        fits = ANY_KIND in template or record.kind in template
        self._require(fits, f"{where}: slot {event.slot} takes {template}, not {record.kind}")
        if event.slot in _SLOTS_FOR_PLANS and self._templates[event.worker] == _DEFAULT_TEMPLATE:
            self._require(record.kind == "plan", f"{where}: a {record.kind} in slot {event.slot}")

    def end(self) -> None:
        """Everything that was accepted has ended, and nothing holds anything."""
        for id, record in self.records.items():
            count = self._ends[id]
            self._require(count == 1, f"the {record.kind} {id} ended {count} times and is {record.phase.value}")
        self._require(not self._slots, f"slots are held at the end: {self._slots}")
        self._require(not self._workspaces, f"workspaces are held at the end: {self._workspaces}")

    def _require(self, holds: bool, fault: str) -> None:
        if not holds:
            self.faults.append(fault)


# -- what ran ----------------------------------------------------------------------------------------------------------


def _check_runs(log: _Log, ran: list[Ran]) -> list[str]:
    faults: list[str] = []
    by_attempt = Counter((run.task, run.attempt) for run in ran)
    faults += [f"attempt {a} of {id} ran {count} times" for (id, a), count in by_attempt.items() if count > 1]
    by_apply = Counter(run.task for run in ran if run.apply)
    faults += [f"the apply of {id} ran {count} times" for id, count in by_apply.items() if count > 1]
    for run in ran:
        faults += _check_run(log, run)
    faults += _check_order(log, ran)
    runs = {(run.task, run.attempt) for run in ran}
    for (id, attempt), (_, event) in log.closed.items():
        if isinstance(event, AttemptSucceeded) and (id, attempt) not in runs:
            faults.append(f"attempt {attempt} of {id} succeeded and never ran")
        if isinstance(event, NotDelivered) and (id, attempt) in runs:
            faults.append(f"attempt {attempt} of {id} was not delivered and ran")
    return faults


def _check_run(log: _Log, run: Ran) -> list[str]:
    faults: list[str] = []
    what = f"{run.kind} {run.task}, attempt {run.attempt} on {run.host} slot {run.slot},"
    assigned = log.assigned.get(run.position)
    told = (run.task, run.attempt, run.host, run.slot)
    if assigned is None or (assigned.task, assigned.attempt, assigned.worker, assigned.slot) != told:
        faults.append(f"{what} ran without its assignment: at its position stands {assigned}")
    if run.apply and run.position not in log.applies_allowed:
        faults.append(f"{what} was applied without a confirmation")
    seconds, event = log.closed.get((run.task, run.attempt), (float("inf"), None))
    # Only a lost worker and a person's word end an attempt without knowing that its process is over.
    is_certain = event is not None and not isinstance(event, ForceStopped | WorkerLost)
    if is_certain and (run.began > seconds or run.ended is None or run.ended > seconds):
        faults.append(f"{what} ran after {event_name(event)} had ended it")
    return faults


def _check_order(log: _Log, ran: list[Ran]) -> list[str]:
    faults: list[str] = []
    slots: dict[tuple[str, int], list[Ran]] = {}
    tasks: dict[str, list[Ran]] = {}
    workspaces: dict[str, list[Ran]] = {}
    for run in sorted(ran, key=lambda run: run.began):
        slots.setdefault((run.host, run.slot), []).append(run)
        if run.kind == _EXCLUSIVE:
            tasks.setdefault(run.task, []).append(run)
            record = log.records.get(run.task)
            if record is not None:
                workspaces.setdefault(record.queue, []).append(run)
    for (host, slot), runs in slots.items():
        for one, other in pairwise(runs):
            if other.position <= one.position:
                faults.append(f"{host} ran {other.task} in slot {slot} after a newer assignment")
            if _overlap(one, other):
                faults.append(f"{host} ran {one.task} and {other.task} in slot {slot} at once")
    for id, runs in tasks.items():
        faults += [
            f"attempts {a.attempt} and {b.attempt} of {id} ran at once" for a, b in pairwise(runs) if _overlap(a, b)
        ]
    for name, runs in workspaces.items():
        faults += [
            f"{one.task} and {other.task} ran at once in {name}"
            for one, other in pairwise(runs)
            if one.task != other.task and one.task not in log.force_stopped and _overlap(one, other)
        ]
    return faults


def _overlap(earlier: Ran, later: Ran) -> bool:
    return earlier.ended is None or earlier.ended > later.began


# -- commands and answers ----------------------------------------------------------------------------------------------


def _first_asked(evidence: Evidence) -> dict[str, int]:
    """Which stored command bears an id first."""
    first: dict[str, int] = {}
    for asked in evidence.asked:
        id = _id_of(asked.data)
        if id is not None:
            first.setdefault(id, asked.sequence)
    return first


def _id_of(data: bytes) -> str | None:
    try:
        return _decode_id(data).id
    except msgspec.DecodeError:
        return None


def _check_commands(log: _Log, evidence: Evidence) -> list[str]:
    faults = [
        f"command {asked.sequence} ({asked.verb}) was stored and never decided: {asked.data[:200]!r}"
        for asked in evidence.asked
        if (id := _id_of(asked.data)) is not None and id not in log.decided
    ]
    for told in evidence.told:
        if told.code >= 300 or told.position is None:
            continue
        event = log.named.get(told.position)
        if event is None or (told.task is not None and getattr(event, "task", None) != told.task):
            faults.append(
                f"{told.command} was answered with {format_position(Position(told.position))}, where {event} stands"
            )
    return faults
