"""What people ask of tasks, queues and workers: decided once, judged by the fold, answered from its verdict."""

from typing import Any

import pytest
from machine_story import START, A, B, C, Like, Story, assigned, joined, run, submitted, task_id
from scheduler_story import COMMANDS, Commands

from taskyard.contracts.commands import Answer
from taskyard.contracts.events import (
    ApplyConfirmed,
    ApplyDiscarded,
    AttemptFailed,
    AttemptReleased,
    AttemptSucceeded,
    Changes,
    CommandRejected,
    ForceStopped,
    PoolConfigured,
    QueueConfigured,
    QueueLocked,
    QueuePaused,
    QueueResumed,
    QueueUnlocked,
    StreamMark,
    TaskDispatched,
    TaskError,
    TaskPlanned,
    TaskReprioritised,
    TaskScheduled,
    TaskStarted,
    TaskStopRequested,
    TaskSubmitted,
    WorkerDrainRequested,
    WorkerLost,
)
from taskyard.contracts.lifecycle import Phase
from taskyard.contracts.values import Instant, Status, make_uuid7, seconds
from taskyard.contracts.verbs import VERBS

FATAL = TaskError(code="exit", message="1")
STRANGER = task_id(999)
BEFORE = StreamMark(stream=COMMANDS, sequence=1_000)
"""How many commands were stored before a plan was there."""


def with_plan(commands_before: StreamMark | None = None) -> Commands:
    """Task A of alice has a plan that waits for an answer; its attempt is 1."""
    story = Commands()
    story.given(
        joined(),
        submitted(kind="plan_and_apply"),
        TaskScheduled(task=A),
        assigned(),
        TaskPlanned(task=A, attempt=1, changes=Changes(add=1), commands_before=commands_before),
    )
    return story


def running() -> Commands:
    story = Commands()
    story.given(joined(), submitted(), TaskScheduled(task=A), assigned(), TaskStarted(task=A, attempt=1))
    return story


def failed() -> Commands:
    story = running()
    story.given(AttemptFailed(task=A, attempt=1, error=FATAL))
    return story


# -- decided once ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", sorted(VERBS.keys() - {"submit"}))
def test_a_command_that_comes_again_is_answered_again_and_no_more(verb: str) -> None:
    story = with_plan()
    bodies: dict[str, dict[str, Any]] = {
        "reprioritise": {"task": A, "priority": 1},
        "configure-pool": {"max_waiting": 5},
        "configure-queue": {"queue": "q", "max_running": 2, "create": True},
        "pause": {},
        "resume": {},
        "lock": {"queue": "q", "create": True},
        "unlock": {"queue": "q", "create": True},
        "drain": {"worker": "w1"},
    }
    body = bodies.get(verb, {"task": A, "reason": "why"} if verb not in ("confirm", "discard") else {"task": A})
    body["id"] = story.command_id(1)

    story.when(story.said(verb, body, "root"))
    assert [event.command for event in story.chosen if not isinstance(event, TaskScheduled)] == [body["id"]]
    (first,) = story.answers()
    story.when(story.said(verb, body, "root"), story.said(verb, body, "root")).then_nothing()

    assert [(answer.code, answer.error) for answer in story.answers()] == [(first.code, first.error)] * 2


@pytest.mark.parametrize("between", ["one decision", "two decisions", "another leader"])
@pytest.mark.parametrize(
    "other",
    [("cancel", {"task": B}), ("cancel", {"task": A, "reason": "else"}), ("reprioritise", {"task": A, "priority": 2})],
)
def test_a_command_id_that_comes_again_with_something_else_is_a_conflict_and_does_nothing(
    between: str, other: tuple[str, dict[str, Any]]
) -> None:
    commands = running().given(submitted(B))
    id = commands.command_id(1)
    first, second = commands.said("cancel", {"id": id, "task": A}), commands.said(other[0], {"id": id} | other[1])
    story: Story = commands

    if between == "one decision":
        story.when(first, second)
    else:
        story.when(first)
        story = story.successor() if between == "another leader" else story
        story.when(second)

    assert story.chosen[-1] == Like(CommandRejected, status=409, code="id_conflict", command=id)
    assert (story.record(A).phase, story.record(B).phase) == (Phase.STOPPING, Phase.PENDING)
    story.when(first).then_nothing()


