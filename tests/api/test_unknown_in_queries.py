"""Nothing unknown is ignored in queries: it is refused, with the name of what is at fault and the nearest that is known."""

from typing import Any

import pytest
from running_api import World

from taskyard.api.clock import make_id
from taskyard.contracts.events import PoolConfigured

pytestmark = pytest.mark.anyio


async def ask(world: World, path: str, **parameters: Any) -> Any:
    async with world.http() as http:
        return await http.get(path, params=parameters)


def fault_of(answer: Any) -> tuple[str, str]:
    assert answer.status_code == 422
    (fault,) = answer.json()["errors"]
    return fault["path"], fault["message"]


async def test_every_get_of_the_documentation_refuses_an_unknown_parameter_by_its_name(world: World) -> None:
    document = (await ask(world, "/docs/openapi.json")).json()
    paths = [path for path, methods in document["paths"].items() if "get" in methods]
    assert {"/healthz", "/readyz", "/api/v1/health", "/api/v1/events", "/api/v1/stats"} <= set(paths)
    for path in (*paths, "/metrics"):
        answer = await ask(world, path.replace("{task_id}", make_id()), surprise="1")
        assert fault_of(answer)[0] == "surprise", path


@pytest.mark.parametrize(
    ("path", "parameters", "fault", "told"),
    [
        ("/tasks", {"kind": "comand"}, "kind", "there is no kind comand; did you mean command?; known are plan,"),
        ("/tasks", {"kind": "noop,foo"}, "kind", "there is no kind foo; known are"),
        (
            "/tasks",
            {"status": "runing"},
            "status",
            "there is no status runing; did you mean running?; known are pending,",
        ),
        ("/tasks", {"pool": "defualt"}, "pool", "there is no pool defualt; did you mean default?"),
        ("/tasks", {"pool": "gpu,cpu"}, "pool", "there is no pool cpu; did you mean gpu?"),
        ("/tasks", {"worker": "worker-11"}, "worker", "there is no worker worker-11; did you mean worker-1?"),
        ("/tasks", {"worker": "x9", "at": "1.0"}, "worker", "there is no worker x9"),
        ("/events", {"type": "TaskStrated"}, "type", "there is no event type TaskStrated; did you mean TaskStarted?"),
        ("/events", {"task": "1"}, "task", "is not the id of a task"),
    ],
)
async def test_an_unknown_name_is_refused_with_its_field_and_the_nearest_name(
    world: World, path: str, parameters: dict[str, str], fault: str, told: str
) -> None:
    field, message = fault_of(await ask(world, f"/api/v1{path}", **parameters))
    assert field == fault
    assert message.startswith(told)


async def test_what_comes_to_be_by_being_named_may_be_anything(world: World) -> None:
    answer = await ask(world, "/api/v1/tasks", queue="nobody/yet", submitted_by="somebody", label="a:b", pool="gpu")
    assert answer.status_code == 200


async def test_a_list_of_the_past_takes_pools_that_were_there_then(world: World) -> None:
    name = f"pool-{await world.log.head()}"
    before = await world.append(PoolConfigured(pool=f"{name}-a", by="admin"))
    made = await world.append(PoolConfigured(pool=name, by="admin"))

    field, message = fault_of(await ask(world, "/api/v1/tasks", pool=name, at=str(before)))
    assert field == "pool" and message.startswith(f"there was no pool {name} at 2") and "did you mean" in message
    assert (await ask(world, "/api/v1/tasks", pool=name, at=str(made))).status_code == 200
