"""Commanding tasks, queues and pools, over both doors: verdicts, repeats, and who may what."""

import asyncio
import json
from typing import Any

import httpx
import nats
import pytest
from forms import is_id, is_position, is_problem
from nats_doors import ask, connected
from system import System
from test_tasks import fresh_id

NOOP = {"kind": "noop", "input": {}}
TASKS_MAX = 500


def waiting(yard: System, **fields: Any) -> str:
    """A task that waits for ever: nobody works in its pool."""
    return yard.submit("noop", pool="nobody", input={}, **fields)


def test_asking_again_for_what_holds_is_accepted(yard: System) -> None:
    id = waiting(yard)
    first, second = (yard.act(id, "cancel", reason="not needed") for _ in range(2))
    assert first.status_code == second.status_code == 202
    assert is_position(first.json()["position"])
    yard.wait(id, "cancelled")
    assert yard.act(id, "force-stop", reason="again").status_code == 202


def test_a_body_is_optional_where_nothing_must_be_said(yard: System) -> None:
    for body in (b"", b"{}", b'{"reason": "because"}', b'{"comment": "because"}'):
        assert yard.http.post(f"/tasks/{waiting(yard)}/cancel", content=body).status_code == 202
    id = waiting(yard)
    assert yard.act(id, "cancel").status_code == 202
    retried = yard.http.post(f"/tasks/{id}/retry")
    assert retried.status_code == 202
    assert is_id(retried.json()["id"])
    assert is_position(retried.json()["position"])
    seen = yard.http.get(f"/tasks/{retried.json()['id']}", params={"after": retried.json()["position"]}).json()
    assert (seen["retry_of"], seen["status"]) == (id, "pending")


def test_a_status_that_forbids_it_is_named(yard: System) -> None:
    pending = waiting(yard)
    completed = yard.command("true")
    yard.wait(completed, "completed")
    for id, status, verbs in (
        (pending, "pending", ("confirm", "discard", "retry")),
        (completed, "completed", ("cancel", "force-stop", "confirm", "discard", "retry")),
    ):
        for verb in verbs:
            problem = is_problem(yard.act(id, verb, **({"reason": "x"} if verb == "force-stop" else {})), 409)
            assert status in problem["detail"], problem
            assert problem["task_status"] == status
    for verb in ("cancel", "force-stop", "confirm", "discard", "retry"):
        body = {"reason": "x"} if verb == "force-stop" else {}
        for nobody in (fresh_id(), "nonsense"):
            is_problem(yard.http.post(f"/tasks/{nobody}/{verb}", json=body), 404)
    is_problem(yard.act(pending, "force-stop"), 422, "reason")


def test_a_confirmation_may_name_the_plan_that_was_seen(yard: System) -> None:
    id = yard.terraform("plan_and_apply", yard.configuration("seen"), "seen")
    attempt = yard.wait(id, "apply_pending")["attempt"]
    is_problem(yard.act(id, "confirm", attempt=attempt + 1), 409)
    assert yard.act(id, "confirm", attempt=attempt, comment="looks right").status_code == 202
    assert yard.act(id, "confirm", attempt=attempt).status_code == 202
    yard.wait(id, "completed")
    assert yard.act(id, "confirm", attempt=attempt).status_code == 202  # it holds still
    is_problem(yard.act(id, "discard"), 409)
    assert yard.types(id).count("ApplyConfirmed") == 1


def test_naming_an_unknown_pool_is_refused_with_the_nearest_name(yard: System) -> None:
    for answer in (
        yard.http.post("/tasks", json={**NOOP, "pool": "nobdoy"}),
        yard.http.post("/pools/nobdoy/pause", json={}),
        yard.http.post("/queues/nobdoy/lock", json={"queue": "q"}),
    ):
        problem = is_problem(answer, 422, "pool")
        assert "did you mean nobody?" in problem["errors"][0]["message"]


def test_a_command_id_that_comes_again_for_another_task_is_a_conflict(yard: System) -> None:
    one, other = waiting(yard), waiting(yard)
    id = fresh_id()
    assert yard.http.post(f"/tasks/{one}/cancel", json={"id": id}).status_code == 202
    is_problem(yard.http.post(f"/tasks/{other}/cancel", json={"id": id}), 409, "id")
    assert yard.task(other)["status"] == "pending"
    assert yard.act(other, "cancel").status_code == 202


def test_what_is_not_held_is_not_released(yard: System) -> None:
    id = waiting(yard)
    is_problem(yard.act(id, "release"), 422, "reason")
    is_problem(yard.act(id, "release", reason="gone"), 409)
    assert yard.act(id, "cancel").status_code == 202


