"""Where a task stands, and what an event meant to it."""

from enum import StrEnum

from taskyard.contracts.values import Status, bind_members


class Phase(StrEnum):
    """Where a task stands. People see `status`: `held` shows as running, `stopping` as cancelling."""

    PENDING = "pending"
    SCHEDULED = "scheduled"
    ASSIGNED = "assigned"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    APPLY_PENDING = "apply_pending"
    HELD = "held"
    STOPPING = "stopping"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


bind_members(Phase)

ENDED = frozenset((Phase.COMPLETED, Phase.FAILED, Phase.TIMEOUT, Phase.CANCELLED))
ON_WORKER = frozenset((Phase.ASSIGNED, Phase.DISPATCHED, Phase.RUNNING))
"""The attempt is with a worker that is believed to live."""
ATTEMPT_OPEN = ON_WORKER | {Phase.HELD, Phase.STOPPING}
"""The current attempt has not ended yet."""
HOLDS_SLOT = ATTEMPT_OPEN | {Phase.APPLY_PENDING}
"""A task of these phases has a slot; one that is confirmed and scheduled has one as well."""
NOT_STARTED = frozenset((Phase.ASSIGNED, Phase.DISPATCHED))
"""The attempt has its slot, and nobody has told of its start."""

_SHOWN_AS = {Phase.HELD: Status.RUNNING, Phase.STOPPING: Status.CANCELLING}
STATUS_OF = {phase: _SHOWN_AS.get(phase) or Status(phase.value) for phase in Phase}
"""The status that people see of a task in each phase."""


class Verdict(StrEnum):
    """What an event meant: it took effect, it asked for what already holds, or it came where it is not legal."""

    EFFECTIVE = "effective"
    ALREADY = "already"
    VOID = "void"


bind_members(Verdict)
