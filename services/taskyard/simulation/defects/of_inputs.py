"""Defects of how inputs become commits, and of who may write them: streams made anew, sizes, versions of the log."""

from collections.abc import Sequence
from typing import Any

import taskyard.dispatcher.delivery as delivery
import taskyard.eventlog.append as appending
import taskyard.eventlog.commit as committing
import taskyard.machine.deciding as deciding
import taskyard.scheduler.decide as scheduling
import taskyard.simulation.following as following
from taskyard.contracts.values import Instant
from taskyard.dispatcher.machine import Dispatcher
from taskyard.machine.core import LoopCore
from taskyard.machine.machine import Decision
from taskyard.scheduler.machine import Scheduler
from taskyard.simulation.defects.patching import Replace
from taskyard.simulation.following import Following

SPLIT_BEHIND = 2
UNMEASURED = 1 << 40


def _takes_a_new_stream_for_the_old(replace: Replace) -> None:
    """A stream that was deleted and made anew is read behind the cursor of the former one."""

    def begin(self: Any, stream: str, name: str) -> int:
        taken = self._inputs.taken
        taken[name] = max((at for one, at in taken.items() if one.startswith(stream)), default=0)
        return taken[name]

    replace(LoopCore, "begin_to_read", begin)


def _splits(replace: Replace, machine: Any) -> None:
    """What one decision says is spread over commits, of which the first accounts for all that was decided on."""
    decide = machine.decide

    def piecemeal(self: Any, now: Instant, inputs: Sequence[Any]) -> Decision:
        left = vars(self).pop("left_over", None)
        decision = decide(self, now, inputs) if left is None else Decision(events=left, taken=0)
        if len(decision.events) <= SPLIT_BEHIND:
            return decision
        self.left_over = decision.events[SPLIT_BEHIND:]
        return Decision(events=decision.events[:SPLIT_BEHIND], taken=decision.taken)

    replace(machine, "decide", piecemeal)


def _splits_commands(replace: Replace) -> None:
    """A command is decided in more than one commit."""
    _splits(replace, Scheduler)


def _splits_attempts(replace: Replace) -> None:
    """What was reported of an attempt together is told in more than one commit."""
    _splits(replace, Dispatcher)


def _commits_without_measure(replace: Replace) -> None:
    """A commit may be as large as what waits makes it."""
    replace(scheduling, "COMMAND_BYTES_MAX", UNMEASURED)
    replace(scheduling, "TASKS_PER_COMMAND_MAX", UNMEASURED)
    for module in (committing, appending):
        replace(module, "COMMIT_BYTES_MAX", UNMEASURED)
    replace(deciding, "COMMIT_BYTES_AIM", UNMEASURED)


def _requests_without_measure(replace: Replace) -> None:
    """What is sent to one agent at once goes in one request, however much it is."""
    replace(delivery, "REQUEST_BYTES_MAX", UNMEASURED)


def _passes_over_versions(replace: Replace) -> None:
    """An instance goes on where a version of the log begins that it does not know."""
    replace(following, "require_known", lambda stored: None)


def _begins_behind_versions(replace: Replace) -> None:
    """An instance begins on a log whose version it does not know, with a snapshot from behind its beginning."""
    recover = Following.recover

    def careless(self: Any) -> None:
        known, self._knows_all = self._knows_all, True
        recover(self)
        self._knows_all = known

    replace(Following, "recover", careless)


DEFECTS = {
    "takes-a-new-stream-for-the-old": _takes_a_new_stream_for_the_old,
    "splits-commands": _splits_commands,
    "splits-attempts": _splits_attempts,
    "commits-without-measure": _commits_without_measure,
    "requests-without-measure": _requests_without_measure,
    "passes-over-versions": _passes_over_versions,
    "begins-behind-versions": _begins_behind_versions,
}