def test_a_retry_under_the_id_of_another_ones_retry_is_a_conflict() -> None:
    story = failed().given(submitted(B, max_attempts=1), TaskScheduled(task=B), assigned(B, 1))
    story.given(AttemptFailed(task=B, attempt=1, error=FATAL))
    retries = [story.said("retry", {"id": story.command_id(1), "task": t}, original=submitted(t)) for t in (A, B)]

    story.when(retries[0])
    story.when(retries[1])

    assert story.codes() == [202, 409]
    assert story.chosen == [Like(CommandRejected, code="id_conflict")]


def test_a_refused_command_that_comes_corrected_under_its_id_is_a_conflict() -> None:
    story = running()
    story.when(story.said("cancel", {"id": story.command_id(1), "task": A, "nonsense": 1}))

    story.when(story.said("cancel", {"id": story.command_id(1), "task": A}))

    assert story.codes() == [422, 409]


def test_the_same_command_twice_in_one_decision_is_one_event() -> None:
    story = running()
    cancel = {"id": story.command_id(1), "task": A}

    story.when(story.said("cancel", cancel), story.said("cancel", cancel))

    story.then(Like(TaskStopRequested, task=A, cause="cancel", command=story.command_id(1)))
    assert story.codes() == [202, 202]


def test_a_refusal_names_the_task_that_the_command_was_about() -> None:
    story = running()
    story.when(story.said("release", {"task": A}, "root")).then(Like(CommandRejected, task=A, status=422))
    story.when(story.said("cancel", {"task": STRANGER})).then(Like(CommandRejected, task=STRANGER, status=404))
    story.when(story.said("cancel", {"task": "no id"})).then(Like(CommandRejected, task=None))


def test_a_refusal_is_remembered_too() -> None:
    story = Commands()
    cancel = {"id": story.command_id(1), "task": A}
    story.when(story.said("cancel", cancel)).then(Like(CommandRejected, status=404))

    story.given(submitted())
    story.when(story.said("cancel", cancel)).then_nothing()

    assert story.codes() == [404, 404]


def test_a_command_with_an_old_id_is_refused() -> None:
    story = running()
    cancel = {"id": story.command_id(1), "task": A}

    story.after(86_401).when(story.said("cancel", cancel)).then(Like(CommandRejected, status=422))


# -- who may -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "verb", "status"),
    [
        ("alice", "cancel", 202),
        ("bob", "cancel", 404),
        ("eve", "cancel", 403),
        ("root", "cancel", 202),
        ("alice", "force-stop", 403),
        ("root", "force-stop", 202),
        ("alice", "pause", 403),
        ("root", "pause", 202),
        ("alice", "lock", 403),
        ("alice", "drain", 403),
        ("alice", "configure-pool", 403),
        ("alice", "configure-queue", 403),
        ("bob", "reprioritise", 404),
        ("bob", "confirm", 404),
        ("bob", "retry", 404),
    ],
)
def test_an_operator_commands_their_own_tasks_and_an_admin_everything(by: str, verb: str, status: int) -> None:
    story = running()
    about_a_task = verb in ("cancel", "force-stop", "reprioritise", "confirm", "retry")
    body: dict[str, Any] = {"task": A} if about_a_task else {}
    body |= {"force-stop": {"reason": "dead"}, "reprioritise": {"priority": 1}}.get(verb, {})

    story.when(story.said(verb, body, by))

    assert story.codes() == [status]
    assert isinstance(story.chosen[0], CommandRejected) is (status != 202)


def test_another_s_task_is_answered_as_one_that_does_not_exist() -> None:
    told = []
    for task in (A, B):
        story = running()
        story.when(story.said("cancel", {"task": task}, "bob"))
        (refused,) = story.chosen
        assert isinstance(refused, CommandRejected)
        told.append((refused.status, refused.code, refused.message.replace(task, "it"), refused.errors))
    assert told[0] == told[1]


