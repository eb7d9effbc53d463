"""Deciding on submissions: ids, room, and what a new task is. A retry is a submission like that of the old task."""

import re

import msgspec

from taskyard.contracts.commands import COMMAND_BYTES_MAX, Answer, TaskBatch, TaskSpec
from taskyard.contracts.events import Event, FieldError, TaskSubmitted
from taskyard.contracts.kinds import KINDS, confirms_itself
from taskyard.contracts.validation import InvalidCommand, content_digest, decode_spec, decode_submission
from taskyard.contracts.values import (
    QUEUE_DEFAULT,
    CommandId,
    Status,
    TaskId,
    derive_uuid7,
    from_datetime,
)
from taskyard.scheduler.id_window import Window
from taskyard.scheduler.messages import (
    UNAVAILABLE,
    CommandMessage,
    Refused,
    as_refused,
    derived_id,
    id_conflict,
    rejection,
    too_large,
)
from taskyard.scheduler.refusals import Refusals
from taskyard.scheduler.state import SchedulerState

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

ANSWER_BYTES_MAX = 128 * 1024
"""So long are the reasons of one batch's refusals that its door is told; behind them, only that it was refused."""

RETRYABLE = frozenset((Status.FAILED, Status.TIMEOUT, Status.CANCELLED))


class Submissions:
    """One decision's new tasks. `_accepted` and `_waiting` are its overlay: what its own events submit."""

    def __init__(self, state: SchedulerState, events: list[Event]) -> None:
        self._state = state
        self._events = events
        self._accepted: dict[TaskId, str] = {}
        self._waiting: dict[str, int] = {}
        self.bytes_beyond = 0
        """What the tasks and the refusals add to the commit beyond the length of their commands."""

    def mark(self) -> tuple[int, int]:
        """Where this decision stands, for `take_back`."""
        return len(self._events), len(self._accepted)

    def take_back(self, mark: tuple[int, int], pool: str) -> None:
        """The one command that came since the mark, for `pool`, is not accepted after all."""
        events, accepted = mark
        del self._events[events:]
        while len(self._accepted) > accepted:
            self._accepted.popitem()
            self._waiting[pool] -= 1

    # -- submissions ---------------------------------------------------------------------------------------------------

    def submit(self, message: CommandMessage) -> None:
        """Decide on a `submit`.

        Raises:
            InvalidCommand: it cannot be read as a whole.
            Refused: its one task is refused.
        """
        body = decode_submission(message.data, message.pool)
        if isinstance(body, TaskSpec):
            id = TaskId(body.id or derived_id(message, 0))
            outcome = self._submit(message, body, id, command=None)
            self.bytes_beyond += max(0, len(bytes(body.input)) - len(message.data))
            self._state.answers.expect(message, CommandId(id), [outcome])
        else:
            self._batch(message, body)

    def _batch(self, message: CommandMessage, batch: TaskBatch) -> None:
        """Each task is accepted or refused by itself; one event tells of all that were refused."""
        command = CommandId(batch.id or derived_id(message, -1))
        outcomes: list[Answer | CommandId | TaskId] = []
        faults: list[FieldError] = []
        room, refusals = Room(), Refusals(batch.tasks, has_id=batch.id is not None)
        for index, raw in enumerate(batch.tasks):
            try:
                spec = decode_spec(raw, message.pool)
                room.take(spec)
                id = spec.id or (derive_uuid7(batch.id, str(index)) if batch.id else derived_id(message, index))
                outcomes.append(self._submit(message, spec, TaskId(id), command=command))
            except (InvalidCommand, Refused) as error:
                refused = as_refused(error)
                outcomes.append(room.answer(refused))
                refusals.add(index, refused)
                faults += refused.faults(f"tasks[{index}]")
        is_counted = False
        if faults:
            count = sum(isinstance(outcome, Answer) and outcome.code >= 300 for outcome in outcomes)
            refused = Refused(422, "invalid", f"{count} tasks were refused", *faults)
            event = rejection(message, command, refused, refusals.gathered())
            is_counted = not self._state.counting.writes(event, message, self._state.refusal_shares)
            if not is_counted:
                self.bytes_beyond += len(msgspec.json.encode(event))
                self._events.append(event)
        self.bytes_beyond += max(0, room.stored_bytes - len(message.data))
        self._state.answers.expect(message, command, outcomes, is_counted=is_counted)

    def _submit(
        self, message: CommandMessage, spec: TaskSpec, id: TaskId, *, command: CommandId | None
    ) -> Answer | TaskId:
        """The outcome that is already known, or the id by which it will be settled."""
        digest = content_digest(spec, message.pool)
        known = self._state.known.tasks.get(id)
        earlier = known.digest if known is not None else self._accepted.get(id)
        if earlier == digest:
            return id if known is None else Answer(code=202, id=id, position=known.position)
        if earlier is not None:
            raise id_conflict("task")
        check_age(self._state.known.tasks.window, id, message)
        if id in self._state.tasks.live:  # its author's many later ones made it be forgotten
            raise id_conflict("task")
        self._check_room(message.pool)
        self._accept(id, digest, message.pool)
        self._events.append(_submitted(message, spec, id, digest, command))
        return id

    def retry(self, message: CommandMessage, task: TaskId, id: CommandId, asked: str) -> Answer | TaskId:
        """A new task like the old one; its id follows from the command's, so that it is made once.

        Raises:
            Refused: the old task cannot be retried.
        """
        new_id = TaskId(derive_uuid7(id, "retry"))
        made = self._state.known.tasks.get(new_id)
        if made is not None:
            return Answer(code=202, id=new_id, position=made.position)
        known = self._state.known.tasks.get(task)
        record = self._state.tasks.live.get(task)
        status = record.status if record is not None else known.ended if known is not None else None
        if status not in RETRYABLE:
            allowed = ", ".join(sorted(RETRYABLE))
            raise Refused(
                409, "status_forbids", f"the task is {status}; only {allowed} can be retried", task_status=status
            )
        if message.original_is_away:
            raise Refused(
                503, UNAVAILABLE, f"the submission of {task} cannot be read from the log now; try again later"
            )
        if message.original is None:
            raise Refused(404, "not_found", f"the log no longer has the submission of {task}")
        if new_id not in self._accepted:
            self._check_room(message.pool)
            self._accept(new_id, message.original.digest, message.pool)
            self._events.append(
                msgspec.structs.replace(
                    message.original,
                    task=new_id,
                    by=message.principal,
                    retry_of=task,
                    command=id,
                    asked=asked,
                    not_before=None,
                    traceparent=_traceparent(message),
                )
            )
        return new_id

    def _accept(self, id: TaskId, digest: str, pool: str) -> None:
        self._waiting[pool] = self._waiting.get(pool, 0) + 1
        self._accepted[id] = digest

    def _check_room(self, name: str) -> None:
        pool = self._state.pool(name)
        if pool.waiting + self._waiting.get(name, 0) >= pool.waiting_max:
            raise Refused(429, "pool_full", f"the pool {name} has {pool.waiting_max} waiting tasks, its limit")


