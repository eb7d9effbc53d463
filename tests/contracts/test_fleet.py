"""Workers and slots folded from the log: counts always say what the workers themselves say."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw, json

from taskyard.contracts.events import (
    AttemptSucceeded,
    SlotAssigned,
    TaskScheduled,
    TaskSubmitted,
    WorkerDrainRequested,
    WorkerJoined,
    WorkerLost,
    WorkerRecovered,
    WorkerSuspected,
)
from taskyard.contracts.fleet import Fleet, Worker
from taskyard.contracts.kind import OnLost
from taskyard.contracts.tasks import TaskTable
from taskyard.contracts.values import Instant, TaskId, make_position

SLOTS = (("any",), ("plan",), ("plan",))
KINDS = ("noop", "plan")
ANY, PLAN = ("noop", "plan"), ("plan",)


class Story:
    """Events folded by tasks and fleet together."""

    def __init__(self) -> None:
        self.tasks, self.fleet = TaskTable(), Fleet()
        self._sequence = 0

    def given(self, *events):
        for event in events:
            self._sequence += 1
            changes = self.tasks.apply(event, Instant(self._sequence), make_position(self._sequence, 0))
            self.fleet.apply(event, changes)
        return self

    def idle(self, kind: str) -> int:
        return sum(count for accepts, count in self.fleet.idle.get("default", {}).items() if kind in accepts)


def joined(worker: str = "w", incarnation: int = 1, slots=SLOTS) -> WorkerJoined:
    return WorkerJoined(worker=worker, incarnation=incarnation, pool="default", slots=slots, kinds=KINDS)


def lost(worker: str = "w", incarnation: int = 1) -> WorkerLost:
    return WorkerLost(worker=worker, incarnation=incarnation)


def assigned(task: str, slot: int = 0, worker: str = "w", attempt: int = 1, on_lost: OnLost = OnLost.RETRY):
    submitted = TaskSubmitted(
        task=TaskId(task),
        kind="plan",
        pool="default",
        queue="q",
        by="admin",
        input=Raw(b"{}"),
        digest="",
        timeout_seconds=1,
        max_attempts=9,
        on_lost=on_lost,
    )
    given_slot = SlotAssigned(task=TaskId(task), attempt=attempt, worker=worker, incarnation=1, slot=slot)
    return submitted, TaskScheduled(task=TaskId(task)), given_slot


def ended(task: str) -> AttemptSucceeded:
    return AttemptSucceeded(task=TaskId(task), attempt=1)


def test_a_slot_takes_what_its_template_allows_and_its_worker_runs():
    story = Story().given(joined())

    assert (story.idle("plan"), story.idle("noop"), story.idle("command")) == (3, 1, 0)


def test_a_slot_is_busy_from_its_assignment_to_the_end_of_the_attempt():
    story = Story().given(joined(), *assigned("a"))
    assert (story.idle("plan"), story.fleet.workers["w"].busy) == (2, {0: "a"})

    story.given(ended("a"))

    assert (story.idle("plan"), story.fleet.workers["w"].busy) == (3, {})


def test_slots_of_a_suspect_are_not_counted_until_it_recovers():
    story = Story().given(joined(), WorkerSuspected(worker="w", incarnation=1))
    assert (story.idle("plan"), story.fleet.size_for("default", "plan")) == (0, 0)

    story.given(WorkerRecovered(worker="w", incarnation=1))

    assert (story.idle("plan"), story.fleet.size_for("default", "plan")) == (3, 3)


def test_what_is_told_of_an_earlier_incarnation_means_nothing():
    story = Story().given(joined(incarnation=2), lost(incarnation=1), WorkerSuspected(worker="w", incarnation=1))

    assert story.idle("plan") == 3


def test_a_lost_worker_stays_while_it_holds_slots_and_is_forgotten_after():
    story = Story().given(joined(), *assigned("a", on_lost=OnLost.HOLD), lost())
    assert story.fleet.workers["w"].is_lost

    story.given(ended("a"))

    assert story.fleet.workers == {}


def test_a_lost_worker_without_slots_is_forgotten_at_once():
    story = Story().given(joined(), *assigned("a"), lost())

    assert story.fleet.workers == {}
    assert story.idle("plan") == 0


def test_a_lost_worker_may_come_back_as_it_was_and_what_it_holds_is_still_held():
    story = Story().given(joined(), *assigned("a", on_lost=OnLost.HOLD), lost(), joined())

    assert not story.fleet.workers["w"].is_lost
    assert (story.idle("plan"), story.fleet.workers["w"].busy) == (2, {0: "a"})


def test_a_new_incarnation_with_fewer_slots_keeps_what_the_old_one_holds():
    story = Story().given(joined(), *assigned("a", slot=2), joined(incarnation=2, slots=(("any",),)))
    assert story.idle("plan") == 1

    story.given(ended("a"))

    assert story.idle("plan") == 1


def test_a_draining_worker_keeps_its_tasks_and_offers_nothing():
    drain = WorkerDrainRequested(pool="default", worker="w", by="admin")
    story = Story().given(joined(), *assigned("a"), drain, ended("a"))

    assert story.idle("plan") == 0
    assert story.fleet.workers["w"].is_draining


_workers = st.sampled_from(["v", "w"])
_incarnations = st.integers(1, 3)
_events = st.one_of(
    st.builds(joined, _workers, _incarnations, st.sampled_from([SLOTS, (("any",),), (("plan",), ("any",))])),
    st.builds(lost, _workers, _incarnations),
    st.builds(WorkerSuspected, worker=_workers, incarnation=_incarnations),
    st.builds(WorkerRecovered, worker=_workers, incarnation=_incarnations),
    st.builds(WorkerDrainRequested, pool=st.just("default"), worker=_workers, by=st.just("admin")),
    st.tuples(_workers, st.integers(0, 2), st.sampled_from(OnLost)),
    st.integers(0, 5),
)


@settings(deadline=None)
@given(st.lists(_events, max_size=40))
def test_counts_are_what_counting_the_workers_gives_and_a_snapshot_keeps_them(events):
    story = Story()
    for number, event in enumerate(events):
        if isinstance(event, tuple):
            worker, slot, on_lost = event
            there = story.fleet.workers.get(worker)
            if there is not None and there.takes_tasks and slot < len(there.slots) and slot not in there.busy:
                story.given(*assigned(f"t{number}", slot, worker, on_lost=on_lost))
        elif isinstance(event, int):
            for task in sorted(story.tasks.live)[event : event + 1]:
                story.given(ended(task))
        else:
            story.given(event)

    idle, size = Counter(), Counter()
    for worker in story.fleet.workers.values():
        for slot, accepts in enumerate(worker.accepts):
            if worker.takes_tasks:
                size[accepts] += 1
                idle[accepts] += slot not in worker.busy
    assert _positive(story.fleet.idle) == +idle
    assert _positive(story.fleet.size) == +size
    saved = json.decode(json.encode(list(story.fleet.workers.values())), type=list[Worker])
    assert _positive(Fleet(saved).idle) == +idle
    assert {(w.name, slot): task for w in story.fleet.workers.values() for slot, task in w.busy.items()} == {
        record.held_slot: record.id for record in story.tasks.live.values() if record.held_slot is not None
    }


def _positive(counts: dict) -> dict:
    assert all(count >= 0 for count in counts.get("default", {}).values())
    return {accepts: count for accepts, count in counts.get("default", {}).items() if count}
