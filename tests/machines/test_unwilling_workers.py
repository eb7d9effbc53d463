"""Workers that say why they take nothing new: given nothing from their first word on, and told seldom."""

from machine_story import LOST_SECONDS, SUSPECT_SECONDS, A, Like, assigned, joined, run
from slot_story import Slots

from taskyard.contracts.events import SlotAssigned, WorkerJoined, WorkerLost, WorkerRecovered, WorkerSuspected
from taskyard.slot_allocator.unwilling import CHANGE_SECONDS_MIN, REASON_CHARACTERS_MAX

FULL = "the disk of the worker is full"
NO_REPORTS = "reports cannot be stored"


def test_a_worker_that_takes_nothing_new_is_given_nothing_until_it_has_no_reason_any_more() -> None:
    story = Slots().given(joined("w1"), joined("w2"))
    story.when(story.heard("w1", reason=FULL)).then(WorkerSuspected(worker="w1", incarnation=run(1), reason=FULL))

    story.when(story.heard("w1", reason=FULL)).then_nothing()
    story.scheduled(A).when().then(assigned(A, worker="w2"))
    story.when(story.heard("w1")).then(Like(WorkerRecovered, worker="w1"))
    story.when(story.heard("w1", reason=NO_REPORTS)).then(Like(WorkerSuspected, reason=NO_REPORTS))


def test_a_worker_that_joins_with_a_reason_is_given_nothing_from_the_start() -> None:
    story = Slots().scheduled(A)

    story.when(story.heard(reason=FULL)).then(Like(WorkerJoined, worker="w1"), Like(WorkerSuspected, reason=FULL))
    story.when().then_nothing()
    story.when(story.heard(reason=FULL)).then_nothing()
    story.when(story.heard()).then(Like(WorkerRecovered), Like(SlotAssigned, task=A))


def test_an_agent_that_changes_its_mind_with_each_heartbeat_does_not_fill_the_log() -> None:
    story = Slots().given(joined()).when()
    beats = 200
    told = []
    for beat in range(2 * beats):
        told += story.after(1).when(story.heard(reason=FULL if beat % 2 else "")).chosen
    assert 4 <= len(told) <= 2 * (2 * beats / CHANGE_SECONDS_MIN + 2)


def test_while_an_agent_changes_its_mind_it_is_believed_that_it_takes_nothing() -> None:
    story = Slots().given(joined()).when()
    for reason in (FULL, "", FULL):
        story.when(story.heard(reason=reason))
    story.scheduled(A).when(story.heard()).then_nothing()

    story.after(CHANGE_SECONDS_MIN / 2).when(story.heard()).then_nothing()
    story.after(CHANGE_SECONDS_MIN / 2).when(story.heard()).then(Like(WorkerRecovered), Like(SlotAssigned, task=A))


def test_other_words_for_why_it_takes_nothing_are_told_and_seldom() -> None:
    story = Slots().given(joined())
    story.when(story.heard(reason="3 MiB left")).then(Like(WorkerSuspected, reason="3 MiB left"))

    story.when(story.heard(reason="2 MiB left")).then_nothing()
    told = []
    for _ in range(2 * int(CHANGE_SECONDS_MIN)):
        told += story.after(1).when(story.heard(reason="2 MiB left")).chosen
    assert told == [WorkerSuspected(worker="w1", incarnation=run(1), reason="2 MiB left")]


def test_who_leads_next_tells_nothing_again_that_is_told() -> None:
    story = Slots().given(joined(), WorkerSuspected(worker="w1", incarnation=run(1), reason=FULL))

    story.when(story.heard(reason=FULL)).then_nothing()


def test_why_a_worker_takes_nothing_new_takes_the_place_of_its_silence() -> None:
    story = Slots().given(joined()).when()
    story.after(SUSPECT_SECONDS).when().then(Like(WorkerSuspected, reason="silent for 10 s"))
    story.when(story.heard(reason=FULL)).then(Like(WorkerSuspected, reason=FULL))


def test_a_long_reason_is_cut() -> None:
    story = Slots().given(joined())
    story.when(story.heard(reason="x" * 1_000)).then(Like(WorkerSuspected, reason="x" * REASON_CHARACTERS_MAX))
    story.when(story.heard(reason="x" * 1_000)).then_nothing()


def test_a_worker_that_takes_nothing_new_and_falls_silent_is_lost_as_any_other() -> None:
    story = Slots().given(joined())
    story.when(story.heard(reason=FULL)).then(Like(WorkerSuspected))

    story.after(LOST_SECONDS).when().then(Like(WorkerLost, worker="w1"))