class Room:
    """What is left of one batch's share: of a commit for its inputs, which may be stored longer than they came in, and of
    a message to its door for the reasons of its refusals.
    """

    def __init__(self) -> None:
        self.stored_bytes = 0
        self._answer_bytes = ANSWER_BYTES_MAX

    def take(self, spec: TaskSpec) -> None:
        """One more task.

        Raises:
            Refused: the inputs are together too long.
        """
        if self.stored_bytes + len(bytes(spec.input)) > COMMAND_BYTES_MAX:
            raise too_large()
        self.stored_bytes += len(bytes(spec.input))

    def answer(self, refused: Refused) -> Answer:
        """What the door is told of a refusal."""
        answer = refused.answer()
        self._answer_bytes -= len(msgspec.json.encode(answer))
        if self._answer_bytes >= 0:
            return answer
        return Answer(code=refused.status, error=refused.code, message="send it by itself to learn why")


def check_age(window: Window, id: str, message: CommandMessage) -> None:
    """An id of a command or task must be of about the time when it came.

    Raises:
        Refused: it is too old, or ahead.
    """
    fault = window.age_fault(id, message.principal, message.at)
    if fault is not None:
        raise Refused(422, "invalid", f"id: {fault}", FieldError(path="id", message=fault))


def _submitted(
    message: CommandMessage, spec: TaskSpec, id: TaskId, digest: str, command: CommandId | None
) -> TaskSubmitted:
    kind = KINDS[spec.kind]
    return TaskSubmitted(
        task=id,
        kind=spec.kind,
        pool=message.pool,
        queue=spec.queue or QUEUE_DEFAULT,
        by=message.principal,
        input=spec.input,
        digest=digest,
        timeout_seconds=spec.timeout_seconds or kind.timeout_seconds,
        priority=spec.priority,
        max_attempts=spec.max_attempts or kind.max_attempts,
        retry_delays_seconds=kind.retry_delays_seconds,
        lock=kind.lock,
        approval=kind.approval,
        on_lost=kind.on_lost,
        auto_confirm=confirms_itself(kind, spec.input),
        labels=spec.labels,
        not_before=from_datetime(spec.not_before) if spec.not_before is not None else None,
        schedule_to_start_timeout_seconds=spec.schedule_to_start_timeout_seconds,
        command=command,
        traceparent=_traceparent(message),
    )


def _traceparent(message: CommandMessage) -> str | None:
    """The trace context where it is one: it is stored with each task of a command, and a stranger may make it long."""
    text = message.traceparent
    return text if text is not None and _TRACEPARENT.fullmatch(text) else None
