"""Whoever folds workers from the log sees the same ones, however much it has forgotten: machines, read model, and the past."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_story import A, B, assigned, joined, lost, run, submitted

from taskyard.api.past.state import PastState
from taskyard.contracts.events import (
    ForceStopped,
    SlotAssigned,
    SlotCleared,
    TaskScheduled,
    WorkerDrainRequested,
    WorkerJoined,
    WorkerLost,
    WorkerRecovered,
    WorkerSuspected,
)
from taskyard.contracts.fleet import Fleet, WorkerState
from taskyard.contracts.tasks import TaskTable
from taskyard.contracts.values import Instant, make_position
from taskyard.dispatcher.state import DispatcherState
from taskyard.state_projector.surroundings import SURROUNDING_EVENTS, Surroundings

NUMBERS = (1, 2, 3)
INCARNATIONS = st.sampled_from((*map(run, NUMBERS), 1, 2, 3))
BEFORE = st.none() | INCARNATIONS


def of(kind: Any) -> Any:
    return st.builds(kind, worker=st.just("w1"), incarnation=INCARNATIONS)


WORKER_EVENTS = st.one_of(
    st.builds(
        lambda incarnation, continues: WorkerJoined(
            worker="w1",
            incarnation=incarnation,
            continues=continues,
            pool="default",
            slots=(("any",),),
            kinds=("noop",),
        ),
        INCARNATIONS,
        BEFORE,
    ),
    st.builds(lost, incarnation=st.sampled_from(NUMBERS)),
    of(WorkerSuspected),
    of(WorkerRecovered),
    st.just(WorkerDrainRequested(pool="default", worker="w1", by="root")),
)
TASK_EVENTS = st.one_of(
    st.builds(assigned, st.sampled_from((A, B)), st.integers(1, 3), incarnation=st.sampled_from(NUMBERS)),
    st.builds(ForceStopped, task=st.sampled_from((A, B)), by=st.just("root"), reason=st.just("x")),
    st.builds(SlotCleared, task=st.sampled_from((A, B)), attempt=st.just(1), worker=st.just("w1"), slot=st.just(0)),
)


class Views:
    """All who fold workers, on one log."""

    def __init__(self) -> None:
        self._tasks, self.fleet = TaskTable(), Fleet()
        self.dispatcher, self.past = DispatcherState(), PastState()
        self.rows = Surroundings((), (), ())
        self._sequence = 0

    def apply(self, event: Any) -> None:
        self._sequence += 1
        at, position = Instant(self._sequence), make_position(self._sequence, 0)
        changes = self._tasks.apply(event, at, position)
        self.fleet.apply(event, changes)
        self.dispatcher.apply(event, at, position)
        self.past.apply(event, at, position)
        for change in changes:
            if change.record is not None:
                self.rows.close_slot(event, change)
        if type(event) in SURROUNDING_EVENTS:
            self.rows.fold(event, at, position)

    def has_idle(self, event: SlotAssigned) -> bool:
        """Whether the slot may be given: nobody assigns one that is not there."""
        worker = self.fleet.workers.get(event.worker)
        return worker is not None and worker.incarnation == event.incarnation and event.slot not in worker.busy

    def shown(self) -> list[tuple[Any, ...] | None]:
        """What each sees of the worker."""
        return [seen(one) for one in (*self.with_slots(), self.dispatcher.workers.get("w1"))]

    def agree(self) -> None:
        """All see the same, and the same slots closing where slots are looked at."""
        assert self.shown() == [seen(self.fleet.workers.get("w1"))] * 4
        there = [one for one in self.with_slots() if one is not None and not one.is_lost]
        assert [one.closing for one in there] == [there[0].closing] * 3 if there else True

    def with_slots(self) -> list[WorkerState | None]:
        """The worker as those have it who look at slots."""
        rows: Any = self.rows
        return [workers.get("w1") for workers in (self.fleet.workers, rows._workers, self.past.workers)]


def seen(worker: WorkerState | None) -> tuple[Any, ...] | None:
    if worker is None or worker.is_lost:
        return None
    return worker.incarnation, worker.is_suspect, worker.is_draining


@given(st.lists(WORKER_EVENTS | TASK_EVENTS, max_size=30))
@settings(max_examples=600, deadline=None)
def test_after_whatever_is_told_of_a_worker_all_who_fold_it_agree(events: list[Any]) -> None:
    views = Views()
    for event in (submitted(A), submitted(B, "plan_and_apply"), TaskScheduled(task=A), TaskScheduled(task=B), *events):
        if not isinstance(event, SlotAssigned) or views.has_idle(event):
            views.apply(event)
            views.agree()


def test_an_incarnation_that_comes_back_after_another_left_is_shown_as_it_is_used() -> None:
    views = Views()
    for event in (joined(), lost(), joined(incarnation=2, continues=None), lost(incarnation=2), joined()):
        views.apply(event)

    assert views.shown() == [(run(1), False, False)] * 4


@pytest.mark.parametrize(
    "between",
    [
        (WorkerSuspected(worker="w1", incarnation=run(1), reason="silent for 12 s"),),
        (WorkerSuspected(worker="w1", incarnation=run(1), reason="the disk is full"), lost(), joined()),
        (lost(), joined()),
    ],
    ids=["suspect", "suspect and lost", "lost"],
)
def test_why_a_worker_is_drained_is_told_again_when_it_is_suspect_no_more(between: tuple[Any, ...]) -> None:
    views = Views()
    drained = WorkerDrainRequested(pool="default", worker="w1", by="admin", reason="new disks")
    for event in (joined(), drained, *between, WorkerRecovered(worker="w1", incarnation=run(1))):
        views.apply(event)

    assert [(one and one.is_draining, one and one.reason) for one in views.with_slots()] == [(True, "new disks")] * 3


def test_a_worker_of_the_first_logs_whose_number_goes_back_is_shown_as_it_is_used() -> None:
    """Its clock was behind, or its journal new."""
    views = Views()
    before, after = (
        WorkerJoined(worker="w1", incarnation=number, pool="default", slots=(("any",),), kinds=("noop",))
        for number in (7, 3)
    )
    for event in (before, WorkerLost(worker="w1", incarnation=7), after):
        views.apply(event)

    assert views.shown() == [(3, False, False)] * 4
