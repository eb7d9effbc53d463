"""Deciding on commands: what was asked becomes events, or a rejection that says why.

A command whose effect depends on the task's state is appended whenever the task is known: the fold judges it, so that a
race is settled by the order of the log and by nothing else.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from taskyard.contracts.commands import (
    SUBMIT,
    Answer,
    ApprovalCommand,
    Command,
    ConfigurePoolCommand,
    ConfigureQueueCommand,
    DrainCommand,
    LockCommand,
    QueueCommand,
    ReprioritiseCommand,
    TaskBatch,
    TaskCommand,
    TaskSpec,
    may_command,
    may_touch,
)
from taskyard.contracts.events import (
    ApplyConfirmed,
    ApplyDiscarded,
    CommandRejected,
    Event,
    FieldError,
    ForceStopped,
    PoolConfigured,
    QueueConfigured,
    QueueLocked,
    QueuePaused,
    QueueResumed,
    QueueUnlocked,
    TaskReprioritised,
    TaskStopRequested,
    TaskSubmitted,
    WorkerDrainRequested,
)
from taskyard.contracts.kinds import KINDS
from taskyard.contracts.lifecycle import CAUSE_CANCEL
from taskyard.contracts.validation import InvalidCommand, content_digest, decode_body, decode_spec, decode_submission
from taskyard.contracts.values import (
    QUEUE_DEFAULT,
    CommandId,
    Instant,
    Role,
    Status,
    TaskId,
    derive_uuid7,
    digest_bits,
    from_datetime,
    is_name,
    make_uuid7,
)
from taskyard.scheduler.state import SchedulerState

TEXT_CHARACTERS_MAX = 200
ERRORS_MAX = 100
"""What is stored of a refusal: so many characters of a text, so many faults."""

RETRYABLE = frozenset((Status.FAILED, Status.TIMEOUT, Status.CANCELLED))


class CommandMessage(Struct, frozen=True, kw_only=True):
    """A stored command as it was read: who asks for what, when it was stored, and which door waits for the outcome.

    `original` is the submission of the task that a `retry` names, where the log still has it.
    """

    sequence: int
    at: Instant
    principal: str
    pool: str
    verb: str
    data: bytes
    door: str | None = None
    traceparent: str | None = None
    original: TaskSubmitted | None = None


class Refused(Exception):
    """The command is refused; raised inside a decision only, and told as a `CommandRejected`."""

    def __init__(
        self, status: int, code: str, message: str, *errors: FieldError, task_status: Status | None = None
    ) -> None:
        super().__init__(message)
        self.task_status = task_status
        self.status, self.code, self.message = status, code, message[:TEXT_CHARACTERS_MAX]
        # What is refused is stored, and a commit is small: cut what a stranger may have made long.
        self.errors = tuple(
            FieldError(path=error.path[:TEXT_CHARACTERS_MAX], message=error.message[:TEXT_CHARACTERS_MAX])
            for error in errors[:ERRORS_MAX]
        )

    def answer(self) -> Answer:
        """What the door is told."""
        return Answer(
            code=self.status, error=self.code, message=self.message, errors=self.errors, status=self.task_status
        )

    def faults(self, path: str) -> list[FieldError]:
        """The faults as they are told below `path` of a batch."""
        errors = self.errors or (FieldError(path="", message=self.message),)
        return [FieldError(path=f"{path}.{e.path}" if e.path else path, message=e.message) for e in errors]


class Intake:
    """One decision's reading of commands. `accepted` is its overlay: tasks that its own events submit."""

    def __init__(self, state: SchedulerState, roles: Mapping[str, Role]) -> None:
        self.events: list[Event] = []
        self._state = state
        self._roles = roles
        self._accepted: dict[TaskId, str] = {}
        self._waiting: dict[str, int] = {}

    def take(self, message: CommandMessage) -> None:
        """Decide on one command."""
        try:
            # A subject may hold any text. What is no name here would become a pool, and some of it nobody could store.
            if not is_name(message.pool):
                raise Refused(422, "invalid", "pool: must be a name", FieldError(path="pool", message="must be a name"))
            if not may_command(self._roles.get(message.principal, Role.VIEWER), message.verb):
                raise Refused(403, "forbidden", f"{message.principal} may not {message.verb}")
            if message.verb == SUBMIT:
                self._submission(message)
            else:
                self._command(message)
        except (InvalidCommand, Refused) as error:
            refused, id = _as_refused(error), _given_id(message)
            self._reject(message, id, refused)
            self._state.answers.expect(message.door, id, [refused.answer()])

    # -- submissions ---------------------------------------------------------------------------------------------------

    def _submission(self, message: CommandMessage) -> None:
        body = decode_submission(message.data, message.pool)
        if isinstance(body, TaskSpec):
            id = TaskId(body.id or _derived_id(message, 0))
            outcome = self._submit(message, body, id, command=None)
            self._state.answers.expect(message.door, CommandId(id), [outcome])
        else:
            self._batch(message, body)

    def _batch(self, message: CommandMessage, batch: TaskBatch) -> None:
        """Each task is accepted or refused by itself; one event tells of all that were refused."""
        command = CommandId(batch.id or _derived_id(message, -1))
        outcomes: list[Answer | CommandId | TaskId] = []
        faults: list[FieldError] = []
        for index, raw in enumerate(batch.tasks):
            try:
                spec = decode_spec(raw, message.pool)
                id = spec.id or (derive_uuid7(batch.id, str(index)) if batch.id else _derived_id(message, index))
                outcomes.append(self._submit(message, spec, TaskId(id), command=command))
            except (InvalidCommand, Refused) as error:
                refused = _as_refused(error)
                outcomes.append(refused.answer())
                faults += refused.faults(f"tasks[{index}]")
        if faults:
            count = sum(isinstance(outcome, Answer) and outcome.code >= 300 for outcome in outcomes)
            self._reject(message, command, Refused(422, "invalid", f"{count} tasks were refused", *faults))
        self._state.answers.expect(message.door, command, outcomes)

    def _submit(
        self, message: CommandMessage, spec: TaskSpec, id: TaskId, *, command: CommandId | None
    ) -> Answer | TaskId:
        """The outcome that is already known, or the id by which it will be settled."""
        digest = content_digest(spec)
        known = self._state.known.tasks.get(id)
        earlier = known.digest if known is not None else self._accepted.get(id)
        if earlier == digest:
            return id if known is None else Answer(code=202, id=id, position=known.position)
        if earlier is not None:
            raise Refused(409, "id_conflict", "this id is another task's", FieldError(path="id", message="is taken"))
        self._check_age(id, message.at)
        self._check_room(message.pool)
        self._accepted[id] = digest
        self._waiting[message.pool] = self._waiting.get(message.pool, 0) + 1
        self.events.append(_submitted(message, spec, id, digest, command))
        return id

    def _check_age(self, id: str, at: Instant) -> None:
        fault = self._state.known.age_fault(id, at)
        if fault is not None:
            raise Refused(422, "invalid", f"id: {fault}", FieldError(path="id", message=fault))

    def _check_room(self, name: str) -> None:
        pool = self._state.pool(name)
        if pool.waiting + self._waiting.get(name, 0) >= pool.max_waiting:
            raise Refused(429, "pool_full", f"the pool {name} has {pool.max_waiting} waiting tasks, its limit")

    # -- other commands ------------------------------------------------------------------------------------------------

    def _command(self, message: CommandMessage) -> None:
        body = decode_body(message.verb, message.data, message.pool)
        id = CommandId(body.id or _derived_id(message, 0))
        decided = self._state.known.commands.get(id)
        if decided is not None:
            self._state.answers.expect(message.door, id, [decided])
            return
        self._check_age(id, message.at)
        outcome: Answer | CommandId | TaskId = id
        if message.verb == "retry":
            assert isinstance(body, TaskCommand)
            outcome = self._retry(message, body, id)
        else:
            self.events.append(self._event(message, body, id))
        self._state.answers.expect(message.door, id, [outcome])

    def _event(self, message: CommandMessage, body: Command, id: CommandId) -> Event:
        by, pool = message.principal, message.pool
        match message.verb, body:
            case "cancel", TaskCommand():
                task = self._touchable(message, body.task)
                return TaskStopRequested(task=task, cause=CAUSE_CANCEL, by=by, reason=body.reason, command=id)
            case "force-stop", TaskCommand():
                if not body.reason:
                    raise Refused(422, "invalid", "a force-stop needs a reason", _required("reason"))
                task = self._touchable(message, body.task)
                return ForceStopped(task=task, by=by, reason=body.reason, command=id)
            case "confirm" | "discard", ApprovalCommand():
                task = self._touchable(message, body.task)
                event = ApplyConfirmed if message.verb == "confirm" else ApplyDiscarded
                return event(task=task, attempt=self._plan_seen(message, body), by=by, comment=body.comment, command=id)
            case _, ReprioritiseCommand():
                task = self._touchable(message, body.task)
                return TaskReprioritised(task=task, priority=body.priority, by=by, command=id)
            case _, ConfigurePoolCommand():
                return PoolConfigured(
                    pool=pool,
                    by=by,
                    command=id,
                    max_waiting=body.max_waiting,
                    approval_timeout_seconds=body.approval_timeout_seconds,
                    placement=body.placement,
                )
            case _, ConfigureQueueCommand():
                return QueueConfigured(pool=pool, queue=body.queue, by=by, command=id, max_running=body.max_running)
            case verb, QueueCommand():
                pause = QueuePaused if verb == "pause" else QueueResumed
                return pause(pool=pool, queue=body.queue, by=by, reason=body.reason, command=id)
            case verb, LockCommand():
                lock = QueueLocked if verb == "lock" else QueueUnlocked
                return lock(pool=pool, queue=body.queue, by=by, reason=body.reason, command=id)
            case _, DrainCommand():
                worker = self._state.fleet.workers.get(body.worker)
                if worker is None or worker.pool != pool:
                    raise Refused(404, "not_found", f"no worker {body.worker} in pool {pool}")
                return WorkerDrainRequested(pool=pool, worker=body.worker, by=by, reason=body.reason, command=id)
            case _:
                raise AssertionError(f"no decision for {message.verb}")

    def _touchable(self, message: CommandMessage, task: str) -> TaskId:
        """The task's id, if the principal may command it."""
        known = self._state.known.tasks.get(TaskId(task))
        record = self._state.tasks.live.get(TaskId(task))
        by = record.submitted_by if record is not None else known.by if known is not None else None
        if by is None or (record is not None and record.pool != message.pool):
            raise Refused(404, "not_found", f"no task {task} in pool {message.pool}")
        if not may_touch(self._roles.get(message.principal, Role.VIEWER), message.principal, by):
            raise Refused(403, "forbidden", f"the task is {by}'s")
        return TaskId(task)

    def _plan_seen(self, message: CommandMessage, body: ApprovalCommand) -> int:
        """The attempt whose plan the answer is for. One that names none counts for the plan of its own time."""
        if body.attempt is not None:
            return body.attempt
        record = self._state.tasks.live.get(TaskId(body.task))
        if record is None:
            known = self._state.known.tasks.get(TaskId(body.task))
            return (known.plan_confirmed if known is not None else None) or 0
        if record.planned_at is not None and record.planned_at > message.at:
            raise Refused(409, "plan_changed", "there is another plan now; look at it first")
        return record.plan_attempt or 0

    def _retry(self, message: CommandMessage, body: TaskCommand, id: CommandId) -> Answer | TaskId:
        """A new task like the old one; its id follows from the command's, so that it is made once."""
        new_id = TaskId(derive_uuid7(id, "retry"))
        made = self._state.known.tasks.get(new_id)
        if made is not None:
            return Answer(code=202, id=new_id, position=made.position)
        task = self._touchable(message, body.task)
        known = self._state.known.tasks.get(task)
        record = self._state.tasks.live.get(task)
        status = record.status if record is not None else known.ended if known is not None else None
        if status not in RETRYABLE:
            allowed = ", ".join(sorted(RETRYABLE))
            raise Refused(
                409, "status_forbids", f"the task is {status}; only {allowed} can be retried", task_status=status
            )
        if message.original is None:
            raise Refused(404, "not_found", f"the log no longer has the submission of {task}")
        if new_id not in self._accepted:
            self._check_room(message.pool)
            self._accepted[new_id] = message.original.digest
            self.events.append(
                msgspec.structs.replace(
                    message.original,
                    task=new_id,
                    by=message.principal,
                    retry_of=task,
                    command=id,
                    not_before=None,
                    traceparent=message.traceparent,
                )
            )
        return new_id

    # -- refusing ------------------------------------------------------------------------------------------------------

    def _reject(self, message: CommandMessage, command: CommandId, refused: Refused) -> None:
        self.events.append(
            CommandRejected(
                command=command,
                verb=message.verb[:64],
                by=message.principal,
                pool=message.pool[:64],
                status=refused.status,
                code=refused.code,
                message=refused.message,
                errors=refused.errors,
            )
        )