def test_every_verb_is_answered_over_nats_as_over_http(yard: System) -> None:
    id = waiting(yard, queue="verbs")
    queue = {"pool": "nobody", "queue": "verbs"}
    for verb, body in (
        ("reprioritise", {"pool": "nobody", "task": id, "priority": 1}),
        ("configure-pool", {"pool": "nobody", "max_waiting": 100_000}),
        ("configure-queue", {**queue, "max_running": 3}),
        ("pause", {**queue, "reason": "r"}),
        ("resume", {**queue, "reason": "r"}),
        ("pause", {"pool": "nobody"}),
        ("resume", {"pool": "nobody"}),
        ("lock", {**queue, "reason": "r"}),
        ("unlock", queue),
        ("cancel", {"pool": "nobody", "task": id, "reason": "r"}),
        ("retry", {"pool": "nobody", "task": id}),
    ):
        answer = ask(yard, verb, **body)
        assert answer["code"] == 202, (verb, answer)
        assert is_position(answer["position"])
        assert ("id" in answer) == (verb == "retry")
    queues = yard.http.get("/queues", params={"after": answer["position"]}).json()["items"]
    (seen,) = [item for item in queues if item["queue"] == "verbs"]
    assert (seen["max_running"], seen["paused"], seen["locked"]) == (3, False, False)
    assert yard.task(id)["priority"] == 1
    for verb, body, code in (
        ("drain", {"worker": "nobody"}, 404),
        ("lock", {}, 422),
        ("reprioritise", {"task": fresh_id(), "priority": 1}, 404),
        ("force-stop", {"task": fresh_id()}, 422),
        ("nonsense", {}, 422),
    ):
        assert ask(yard, verb, **body)["code"] == code, verb


def test_naming_an_unknown_queue_is_refused_unless_it_is_to_be_created(yard: System) -> None:
    for verb in ("pause", "lock", "configure-queue"):
        refused = ask(yard, verb, queue="made/by.nmae")
        assert (refused["code"], refused["errors"][0]["path"]) == (404, "queue")
    position = ask(yard, "configure-queue", queue="made/by.name", max_running=1, create=True)["position"]
    queues = yard.http.get("/queues", params={"after": position}).json()["items"]
    assert any((queue["queue"], queue["max_running"]) == ("made/by.name", 1) for queue in queues)


def test_a_message_holds_500_tasks_and_128_kib(yard: System) -> None:
    task = {"kind": "noop", "input": {}}
    full = ask(yard, "submit", pool="nobody", tasks=[task] * TASKS_MAX)
    assert full["code"] == 202
    assert len({entry["id"] for entry in full["tasks"]}) == TASKS_MAX
    over = ask(yard, "submit", pool="nobody", tasks=[task] * (TASKS_MAX + 1))
    assert over["code"] == 422
    kibi = {"kind": "noop", "input": "x" * 1000}
    assert ask(yard, "submit", pool="nobody", tasks=[kibi] * 120)["code"] == 202
    assert ask(yard, "submit", pool="nobody", tasks=[kibi] * 135)["code"] == 413


@pytest.mark.parametrize("subject", ["taskyard.log.>", "$JS.API.STREAM.MSG.GET.TASKYARD_LOG_0", "_INBOX_operator.>"])
def test_a_client_reads_neither_the_log_nor_the_answers_of_others(yard: System, subject: str) -> None:
    """Listening is denied, and asking is denied or answered by nobody."""

    async def attempt() -> str:
        denied: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def on_error(error: Exception) -> None:
            if not denied.done():
                denied.set_result(str(error))

        async with connected(yard, error_cb=on_error) as client:
            if subject.startswith("$JS"):
                try:
                    await client.request(subject, b'{"seq": 1}', timeout=1)
                except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
                    pass
                else:
                    raise AssertionError("the log was read")
            else:
                await client.subscribe(subject)
            await client.flush()
            return await asyncio.wait_for(denied, 5)

    assert "permissions violation" in asyncio.run(attempt()).lower()


def test_roles_say_who_may_what(yard: System) -> None:
    theirs = waiting(yard)
    yard.wait(theirs, "pending")
    with yard.as_principal("viewer") as viewer, yard.as_principal("operator") as operator:
        is_problem(viewer.post("/tasks", json=NOOP), 403)
        is_problem(viewer.post(f"/tasks/{theirs}/cancel"), 403)
        assert viewer.get(f"/tasks/{theirs}").status_code == 200
        mine = operator.post("/tasks", json={**NOOP, "pool": "nobody"}).json()
        # An operator works on tasks of their own, and does not learn of others.
        assert operator.get(f"/tasks/{mine['id']}", params={"after": mine["position"]}).status_code == 200
        for path in ("", "/history", "/output"):
            is_problem(operator.get(f"/tasks/{theirs}{path}"), 404)
        assert _ids(operator) >= {mine["id"]}
        assert theirs not in _ids(operator)
        assert operator.get("/tasks", params={"submitted_by": "admin"}).json()["items"] == []
        assert operator.post(f"/tasks/{theirs}/cancel").status_code in {403, 404}
        for client in (viewer, operator):
            for path, body in (
                ("/pools/nobody/pause", {}),
                ("/queues/nobody/lock", {"queue": "default"}),
                ("/workers/worker-1/drain", {}),
                (f"/tasks/{mine['id']}/force-stop", {"reason": "x"}),
            ):
                is_problem(client.post(path, json=body), 403)
        assert operator.post(f"/tasks/{mine['id']}/cancel").status_code == 202
    assert yard.act(theirs, "cancel").status_code == 202


def _ids(client: httpx.Client) -> set[str]:
    return {item["id"] for item in json.loads(client.get("/tasks", params={"limit": 500}).content)["items"]}
