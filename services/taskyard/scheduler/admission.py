"""Which tasks may run now: by priority, then submission, as far as slots, limits, locks and workspaces allow.

What was chosen within one decision is held in an overlay, since the state changes only by folding.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from taskyard.contracts.events import (
    SCHEDULER,
    ApplyDiscarded,
    ApprovalExpired,
    Event,
    ForceStopped,
    QueueConfigured,
    QueueLocked,
    QueuePaused,
    TaskScheduled,
    TaskStopRequested,
    TaskSubmitted,
)
from taskyard.contracts.fleet import Accepts
from taskyard.contracts.lifecycle import TaskRecord
from taskyard.contracts.queues import INTERNAL_ERROR
from taskyard.contracts.values import Instant, TaskId
from taskyard.machine.machine import Fault
from taskyard.scheduler.agenda import Agenda, Head
from taskyard.scheduler.pools import Pool, Queue
from taskyard.scheduler.state import SchedulerState

_ENDING = TaskStopRequested | ForceStopped
"""What ends a task that waits for a slot."""
_REFUSING = ApplyDiscarded | ApprovalExpired
"""What ends a task that waits with a plan. Of one without a plan it says nothing."""

SCHEDULED_PER_DECISION_MAX = 250
"""With the tasks of the commands these stay within a commit."""
CREDIT_SHARE = 8
"""Beyond its idle slots a pool gets scheduled tasks for one in so many of its slots, so that large pools never starve;
a small pool gets none, so that priority, pause and lock bite until a slot is really free."""


class _Best(NamedTuple):
    """The kind whose first waiting task goes first: its room, the kinds without room that go before it, and the head of the
    kind that comes after it.
    """

    kind: str
    room: int
    before: set[str]
    until: Head | None


class Admission:
    """Which waiting tasks may run now: the best one of all open queues, again and again, while there is room.

    Then those that this very decision submits, where nothing waits before them: a task that need not wait is submitted and
    scheduled by one commit, which spares a flush, an acknowledgement, and every follower a message.
    """

    def __init__(self, state: SchedulerState, now: Instant, decided: Sequence[Event]) -> None:
        self._state = state
        self._now = now
        self._agenda: Agenda = state.agenda
        self._events: list[Event] = []
        self._submitted = [event for event in decided if isinstance(event, TaskSubmitted)]
        # What this decision stops must not be scheduled, and what it closes must not be filled: none of it is folded yet.
        self._taken = {event.task for event in decided if isinstance(event, _ENDING)}
        self._refused = {event.task for event in decided if isinstance(event, _REFUSING)}
        self._closed = {
            event.pool for event in decided if isinstance(event, QueueConfigured | QueuePaused | QueueLocked)
        }
        self._locked = {event.queue for event in decided if isinstance(event, QueueLocked)}
        self._admitted: dict[tuple[str, str], int] = {}
        self._holders: dict[str, TaskId] = {}
        self._scheduled: dict[tuple[str, str], int] = {}
        self.faults: list[Fault] = []
        self._failed: set[tuple[str, str]] = set()

    def choose(self) -> list[Event]:
        """Events for every pool that was touched, up to the limit; a pool that is not finished stays touched."""
        for name in list(self._agenda.touched):
            if name in self._closed:
                continue
            try:
                is_full = self._fill(self._state.pool(name))
            except Exception as error:  # noqa: BLE001 - one pool must not stop all others
                self._pause_pool(name, error)
                is_full = True
            if is_full:
                del self._agenda.touched[name]
        self._choose_submitted()
        return self._events

    def _pause_pool(self, name: str, error: Exception) -> None:
        """Deciding on a pool raised: it is paused, as a queue is, so that its tasks say why they wait."""
        reference = f"pool {name}"
        self.faults.append(Fault(reference, error))
        if name not in self._closed:
            self._closed.add(name)
            reason = f"{INTERNAL_ERROR}: see {reference!r} in the scheduler's log, then resume it"
            self._events.append(QueuePaused(pool=name, by=SCHEDULER, reason=reason))

    def _fill(self, pool: Pool) -> bool:
        if pool.is_paused:
            return True
        is_done = self._choose_applies(pool.name)
        while len(self._events) < SCHEDULED_PER_DECISION_MAX:
            best = self._best(pool)
            if best is None:
                return is_done
            self._admit_all(pool.name, best)
        return False

    def _choose_applies(self, pool: str) -> bool:
        """Applies that were confirmed: each has its slot and its place in its queue, so only a closed door holds it back.

        Whether all were looked at: what this decision may end is looked at again when the log has settled that.
        """
        is_done = True
        for id in self._agenda.applies(pool):
            record = self._state.tasks.live.get(id)
            if id in self._taken or id in self._refused:
                is_done = False
            elif record is None or not record.is_apply_waiting or record.due > self._now:
                self._agenda.drop_apply(pool, id)
            elif len(self._events) >= SCHEDULED_PER_DECISION_MAX:
                return False
            else:
                self._agenda.drop_apply(pool, id)
                if self._may_apply(self._state.queue(pool, record.queue), id):
                    self._taken.add(id)
                    self._events.append(TaskScheduled(task=id, attempt=record.plan_attempt))
        return is_done

    def _choose_submitted(self) -> None:
        """Tasks that are not folded yet, best first; the first one without room ends it for its pool."""
        clear: dict[str, Pool | None] = {}
        for event in sorted(self._submitted, key=lambda event: event.priority):
            try:
                if event.pool not in clear:
                    clear[event.pool] = self._clear(event.pool)
                pool = clear[event.pool]
                if pool is not None and event.not_before is None:
                    clear[event.pool] = self._choose_one(pool, event)
            except Exception as error:  # noqa: BLE001 - one pool must not have what is submitted refused
                clear[event.pool] = None
                self._pause_pool(event.pool, error)

    def _choose_one(self, pool: Pool, event: TaskSubmitted) -> Pool | None:
        """Schedule a task that is being submitted, if it may run; the pool, as long as it has room."""
        if len(self._events) >= SCHEDULED_PER_DECISION_MAX or self._room(pool, event.kind, set()) <= 0:
            return None
        queue = self._state.queue(event.pool, event.queue)
        if self._may_run(queue, event.task if event.locks_queue else None):
            self._schedule(event.task, event)
        return pool

    def _clear(self, name: str) -> Pool | None:
        """The pool, if it runs and nothing waits in it that may run: only then may what is new be looked at."""
        pool = self._state.pool(name)
        if pool.is_paused or name in self._closed or name in self._agenda.touched:
            return None
        waits = any(self._open_head(name, kind) is not None for kind in self._agenda.kinds(name))
        return None if waits else pool

    def _best(self, pool: Pool) -> "_Best | None":
        """The kind whose first waiting task goes first. One that has no room keeps what comes after it from its slots."""
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
                return _Best(kind, room, before, heads[index + 1][0] if index + 1 < len(heads) else None)
            if self._state.fleet.size_for(pool.name, kind):
                before.add(kind)
        return None

    def _admit_all(self, pool: str, best: "_Best") -> None:
        """Schedule tasks of a kind as long as they have room and go before the head of the next kind.

        Each one takes one place of the room. That it may close the queue of a kind without room is looked at afterwards.
        """
        kind, room, _, until = best
        room = min(room, SCHEDULED_PER_DECISION_MAX - len(self._events))
        while room and (found := self._open_head(pool, kind)) is not None and (until is None or found[0] < until):
            self._admit(*found)
            room -= 1

    def _open_head(self, pool: str, kind: str) -> tuple[Head, TaskRecord] | None:
        """The first waiting task of a kind whose queue lets it run."""
        while (found := self._agenda.head(pool, kind, self._state.tasks, self._taken, self._now)) is not None:
            record = found[1]
            if self._may_run(self._state.queue(pool, record.queue), record.id if record.locks_queue else None):
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

    def _may_run(self, queue: Queue, locking: TaskId | None) -> bool:
        return self._asked(self._is_open, queue, locking)

    def _may_apply(self, queue: Queue, task: TaskId) -> bool:
        return self._asked(self._is_unlocked, queue, task)

    def _asked(self, look: Callable[[Queue, TaskId | None], bool], queue: Queue, locking: TaskId | None) -> bool:
        """What `look` says. A queue on which it raises is paused, so that it stops no other, and people see why it stands still.

        Somebody resumes it once the cause is mended, and it is looked at again.
        """
        key = (queue.pool, queue.name)
        if key in self._failed:
            return False
        try:
            return look(queue, locking)
        except Exception as error:  # noqa: BLE001 - as above
            reference = f"queue {queue.name} of pool {queue.pool}"
            self._failed.add(key)
            self.faults.append(Fault(reference, error))
            reason = f"{INTERNAL_ERROR}: see {reference!r} in the scheduler's log, then resume it"
            self._events.append(QueuePaused(pool=queue.pool, queue=queue.name, by=SCHEDULER, reason=reason))
            return False

    def _is_open(self, queue: Queue, locking: TaskId | None) -> bool:
        """Whether the queue lets one more of its tasks run; `locking` is the task that would take its workspace."""
        if not self._is_unlocked(queue, locking):
            return False
        key = (queue.pool, queue.name)
        return not queue.max_running or queue.admitted + self._admitted.get(key, 0) < queue.max_running

    def _is_unlocked(self, queue: Queue, locking: TaskId | None) -> bool:
        """Whether nobody holds the queue back; for `locking`, that would take or has its workspace, in any pool."""
        if queue.is_paused or queue.is_locked:
            return False
        if locking is None:
            return True
        name, state = queue.name, self._state
        if name in self._locked or state.settings.locks_of(name):
            return False
        return (self._holders.get(name) or state.workspaces.holder(name)) in (None, locking)

    def _admit(self, head: Head, record: TaskRecord) -> None:
        self._agenda.take(record.pool, record.kind, head)
        self._schedule(record.id, record)

    def _schedule(self, id: TaskId, task: TaskRecord | TaskSubmitted) -> None:
        queue, lane = (task.pool, task.queue), (task.pool, task.kind)
        self._taken.add(id)
        self._admitted[queue] = self._admitted.get(queue, 0) + 1
        self._scheduled[lane] = self._scheduled.get(lane, 0) + 1
        if task.locks_queue:
            self._holders[task.queue] = id
        self._events.append(TaskScheduled(task=id))