@pytest.mark.parametrize("verb", ["cancel", "force-stop", "confirm", "discard", "retry", "reprioritise"])
def test_a_task_that_nobody_knows_or_that_is_another_pools_is_not_found(verb: str) -> None:
    story = running().given(PoolConfigured(pool="other", by="root"))
    more: dict[str, Any] = {"force-stop": {"reason": "x"}, "reprioritise": {"priority": 1}}.get(verb, {})

    story.when(story.said(verb, {"task": STRANGER} | more, "root"))
    story.when(story.said(verb, {"task": A} | more, "root", pool="other"))

    assert story.codes() == [404, 404]


# -- cancel, force-stop ------------------------------------------------------------------------------------------------


def test_a_cancel_of_what_waits_ends_it_and_of_what_runs_stops_it() -> None:
    story = running()
    story.given(submitted(B, not_before=story.now + 10**9))

    story.when(story.said("cancel", {"task": B, "reason": "enough"}), story.said("cancel", {"task": A}))

    story.then(Like(TaskStopRequested, task=B, reason="enough", by="alice"), Like(TaskStopRequested, task=A))
    assert story.record(A).phase is Phase.STOPPING
    assert B not in story.machine.state.tasks.live
    assert story.codes() == [202, 202]


def test_a_cancel_of_an_ended_task_tells_how_it_ended() -> None:
    story = failed()

    story.when(story.said("cancel", {"task": A})).then(Like(TaskStopRequested))

    (answer,) = story.answers()
    assert (answer.code, answer.error, answer.status) == (409, "status_forbids", Status.FAILED)


def test_a_second_cancel_is_no_fault() -> None:
    story = running()
    story.when(story.said("cancel", {"task": A}))
    story.when(story.said("cancel", {"task": A}))
    story.given(AttemptFailed(task=A, attempt=1, error=FATAL))
    story.when(story.said("cancel", {"task": A}))

    assert story.codes() == [202, 202, 202]


def test_a_race_of_cancel_and_end_is_settled_by_the_log() -> None:
    """The cancel is decided on, but the end comes before it in the log: the answer is of what the fold said."""
    story = running()
    (cancel,) = story.decide(story.said("cancel", {"task": A})).events

    story.given(AttemptSucceeded(task=A, attempt=1), cancel)

    (answer,) = story.answers()
    assert (answer.code, answer.status) == (409, Status.COMPLETED)


def test_a_held_apply_whose_host_is_gone_for_good_is_released_on_an_admins_word() -> None:
    story = with_plan().given(submitted(B, "plan_and_apply"), ApplyConfirmed(task=A, attempt=1, by="bob"))
    story.given(
        TaskScheduled(task=A, attempt=1), assigned(A, 2), WorkerLost(worker="w1", incarnation="r1"), joined("w2")
    )
    story.when().then_nothing()

    story.when(story.said("release", {"task": A, "reason": "burnt"}, "root"))

    released = Like(AttemptReleased, task=A, attempt=2, by="root", reason="burnt")
    story.then(released, TaskScheduled(task=B))
    known = story.machine.state.known.tasks.get(A)
    assert story.codes() == [202] and known is not None and known.ended is Status.FAILED


def test_what_is_not_held_is_not_released() -> None:
    story = running()

    story.when(story.said("release", {"task": A, "reason": "burnt"}, "root"))

    (answer,) = story.answers()
    assert (answer.code, answer.status) == (409, Status.RUNNING)
    assert "held" in (answer.message or "")
    assert story.record().phase is Phase.RUNNING


def test_a_release_needs_a_reason_and_an_admin() -> None:
    story = running()

    story.when(story.said("release", {"task": A}, "root")).then(Like(CommandRejected, status=422))
    story.when(story.said("release", {"task": A, "reason": "burnt"})).then(Like(CommandRejected, status=403))


def test_a_force_stop_needs_a_reason() -> None:
    story = running()

    story.when(story.said("force-stop", {"task": A}, "root")).then(Like(CommandRejected, status=422))
    (answer,) = story.answers()
    assert answer.errors[0].path == "reason"
    story.when(story.said("force-stop", {"task": A, "reason": "host burnt"}, "root"))

    story.then(Like(ForceStopped, task=A, by="root", reason="host burnt"))
    assert A not in story.machine.state.tasks.live


