"""Rules of the protocol, broken on purpose one at a time, to show that the checks find it.

A defect replaces functions of the code that runs, for as long as a `with` lasts. What the checks themselves fold with is
put back while they judge.
"""

# pyright: reportPrivateUsage=none

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

import taskyard.contracts.lifecycle as lifecycle
import taskyard.contracts.tasks as tasks
import taskyard.simulation.appending as appending
import taskyard.slot_allocator.placement as placement
from taskyard.agent.slots import SlotMemory
from taskyard.contracts.kinds import OnLost
from taskyard.contracts.lifecycle import Phase, Verdict
from taskyard.contracts.values import Instant, make_position, seconds
from taskyard.dispatcher.delivery import Deliveries
from taskyard.eventlog.append import AppendRejected
from taskyard.eventlog.errors import FenceMoved, Unanswered
from taskyard.eventlog.memory import MemoryStream
from taskyard.machine.core import LoopCore, Role
from taskyard.scheduler.decide import _Admission
from taskyard.scheduler.known import KnownIds
from taskyard.scheduler.state import SchedulerState
from taskyard.simulation.errors import UnknownDefect
from taskyard.simulation.instance import Instance

Replace = Callable[[Any, str, Any], None]
Defect = Callable[[Replace], None]


class _Patches:
    """What is replaced now, and what stood there."""

    def __init__(self) -> None:
        self.active: list[tuple[Any, str, Any, Any]] = []

    def replace(self, owner: Any, name: str, value: Any) -> None:
        self.active.append((owner, name, getattr(owner, name), value))
        setattr(owner, name, value)

    def switch(self, *, on: bool) -> None:
        for owner, name, before, after in self.active if on else reversed(self.active):
            setattr(owner, name, after if on else before)


_patches = _Patches()


@contextmanager
def defect(name: str | None) -> Iterator[None]:
    """Break one rule; None breaks none.

    Raises:
        UnknownDefect: there is none of that name.
    """
    if name is not None and name not in DEFECTS:
        raise UnknownDefect(f"no defect {name!r}; there are {', '.join(sorted(DEFECTS))}")
    if name is not None:
        DEFECTS[name](_patches.replace)
    try:
        yield
    finally:
        _patches.switch(on=False)
        _patches.active.clear()


@contextmanager
def put_back() -> Iterator[None]:
    """The code as it is, while somebody judges."""
    _patches.switch(on=False)
    try:
        yield
    finally:
        _patches.switch(on=True)


# -- the log -----------------------------------------------------------------------------------------------------------


def _no_fence(replace: Replace) -> None:
    """The log stores whatever a stale leader appends."""
    store = MemoryStream.store

    def unfenced(self: MemoryStream, subject: str, data: bytes, *, headers: Any = None, **_: Any) -> int:
        return store(self, subject, data, headers=headers)

    replace(MemoryStream, "store", unfenced)


def _fence_moved_is_stored(replace: Replace) -> None:
    """A refusal after silence is taken for the answer to an own earlier try, without a look at what stands there."""
    resolve = appending.append_resolved

    async def careless(appender: Any, data: bytes, **more: Any) -> int:
        try:
            return await resolve(appender, data, **more)
        except FenceMoved as error:
            return error.actual

    replace(appending, "append_resolved", careless)


def _refusal_is_loss(replace: Replace) -> None:
    """A refusal by the fence is believed at once, though an own earlier try may be what moved it."""

    async def careless(appender: Any, data: bytes, *, writer: str, expected: int, **_: Any) -> int:
        while True:
            try:
                return await appender.try_append(data, writer=writer, expected=expected)
            except AppendRejected as error:
                raise FenceMoved(writer=writer, expected=expected, actual=0) from error
            except Unanswered:
                continue

    replace(appending, "append_resolved", careless)


def _silence_is_no(replace: Replace) -> None:
    """An append without an answer counts as not stored: it is forgotten, and the next decision is made."""
    append_failed = Instance._append_failed

    async def careless(appender: Any, data: bytes, *, writer: str, expected: int, **_: Any) -> int:
        return await appender.try_append(data, writer=writer, expected=expected)

    def goes_on(self: Any, error: Exception) -> None:
        if self.core.role is not Role.LEADER or isinstance(error, FenceMoved | AppendRejected):
            append_failed(self, FenceMoved(writer="", expected=0, actual=0))
            return
        self._append, self.core._in_flight = None, False
        self._wake()

    replace(appending, "append_resolved", careless)
    replace(Instance, "_append_failed", goes_on)


