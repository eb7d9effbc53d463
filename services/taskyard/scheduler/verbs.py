"""What each verb about what there is becomes: one decision for each, by its own name.

`submit` and `retry` make tasks and are decided by `Submissions`. A verb is never told by the form of its body: two verbs
share a form and ask for opposite things.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from taskyard.contracts.commands import (
    ApprovalCommand,
    ConfigurePoolCommand,
    ConfigureQueueCommand,
    DrainCommand,
    LockCommand,
    QueueCommand,
    ReprioritiseCommand,
    TaskCommand,
    may_touch,
)
from taskyard.contracts.events import (
    ApplyConfirmed,
    ApplyDiscarded,
    AttemptReleased,
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
from taskyard.contracts.lifecycle import CAUSE_CANCEL
from taskyard.contracts.nearest import nearest
from taskyard.contracts.values import POOL_DEFAULT, CommandId, Role, TaskId
from taskyard.contracts.verbs import SUBMIT, VERBS
from taskyard.scheduler.messages import CommandMessage, Refused, lost_worker
from taskyard.scheduler.state import SchedulerState

RETRY = "retry"
CONFIGURE_POOL = "configure-pool"


class VerbsDiffer(Exception):
    """A verb has a row in the table and no decision, or the other way round. The program must not start; its code is wrong."""


class View:
    """What a decision looks at: the folded state, what each principal may do, and what this decision has chosen so far."""

    def __init__(self, state: SchedulerState, roles: Mapping[str, Role], decided: Sequence[Event]) -> None:
        self.state = state
        self._roles = roles
        self._decided = decided

    def role(self, principal: str) -> Role:
        """The role of a principal; whoever is unknown may only look."""
        return self._roles.get(principal, Role.VIEWER)

    def require_pool(self, name: str) -> None:
        """A pool comes to be by `configure-pool` or with its first worker, and by nothing else.

        Raises:
            Refused: there is no such pool.
        """
        if self.state.has_pool(name) or any(isinstance(e, PoolConfigured) and e.pool == name for e in self._decided):
            return
        message = f"there is no pool {name}{nearest(name, (POOL_DEFAULT, *self.state.pools))}"
        raise Refused(422, "invalid", f"pool: {message}", FieldError(path="pool", message=message))

    def require_queue(self, pool: str, body: ConfigureQueueCommand | QueueCommand | LockCommand) -> None:
        """A queue comes to be with its first task, or because the command says so.

        Raises:
            Refused: there is no such queue.
        """
        name, names = body.queue, self.state.queue_names
        if name is None or body.create or names.has(pool, name):
            return
        # A workspace is one in all pools, and so is its lock.
        if isinstance(body, LockCommand) and any(names.has(other, name) for other in self.state.pools):
            return
        if any(isinstance(e, _NAMING) and (e.pool, e.queue) == (pool, name) for e in self._decided):
            return
        message = f"there is no queue {name} in pool {pool}{nearest(name, names.of_pool(pool))}"
        raise Refused(
            404, "not_found", message, FieldError(path="queue", message=f"{message}; `create: true` makes it")
        )

    def touchable(self, message: CommandMessage, task: str) -> TaskId:
        """The task's id, if the principal may command it.

        Raises:
            Refused: there is no such task, or it is another's, which is not told: both are answered alike.
        """
        known = self.state.known.tasks.get(TaskId(task))
        record = self.state.tasks.live.get(TaskId(task))
        by = record.submitted_by if record is not None else known.by if known is not None else None
        is_elsewhere = record is not None and record.pool != message.pool
        if by is None or is_elsewhere or not may_touch(self.role(message.principal), message.principal, by):
            raise Refused(404, "not_found", f"no task {task} in pool {message.pool}")
        return TaskId(task)

    def plan_seen(self, message: CommandMessage, body: ApprovalCommand) -> int:
        """The attempt whose plan the answer is for. One that names none counts for the plan that was there when it was
        stored: places in the stream of commands tell that, and no clock.

        Raises:
            Refused: there is a newer plan.
        """
        if body.attempt is not None:
            return body.attempt
        record = self.state.tasks.live.get(TaskId(body.task))
        if record is None:
            known = self.state.known.tasks.get(TaskId(body.task))
            return (known.plan_confirmed if known is not None else None) or 0
        before = record.commands_before
        if before is not None and not before.is_before(message.stream, message.sequence):
            raise Refused(409, "plan_changed", "there is another plan now: look at it, and name its attempt")
        return record.plan_attempt or 0


_NAMING = TaskSubmitted | QueueConfigured | QueuePaused | QueueLocked

Decide = Callable[[View, CommandMessage, Any, CommandId], Event]
"""Decides on a command whose body, of the verb's own form, has been read. Raises `Refused`."""


