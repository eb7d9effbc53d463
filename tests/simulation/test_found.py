"""Failures of the product that the simulator found: each by the seed that showed it, with its cause put back, and by itself."""

from typing import Any

import pytest
from msgspec import Raw

from taskyard.contracts.events import (
    AnyEvent,
    SlotAssigned,
    TaskDispatched,
    TaskScheduled,
    TaskSubmitted,
    WorkerJoined,
    decode_event,
)
from taskyard.contracts.values import SECOND, Instant, TaskId, make_position
from taskyard.dispatcher.delivery import SendAssignments
from taskyard.dispatcher.machine import Dispatcher
from taskyard.eventlog.commit import Commit, CommitCodec, StoredCommit
from taskyard.machine.core import LoopCore
from taskyard.simulation.defects import defect
from taskyard.simulation.history import shortened_history
from taskyard.simulation.run import run_seed

TASK = TaskId("01a3185c-52dd-7ce5-85c6-5b2fc1658618")
AT = Instant(1_800_000_000 * SECOND)


@pytest.mark.parametrize(
    ("seed", "cause"),
    [
        (127, "reserves-what-is-gone"),  # an apply was offered for ever to a worker that came back with fewer slots
        (111, "time-goes-back"),  # a retry whose delay had passed was dropped for ever, and its workspace with it
        (2040, "forgets-to-ask"),  # nobody asked a worker's new incarnation for what the one before had accepted
    ],
)
def test_a_seed_that_failed_shows_its_cause_and_passes_without(seed: int, cause: str) -> None:
    with defect(cause):
        assert run_seed(seed).failures
    outcome = run_seed(seed)
    assert not outcome.failures, shortened_history(outcome)


def test_now_never_goes_back_when_the_own_clock_was_ahead_of_the_logs() -> None:
    codec: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)
    core = LoopCore(Dispatcher(), codec, "one")
    core.fold(_stored(1, AT), 100.0)
    ahead = core.now(110.0)
    core.fold(_stored(2, Instant(ahead - SECOND)), 110.0)
    assert core.now(110.0) == ahead
    assert core.now(112.0) == ahead + SECOND


def test_what_is_told_of_an_earlier_incarnation_does_not_settle_the_question_to_the_new_one() -> None:
    machine = Dispatcher()
    submitted = TaskSubmitted(
        task=TASK, kind="plan", pool="default", queue="q", by="bob", input=Raw(b"{}"), digest="d", timeout_seconds=60
    )
    events = (_joined(1), submitted, TaskScheduled(task=TASK))
    assigned = SlotAssigned(task=TASK, attempt=1, worker="w", incarnation=1, slot=0)
    machine.lead(AT)
    for index, event in enumerate((*events, assigned)):
        machine.apply(event, AT, make_position(1, index))
    assert _asked(machine, AT) == [1]
    machine.apply(_joined(2), AT, make_position(2, 0))
    machine.apply(TaskDispatched(task=TASK, attempt=1), AT, make_position(3, 0))  # of the incarnation that is gone
    assert _asked(machine, Instant(AT + 5 * SECOND)) == [2]


def _asked(machine: Dispatcher, now: Instant) -> list[int]:
    return [effect.incarnation for effect in machine.effects(now) if isinstance(effect, SendAssignments)]


def _joined(incarnation: int) -> WorkerJoined:
    return WorkerJoined(worker="w", incarnation=incarnation, pool="default", slots=(("any",),), kinds=("plan",))


def _stored(sequence: int, at: Instant) -> StoredCommit[Any]:
    commit: Commit[Any] = Commit(writer="scheduler", instance="x", epoch=1, at=at)
    return StoredCommit(sequence=sequence, at=at, commit=commit, hash=str(sequence))
