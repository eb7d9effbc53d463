"""Defects of the fold that all share: what an event means for a task."""

# pyright: reportPrivateUsage=none

from typing import Any

import msgspec

import taskyard.contracts.lifecycle as lifecycle
import taskyard.contracts.tasks as tasks
from taskyard.contracts.fleet import Fleet
from taskyard.contracts.kinds import OnLost
from taskyard.contracts.lifecycle import Phase, Verdict
from taskyard.contracts.values import Instant
from taskyard.simulation.defects.patching import Replace


def _any_attempt_counts(replace: Replace) -> None:
    """The fold does not look which attempt an event is about."""
    fold = lifecycle.fold

    def careless(record: Any, event: Any, at: Instant, position: Any) -> Verdict:
        if getattr(event, "attempt", None) is not None and type(event).__name__ != "SlotAssigned":
            event = msgspec.structs.replace(event, attempt=record.attempt)
        return fold(record, event, at, position)

    replace(tasks, "fold", careless)


def _applies_unasked(replace: Replace) -> None:
    """A plan is applied without a confirmation."""
    fold = lifecycle.fold

    def hasty(record: Any, event: Any, at: Instant, position: Any) -> Verdict:
        verdict = fold(record, event, at, position)
        if record.phase is Phase.APPLY_PENDING:
            record.phase, record.confirmed = Phase.SCHEDULED, True
        return verdict

    replace(tasks, "fold", hasty)


def _holds_nothing(replace: Replace) -> None:
    """What a lost worker had is tried elsewhere at once, whatever its kind."""
    lost = lifecycle._worker_lost

    def retries(record: Any, event: Any, at: Instant) -> Verdict:
        kept, record.on_lost = record.on_lost, OnLost.RETRY
        verdict = lost(record, event, at)
        record.on_lost = kept
        return verdict

    replace(lifecycle, "_worker_lost", retries)


def _reserves_what_is_gone(replace: Replace) -> None:
    """A plan keeps its reserved slot when its worker comes back without that slot."""
    replace(lifecycle, "_has_slot", lambda *_: True)


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
    "holds-nothing": _holds_nothing,
    "reserves-what-is-gone": _reserves_what_is_gone,
    "forgets-drains": _forgets_drains,
}
