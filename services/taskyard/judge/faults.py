"""What can be wrong, and the list of what is."""

from enum import StrEnum

from msgspec import Struct

from taskyard.contracts.values import Instant


class Rule(StrEnum):
    """A rule that every run must keep."""

    LOG = "log"
    """Commits follow one another without a gap, each writer's by hash and epoch, and hold only that writer's events."""
    SIZE = "size"
    """A commit is of a size that every reader takes."""
    VERSION = "version"
    """Who does not know the version of the log appends nothing behind it."""
    SLOT = "slot"
    """A slot has one task at most, of a kind that it takes, and is given by a worker that is there."""
    WORKSPACE = "workspace"
    """One `plan_and_apply` of a workspace is between its first scheduling and its end."""
    CONFIRMATION = "confirmation"
    """Nothing is applied without the confirmation of exactly the plan that was shown."""
    ATTEMPTS = "attempts"
    """Numbers of attempts only rise."""
    DECIDED_ONCE = "decided_once"
    """A command is decided once, whole, by the commit that accounts for it."""
    REPORTED = "reported"
    """What is told of an attempt was reported by its worker, and stands in the commit that accounts for the report."""
    ANSWERS = "answers"
    """A client is told what the log says."""
    ENDED_ONCE = "ended_once"
    """A task is accepted once and ends once: whoever has read its end goes on with it no more."""
    RAN_ONCE = "ran_once"
    """An attempt runs once, an apply once in the life of its task."""
    FENCE = "fence"
    """Nothing runs without its assignment, beside what it excludes, or after the log has ended it for certain; and what
    others may run no longer where a worker has no contact."""
    NAME = "name"
    """Nobody takes the name of a worker that is there."""
    ROOM = "room"
    """What is given to a worker whose disk is full does not begin there."""
    TURN = "turn"
    """Nothing begins against a pause, a lock, a limit or a drain, nor before what stands before it."""
    EARLY = "early"
    """Nothing times out, expires or begins before its time."""
    HEALTHY = "healthy"
    """An attempt to which nothing happened, nor to its worker, is not ended for want of contact or of time."""
    LOST = "lost"
    """What was accepted is in the log and ends."""
    STUCK = "stuck"
    """Everything ends once nothing is in its way."""
    LEAKED = "leaked"
    """Nothing holds a slot or a workspace at the end."""
    READ_MODEL = "read_model"
    """The read model tells what the log tells."""
    JOURNAL = "journal"
    """What a worker remembers of its slots is what the log gave it."""


DOUBLING = frozenset((Rule.ENDED_ONCE, Rule.RAN_ONCE, Rule.DECIDED_ONCE))
"""Rules whose breach means that something was done twice."""


class Fault(Struct, frozen=True, kw_only=True):
    """One breach of a rule. `task` and `at` (log time) say of what and when, where that is known."""

    rule: Rule
    text: str
    task: str | None = None
    at: Instant | None = None

    def __str__(self) -> str:
        return self.text


class Faults:
    """The list. `at` is the log time that what is found now belongs to."""

    def __init__(self) -> None:
        self.found: list[Fault] = []
        self.at: Instant | None = None

    def add(self, rule: Rule, text: str, *, task: str | None = None, at: Instant | None = None) -> None:
        """Note a breach."""
        self.found.append(Fault(rule=rule, text=text, task=task, at=self.at if at is None else at))

    def require(self, holds: bool, rule: Rule, text: str, *, task: str | None = None) -> None:
        """Note a breach unless it holds."""
        if not holds:
            self.add(rule, text, task=task)
