"""Approvals: nothing is applied but the plan that somebody saw and confirmed."""

from collections.abc import Iterator

import pytest
from nats_doors import command
from system import System

DEFAULT_SECONDS = 86_400


def planned(system: System, name: str) -> str:
    """A plan_and_apply whose plan waits for an answer."""
    id = system.terraform("plan_and_apply", system.configuration(name), name)
    system.wait(id, "apply_pending")
    return id


def test_a_confirmation_is_recorded_with_who_and_why(system: System) -> None:
    id = planned(system, "confirmed")
    waiting = system.waits(id, "approval")
    assert waiting["result"]["changes"] == {"add": 1, "change": 0, "destroy": 0}
    assert system.act(id, "confirm", comment="looks right").status_code == 202
    completed = system.wait(id, "completed")
    assert completed["attempt"] == 2
    assert completed["result"]["outputs"] == {"n": 1}
    event = system.event(id, "ApplyConfirmed")
    assert event["by"] == "admin"
    assert event["data"]["comment"] == "looks right"
    assert event["data"]["attempt"] == 1


def test_an_apply_starts_only_after_its_confirmation(system: System) -> None:
    id = planned(system, "after")
    assert "ApplyConfirmed" not in system.types(id)
    assert system.types(id).count("SlotAssigned") == 1
    system.act(id, "confirm")
    system.wait(id, "completed")
    types = system.types(id)
    assert types.count("SlotAssigned") == 2
    after_plan = types[types.index("TaskPlanned") + 1 :]
    assert after_plan[:3] == ["ApplyConfirmed", "TaskScheduled", "SlotAssigned"]


def test_a_discarded_plan_is_never_applied(system: System) -> None:
    directory, witness = system.witnessed("discarded")
    id = system.terraform("plan_and_apply", directory, "discarded")
    system.wait(id, "apply_pending")
    assert system.act(id, "discard", comment="not today").status_code == 202
    task = system.wait(id, "cancelled")
    assert task["error"]["code"] == "discarded"
    assert "not today" in task["error"]["message"]
    refused = system.act(id, "confirm")
    assert refused.status_code == 409
    assert "cancelled" in refused.text
    assert witness.read_text() == ""


@pytest.fixture
def short_patience(system: System) -> Iterator[None]:
    """The pool waits for answers no longer than a second."""
    command(system, "configure-pool", approval_timeout_seconds=1)
    yield
    command(system, "configure-pool", approval_timeout_seconds=DEFAULT_SECONDS)


@pytest.mark.usefixtures("short_patience")
def test_a_plan_that_nobody_answers_expires(system: System) -> None:
    directory, witness = system.witnessed("expired")
    id = system.terraform("plan_and_apply", directory, "expired")
    task = system.wait(id, "cancelled")
    assert task["error"]["code"] == "approval_expired"
    assert system.types(id)[-2:] == ["TaskPlanned", "ApprovalExpired"]
    assert system.act(id, "confirm").status_code == 409
    assert witness.read_text() == ""


def test_auto_confirm_applies_without_asking_and_says_so(system: System) -> None:
    directory, witness = system.witnessed("auto")
    id = system.terraform("plan_and_apply", directory, "auto", auto_confirm=True)
    system.wait(id, "completed")
    assert system.event(id, "ApplyConfirmed")["by"] == "auto"
    assert witness.read_text() == "applied\n"


def test_a_plan_without_changes_waits_for_an_answer_too(system: System) -> None:
    id = system.terraform("plan_and_apply", system.configuration("unchanged", ""), "unchanged")
    task = system.wait(id, "apply_pending")
    assert task["result"]["changes"] == {"add": 0, "change": 0, "destroy": 0}
    assert system.act(id, "confirm").status_code == 202
    system.wait(id, "completed")


def test_a_confirmation_of_another_attempt_is_refused(system: System) -> None:
    id = planned(system, "other-attempt")
    refused = system.act(id, "confirm", attempt=2)
    assert refused.status_code == 409
    assert "apply_pending" in refused.text
    assert system.task(id)["status"] == "apply_pending"
    assert system.act(id, "discard", attempt=2).status_code == 409
    assert system.act(id, "confirm", attempt=1).status_code == 202
    system.wait(id, "completed")


def test_confirming_twice_is_accepted_and_applies_once(system: System) -> None:
    directory, witness = system.witnessed("twice")
    id = system.terraform("plan_and_apply", directory, "twice")
    system.wait(id, "apply_pending")
    assert [system.act(id, "confirm").status_code for _ in range(2)] == [202, 202]
    system.wait(id, "completed")
    assert system.act(id, "confirm").status_code == 202
    assert witness.read_text() == "applied\n"
    assert system.types(id).count("ApplyConfirmed") == 1


def test_a_confirmation_before_there_is_a_plan_counts_for_none(system: System) -> None:
    slow, gate = system.slow_plan("too-early")
    id = system.terraform("plan_and_apply", slow, "too-early")
    system.wait(id, "running")
    assert system.act(id, "confirm").status_code == 409
    gate.open()
    system.wait(id, "apply_pending")
    assert "ApplyConfirmed" not in system.types(id)
    assert system.act(id, "discard").status_code == 202


def test_an_operator_cannot_answer_for_the_plan_of_another(system: System) -> None:
    id = planned(system, "foreign")
    with system.as_operator() as operator:
        for verb in ("confirm", "discard", "cancel"):
            # It is not told that there is such a task.
            assert operator.post(f"/tasks/{id}/{verb}").status_code == 404
        assert operator.get(f"/tasks/{id}").status_code == 404
    assert system.task(id)["status"] == "apply_pending"
    assert system.types(id)[-1] == "TaskPlanned"
    assert system.act(id, "discard").status_code == 202


def test_the_next_of_a_workspace_waits_for_the_answer(system: System) -> None:
    id = planned(system, "busy")
    follower = system.terraform("plan_and_apply", system.configuration("busy-next"), "busy")
    reason = system.waits(follower, "workspace_busy")["pending_reason"]
    assert reason["blocker"] == id
    assert system.act(id, "discard").status_code == 202
    system.wait(follower, "apply_pending")
    assert system.act(follower, "discard").status_code == 202
