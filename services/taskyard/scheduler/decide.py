"""The scheduler's choices: on commands first, then timers, then which waiting tasks may run now.

Everything chosen within one decision is held in an overlay, since the state changes only by folding.
"""

from collections.abc import Mapping, Sequence

import msgspec

from taskyard.contracts.commands import COMMAND_BYTES_MAX, SUBMIT, TASKS_PER_COMMAND_MAX
from taskyard.contracts.events import (
    ApplyConfirmed,
    ApprovalExpired,
    Event,
    ForceStopped,
    QueueConfigured,
    QueueLocked,
    QueuePaused,
    TaskScheduled,
    TaskStopRequested,
)
from taskyard.contracts.fleet import Accepts
from taskyard.contracts.lifecycle import CAUSE_SCHEDULE_TO_START, Phase, TaskRecord
from taskyard.contracts.values import Instant, Role, TaskId, seconds
from taskyard.machine.machine import Decision
from taskyard.scheduler.agenda import ANSWER_BY, Agenda, Head
from taskyard.scheduler.intake import Intake
from taskyard.scheduler.messages import CommandMessage
from taskyard.scheduler.state import Pool, Queue, SchedulerState

TIMERS_PER_DECISION_MAX = 100
SCHEDULED_PER_DECISION_MAX = 250
"""With the tasks of the commands these stay within a commit."""
TASK_BYTES_MIN = 24
"""No task is shorter: `{"kind":"noop","input":1}`."""
CREDIT_SHARE = 8
"""Beyond its idle slots a pool gets scheduled tasks for one in so many of its slots, so that large pools never starve;
a small pool gets none, so that priority, pause and lock bite until a slot is really free."""

SYSTEM = "auto"


def decide(
    state: SchedulerState, now: Instant, messages: Sequence[CommandMessage], roles: Mapping[str, Role]
) -> Decision:
    """What should be appended now."""
    intake = Intake(state, roles)
    taken = _take_commands(intake, messages)
    events: list[Event] = intake.events
    events += _confirm_by_itself(state)
    events += _fire_timers(state, now)
    events += _Admission(state, now, events).choose()
    return Decision(events=events, taken=taken)


def _take_commands(intake: Intake, messages: Sequence[CommandMessage]) -> int:
    """Commands until the commit is as full as one command may make it; at least one."""
    taken = size = 0
    for message in messages:
        size += _bytes(message)
        if taken and (size > COMMAND_BYTES_MAX or len(intake.events) + _tasks_at_most(message) > TASKS_PER_COMMAND_MAX):
            break
        intake.take(message)
        taken += 1
    return taken


def _bytes(message: CommandMessage) -> int:
    """A retry is short, and brings the whole of an old submission with it."""
    original = message.original
    return len(message.data) + (len(msgspec.json.encode(original)) if original is not None else 0)


