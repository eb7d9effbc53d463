"""Refusals beyond a rate are answered as all are, and only counted in the log: nobody fills it with what is refused."""

from collections.abc import Sequence
from typing import Any

import msgspec
from machine_story import SECOND, A, Like, joined
from scheduler_story import Commands

from taskyard.contracts.events import CommandRejected, RefusalsCounted, TaskSubmitted
from taskyard.contracts.values import CommandId, Instant
from taskyard.scheduler.counting import (
    COUNTED_MAX,
    DEBT_SECONDS_MAX,
    REFUSED_BYTES_A_SECOND,
    REFUSED_BYTES_AT_ONCE,
    WINDOW_SECONDS,
    Shares,
    cost_of,
)
from taskyard.scheduler.messages import CommandMessage


def dance(story: Commands, by: str = "root", **fields: Any) -> CommandMessage:
    """What nobody can do."""
    return story.said("dance", {}, by, **fields)


def used_up(by: str = "root") -> Commands:
    """A story in which the share of a principal is used up for some seconds: whatever more of it is refused is counted."""
    story = Commands()
    story.given(joined())
    use_up(story, by)
    return story


def use_up(story: Commands, by: str) -> None:
    while story.machine.state.refusal_shares.has_room(by, story.now, 0):
        story.given(long_refusal(by))
    story.given(long_refusal(by))


def long_refusal(by: str) -> CommandRejected:
    return CommandRejected(
        command=CommandId("c"), verb="dance", by=by, pool="default", status=422, code="invalid", message="x" * 2_000
    )


def size(events: Sequence[Any]) -> int:
    return sum(len(msgspec.json.encode(event)) for event in events)


def test_twenty_thousand_unknown_verbs_leave_some_kilobytes_and_each_is_answered() -> None:
    story = Commands()
    written: list[Any] = []
    codes: list[int] = []
    for _ in range(200):  # in ten seconds
        story.when(*(dance(story) for _ in range(100)))
        written += story.chosen
        codes += story.codes()
        story.after(0.05)
    written += story.after(WINDOW_SECONDS).when().chosen
    codes += story.codes()

    counted = sum(event.count for event in written if isinstance(event, RefusalsCounted))
    one_by_one = sum(isinstance(event, CommandRejected) for event in written)
    assert counted + one_by_one == 20_000
    assert codes == [422] * 20_000
    assert size(written) < 64 * 1024 < REFUSED_BYTES_AT_ONCE + 11 * REFUSED_BYTES_A_SECOND + 32 * 1024


