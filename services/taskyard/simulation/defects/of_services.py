"""Defects of the three machines: what may run, where, and what agents are told."""

# pyright: reportPrivateUsage=none

from typing import Any

import taskyard.scheduler.state as scheduler_state
import taskyard.slot_allocator.decide as allocating
import taskyard.slot_allocator.placement as placement
from taskyard.contracts.commands import Answer
from taskyard.contracts.lifecycle import Phase
from taskyard.contracts.values import TaskId
from taskyard.dispatcher.decide import _Attempts
from taskyard.dispatcher.delivery import Deliveries
from taskyard.scheduler.admission import Admission
from taskyard.scheduler.known import KnownCommands
from taskyard.scheduler.state import SchedulerState
from taskyard.scheduler.verbs import View
from taskyard.simulation.defects.patching import Replace

# -- the scheduler -----------------------------------------------------------------------------------------------------


def _no_holder_after_retry(replace: Replace) -> None:
    """A workspace is free while its task waits to be tried again."""
    changed = SchedulerState._task_changed

    def forgets(self: Any, change: Any, record: Any) -> None:
        changed(self, change, record)
        if record.phase is Phase.PENDING and self.workspaces.leave(record):
            self.agenda.reopen(record.pool, record.queue)

    replace(SchedulerState, "_task_changed", forgets)


def _workspaces_are_shared(replace: Replace) -> None:
    """The scheduler does not look who has a workspace."""
    replace(Admission, "_is_unlocked", lambda self, queue, locking: not (queue.is_paused or queue.is_locked))


def _limits_are_passed(replace: Replace) -> None:
    """The scheduler does not look how many tasks of a queue run."""
    replace(Admission, "_is_open", Admission._is_unlocked)


def _forgets_ids(replace: Replace) -> None:
    """Nobody remembers which commands were decided."""
    replace(KnownCommands, "remember", lambda *_: None)


def _forgets_workspaces_taken(replace: Replace) -> None:
    """The scheduler forgets which workspaces it has given within one decision."""
    schedule = Admission._schedule

    def forgetful(self: Any, *chosen: Any) -> None:
        schedule(self, *chosen)
        self._holders.clear()

    replace(Admission, "_schedule", forgetful)


def _fills_what_it_closes(replace: Replace) -> None:
    """What one decision pauses or locks is filled by the same decision."""
    begin = Admission.__init__

    def careless(self: Any, *arguments: Any) -> None:
        begin(self, *arguments)
        self._closed = set()

    replace(Admission, "__init__", careless)


def _answers_without_verdict(replace: Replace) -> None:
    """Doors are told that a command took effect, whatever the fold says."""

    def hopeful(event: Any, _changes: Any, _known: Any, position: Any) -> Answer:
        return Answer(code=202, id=getattr(event, "task", None), position=position)

    replace(scheduler_state, "answer_of", hopeful)


def _confirms_what_is_shown_now(replace: Replace) -> None:
    """An answer that names no attempt counts for the plan that is shown when it is decided, though it is older."""

    def careless(self: Any, _message: Any, body: Any) -> int:
        record = self.state.tasks.live.get(TaskId(body.task))
        return body.attempt or (record.plan_attempt if record is not None else 0) or 0

    replace(View, "plan_seen", careless)


# -- the slot allocator ------------------------------------------------------------------------------------------------


def _gives_busy_slots(replace: Replace) -> None:
    """The allocator does not look whether a slot is busy, and forgets what it has given within one decision."""

    def is_idle(entry: Any, fleet: Any, _: Any) -> bool:
        worker = fleet.workers.get(entry[2])
        return worker is not None and worker.incarnation == entry[3] and worker.takes_tasks

    replace(placement, "_is_idle", is_idle)


def _gives_what_it_takes_away(replace: Replace) -> None:
    """A decision that lets workers come and go gives their slots as if nothing of that had been decided."""

    class Nothing:
        """No event is one."""

    for name in ("WorkerJoined", "WorkerLost", "WorkerSuspected"):
        replace(allocating, name, Nothing)


# -- the dispatcher ----------------------------------------------------------------------------------------------------


def _trusts_any_silence(replace: Replace) -> None:
    """That nobody listened to a second copy is taken as a proof that the first was not delivered."""

    def proves(self: Any, record: Any, **_: Any) -> bool:
        owed = self._owed.get(record.id)
        return owed is not None and not owed.is_stop

    replace(Deliveries, "proves_non_delivery", proves)


def _trusts_silence_to_others(replace: Replace) -> None:
    """A leader takes silence for a proof also where an earlier leader may have sent a copy."""
    replace(Deliveries, "owe_again", Deliveries.owe_assignment)
    replace(Deliveries, "_knows_all_copies", lambda self, record, owed: owed.attempt == record.attempt)


def _sends_once(replace: Replace) -> None:
    """What is not answered is not sent again."""
    send_after = Deliveries._send_after

    def at_once_or_never(self: Any, wait: int, *more: Any) -> None:
        if not wait:
            send_after(self, wait, *more)

    replace(Deliveries, "_send_after", at_once_or_never)


def _believes_anybody(replace: Replace) -> None:
    """The dispatcher does not look which agent reports."""
    report = _Attempts._report

    def trusting(self: Any, agent: str, said: Any, *more: Any) -> None:
        record = self._state.tasks.live.get(said.task)
        report(self, agent if record is None else record.worker, said, *more)

    replace(_Attempts, "_report", trusting)


DEFECTS = {
    "no-holder-after-retry": _no_holder_after_retry,
    "workspaces-are-shared": _workspaces_are_shared,
    "limits-are-passed": _limits_are_passed,
    "forgets-ids": _forgets_ids,
    "forgets-workspaces-taken": _forgets_workspaces_taken,
    "fills-what-it-closes": _fills_what_it_closes,
    "answers-without-verdict": _answers_without_verdict,
    "confirms-what-is-shown-now": _confirms_what_is_shown_now,
    "gives-busy-slots": _gives_busy_slots,
    "gives-what-it-takes-away": _gives_what_it_takes_away,
    "trusts-any-silence": _trusts_any_silence,
    "trusts-silence-to-others": _trusts_silence_to_others,
    "sends-once": _sends_once,
    "believes-anybody": _believes_anybody,
}