def _tasks_at_most(message: CommandMessage) -> int:
    return min(TASKS_PER_COMMAND_MAX, 1 + len(message.data) // TASK_BYTES_MIN) if message.verb == SUBMIT else 1


def _confirm_by_itself(state: SchedulerState) -> list[Event]:
    agenda, events = state.agenda, []
    while agenda.auto_confirm and len(events) < TIMERS_PER_DECISION_MAX:
        id = next(iter(agenda.auto_confirm))
        del agenda.auto_confirm[id]
        record = state.tasks.live.get(id)
        if record is not None and record.phase is Phase.APPLY_PENDING and record.plan_attempt is not None:
            events.append(ApplyConfirmed(task=id, attempt=record.plan_attempt, by=SYSTEM))
    return events


def _fire_timers(state: SchedulerState, now: Instant) -> list[Event]:
    events: list[Event] = []
    said: set[TaskId] = set()  # one plan may have several timers, since its time to expire may change
    while len(events) < TIMERS_PER_DECISION_MAX and (fired := state.agenda.pop_due(now)) is not None:
        kind, id = fired
        record = state.tasks.live.get(id)
        if record is None or id in said:
            continue
        event = _timer_event(state, record, kind, now)
        if event is not None:
            said.add(id)
            events.append(event)
    return events


def _timer_event(state: SchedulerState, record: TaskRecord, kind: str, now: Instant) -> Event | None:
    match kind:
        case "due" if record.phase is Phase.PENDING and record.due <= now:
            state.agenda.wait(record)
        case "start_by" if record.attempt == 0 and record.phase in (Phase.PENDING, Phase.SCHEDULED):
            return TaskStopRequested(task=record.id, cause=CAUSE_SCHEDULE_TO_START, by=SYSTEM)
        case "answer_by" if record.phase is Phase.APPLY_PENDING:
            assert record.planned_at is not None and record.plan_attempt is not None
            expires = Instant(record.planned_at + seconds(state.pool(record.pool).approval_timeout_seconds))
            if expires <= now:
                return ApprovalExpired(task=record.id, attempt=record.plan_attempt)
            state.agenda.set_timer(expires, ANSWER_BY, record.id)
        case _:
            pass
    return None


class _Admission:
    """Which waiting tasks may run now: the best one of all open queues, again and again, while there is room."""

    def __init__(self, state: SchedulerState, now: Instant, decided: Sequence[Event]) -> None:
        self._state = state
        self._now = now
        self._agenda: Agenda = state.agenda
        self._events: list[Event] = []
        # What this decision stops must not be scheduled, and what it closes must not be filled: none of it is folded yet.
        self._taken = {event.task for event in decided if isinstance(event, TaskStopRequested | ForceStopped)}
        self._closed = {
            event.pool for event in decided if isinstance(event, QueueConfigured | QueuePaused | QueueLocked)
        }
        self._admitted: dict[tuple[str, str], int] = {}
        self._holders: dict[tuple[str, str], TaskId] = {}
        self._scheduled: dict[tuple[str, str], int] = {}

    def choose(self) -> list[Event]:
        """Events for every pool that was touched, up to the limit; a pool that is not finished stays touched."""
        for name in list(self._agenda.touched):
            if name in self._closed:
                continue
            if self._fill(self._state.pool(name)):
                del self._agenda.touched[name]
        return self._events

    def _fill(self, pool: Pool) -> bool:
        if pool.is_paused:
            return True
        while len(self._events) < SCHEDULED_PER_DECISION_MAX:
            best = self._best(pool)
            if best is None:
                return True
            self._admit_all(pool.name, *best)
        return False

    def _best(self, pool: Pool) -> tuple[str, int, Head | None] | None:
        """The kind whose first waiting task goes first, its room, and the head of the kind that comes after it.

        A kind that has no room keeps what comes after it from its slots.
        """
        heads: list[tuple[Head, str]] = []
        for kind in self._agenda.kinds(pool.name):
            found = self._open_head(pool.name, kind)
            if found is not None:
                heads.append((found[0], kind))
        heads.sort()
        before: set[str] = set()
        for index, (_, kind) in enumerate(heads):
            room = self._room(pool, kind, before)
            if room > 0:
                return kind, room, heads[index + 1][0] if index + 1 < len(heads) else None
            if self._state.fleet.size_for(pool.name, kind):
                before.add(kind)
        return None

    def _admit_all(self, pool: str, kind: str, room: int, until: Head | None) -> None:
        """Schedule tasks of a kind as long as they have room and go before the head of the next kind.

        Nothing else changes meanwhile: each one takes one place of the room, and no kind gets room by it.
        """
        room = min(room, SCHEDULED_PER_DECISION_MAX - len(self._events))
        while room and (found := self._open_head(pool, kind)) is not None and (until is None or found[0] < until):
            self._admit(*found)
            room -= 1

    def _open_head(self, pool: str, kind: str) -> tuple[Head, TaskRecord] | None:
        """The first waiting task of a kind whose queue lets it run."""
        while (found := self._agenda.head(pool, kind, self._state.tasks, self._taken, self._now)) is not None:
            if self._is_open(self._state.queue(pool, found[1].queue), found[1]):
                return found
            self._agenda.block(pool, kind)
        return None

    def _room(self, pool: Pool, kind: str, before: set[str]) -> int:
        """Idle slots that take the kind, and the credit, less what is already on its way to any of them.

        Tasks of other kinds that could take the same slots count too: too few are admitted rather than too many. Slots
        that the kinds of `before` could take are theirs, and behind them there is no credit: it would take the next slot.
        """
        fleet = self._state.fleet
        idle = fleet.idle.get(pool.name, {})
        takes = [accepts for accepts, count in fleet.size.get(pool.name, {}).items() if count and kind in accepts]
        open_now = [accepts for accepts in takes if idle.get(accepts) and before.isdisjoint(accepts)]
        free = sum(idle[accepts] for accepts in open_now)
        # What waits for slots that are all busy does not stand in the way of one that is idle.
        room = free - self._on_the_way(pool, open_now)
        credit = 0 if before else fleet.size_for(pool.name, kind) // CREDIT_SHARE
        return max(room, free + credit - self._on_the_way(pool, takes)) if credit else room

    def _on_the_way(self, pool: Pool, classes: list[Accepts]) -> int:
        """Scheduled tasks without a slot that any slot of these classes could take."""
        kinds = {kind for accepts in classes for kind in accepts}
        return sum(pool.scheduled.get(kind, 0) + self._scheduled.get((pool.name, kind), 0) for kind in kinds)

    def _is_open(self, queue: Queue, record: TaskRecord) -> bool:
        if queue.is_paused or queue.is_locked:
            return False
        key = (queue.pool, queue.name)
        if record.exclusive:
            holder = self._holders.get(key) or queue.holder
            if holder is not None and holder != record.id:
                return False
        return not queue.max_running or queue.admitted + self._admitted.get(key, 0) < queue.max_running

    def _admit(self, head: Head, record: TaskRecord) -> None:
        self._agenda.take(record.pool, record.kind, head)
        key = (record.pool, record.queue)
        self._taken.add(record.id)
        self._admitted[key] = self._admitted.get(key, 0) + 1
        lane = (record.pool, record.kind)
        self._scheduled[lane] = self._scheduled.get(lane, 0) + 1
        if record.exclusive:
            self._holders[key] = record.id
        self._events.append(TaskScheduled(task=record.id))