def test_what_is_refused_beyond_the_rate_is_told_once_its_count_is_stored_with_the_window_s_end() -> None:
    story = used_up()
    first = dance(story)

    story.when(first, dance(story)).then_nothing()
    assert story.answers() == []
    story.after(WINDOW_SECONDS / 2).when(dance(story)).then_nothing()
    assert story.machine.next_deadline() == Instant(first.at + WINDOW_SECONDS * SECOND)

    story.after(WINDOW_SECONDS / 2).when()

    story.then(
        RefusalsCounted(
            by="root",
            stream=first.stream,
            count=3,
            first=first.sequence,
            last=first.sequence + 2,
            since=first.at,
            until=Instant(first.at + SECOND // 2),
            codes={"invalid": 3},
        )
    )
    assert [(answer.code, answer.error) for answer in story.answers()] == [(422, "invalid")] * 3
    assert story.machine.next_deadline() is None


def test_the_next_commit_tells_the_count_since_its_cursor_passes_what_was_counted() -> None:
    story = used_up()
    story.when(dance(story), dance(story)).then_nothing()

    story.when(story.submit(1))

    assert story.chosen[0] == Like(TaskSubmitted, task=A)
    assert story.chosen[-1] == Like(RefusalsCounted, by="root", count=2)
    assert sorted(story.codes()) == [202, 422, 422]


def test_what_a_leader_had_counted_and_not_stored_is_decided_anew_and_nobody_was_told() -> None:
    story = used_up()
    asked = dance(story)
    story.when(asked).then_nothing()
    assert story.answers() == []

    successor = story.successor()
    successor.when(asked).then_nothing()
    successor.after(WINDOW_SECONDS).when().then(Like(RefusalsCounted, count=1, first=asked.sequence))

    assert [outcome.sequence for effect in successor.effects() for outcome in effect.batch.outcomes] == [asked.sequence]


def test_a_decision_that_does_not_stand_counts_nothing() -> None:
    story = used_up()
    story.decide(dance(story), dance(story))
    story.machine.look_again(story.now)
    story.decide(story.submit(1), dance(story))
    story.machine.look_again(story.now)

    story.when(story.submit(1), dance(story))

    assert story.chosen[-1] == Like(RefusalsCounted, count=1)


def test_a_count_that_was_told_by_a_decision_that_does_not_stand_is_told_by_the_next() -> None:
    story = used_up()
    story.when(dance(story)).then_nothing()
    assert story.decide(story.submit(1)).events[-1] == Like(RefusalsCounted, count=1)
    story.machine.look_again(story.now)

    story.when(story.submit(2))

    assert story.chosen[-1] == Like(RefusalsCounted, count=1)


def test_as_many_as_can_wait_are_told_at_once() -> None:
    story = used_up()

    story.when(*(dance(story) for _ in range(COUNTED_MAX))).then(Like(RefusalsCounted, count=COUNTED_MAX))

    assert len(story.codes()) == COUNTED_MAX


def test_one_principal_s_flood_leaves_the_refusals_of_others_as_they_are() -> None:
    story = used_up()

    story.when(dance(story), dance(story, "alice"))

    story.then(Like(CommandRejected, by="alice"), Like(RefusalsCounted, by="root", count=1))


def test_each_principal_has_its_own_count() -> None:
    story = used_up()
    use_up(story, "alice")

    story.when(dance(story), dance(story, "alice"), dance(story)).after(WINDOW_SECONDS).when()

    story.then(Like(RefusalsCounted, by="root", count=2), Like(RefusalsCounted, by="alice", count=1))


def test_refusals_are_written_again_once_the_rate_allows_it() -> None:
    story = used_up()
    story.when(dance(story)).then_nothing()
    refused = long_refusal("root")

    story.after(2 * cost_of(refused) / SECOND).when(dance(story))

    story.then(Like(CommandRejected), Like(RefusalsCounted, count=1))


def test_a_new_leader_knows_what_refusals_took_of_the_log() -> None:
    story = used_up()

    for other in (story.successor(), story.refolded()):
        other.when(dance(story)).then_nothing()


def test_what_was_accepted_of_a_batch_is_told_with_what_was_only_counted() -> None:
    story = used_up("alice")
    good = {"id": A, "kind": "noop", "input": {}}

    story.when(story.said("submit", {"tasks": [good, {"kind": "none"}]}))

    assert story.chosen[-1] == Like(RefusalsCounted, count=1, codes={"invalid": 1})
    assert story.codes() == [202, 422]


def test_an_id_that_was_only_counted_may_be_sent_again() -> None:
    story = used_up("alice")
    cancel = {"task": A, "id": story.command_id(7)}
    story.when(story.said("cancel", cancel)).after(WINDOW_SECONDS).when()
    story.when(story.submit(1))
    story.effects()

    story.when(story.said("cancel", cancel))

    assert story.codes() == [202]


def test_a_clock_that_was_set_back_takes_no_share_away_for_long() -> None:
    shares = Shares()
    refused = long_refusal("eve")
    for _ in range(1_000):
        shares.wrote(refused, Instant(10**6 * SECOND))
    shares.wrote(refused, Instant(0))

    assert not shares.has_room("eve", Instant(0), 0)
    assert shares.has_room("eve", Instant(round(DEBT_SECONDS_MAX) * SECOND), 0)


def test_a_leader_whose_clock_is_set_back_tells_what_it_has_counted_at_once() -> None:
    story = used_up()
    story.when(dance(story)).then_nothing()
    story.now = Instant(story.now - 3_600 * SECOND)
    story.machine.lead(story.now)

    story.when()

    story.then(Like(RefusalsCounted, count=1))