# -- confirm, discard --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", [{}, {"attempt": 1}], ids=["the plan of now", "by attempt"])
def test_a_confirmed_plan_is_applied_on_its_reserved_slot(attempt: dict[str, int]) -> None:
    story = with_plan()

    story.when(story.said("confirm", {"task": A, "comment": "fine"} | attempt))

    confirmed = Like(ApplyConfirmed, task=A, attempt=1, by="alice", comment="fine")
    story.then(confirmed, TaskScheduled(task=A, attempt=1))
    assert story.record().is_reserved


@pytest.mark.parametrize("verb", ["confirm", "discard"])
def test_an_answer_for_another_plan_is_void(verb: str) -> None:
    story = with_plan()

    story.when(story.said(verb, {"task": A, "attempt": 2}))

    (answer,) = story.answers()
    assert (answer.code, answer.status) == (409, Status.APPLY_PENDING)
    assert story.record().phase is Phase.APPLY_PENDING


@pytest.mark.parametrize("verb", ["confirm", "discard"])
def test_an_answer_that_names_no_plan_is_not_for_one_that_came_after_it(verb: str) -> None:
    story = with_plan(BEFORE)
    early = story.said(verb, {"task": A}, sequence=BEFORE.sequence)

    for leader in (story.refolded(), story.successor(), story):
        leader.when(early).then(Like(CommandRejected, status=409, code="plan_changed"))


@pytest.mark.parametrize("verb", ["confirm", "discard"])
def test_an_answer_that_names_no_plan_is_taken_though_the_brokers_clock_went_forward_and_back(verb: str) -> None:
    story = with_plan(BEFORE)
    an_hour_ago = Instant(story.now - seconds(3600))
    answer = {"task": A, "id": make_uuid7(an_hour_ago, 7)}
    later = story.said(verb, answer, at=an_hour_ago, sequence=BEFORE.sequence + 1)

    for leader in (story.refolded(), story.successor(), story):
        leader.when(later)
        assert leader.chosen[0] == Like({"confirm": ApplyConfirmed, "discard": ApplyDiscarded}[verb], attempt=1)


def test_an_answer_that_stands_in_another_stream_of_commands_than_the_plans_mark_is_for_that_plan() -> None:
    story = with_plan(BEFORE)

    story.when(story.said("confirm", {"task": A}, stream="TASKYARD_COMMANDS@2", sequence=1))

    story.then(Like(ApplyConfirmed, attempt=1), Like(TaskScheduled))


def test_a_plan_of_which_nobody_knows_what_was_commanded_before_needs_answers_that_name_it() -> None:
    story = with_plan(StreamMark())

    story.when(story.said("confirm", {"task": A})).then(Like(CommandRejected, status=409, code="plan_changed"))
    story.when(story.said("confirm", {"task": A, "attempt": 1})).then(Like(ApplyConfirmed), Like(TaskScheduled))


def test_a_discard_ends_the_task() -> None:
    story = with_plan()

    story.when(story.said("discard", {"task": A, "comment": "no"})).then(Like(ApplyDiscarded, attempt=1, comment="no"))
    story.when(story.said("discard", {"task": A, "attempt": 1}))
    story.when(story.said("confirm", {"task": A, "attempt": 1}))

    assert [(a.code, a.status) for a in story.answers()] == [(202, None), (202, None), (409, Status.CANCELLED)]


def test_a_plan_that_was_confirmed_may_be_discarded_until_its_apply_is_scheduled() -> None:
    story = with_plan()

    story.when(story.said("confirm", {"task": A}), story.said("discard", {"task": A}))

    story.then(Like(ApplyConfirmed), Like(ApplyDiscarded))
    assert story.codes() == [202, 202]
    story.when(story.said("confirm", {"task": A, "attempt": 1}))
    assert [(answer.code, answer.status) for answer in story.answers()] == [(409, Status.CANCELLED)]