# -- the loop ----------------------------------------------------------------------------------------------------------


def _decides_before_folding(replace: Replace) -> None:
    """The next decision is made before the own last commit is folded, behind the fence that it moved."""

    def appended(self: Any, sequence: int) -> None:
        self._in_flight = False
        if self.role is Role.TAKING_OVER:
            self._own_last = sequence
            return
        self._writer_sequence = sequence

    until_folded = Instance._until_folded

    def at_once(self: Any, sequence: int, then: Any) -> None:
        if self.core.role is Role.LEADER:
            then()
        else:
            until_folded(self, sequence, then)

    replace(LoopCore, "appended", appended)
    replace(Instance, "_until_folded", at_once)


def _acts_before_append(replace: Replace) -> None:
    """What was decided is folded and acted on before it is stored."""
    append, fold_own = LoopCore._append, LoopCore.fold

    def append_and_fold(self: Any, events: list[Any], epoch: int, cursors: Any, monotonic: float) -> Any:
        result = append(self, events, epoch, cursors, monotonic)
        if self.role is Role.LEADER:
            for index, event in enumerate(events):
                self.machine.apply(event, self.now(monotonic), make_position(self.folded + 1, index))
        return result

    def fold(self: Any, stored: Any, monotonic: float) -> None:
        if stored.commit.writer == self.machine.writer and stored.commit.instance == self.instance:
            stored = msgspec.structs.replace(stored, commit=msgspec.structs.replace(stored.commit, events=()))
        fold_own(self, stored, monotonic)

    def effects(self: Any, monotonic: float) -> Any:
        return self.machine.effects(self.now(monotonic)) if self.role is Role.LEADER else ()

    replace(LoopCore, "_append", append_and_fold)
    replace(LoopCore, "fold", fold)
    replace(LoopCore, "effects", effects)


def _stale_leader_goes_on(replace: Replace) -> None:
    """A leader that folds another's epoch goes on with its own."""

    def fold_own(self: Any, stored: Any) -> None:
        self._writer_sequence, self._writer_hash = stored.sequence, stored.hash
        if self.role is Role.STANDBY or stored.commit.instance == self.instance:
            self.epoch = max(self.epoch, stored.commit.epoch)
        for stream, sequence in stored.commit.cursors.items():
            self.cursors[stream] = max(sequence, self.cursors.get(stream, 0))

    replace(LoopCore, "_fold_own", fold_own)


def _forgets_cursors(replace: Replace) -> None:
    """Commits do not say which inputs they account for."""
    replace(LoopCore, "_cursors_ahead", lambda self: {})


def _time_goes_back(replace: Replace) -> None:
    """A leader's now follows the log back, where its own clock was ahead."""

    def now(self: Any, monotonic: float) -> Instant:
        return Instant(self.log_time + seconds(max(0.0, monotonic - self._log_time_read_at)))

    replace(LoopCore, "now", now)


# -- the services ------------------------------------------------------------------------------------------------------


def _gives_busy_slots(replace: Replace) -> None:
    """The allocator does not look whether a slot is busy, and forgets what it has given within one decision."""

    def is_idle(entry: Any, fleet: Any, _: Any) -> bool:
        worker = fleet.workers.get(entry[2])
        return worker is not None and worker.incarnation == entry[3] and worker.takes_tasks

    replace(placement, "_is_idle", is_idle)


def _no_holder_after_retry(replace: Replace) -> None:
    """A workspace is free while its task waits to be tried again."""
    changed = SchedulerState._task_changed

    def forgets(self: Any, change: Any, record: Any) -> None:
        changed(self, change, record)
        queue = self.queue(record.pool, record.queue)
        if record.phase is Phase.PENDING and queue.holder == record.id:
            queue.holder = None
            self.agenda.reopen(record.pool, record.queue)

    replace(SchedulerState, "_task_changed", forgets)


def _workspaces_are_shared(replace: Replace) -> None:
    """The scheduler does not look who has a workspace."""
    replace(_Admission, "_is_open", lambda self, queue, record: not (queue.is_paused or queue.is_locked))


def _forgets_ids(replace: Replace) -> None:
    """Nobody remembers which commands were decided."""
    replace(KnownIds, "remember_command", lambda *_: None)


