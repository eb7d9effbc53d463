"""Exactly what is asked: pools and queues that nobody has made are refused, with the nearest name."""

from typing import Any

import pytest
from machine_story import START, A, Like, joined, submitted, task_id
from scheduler_story import Commands

from taskyard.contracts.events import CommandRejected, PoolConfigured, QueuePaused, TaskSubmitted
from taskyard.contracts.verbs import VERBS
from taskyard.scheduler import names
from taskyard.scheduler.machine import Scheduler
from taskyard.scheduler.names import QueueNames

NOOP = {"kind": "noop", "input": {}}
OF_QUEUES = ("pause", "resume", "lock", "unlock", "configure-queue")
BODY: dict[str, dict[str, Any]] = {
    "submit": NOOP,
    "reprioritise": {"task": A, "priority": 1},
    "drain": {"worker": "w1"},
    **{verb: {"queue": "network"} for verb in OF_QUEUES},
}


@pytest.mark.parametrize("verb", sorted(VERBS.keys() - {"configure-pool"}))
def test_every_command_about_an_unknown_pool_is_refused_with_the_nearest_name(verb: str) -> None:
    story = Commands().given(joined(pool="gpu-west"))
    body = BODY.get(verb, {"task": A})

    story.when(story.said(verb, body, "root", pool="gpu-wets"))

    story.then(Like(CommandRejected, status=422, verb=verb))
    (answer,) = story.answers()
    assert [error.path for error in answer.errors] == ["pool"]
    assert "did you mean gpu-west?" in answer.errors[0].message


def test_the_default_pool_is_always_there() -> None:
    story = Commands()

    story.when(story.submit(1))

    assert story.codes() == [202]


@pytest.mark.parametrize(
    "when", ["before", "in the same decision", "before another leader", "before a replay of the log"]
)
def test_configure_pool_makes_a_pool(when: str) -> None:
    story = Commands()
    configure, submit = story.said("configure-pool", {}, "root", pool="gpu"), story.said("submit", NOOP, pool="gpu")

    if when == "in the same decision":
        story.when(configure, submit)
        chosen = story.chosen
    else:
        story.when(configure)
        told = {
            "before": story,
            "before another leader": story.successor(),
            "before a replay of the log": story.refolded(),
        }
        chosen = told[when].when(submit).chosen

    assert any(isinstance(event, TaskSubmitted) for event in chosen)


def test_a_worker_that_joins_makes_a_pool_and_its_leaving_does_not_unmake_it() -> None:
    story = Commands().given(joined(pool="gpu"))

    for leader in (story, story.refolded()):
        leader.when(story.said("submit", NOOP, pool="gpu"))
        assert isinstance(leader.chosen[0], TaskSubmitted)


def test_pools_that_the_snapshot_of_an_earlier_version_lacks_are_those_of_its_workers() -> None:
    story = Commands().given(joined(pool="gpu"), PoolConfigured(pool="old", by="root"))
    saved = story.machine.state.saved()
    state = Scheduler({}).state.restored(type(saved)(**{**_fields(saved), "pools": [], "queue_names": None}))

    assert state.has_pool("gpu") and not state.has_pool("old")


@pytest.mark.parametrize("verb", OF_QUEUES)
def test_a_queue_that_nobody_has_named_is_refused_with_the_nearest_name(verb: str) -> None:
    story = Commands().given(submitted(queue="network"))

    story.when(story.said(verb, {"queue": "netwrok"}, "root"))

    story.then(Like(CommandRejected, status=404, code="not_found"))
    (answer,) = story.answers()
    assert [error.path for error in answer.errors] == ["queue"]
    assert "did you mean network?" in (answer.message or "") and "create" in answer.errors[0].message


@pytest.mark.parametrize("verb", OF_QUEUES)
def test_a_queue_that_nobody_has_named_is_made_where_the_body_says_so(verb: str) -> None:
    story = Commands()

    story.when(story.said(verb, {"queue": "new", "create": True}, "root"))
    story.when(story.said(verb, {"queue": "new"}, "root"))

    assert story.codes() == [202, 202]


@pytest.mark.parametrize("verb", OF_QUEUES)
def test_submitting_makes_a_queue_and_its_end_does_not_unmake_it(verb: str) -> None:
    story = Commands()
    story.when(story.submit(1, queue="builds"), story.said(verb, {"queue": "builds"}, "root"))
    story.when(story.said("cancel", {"task": task_id(1)}))
    story.answers()
    again = story.said(verb, {"queue": "builds"}, "root")

    for leader in (story, story.successor(), story.refolded()):
        leader.when(again)
        assert not any(isinstance(event, CommandRejected) for event in leader.chosen)


def test_a_lock_through_another_pool_is_of_a_queue_that_any_pool_knows() -> None:
    story = Commands().given(joined(pool="west"), submitted(A, "plan_and_apply", queue="prod"))

    story.when(story.said("pause", {"queue": "prod"}, "root", pool="west"))
    story.when(story.said("lock", {"queue": "prod"}, "root", pool="west"))

    assert story.codes() == [404, 202]


def test_the_default_queue_of_a_pool_is_always_there() -> None:
    story = Commands()

    story.when(story.said("pause", {"queue": "default"}, "root")).then(Like(QueuePaused, queue="default"))


def test_names_of_queues_are_bounded_and_those_named_least_recently_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "NAMES_MAX", 2)
    known = QueueNames()
    for name in ("a", "b", "a", "c"):
        known.add("default", name)

    assert [known.has("default", name) for name in "abc"] == [True, False, True]
    assert QueueNames(known.saved()).saved() == known.saved()


def test_a_batch_to_an_unknown_pool_is_refused_as_a_whole_and_may_be_sent_again_when_the_pool_is_there() -> None:
    story = Commands()
    batch = story.said("submit", {"id": story.command_id(1), "tasks": [NOOP, NOOP]}, pool="gpu")
    story.when(batch).then(Like(CommandRejected, status=422))

    story.given(PoolConfigured(pool="gpu", by="root")).when(batch)

    assert [event.pool for event in story.chosen if isinstance(event, TaskSubmitted)] == ["gpu", "gpu"]
    assert story.now == START


def _fields(saved: Any) -> dict[str, Any]:
    return {name: getattr(saved, name) for name in saved.__struct_fields__}