def _as_refused(error: InvalidCommand | Refused) -> Refused:
    return error if isinstance(error, Refused) else Refused(422, "invalid", str(error), *error.errors)


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
        exclusive=kind.exclusive,
        on_lost=kind.on_lost,
        auto_confirm=kind.exclusive and bool(msgspec.json.decode(spec.input, type=_AutoConfirm).auto_confirm),
        labels=spec.labels,
        not_before=from_datetime(spec.not_before) if spec.not_before is not None else None,
        schedule_to_start_timeout_seconds=spec.schedule_to_start_timeout_seconds,
        command=command,
        traceparent=message.traceparent,
    )


class _AutoConfirm(Struct):
    auto_confirm: bool = False


class _GivenId(Struct):
    id: Any = None


def _given_id(message: CommandMessage) -> CommandId:
    """The id that a refused command bears, as far as it can be read, so that who sent it finds the refusal."""
    try:
        given = msgspec.json.decode(message.data, type=_GivenId).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        given = None
    return CommandId(given if isinstance(given, str) and len(given) <= 64 else _derived_id(message, -1))


def _derived_id(message: CommandMessage, index: int) -> str:
    """The id of what came without one: the same whenever the stored message is read again."""
    return make_uuid7(message.at, digest_bits(f"{message.sequence}/{index}/{message.at}"))


def _required(path: str) -> FieldError:
    return FieldError(path=path, message="is required")
