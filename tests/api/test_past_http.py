"""The past and the reasons over HTTP, on a real log: what is asked for, what the answer says of its moment, what is refused."""

from typing import Any

import pytest
from fake_read_model import FakeTask
from running_api import World

from taskyard.contracts.events import QueueLocked, QueuePaused
from taskyard.contracts.values import POOL_DEFAULT

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


@pytest.mark.parametrize("path", ["/workers", "/queues", "/pools", f"/tasks/{ID}"])
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
    answer = await ask(world, "/pools", at="1", after="1")
    assert answer.status_code == 422 and answer.json()["errors"][0]["path"] == "after"


async def test_lists_of_now_bear_no_moment(world: World) -> None:
    assert (await ask(world, "/pools")).json() == {"items": []}


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
