"""What is to be sent to agents: assignments until they are answered, stops until the log shows the end.

A cache of the folded state with the memory of what this leader has sent. A new leader makes a new one: it knows of no copy
that it did not send itself, and so trusts "nobody listened" only for attempts assigned after it began.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec import Struct

from taskyard.contracts.agent_protocol import (
    ASSIGNMENTS_PER_REQUEST_MAX,
    SEEN_ACCEPTED,
    SEEN_NEW,
    SEEN_STARTED,
    Assignment,
    Cancel,
    Seen,
)
from taskyard.contracts.kind import OnLost
from taskyard.contracts.lifecycle import CAUSE_CANCEL, CAUSE_TIMEOUT, NO_INSTANT, Phase, TaskRecord
from taskyard.contracts.values import Incarnation, Instant, Position, TaskId, seconds
from taskyard.machine.machine import Fault

RESEND_SECONDS = 2.0
"""An assignment or a stop without an answer is sent again after this."""
RESEND_STOP_SECONDS = 10.0
"""An acknowledged stop whose end has not come is sent again after this."""

REQUEST_BYTES_MAX = 512 << 10
_ENVELOPE_BYTES = 1 << 10

REPLACED = "the log counts another agent of this name"

_AT_ONCE, _RESEND, _RESEND_STOP = 0, seconds(RESEND_SECONDS), seconds(RESEND_STOP_SECONDS)

T = TypeVar("T", Assignment, Cancel)
Turn = tuple[Instant, TaskId, "Delivery"]


class SendAssignments(Struct, frozen=True, kw_only=True):
    """Assignments for one incarnation of an agent."""

    agent: str
    incarnation: Incarnation
    assignments: tuple[Assignment, ...]


class SendCancels(Struct, frozen=True, kw_only=True):
    """Attempts that one incarnation of an agent is to stop; `retire` says why it has to stop everything, and go."""

    agent: str
    incarnation: Incarnation
    cancels: tuple[Cancel, ...]
    retire: str = ""


class Delivery(Struct, kw_only=True, gc=False):
    """One message that is owed to an agent: an assignment or a stop, the copies sent, and when to send the next.

    `is_question` marks an assignment that is sent to learn what became of it: only its worker's answer settles that.
    `assigned_copies` is of a stop: how many copies of the assignment were sent before it, None if others may have been.
    `next_send` is None while there is nobody to send to.
    """

    is_stop: bool
    attempt: int
    is_question: bool = False
    copies: int = 0
    assigned_copies: int | None = None
    next_send: Instant | None = None


class Deliveries:
    """What is owed, per task. A standby's is closed and keeps nothing."""

    def __init__(self, *, is_open: bool, began: Position) -> None:
        self._is_open = is_open
        self._began = began
        self._owed: dict[TaskId, Delivery] = {}
        # What to send when. All of a queue wait equally long, so each is in order; what was settled meanwhile, or has
        # another turn by now, is left over in them and drops out by itself.
        self._turns: dict[int, deque[Turn]] = {wait: deque() for wait in (_AT_ONCE, _RESEND, _RESEND_STOP)}
        self._strays: list[tuple[str, Incarnation, Cancel]] = []
        self._retired: dict[tuple[str, Incarnation], None] = {}

    def owe_assignment(self, record: TaskRecord) -> None:
        """The attempt was just given its slot and has to be sent to its worker."""
        self._owe(record, Delivery(is_stop=False, attempt=record.attempt))

    def owe_again(self, record: TaskRecord) -> None:
        """The attempt may have been sent before: its worker has to say what became of it. It never proves non-delivery."""
        self._owe(record, Delivery(is_stop=False, attempt=record.attempt, is_question=True, copies=1))

    def owe_stop(self, record: TaskRecord) -> None:
        """The attempt has to be stopped."""
        owed = self._owed.get(record.id)
        is_known = owed is not None and not owed.is_stop and self._knows_all_copies(record, owed)
        copies = owed.copies if owed is not None and is_known else None
        self._owe(record, Delivery(is_stop=True, attempt=record.attempt, assigned_copies=copies))

    def stop_stray(self, agent: str, incarnation: Incarnation, cancel: Cancel) -> None:
        """An agent has something that the log does not hold: it is stopped, and again as long as the agent tells of it."""
        if self._is_open:
            self._strays.append((agent, incarnation, cancel))

    def retire(self, agent: str, incarnation: Incarnation) -> None:
        """An incarnation speaks whose name another host has: it has to go, and is told again as long as it speaks."""
        if self._is_open:
            self._retired[agent, incarnation] = None

    def settle(self, task: TaskId) -> None:
        """Nothing is owed for the task any more."""
        self._owed.pop(task, None)

    def settle_assignment(self, task: TaskId) -> None:
        """The assignment was answered; a stop that has come after it is still owed."""
        owed = self._owed.get(task)
        if owed is not None and not owed.is_stop:
            del self._owed[task]

    def settle_delivery(self, task: TaskId) -> None:
        """The log shows that the assignment arrived. It may tell of an incarnation that is gone: a question stays."""
        owed = self._owed.get(task)
        if owed is not None and not owed.is_stop and not owed.is_question:
            del self._owed[task]

    def proves_non_delivery(self, record: TaskRecord, *, by_stop: bool) -> bool:
        """Whether "nobody listened" proves that the assignment cannot have been delivered: it answers the only copy that was
        ever sent, or (`by_stop`) a stop before which none was.
        """
        owed = self._owed.get(record.id)
        if owed is None or owed.attempt != record.attempt:
            return False
        if owed.is_stop:
            return owed.assigned_copies == (0 if by_stop else 1)
        return not by_stop and owed.copies == 1 and self._knows_all_copies(record, owed)

    def stop_acknowledged(self, task: TaskId, now: Instant) -> None:
        """The agent knows that it is to stop the attempt."""
        owed = self._owed.get(task)
        if owed is not None and owed.is_stop:
            self._send_after(_RESEND_STOP, now, task, owed)

    def due(
        self, find: Callable[[TaskId], TaskRecord | None], now: Instant
    ) -> list[SendAssignments | SendCancels | Fault]:
        """What to send now, together per agent; it counts as sent. `find` gives the record of a task.

        One of which nothing can be made is a fault, and is tried again later.
        """
        assigns: dict[tuple[str, Incarnation], list[Assignment]] = {}
        cancels: dict[tuple[str, Incarnation], list[Cancel]] = {}
        for agent, incarnation, cancel in self._strays:
            cancels.setdefault((agent, incarnation), []).append(cancel)
        self._strays.clear()
        sends: list[SendAssignments | SendCancels | Fault] = []
        for task, owed in self._take_turns(now):
            record = find(task)
            # Nobody to send to: a held task's worker has to join first, which owes it anew.
            if record is None or record.worker is None or record.slot is None or record.phase is Phase.HELD:
                continue
            owed.copies += 1
            # Of what was ended by force nobody waits for the answer but a slot.
            self._send_after(_RESEND_STOP if record.has_ended else _RESEND, now, task, owed)
            receiver = (record.worker, record.incarnation)
            try:
                if owed.is_stop:
                    cancels.setdefault(receiver, []).append(_cancel(record))
                else:
                    assigns.setdefault(receiver, []).append(_assignment(record))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one task, the others are sent
                self._send_after(_RESEND_STOP, now, task, owed)
                sends.append(Fault(f"{'stop' if owed.is_stop else 'assignment'} of task {task}", error))
        for (agent, incarnation), each in assigns.items():
            sends += (SendAssignments(agent=agent, incarnation=incarnation, assignments=part) for part in _parts(each))
        for (agent, incarnation), stops in cancels.items():
            sends += (SendCancels(agent=agent, incarnation=incarnation, cancels=part) for part in _parts(stops))
        for agent, incarnation in self._retired:
            sends.append(SendCancels(agent=agent, incarnation=incarnation, cancels=(), retire=REPLACED))
        self._retired.clear()
        return sends

    @property
    def next_deadline(self) -> Instant | None:
        """When the next message has to be sent."""
        if self._strays or self._retired:
            return Instant(0)
        for turns in self._turns.values():
            while turns and not self._is_current(turns[0]):
                turns.popleft()
        return min((turns[0][0] for turns in self._turns.values() if turns), default=None)

    def _knows_all_copies(self, record: TaskRecord, owed: Delivery) -> bool:
        """Whether nobody else can have sent the assignment: it was made after this leader began, and answered by nobody."""
        return not owed.is_question and owed.attempt == record.attempt and record.assigned > self._began

    def _owe(self, record: TaskRecord, delivery: Delivery) -> None:
        if self._is_open:
            self._owed[record.id] = delivery
            self._send_after(_AT_ONCE, NO_INSTANT, record.id, delivery)

    def _send_after(self, wait: int, now: Instant, task: TaskId, owed: Delivery) -> None:
        owed.next_send = Instant(now + wait)
        self._turns[wait].append((owed.next_send, task, owed))

    def _take_turns(self, now: Instant) -> list[tuple[TaskId, Delivery]]:
        """What has its turn, taken off: what was never sent first."""
        taken: list[tuple[TaskId, Delivery]] = []
        for turns in self._turns.values():
            while turns and turns[0][0] <= now:
                turn = turns.popleft()
                if self._is_current(turn):
                    turn[2].next_send = None
                    taken.append((turn[1], turn[2]))
        return taken

    def _is_current(self, turn: Turn) -> bool:
        at, task, owed = turn
        return owed.next_send == at and self._owed.get(task) is owed