def _cancel(view: View, message: CommandMessage, body: TaskCommand, id: CommandId) -> Event:
    return TaskStopRequested(
        task=view.touchable(message, body.task),
        cause=CAUSE_CANCEL,
        by=message.principal,
        reason=body.reason,
        command=id,
    )


def _force_stop(view: View, message: CommandMessage, body: TaskCommand, id: CommandId) -> Event:
    task = view.touchable(message, body.task)
    return ForceStopped(task=task, by=message.principal, reason=body.reason, command=id)


def _release(view: View, message: CommandMessage, body: TaskCommand, id: CommandId) -> Event:
    task = view.touchable(message, body.task)
    record = view.state.tasks.live.get(task)
    attempt = record.attempt if record is not None else 0
    return AttemptReleased(task=task, attempt=attempt, by=message.principal, reason=body.reason, command=id)


def _confirm(view: View, message: CommandMessage, body: ApprovalCommand, id: CommandId) -> Event:
    return ApplyConfirmed(
        task=view.touchable(message, body.task),
        attempt=view.plan_seen(message, body),
        by=message.principal,
        comment=body.comment,
        command=id,
    )


def _discard(view: View, message: CommandMessage, body: ApprovalCommand, id: CommandId) -> Event:
    return ApplyDiscarded(
        task=view.touchable(message, body.task),
        attempt=view.plan_seen(message, body),
        by=message.principal,
        comment=body.comment,
        command=id,
    )


def _reprioritise(view: View, message: CommandMessage, body: ReprioritiseCommand, id: CommandId) -> Event:
    task = view.touchable(message, body.task)
    return TaskReprioritised(task=task, priority=body.priority, by=message.principal, command=id)


def _configure_pool(_: View, message: CommandMessage, body: ConfigurePoolCommand, id: CommandId) -> Event:
    return PoolConfigured(
        pool=message.pool,
        by=message.principal,
        command=id,
        max_waiting=body.max_waiting,
        approval_timeout_seconds=body.approval_timeout_seconds,
        placement=body.placement,
    )


def _configure_queue(view: View, message: CommandMessage, body: ConfigureQueueCommand, id: CommandId) -> Event:
    view.require_queue(message.pool, body)
    return QueueConfigured(
        pool=message.pool, queue=body.queue, by=message.principal, command=id, max_running=body.max_running
    )


def _pause(view: View, message: CommandMessage, body: QueueCommand, id: CommandId) -> Event:
    view.require_queue(message.pool, body)
    return QueuePaused(pool=message.pool, queue=body.queue, by=message.principal, reason=body.reason, command=id)


def _resume(view: View, message: CommandMessage, body: QueueCommand, id: CommandId) -> Event:
    view.require_queue(message.pool, body)
    return QueueResumed(pool=message.pool, queue=body.queue, by=message.principal, reason=body.reason, command=id)


def _lock(view: View, message: CommandMessage, body: LockCommand, id: CommandId) -> Event:
    view.require_queue(message.pool, body)
    return QueueLocked(pool=message.pool, queue=body.queue, by=message.principal, reason=body.reason, command=id)


def _unlock(view: View, message: CommandMessage, body: LockCommand, id: CommandId) -> Event:
    view.require_queue(message.pool, body)
    return QueueUnlocked(pool=message.pool, queue=body.queue, by=message.principal, reason=body.reason, command=id)


def _drain(view: View, message: CommandMessage, body: DrainCommand, id: CommandId) -> Event:
    worker = view.state.fleet.workers.get(body.worker)
    if worker is None or worker.pool != message.pool:
        raise Refused(404, "not_found", f"no worker {body.worker} in pool {message.pool}")
    if worker.is_lost and not worker.is_draining:
        raise lost_worker(body.worker)
    return WorkerDrainRequested(
        pool=message.pool, worker=body.worker, by=message.principal, reason=body.reason, command=id
    )


DECISIONS: dict[str, Decide] = {
    "cancel": _cancel,
    "force-stop": _force_stop,
    "release": _release,
    "confirm": _confirm,
    "discard": _discard,
    "reprioritise": _reprioritise,
    CONFIGURE_POOL: _configure_pool,
    "configure-queue": _configure_queue,
    "pause": _pause,
    "resume": _resume,
    "lock": _lock,
    "unlock": _unlock,
    "drain": _drain,
}


def check_verbs(verbs: Iterable[str] = VERBS, decisions: Iterable[str] = (SUBMIT, RETRY, *DECISIONS)) -> None:
    """Every verb of the table is decided, and no other.

    Raises:
        VerbsDiffer: it is not so.
    """
    differ = sorted(set(verbs) ^ set(decisions))
    if differ:
        raise VerbsDiffer(f"verbs without a row or without a decision: {', '.join(differ)}")
