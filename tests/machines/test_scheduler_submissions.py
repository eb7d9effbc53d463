"""What people submit: what is accepted becomes a task once, what is refused one event that says why."""

from typing import Any

import pytest
from machine_story import START, A, B, C, Like, Story, submitted, task_id
from msgspec import structs
from scheduler_story import Commands

from taskyard.contracts.commands import Answer
from taskyard.contracts.events import (
    CommandRejected,
    FieldError,
    PoolConfigured,
    TaskScheduled,
    TaskSubmitted,
    refused_ids,
)
from taskyard.contracts.kind import Lock, OnLost
from taskyard.contracts.kinds import KINDS
from taskyard.contracts.values import Instant, TaskId, derive_uuid7, make_position, make_uuid7, seconds
from taskyard.scheduler.machine import Scheduler
from taskyard.scheduler.refusals import OTHERWISE, WORDINGS_MAX

DAY_SECONDS = 24 * 3600


def test_a_submission_becomes_a_task_with_the_policy_of_its_kind() -> None:
    story = Commands()
    plan = {"directory": "/tf", "auto_confirm": True}

    story.when(story.submit(1, kind="plan_and_apply", queue="network", input=plan, priority=2, labels={"a": "b"}))

    story.then(
        Like(
            TaskSubmitted,
            task=A,
            kind="plan_and_apply",
            queue="network",
            by="alice",
            priority=2,
            labels={"a": "b"},
            lock=Lock.QUEUE,
            approval=True,
            on_lost=OnLost.HOLD,
            auto_confirm=True,
            timeout_seconds=1800,
            max_attempts=3,
        )
    )
    assert story.answers() == [Answer(code=202, id=A, position=make_position(1, 0))]


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"plan_and_apply"}))
def test_only_an_apply_confirms_by_itself(kind: str) -> None:
    story = Commands()
    inputs: dict[str, Any] = {"plan": {"directory": "/tf", "auto_confirm": True}, "command": {"argv": ["a"]}}

    story.when(story.submit(1, kind=kind, queue="q", input=inputs.get(kind, {"auto_confirm": True})))

    story.then(Like(TaskSubmitted, auto_confirm=False, lock=Lock.NONE, approval=False))


def test_what_the_submitter_states_goes_before_the_kind() -> None:
    story = Commands()

    story.when(story.submit(1, timeout_seconds=7, max_attempts=1, schedule_to_start_timeout_seconds=9))

    story.then(Like(TaskSubmitted, timeout_seconds=7, max_attempts=1, schedule_to_start_timeout_seconds=9))


def test_a_submission_that_cannot_be_read_is_refused_with_the_path() -> None:
    story = Commands()

    story.when(story.submit(1, kind="plan", queue="q", input={"directory": "relative"}))

    story.then(
        Like(
            CommandRejected, command=A, verb="submit", by="alice", pool="default", status=422, code="invalid", task=None
        )
    )
    (answer,) = story.answers()
    assert (answer.code, answer.error, answer.errors[0].path) == (422, "invalid", "input.directory")


@pytest.mark.parametrize("data", [b"", b"nonsense", b"[]", b"\xff", b'{"id":5}'])
def test_what_is_no_command_at_all_is_one_refusal(data: bytes) -> None:
    story = Commands()

    story.when(story.said("submit", data)).then(Like(CommandRejected, status=422))

    assert story.codes() == [422]


def test_a_refused_submission_may_be_sent_again_corrected() -> None:
    story = Commands()
    story.when(story.submit(1, priority=99)).then(Like(CommandRejected, command=A))

    story.when(story.submit(1, priority=9)).then(Like(TaskSubmitted, task=A, priority=9))


def test_each_door_is_told_of_its_own_submission_when_a_refused_one_is_sent_again_corrected() -> None:
    """Both bear the same id, and the refusal of the first is folded before the task of the second."""
    story = Commands()
    wrong, right = story.submit(1, priority=99), story.submit(1, priority=9)

    story.when(structs.replace(wrong, door="door1"), structs.replace(right, door="door2"))

    told = {effect.door: [outcome.answers[0].code for outcome in effect.batch.outcomes] for effect in story.effects()}
    assert told == {"door1": [422], "door2": [202]}


def test_a_batch_accepts_and_refuses_each_task_by_itself() -> None:
    story = Commands()
    batch = [
        {"id": A, "kind": "noop", "input": {}},
        {"id": B, "kind": "nonsense", "input": {}},
        {"id": C, "kind": "noop", "input": {}},
        {"kind": "plan", "input": {"directory": "/tf"}},
    ]

    story.when(story.said("submit", {"id": story.command_id(1), "tasks": batch}))

    story.then(
        Like(TaskSubmitted, task=A, command=story.command_id(1)),
        Like(TaskSubmitted, task=C),
        Like(CommandRejected, command=story.command_id(1), status=422, message="2 tasks were refused"),
    )
    refusal = story.chosen[-1]
    assert [error.path for error in refusal.errors] == ["tasks[1].kind", "tasks[3].queue"]
    assert story.codes() == [202, 422, 202, 422]