def test_an_apply_that_was_scheduled_is_not_discarded_any_more() -> None:
    story = with_plan()
    story.when(story.said("confirm", {"task": A}))

    story.when(story.said("discard", {"task": A}))

    assert story.codes() == [202, 409]
    assert story.record().phase is Phase.SCHEDULED


def test_a_second_confirm_of_the_same_plan_is_no_fault_even_after_the_end() -> None:
    story = with_plan()
    story.when(story.said("confirm", {"task": A, "attempt": 1}))
    story.when(story.said("confirm", {"task": A, "attempt": 1}))
    story.given(assigned(attempt=2), AttemptSucceeded(task=A, attempt=2))
    story.when(story.said("confirm", {"task": A, "attempt": 1}), story.said("confirm", {"task": A}))

    assert story.codes() == [202, 202, 202, 202]


def test_a_confirm_of_what_has_no_plan_is_void() -> None:
    story = running()

    story.when(story.said("confirm", {"task": A}))

    assert story.codes() == [409]


# -- retry -------------------------------------------------------------------------------------------------------------


def test_a_retry_makes_a_new_task_like_the_old_one_once() -> None:
    story = failed()
    original = submitted(labels={"a": "b"}, priority=3)
    retry = {"id": story.command_id(1), "task": A}

    story.when(story.said("retry", retry, original=original), story.said("retry", retry, original=original))
    story.then(
        Like(TaskSubmitted, retry_of=A, labels={"a": "b"}, priority=3, by="alice", command=story.command_id(1)),
        Like(TaskScheduled),
    )
    new = story.chosen[0].task
    story.when(story.said("retry", retry, original=original)).then_nothing()

    assert new != A
    assert [(answer.code, answer.id) for answer in story.answers()] == [(202, new)] * 3


def test_another_retry_makes_another_task() -> None:
    story = failed()
    original = submitted()

    story.when(story.said("retry", {"task": A}, original=original), story.said("retry", {"task": A}, original=original))

    assert len({event.task for event in story.chosen if isinstance(event, TaskSubmitted)}) == 2


def test_only_what_ended_without_success_is_retried() -> None:
    story = running()
    story.when(story.said("retry", {"task": A}, original=submitted()))
    story.given(AttemptSucceeded(task=A, attempt=1))
    story.when(story.said("retry", {"task": A}, original=submitted()))

    answers = story.answers()
    assert [(a.code, a.error, a.status) for a in answers] == [
        (409, "status_forbids", Status.RUNNING),
        (409, "status_forbids", Status.COMPLETED),
    ]


def test_a_retry_whose_original_is_gone_is_not_found() -> None:
    story = failed()

    story.when(story.said("retry", {"task": A})).then(Like(CommandRejected, status=404))


def test_a_retry_needs_room_in_the_pool() -> None:
    story = failed().given(PoolConfigured(pool="default", by="root", max_waiting=0))

    story.when(story.said("retry", {"task": A}, original=submitted())).then(Like(CommandRejected, status=429))


def test_a_retry_does_not_wait_for_the_old_tasks_time() -> None:
    story = failed()

    story.when(story.said("retry", {"task": A}, original=submitted(not_before=story.now)))

    assert story.chosen[0].not_before is None


# -- the rest ----------------------------------------------------------------------------------------------------------


def test_a_waiting_task_gets_another_place() -> None:
    story = Commands()
    story.given(submitted(A), submitted(B))
    story.when(story.said("reprioritise", {"task": B, "priority": 1})).then(Like(TaskReprioritised, task=B, priority=1))

    story.given(joined(slots=(("any",),))).when().then(TaskScheduled(task=B))


def test_a_task_that_got_a_lower_place_does_not_keep_its_old_one() -> None:
    story = Commands()
    story.given(submitted(A), submitted(B))
    story.when(story.said("reprioritise", {"task": A, "priority": 9}))
    story.when(story.said("reprioritise", {"task": A, "priority": 5}))
    story.when(story.said("reprioritise", {"task": A, "priority": 6}))

    story.given(joined(slots=(("any",),))).when().then(TaskScheduled(task=B))


