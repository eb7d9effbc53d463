"""Deciding on commands: what was asked becomes events, or a rejection that says why.

A command whose effect depends on the task's state is appended whenever the task is known: the fold judges it, so that a
race is settled by the order of the log and by nothing else.
"""

from collections.abc import Mapping

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
    TaskCommand,
    may_command,
    may_touch,
)
from taskyard.contracts.events import (
    ApplyConfirmed,
    ApplyDiscarded,
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
    WorkerDrainRequested,
)
from taskyard.contracts.lifecycle import CAUSE_CANCEL
from taskyard.contracts.validation import InvalidCommand, decode_body
from taskyard.contracts.values import CommandId, Role, TaskId, is_name
from taskyard.scheduler.messages import (
    CommandMessage,
    Refused,
    as_refused,
    derived_id,
    given_id,
    lost_worker,
    rejection,
)
from taskyard.scheduler.state import SchedulerState
from taskyard.scheduler.submissions import Submissions, check_age


class Intake:
    """One decision's reading of commands."""

    def __init__(self, state: SchedulerState, roles: Mapping[str, Role]) -> None:
        self.events: list[Event] = []
        self._state = state
        self._roles = roles
        self._submissions = Submissions(state, self.events)
        self._decided: dict[CommandId, Answer | CommandId | TaskId] = {}

    def take(self, message: CommandMessage) -> None:
        """Decide on one command."""
        try:
            # A subject may hold any text. What is no name here would become a pool, and some of it nobody could store.
            if not is_name(message.pool):
                raise Refused(422, "invalid", "pool: must be a name", FieldError(path="pool", message="must be a name"))
            if not may_command(self._roles.get(message.principal, Role.VIEWER), message.verb):
                raise Refused(403, "forbidden", f"{message.principal} may not {message.verb}")
            if message.verb == SUBMIT:
                self._submissions.submit(message)
            else:
                self._command(message)
        except (InvalidCommand, Refused) as error:
            refused, id = as_refused(error), given_id(message)
            if message.verb != SUBMIT:
                if self._is_decided(message, id):
                    return
                self._decided[id] = refused.answer()
            self.events.append(rejection(message, id, refused))
            self._state.answers.expect(message, id, [refused.answer()])

    def _command(self, message: CommandMessage) -> None:
        body = decode_body(message.verb, message.data, message.pool)
        id = CommandId(body.id or derived_id(message, 0))
        if self._is_decided(message, id):
            return
        check_age(self._state.known.commands.window, id, message.at)
        outcome: Answer | CommandId | TaskId = id
        if message.verb == "retry":
            assert isinstance(body, TaskCommand)
            outcome = self._submissions.retry(message, self._touchable(message, body.task), id)
        else:
            self.events.append(self._event(message, body, id))
        self._decided[id] = outcome
        self._state.answers.expect(message, id, [outcome])

    def _is_decided(self, message: CommandMessage, id: CommandId) -> bool:
        """Whether the command was decided before, or by this decision: then its outcome is told again, and no more."""
        decided = self._state.known.commands.get(id) or self._decided.get(id)
        if decided is None:
            return False
        self._state.answers.expect(message, id, [decided])
        return True

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
                if worker.is_lost and not worker.is_draining:
                    raise lost_worker(body.worker)
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


def _required(path: str) -> FieldError:
    return FieldError(path=path, message="is required")