def test_the_refusal_names_each_refused_task_of_a_batch_by_the_id_that_it_bears_or_was_to_get() -> None:
    story = Commands()
    command = story.command_id(1)
    batch = [{"id": A, "kind": "noop", "input": {}}, {"id": B, "kind": "nonsense", "input": {}}, 1, {}]

    story.when(story.said("submit", {"id": command, "tasks": batch}))

    assert {id: told.code for id, told in refused_ids(story.chosen[-1])} == {
        B: "invalid",
        derive_uuid7(command, "2"): "invalid",
        derive_uuid7(command, "3"): "invalid",
    }
    told = dict(refused_ids(story.chosen[-1]))
    assert "there is no kind" in told[TaskId(B)].message


def test_a_batch_that_is_refused_as_a_whole_names_its_tasks_too() -> None:
    story = Commands()

    story.when(story.said("submit", {"id": story.command_id(1), "surplus": 1, "tasks": [{"id": A}, {"id": B}]}))

    assert [id for id, _ in refused_ids(story.chosen[-1])] == [A, B]


def test_tasks_whose_ids_nobody_knows_are_not_named() -> None:
    story = Commands()

    story.when(story.said("submit", {"tasks": [1, {}]})).then(Like(CommandRejected, refused=()))


def test_a_batch_refused_for_many_reasons_tells_the_first_ones_in_words_and_names_every_task() -> None:
    story = Commands()
    ids = [task_id(number) for number in range(1, 21)]
    batch = [{"id": id, "kind": f"kind{index}", "input": {}} for index, id in enumerate(ids)]
    batch += [{"id": task_id(50), "kind": "noop", "input": {}, "priority": 77}]
    batch += [{"id": task_id(51 + n), "kind": "noop", "input": {}, f"surplus{n}": 1} for n in range(20)]

    story.when(story.said("submit", {"id": story.command_id(1), "tasks": batch}))

    refused = story.chosen[-1].refused
    assert sum(len(group.tasks) for group in refused) == len(batch)
    assert len(refused) == WORDINGS_MAX + 1 and refused[-1].message == OTHERWISE


def test_a_batch_that_is_sent_again_makes_nothing_new() -> None:
    story = Commands()
    body = {"id": story.command_id(1), "tasks": [{"kind": "noop", "input": {}}, {"kind": "noop", "input": {"a": 1}}]}
    story.when(story.said("submit", body))
    first = [answer.id for answer in story.answers()]

    story.when(story.said("submit", body)).then_nothing()

    assert len(set(first)) == 2
    assert [answer.id for answer in story.answers()] == first


def test_an_id_twice_in_a_batch_is_one_task() -> None:
    story = Commands()
    task = {"id": A, "kind": "noop", "input": {}}

    story.when(story.said("submit", {"tasks": [task, task, task | {"input": {"other": 1}}]}))

    story.then(Like(TaskSubmitted, task=A), Like(CommandRejected))
    assert story.codes() == [202, 202, 409]


# -- ids ---------------------------------------------------------------------------------------------------------------


def test_the_same_id_with_the_same_content_is_answered_the_same_without_an_event() -> None:
    story = Commands()
    story.when(story.submit(1))
    first = story.answers()

    story.when(story.submit(1)).then_nothing()

    assert story.answers() == first


def test_the_same_submission_twice_in_one_decision_is_one_task_and_both_are_answered() -> None:
    story = Commands()

    story.when(story.submit(1), story.submit(1)).then(Like(TaskSubmitted, task=A))

    assert story.codes() == [202, 202]


def test_the_same_id_with_other_content_is_a_conflict() -> None:
    story = Commands()
    story.when(story.submit(1))

    story.when(story.submit(1, priority=1)).then(
        Like(CommandRejected, status=409, code="id_conflict", errors=(FieldError(path="id", message="is taken"),))
    )

    assert story.codes() == [202, 409]


def test_an_id_stays_known_after_the_task_has_ended() -> None:
    story = Commands()
    story.when(story.submit(1))
    story.when(story.said("cancel", {"task": A}))

    story.when(story.submit(1)).then_nothing()

    assert story.codes() == [202, 202, 202]


@pytest.mark.parametrize(
    ("age_seconds", "status"),
    [(DAY_SECONDS + 1, 422), (DAY_SECONDS - 1, 202), (-299, 202), (-301, 422)],
    ids=["too old", "just young enough", "a little ahead", "ahead"],
)
def test_an_id_bears_its_time(age_seconds: int, status: int) -> None:
    story = Commands()
    id = make_uuid7(Instant(START - seconds(age_seconds)), 1)

    story.when(story.said("submit", {"id": id, "kind": "noop", "input": {}}))

    assert story.codes() == [status]


def test_age_is_judged_by_when_the_command_was_stored_and_not_by_when_it_is_read() -> None:
    story = Commands()
    early = story.submit(1)

    story.after(2 * DAY_SECONDS).when(early).then(Like(TaskSubmitted, task=A))


