"""Who reads much keeps nobody else from reading."""

from contextlib import AsyncExitStack

import pytest
from running_api import World

from taskyard.api.errors import Refusal
from taskyard.api.places import PLACES_EACH_MAX, PLACES_FOR_ADMINS, PLACES_MAX, Places
from taskyard.api.principals import Caller
from taskyard.contracts.values import Role

ADMIN = Caller(name="admin", role=Role.ADMIN)


def operator(number: int) -> Caller:
    return Caller(name=f"operator-{number}", role=Role.OPERATOR)


def test_one_principal_has_so_many_places_and_admins_have_a_reserve() -> None:
    places = Places("streams")
    give_back = [places.take(operator(1)) for _ in range(PLACES_EACH_MAX)]
    with pytest.raises(Refusal, match="of yours"):
        places.take(operator(1))
    others = (PLACES_MAX - PLACES_FOR_ADMINS) - PLACES_EACH_MAX
    for number in range(others):
        places.take(operator(2 + number % 30))
    with pytest.raises(Refusal, match="too many"):
        places.take(operator(99))
    for _ in range(PLACES_FOR_ADMINS):
        places.take(ADMIN)
    with pytest.raises(Refusal, match="too many"):
        places.take(ADMIN)
    for back in give_back:
        back()
    places.take(operator(1))


@pytest.mark.anyio
async def test_an_operator_with_all_of_its_streams_open_keeps_no_other_from_following(world: World) -> None:
    async with AsyncExitStack() as stack:
        http, viewer = [await stack.enter_async_context(world.http(user)) for user in ("oscar", "vera")]
        async with AsyncExitStack() as open_streams:
            for _ in range(PLACES_EACH_MAX):
                stream = await open_streams.enter_async_context(http.stream("GET", "/api/v1/events"))
                assert stream.status_code == 200
            refused = await http.get("/api/v1/events")
            assert refused.status_code == 503 and "Retry-After" in refused.headers
            async with viewer.stream("GET", "/api/v1/events") as response:
                assert response.status_code == 200
