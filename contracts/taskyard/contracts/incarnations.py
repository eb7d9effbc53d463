"""Which run of a worker's agent is meant, and what one that joins means for what the one before it had.

An incarnation is a random text that each run of an agent makes for itself. It has no order: which of a worker's is the
current one follows from the order in which they joined in the log, and from no clock. The first logs have numbers, which
rose with each run; they are compared for the same, and with one another also for later.
"""

from typing import Annotated

from msgspec import Meta

from taskyard.contracts.events import WorkerJoined

INCARNATION_CHARACTERS_MAX = 64
FOLLOWS_TOLD_MAX = 16
"""Of the incarnations before one with its journal so many are told when it joins."""
REPLACED_KEPT_MAX = 64
"""Incarnations of a worker that were replaced and must not join again; of more the first are forgotten."""

IncarnationText = Annotated[str, Meta(pattern="^[a-z]", max_length=INCARNATION_CHARACTERS_MAX)]
"""It begins with a letter, so that where all are kept as text nobody takes it for a number of the first logs."""


def is_later_number(incarnation: int | str, known: int | str) -> bool:
    """Whether both are numbers of the first logs, and the one is of a later run."""
    return isinstance(incarnation, int) and isinstance(known, int) and incarnation > known


def continues(event: WorkerJoined, incarnation: int | str) -> bool:
    """Whether who joins answers for what the worker had as `incarnation`.

    It is the same run, or has its journal, or has made sure that nothing of it lives any more.
    """
    return incarnation in (event.incarnation, event.continues) or (
        event.continues is None and is_later_number(event.incarnation, incarnation)
    )