def test_an_id_is_remembered_for_as_long_as_it_would_be_accepted() -> None:
    story = Commands()
    story.when(story.submit(1))
    story.after(DAY_SECONDS - 1).when(story.submit(2))

    story.when(story.submit(1)).then_nothing()
    story.after(600).when(story.said("submit", {"kind": "noop", "input": {}}))  # the window moves on
    story.when(story.submit(1)).then(Like(CommandRejected, status=422))


def test_what_comes_without_an_id_gets_one_that_follows_from_where_it_is_stored() -> None:
    story = Commands()
    message = story.said("submit", {"kind": "noop", "input": {}})
    other = story.said("submit", {"kind": "noop", "input": {}})

    story.when(message, message, other).then(Like(TaskSubmitted), Like(TaskSubmitted))

    assert len({event.task for event in story.chosen}) == 2


# -- who may, and how much ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["eve", "a-stranger"])
def test_who_may_not_submit_is_refused(by: str) -> None:
    story = Commands()

    story.when(story.submit(1, by=by)).then(Like(CommandRejected, status=403, code="forbidden", by=by))


def test_a_subject_that_names_no_pool_is_refused() -> None:
    story = Commands()

    story.when(story.said("submit", {"kind": "noop", "input": {}}, pool="No Pool")).then(
        Like(CommandRejected, status=422)
    )


def test_an_unknown_verb_is_refused() -> None:
    story = Commands()

    story.when(story.said("dance", {}, by="root")).then(Like(CommandRejected, status=422, verb="dance"))


def test_a_full_pool_refuses_more_and_takes_them_when_there_is_room() -> None:
    story = Commands().given(PoolConfigured(pool="default", by="root", max_waiting=2))

    story.when(story.submit(1), story.submit(2), story.submit(3)).then(
        Like(TaskSubmitted, task=A), Like(TaskSubmitted, task=B), Like(CommandRejected, status=429, code="pool_full")
    )
    assert sorted(story.codes()) == [202, 202, 429]
    story.when(story.submit(1)).then_nothing()  # it has its room already
    story.when(story.said("cancel", {"task": A}))
    story.when(story.submit(3)).then(Like(TaskSubmitted, task=C))

    assert story.codes() == [202, 202, 202]


def test_many_commands_are_split_into_commits_and_none_is_forgotten() -> None:
    story = Commands()
    batches = [story.said("submit", {"tasks": [{"kind": "noop", "input": {}} for _ in range(300)]}) for _ in range(4)]

    assert 1 <= story.decide(*batches).taken < 4
    story = Commands()
    story.when(*batches)

    assert len(story.chosen) == 1200


# -- outcomes ----------------------------------------------------------------------------------------------------------


def test_an_outcome_is_told_only_once_it_is_folded() -> None:
    story = Commands()

    decision = story.decide(story.submit(1))
    assert story.answers() == []
    story.given(*decision.events)

    assert story.codes() == [202]
    assert story.answers() == []


def test_each_copy_of_a_command_is_answered_by_where_it_is_stored() -> None:
    story = Commands()
    first, other, again = story.submit(1), story.submit(1, priority=1), story.submit(1)
    story.when(first, other, again)

    told = {
        outcome.sequence: outcome.answers[0].code for effect in story.effects() for outcome in effect.batch.outcomes
    }

    assert told == {first.sequence: 202, other.sequence: 409, again.sequence: 202}


def test_a_batch_is_told_as_a_whole() -> None:
    story = Commands()
    decision = story.decide(
        story.said("submit", {"tasks": [{"kind": "noop", "input": {}}, {"kind": "x", "input": {}}]})
    )
    assert story.answers() == []

    story.given(*decision.events)

    assert story.codes() == [202, 422]


def test_a_leader_of_another_time_tells_nothing_of_what_it_did_not_decide() -> None:
    story = Commands()
    events = story.decide(story.submit(1)).events
    story.machine.stand_by()

    story.given(*events)

    assert story.effects() == []


def test_a_command_without_a_door_is_decided_and_nobody_is_told() -> None:
    story = Commands()
    message = story.submit(1)

    story.when(type(message)(**{name: getattr(message, name) for name in message.__struct_fields__} | {"door": None}))

    story.then(Like(TaskSubmitted, task=A))
    assert story.effects() == []


@pytest.mark.parametrize(
    ("given", "kept"),
    [("00-" + "a" * 32 + "-" + "b" * 16 + "-01", True), ("nonsense", False), ("00-" + "a" * 5_000, False)],
)
def test_a_trace_context_is_kept_where_it_is_one(given: str, kept: bool) -> None:
    story = Commands()

    story.when(story.said("submit", {"kind": "noop", "input": {}}, traceparent=given))

    story.then(Like(TaskSubmitted, traceparent=given if kept else None))


def test_a_standby_decides_nothing_though_it_folds() -> None:
    story = Story(Scheduler({}), leads=False).given(submitted(task_id(1)), TaskScheduled(task=A))

    assert story.decide().events == []
    assert story.machine.next_deadline() is None
