"""The slot allocator's choices: who has joined or is lost, then slots for what is scheduled, in the order of the log."""

from collections.abc import Sequence

from taskyard.contracts.events import (
    Event,
    PlacingFailed,
    PlacingResumed,
    SlotAssigned,
    WorkerJoined,
    WorkerLost,
    WorkerSuspected,
)
from taskyard.contracts.lifecycle import TaskRecord
from taskyard.contracts.values import Incarnation, Instant
from taskyard.machine.machine import Decision, Fault
from taskyard.slot_allocator.liveness import HeartbeatSeen, Listened, Liveness, Reconnected, stored_bytes
from taskyard.slot_allocator.state import AllocatorState

HEARTBEATS_PER_DECISION_MAX = 100
ASSIGNED_PER_DECISION_MAX = 400
CHECKED_PER_DECISION_MAX = 200
TOLD_ASIDE_PER_DECISION_MAX = 100
JOINED_BYTES_PER_DECISION_MAX = 128 * 1024

Observation = HeartbeatSeen | Listened | Reconnected


def decide(state: AllocatorState, liveness: Liveness, now: Instant, inputs: Sequence[Observation]) -> Decision:
    """What should be appended now."""
    events, taken = _hear(state, liveness, inputs[:HEARTBEATS_PER_DECISION_MAX])
    for worker, incarnation in state.not_reached.items():
        liveness.not_reached(worker, incarnation)
    state.not_reached.clear()
    faults: list[Fault] = []
    events += liveness.check(state.fleet, faults)[:CHECKED_PER_DECISION_MAX]
    # What this commit itself says of a worker is not folded yet: a slot of it given here would be one of a worker that
    # is lost, or of an incarnation that is gone, and nobody would ever answer for the task.
    if not any(isinstance(event, WorkerJoined | WorkerLost | WorkerSuspected) for event in events):
        state.look_aside(now)
        events += _applies(state, now, faults)
        events += _place(state, now, faults)
        events += _aside(state)[:TOLD_ASIDE_PER_DECISION_MAX]
    return Decision(events=events, taken=taken, faults=tuple(faults))


def _hear(state: AllocatorState, liveness: Liveness, inputs: Sequence[Observation]) -> tuple[list[Event], int]:
    """What was heard, and how much of it fits one commit."""
    joined: dict[str, Incarnation] = {}
    events: list[Event] = []
    size = taken = 0
    for seen in inputs:
        match seen:
            case Reconnected():
                liveness.begin()
            case Listened():
                liveness.listened(seen)
            case HeartbeatSeen():
                for event in liveness.hear(seen, state.fleet, joined):
                    if event not in events:
                        events.append(event)
                        size += stored_bytes(event)
        taken += 1
        if size > JOINED_BYTES_PER_DECISION_MAX:
            break
    return events, taken


def _applies(state: AllocatorState, now: Instant, faults: list[Fault]) -> list[Event]:
    """Confirmed applies go on on their own reserved slots. One at which deciding raises stands aside."""
    events: list[Event] = []
    for id in state.applies:
        if id in state.applies_aside or len(events) >= ASSIGNED_PER_DECISION_MAX // 2:
            continue
        record = state.tasks.live[id]
        try:
            if record.due <= now:
                events.append(_on_its_slot(record))
        except Exception as error:  # noqa: BLE001 - one apply must not stop all others
            faults.append(state.applies_aside.put(id, f"apply of task {id}", error, now))
    return events


def _on_its_slot(record: TaskRecord) -> SlotAssigned:
    assert record.worker is not None and record.slot is not None
    return SlotAssigned(
        task=record.id,
        attempt=record.attempt + 1,
        worker=record.worker,
        incarnation=record.incarnation,
        slot=record.slot,
    )


def _place(state: AllocatorState, now: Instant, faults: list[Fault]) -> list[Event]:
    """Slots for what waits in the pools that were touched. A pool that is not finished stays touched.

    A kind for which looking raises stands aside in that pool, and what is behind it goes on.
    """
    events: list[Event] = []
    taken: set[tuple[str, int]] = set()
    for pool in list(state.touched):
        full: set[str] = set()
        for id in state.waiting.get(pool, ()):
            record = state.tasks.live[id]
            if record.kind in full or (pool, record.kind) in state.aside:
                continue
            if len(events) >= ASSIGNED_PER_DECISION_MAX:
                return events
            try:
                slot = state.idle.take(
                    pool, record.kind, state.policy(pool), state.fleet, taken, avoid=record.declined_by
                )
            except Exception as error:  # noqa: BLE001 - one kind must not stop all others
                key = (pool, record.kind)
                faults.append(state.aside.put(key, f"kind {record.kind} of pool {pool}", error, now))
                state.offer_again(pool)  # what was looked at when it raised may be off the list
                continue
            if slot is None:
                full.add(record.kind)
                continue
            _, number, worker, incarnation = slot
            events.append(
                SlotAssigned(task=id, attempt=record.attempt + 1, worker=worker, incarnation=incarnation, slot=number)
            )
        del state.touched[pool]
    return events


def _aside(state: AllocatorState) -> list[Event]:
    """What has to be told of who stands aside, and of who does so no more: those who wait are shown why."""
    live = state.tasks.live
    aside = dict(state.aside.reasons) | {
        (live[id].pool, str(id)): reason for id, reason in state.applies_aside.reasons.items() if id in state.applies
    }
    told = state.told_aside
    over = (PlacingResumed(pool=pool, what=what) for pool, what in told if (pool, what) not in aside)
    begun = (PlacingFailed(pool=key[0], what=key[1], reason=why) for key, why in aside.items() if key not in told)
    return [*over, *begun]


def next_deadline(state: AllocatorState) -> Instant | None:
    """When the next apply is due, or what stands aside. Silence is looked at when this instance has listened, not by a timer."""
    dues = [state.tasks.live[id].due for id in state.applies if id not in state.applies_aside]
    again = (state.aside.next_deadline, state.applies_aside.next_deadline)
    return min([*dues, *(at for at in again if at is not None)], default=None)