def _trusts_any_silence(replace: Replace) -> None:
    """That nobody listened to a second copy is taken as a proof that the first was not delivered."""

    def proves(self: Any, record: Any) -> bool:
        owed = self._owed.get(record.id)
        return owed is not None and not owed.is_stop

    replace(Deliveries, "proves_non_delivery", proves)


def _forgets_to_ask(replace: Replace) -> None:
    """What is told of a worker's earlier incarnation settles the question to the one that is there now."""
    replace(Deliveries, "settle_delivery", Deliveries.settle)


# -- the fold ----------------------------------------------------------------------------------------------------------


def _any_attempt_counts(replace: Replace) -> None:
    """The fold does not look which attempt an event is about."""
    fold = lifecycle.fold

    def careless(record: Any, event: Any, at: Instant, position: Any) -> Verdict:
        if getattr(event, "attempt", None) is not None and type(event).__name__ != "SlotAssigned":
            event = msgspec.structs.replace(event, attempt=record.attempt)
        return fold(record, event, at, position)

    replace(tasks, "fold", careless)


def _applies_unasked(replace: Replace) -> None:
    """A plan is applied without a confirmation."""
    fold = lifecycle.fold

    def hasty(record: Any, event: Any, at: Instant, position: Any) -> Verdict:
        verdict = fold(record, event, at, position)
        if record.phase is Phase.APPLY_PENDING:
            record.phase, record.confirmed = Phase.SCHEDULED, True
        return verdict

    replace(tasks, "fold", hasty)


def _holds_nothing(replace: Replace) -> None:
    """What a lost worker had is tried elsewhere at once, whatever its kind."""
    lost = lifecycle._worker_lost

    def retries(record: Any, event: Any, at: Instant) -> Verdict:
        kept, record.on_lost = record.on_lost, OnLost.RETRY
        verdict = lost(record, event, at)
        record.on_lost = kept
        return verdict

    replace(lifecycle, "_worker_lost", retries)


def _reserves_what_is_gone(replace: Replace) -> None:
    """A plan keeps its reserved slot when its worker comes back without that slot."""
    replace(lifecycle, "_has_slot", lambda *_: True)


# -- the agent ---------------------------------------------------------------------------------------------------------


def _no_slot_memory(replace: Replace) -> None:
    """An agent does not remember what its slots have seen."""
    assign = SlotMemory._assign_one

    def forgetful(self: Any, assignment: Any, *more: Any) -> Any:
        self._remembered.pop(assignment.slot, None)
        return assign(self, assignment, *more)

    replace(SlotMemory, "_assign_one", forgetful)


def _cancels_are_not_remembered(replace: Replace) -> None:
    """A cancel of an assignment that was never seen leaves no trace, and the assignment may still come."""
    cancel = SlotMemory._cancel_one

    def forgetful(self: Any, one: Any, decision: Any, now: Instant) -> None:
        before = self._remembered.get(one.slot)
        cancel(self, one, decision, now)
        if before is None or before.position < one.position:
            self._remembered.pop(one.slot, None)
            self._changed_slots.discard(one.slot)

    replace(SlotMemory, "_cancel_one", forgetful)


DEFECTS: dict[str, Defect] = {
    "no-fence": _no_fence,
    "fence-moved-is-stored": _fence_moved_is_stored,
    "refusal-is-loss": _refusal_is_loss,
    "silence-is-no": _silence_is_no,
    "decides-before-folding": _decides_before_folding,
    "acts-before-append": _acts_before_append,
    "reserves-what-is-gone": _reserves_what_is_gone,
    "stale-leader-goes-on": _stale_leader_goes_on,
    "forgets-cursors": _forgets_cursors,
    "gives-busy-slots": _gives_busy_slots,
    "no-holder-after-retry": _no_holder_after_retry,
    "workspaces-are-shared": _workspaces_are_shared,
    "forgets-ids": _forgets_ids,
    "forgets-to-ask": _forgets_to_ask,
    "time-goes-back": _time_goes_back,
    "trusts-any-silence": _trusts_any_silence,
    "any-attempt-counts": _any_attempt_counts,
    "applies-unasked": _applies_unasked,
    "holds-nothing": _holds_nothing,
    "no-slot-memory": _no_slot_memory,
    "cancels-are-not-remembered": _cancels_are_not_remembered,
}
"""What can be broken."""