def test_what_already_runs_has_no_place() -> None:
    story = running()

    story.when(story.said("reprioritise", {"task": A, "priority": 1}))

    assert story.codes() == [409]


@pytest.mark.parametrize(
    ("verb", "body", "event"),
    [
        ("configure-pool", {"max_waiting": 5}, Like(PoolConfigured, pool="default", max_waiting=5, placement=None)),
        ("configure-queue", {"queue": "q", "max_running": 2}, Like(QueueConfigured, queue="q", max_running=2)),
        ("pause", {}, Like(QueuePaused, queue=None, by="root")),
        ("pause", {"queue": "q", "reason": "r"}, Like(QueuePaused, queue="q", reason="r")),
        ("resume", {"queue": "q"}, Like(QueueResumed, queue="q")),
        ("lock", {"queue": "q", "reason": "mine"}, Like(QueueLocked, queue="q", reason="mine", by="root")),
        ("unlock", {"queue": "q"}, Like(QueueUnlocked, queue="q")),
    ],
)
def test_settings_become_events(verb: str, body: dict[str, Any], event: Like) -> None:
    story = Commands().given(submitted(queue="q", not_before=START + 10**12))

    story.when(story.said(verb, body, "root")).then(event)

    assert [answer.code for answer in story.answers()] == [202]


def test_only_a_worker_of_the_pool_is_drained() -> None:
    story = Commands().given(joined("w1"), PoolConfigured(pool="other", by="root"))

    story.when(story.said("drain", {"worker": "w1"}, "root")).then(Like(WorkerDrainRequested, worker="w1"))
    story.when(story.said("drain", {"worker": "w2"}, "root")).then(Like(CommandRejected, status=404))
    story.when(story.said("drain", {"worker": "w1"}, "root", pool="other")).then(Like(CommandRejected, status=404))


def test_a_worker_that_is_lost_and_keeps_a_slot_cannot_be_drained() -> None:
    """An apply under way is held, and its slot with it."""
    story = with_plan().given(ApplyConfirmed(task=A, attempt=1, by="alice"), assigned(attempt=2))
    story.given(TaskDispatched(task=A, attempt=2), WorkerLost(worker="w1", incarnation=run(1)))

    story.when(story.said("drain", {"worker": "w1"}, "root")).then(
        Like(CommandRejected, status=409, code="worker_lost")
    )


def test_a_drain_that_comes_behind_the_loss_of_its_worker_is_told_so() -> None:
    """The scheduler has not folded the loss when it decides."""
    story = Commands().given(joined("w1"))

    decided = story.decide(story.said("drain", {"worker": "w1"}, "root")).events
    story.given(WorkerLost(worker="w1", incarnation=run(1)), *decided)

    (answer,) = story.answers()
    assert (answer.code, answer.error) == (409, "worker_lost")


def test_an_answer_names_the_position_of_the_event() -> None:
    story = running()
    story.given(TaskDispatched(task=C, attempt=1))

    story.when(story.said("cancel", {"task": A}))

    (answer,) = story.answers()
    assert answer == Answer(code=202, id=A, position=story.log[-1][2])


def test_a_task_that_got_its_old_place_again_is_scheduled_once() -> None:
    story = Commands()
    story.given(submitted(A), submitted(B), submitted(C))
    story.when(story.said("reprioritise", {"task": B, "priority": 9}))
    story.when(story.said("reprioritise", {"task": B, "priority": 5}))

    story.given(joined(slots=(("any",),) * 3)).when()

    story.then(TaskScheduled(task=A), TaskScheduled(task=B), TaskScheduled(task=C))


@pytest.mark.parametrize("verb", ["confirm", "discard"])
def test_an_answer_to_a_plan_that_is_not_shown_is_told_which_attempt_it_named(verb: str) -> None:
    story = with_plan()
    story.when(story.said(verb, {"task": A, "attempt": 7}))
    (answer,) = story.answers()
    assert (answer.code, answer.error, answer.status) == (409, "status_forbids", Status.APPLY_PENDING)
    assert answer.message is not None and "no plan of attempt 7" in answer.message