def _parts(items: Sequence[T]) -> list[tuple[T, ...]]:
    """Cut what goes to one agent into requests of bounded number and size: a server takes no message of more than 1 MiB."""
    parts: list[list[T]] = []
    size = 0
    for item in items:
        own = _encoded_bytes(item)
        if not parts or len(parts[-1]) == ASSIGNMENTS_PER_REQUEST_MAX or size + own > REQUEST_BYTES_MAX:
            parts.append([])
            size = 0
        parts[-1].append(item)
        size += own
    return list(map(tuple, parts))


def _encoded_bytes(item: Assignment | Cancel) -> int:
    """About how long it is as it is sent: all but the input of a task is short."""
    return _ENVELOPE_BYTES + (len(item.input) if isinstance(item, Assignment) else 0)


def _assignment(record: TaskRecord) -> Assignment:
    assert record.slot is not None
    return Assignment(
        position=record.assigned,
        task=record.id,
        attempt=record.attempt,
        slot=record.slot,
        incarnation=record.assigned_incarnation,
        kind=record.kind,
        input=record.input,
        timeout_seconds=record.timeout_seconds,
        seen=_seen(record),
        repeatable=record.on_lost is OnLost.RETRY and record.tries < record.max_attempts and not record.confirmed,
        apply=record.confirmed,
        plan_attempt=record.plan_attempt,
        traceparent=record.traceparent,
    )


def _seen(record: TaskRecord) -> Seen:
    if record.started_at is not None:
        return SEEN_STARTED
    # A held attempt that is sent again shows as assigned.
    return SEEN_ACCEPTED if record.accepted else SEEN_NEW


def _cancel(record: TaskRecord) -> Cancel:
    assert record.slot is not None
    return Cancel(
        position=record.assigned,
        task=record.id,
        attempt=record.attempt,
        slot=record.slot,
        cause=CAUSE_TIMEOUT if record.stop is Phase.TIMEOUT else CAUSE_CANCEL,
    )
