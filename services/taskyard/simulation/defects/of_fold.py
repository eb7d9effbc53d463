"""Defects of the fold that all share: what an event means for a task."""

# pyright: reportPrivateUsage=none

from typing import Any

import msgspec

import taskyard.contracts.lifecycle.dispatcher as of_dispatcher
import taskyard.contracts.lifecycle.endings as endings
import taskyard.contracts.lifecycle.slot_allocator as of_allocator
import taskyard.contracts.lifecycle.transitions as transitions
import taskyard.contracts.tasks as tasks
import taskyard.dispatcher.decide as dispatching
from taskyard.contracts.fleet import Fleet
from taskyard.contracts.kind import OnLost
from taskyard.contracts.lifecycle import Phase, Verdict
from taskyard.contracts.values import Instant
from taskyard.simulation.defects.patching import Replace


def _any_attempt_counts(replace: Replace) -> None:
    """The fold does not look which attempt an event is about."""
    fold = transitions.fold

    def careless(record: Any, event: Any, at: Instant, position: Any) -> Verdict:
        if getattr(event, "attempt", None) is not None and type(event).__name__ != "SlotAssigned":
            event = msgspec.structs.replace(event, attempt=record.attempt)
        return fold(record, event, at, position)

    replace(tasks, "fold", careless)


def _applies_unasked(replace: Replace) -> None:
    """A plan is applied without a confirmation."""
    fold = transitions.fold

    def hasty(record: Any, event: Any, at: Instant, position: Any) -> Verdict:
        verdict = fold(record, event, at, position)
        if record.phase is Phase.APPLY_PENDING:
            record.phase, record.confirmed = Phase.SCHEDULED, True
        return verdict

    replace(tasks, "fold", hasty)


def _ends_are_not_final(replace: Replace) -> None:
    """A task that has no try left is tried again."""
    try_again_or_fail = endings.try_again_or_fail

    def tries_on(record: Any, *more: Any, **delay: Any) -> Verdict:
        record.tries = min(record.tries, record.max_attempts - 1)
        return try_again_or_fail(record, *more, **delay)

    for module in (of_allocator, of_dispatcher):
        replace(module, "try_again_or_fail", tries_on)


def _attempts_begin_again(replace: Replace) -> None:
    """A task that is tried again has its attempts numbered from one."""
    leave_worker = endings.leave_worker

    def forgetful(record: Any) -> None:
        leave_worker(record)
        record.attempt = 0

    replace(endings, "leave_worker", forgetful)


def _slots_take_anything(replace: Replace) -> None:
    """Any slot takes what its worker can run."""
    joined = Fleet._joined

    def careless(self: Any, event: Any) -> None:
        joined(self, msgspec.structs.replace(event, slots=(("any",),) * len(event.slots)))

    replace(Fleet, "_joined", careless)


def _holds_nothing(replace: Replace) -> None:
    """What a lost worker had is tried elsewhere at once, whatever its kind."""
    lost = transitions.worker_lost

    def retries(record: Any, event: Any, at: Instant) -> Verdict:
        kept, record.on_lost = record.on_lost, OnLost.RETRY
        verdict = lost(record, event, at)
        record.on_lost = kept
        return verdict

    replace(transitions, "worker_lost", retries)


def _reserves_what_is_gone(replace: Replace) -> None:
    """A plan keeps its reserved slot when its worker comes back without it, and its apply is offered there for ever."""
    replace(of_allocator, "_has_slot", lambda *_: True)
    replace(dispatching, "_FOR_GOOD", frozenset[str]())


def _forgets_drains(replace: Replace) -> None:
    """A drained worker that is lost and comes back as it was takes tasks again."""
    joined = Fleet._joined

    def forgetful(self: Any, event: Any) -> None:
        earlier = self.workers.get(event.worker)
        if earlier is not None and earlier.is_lost:
            earlier.is_draining = False
        joined(self, event)

    replace(Fleet, "_joined", forgetful)


DEFECTS = {
    "any-attempt-counts": _any_attempt_counts,
    "applies-unasked": _applies_unasked,
    "ends-are-not-final": _ends_are_not_final,
    "attempts-begin-again": _attempts_begin_again,
    "slots-take-anything": _slots_take_anything,
    "holds-nothing": _holds_nothing,
    "reserves-what-is-gone": _reserves_what_is_gone,
    "forgets-drains": _forgets_drains,
}
