"""The past and the reasons over HTTP, on a real log: what is asked for, what the answer says of its moment, what is refused."""

from typing import Any

import pytest
from fake_read_model import FakeTask
from msgspec import Raw
from running_api import World

from taskyard.api.clock import make_id
from taskyard.contracts.events import QueueLocked, QueuePaused, TaskSubmitted
from taskyard.contracts.values import POOL_DEFAULT, TaskId

pytestmark = pytest.mark.anyio
ID = "0199f3c1-0000-7000-8000-000000000001"


async def ask(world: World, path: str, user: str = "admin", **parameters: str) -> Any:
    async with world.http(user) as http:
        return await http.get(f"/api/v1{path}", params=parameters)


async def test_a_list_of_the_past_says_its_moment_in_body_and_header(world: World) -> None:
    queue = f"past-{await world.log.head()}"
    sequence = await world.append(
        QueuePaused(pool=POOL_DEFAULT, queue=queue, by="bob", reason="night"),
        QueueLocked(pool=POOL_DEFAULT, queue=queue, by="carol"),
    )
    answer = await ask(world, "/queues", at=f"{sequence}.0")
    body = answer.json()
    [found] = [each for each in body["items"] if each["queue"] == queue]
    assert (found["paused_by"], found["paused_reason"], found["locked"]) == ("bob", "night", False)
    assert body["as_of"]["position"] == answer.headers["Taskyard-Position"] == f"{sequence}.0"
    later = (await ask(world, "/queues", at=str(sequence))).json()
    assert [each["locked_by"] for each in later["items"] if each["queue"] == queue] == ["carol"]
    by_time = (await ask(world, "/queues", at=body["as_of"]["at"].replace("Z", "999+00:00"))).json()
    assert queue in {each["queue"] for each in by_time["items"]}


async def test_a_page_of_tasks_of_the_past_says_its_moment_and_asks_the_read_model_only_for_what_may_have_ended(
    world: World,
) -> None:
    task = make_id()
    first = await world.append(a_submission(task))
    await world.append(a_submission(make_id()))
    answer = await ask(world, "/tasks", at=str(first), queue=f"past-{task}", status="pending")
    body = answer.json()
    assert [each["id"] for each in body["items"]] == [task] and body["next_cursor"] is None
    assert body["as_of"]["position"] == answer.headers["Taskyard-Position"] == f"{first}.0"
    world.read_model.is_away = True
    assert (await ask(world, "/tasks", at=str(first), status="pending")).status_code == 200
    assert (await ask(world, "/tasks", at=str(first))).status_code == 503


def a_submission(task: str) -> TaskSubmitted:
    return TaskSubmitted(
        task=TaskId(task), kind="noop", pool="default", queue=f"past-{task}", by="admin", input=Raw(b"{}"), digest="d",
        timeout_seconds=1.0,
    )  # fmt: skip


@pytest.mark.parametrize("path", ["/tasks", "/workers", "/queues", "/pools", f"/tasks/{ID}"])
@pytest.mark.parametrize(
    ("at", "says"), [("soon", "RFC 3339"), ("2999-01-01T00:00:00Z", "future"), ("99999999", "ends")]
)
async def test_what_is_no_moment_is_refused_at_its_field(world: World, path: str, at: str, says: str) -> None:
    await world.append(QueuePaused(pool=POOL_DEFAULT, by="bob"))
    answer = await ask(world, path, at=at)
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["path"] == "at" and says in error["message"]


async def test_after_means_nothing_beside_at(world: World) -> None:
    await world.append(QueuePaused(pool=POOL_DEFAULT, by="bob"))
    for path in ("/pools", "/tasks"):
        answer = await ask(world, path, at="1", after="1")
        assert answer.status_code == 422 and answer.json()["errors"][0]["path"] == "after"


async def test_lists_of_now_bear_no_moment(world: World) -> None:
    assert (await ask(world, "/pools")).json() == {"items": [], "next_cursor": None}


async def test_the_past_of_pools_is_told_while_postgresql_is_away(world: World) -> None:
    sequence = await world.append(QueuePaused(pool=POOL_DEFAULT, by="bob"))
    world.read_model.is_away = True
    assert (await ask(world, "/pools", at=str(sequence))).status_code == 200
    assert (await ask(world, f"/tasks/{ID}", at=str(sequence))).status_code == 503


async def test_why_is_told_to_those_who_may_see_the_task(world: World) -> None:
    assert (await ask(world, f"/tasks/{ID}/why")).status_code == 404
    assert (await ask(world, "/tasks/nonsense/why")).status_code == 404
    world.read_model.put(FakeTask(id=ID, submitted_by="admin", pending_reason=None))
    found = (await ask(world, f"/tasks/{ID}/why")).json()
    assert found["task"]["id"] == ID and found["complete"] and found["decisions"] == []
    assert (await ask(world, f"/tasks/{ID}/why", user="oscar")).status_code == 404
    assert (await ask(world, f"/tasks/{ID}/why", user="")).status_code == 401
