"""Who reads much keeps nobody else from reading."""

import time
from contextlib import AsyncExitStack

import pytest
from running_api import World

from taskyard.api.costs import SLOW_SECONDS
from taskyard.api.errors import Refusal
from taskyard.api.places import STREAMS, PlaceLimits, Places
from taskyard.api.principals import Caller
from taskyard.contracts.values import Role

LIMITS = PlaceLimits(total=200, each=50, for_admins=20)
ADMIN = Caller(name="admin", role=Role.ADMIN)


def operator(number: int) -> Caller:
    return Caller(name=f"operator-{number}", role=Role.OPERATOR)


def test_one_principal_has_so_many_places_and_admins_have_a_reserve() -> None:
    places = Places("streams", LIMITS)
    give_back = [places.take(operator(1)) for _ in range(LIMITS.each)]
    with pytest.raises(Refusal, match="of yours"):
        places.take(operator(1))
    others = (LIMITS.total - LIMITS.for_admins) - LIMITS.each
    for number in range(others):
        places.take(operator(2 + number % 30))
    with pytest.raises(Refusal, match="too many"):
        places.take(operator(99))
    for _ in range(LIMITS.for_admins):
        places.take(ADMIN)
    with pytest.raises(Refusal, match="too many"):
        places.take(ADMIN)
    for back in give_back:
        back()
    places.take(operator(1))


def test_who_opens_and_ends_streams_without_rest_is_held_to_a_rate_and_others_are_not() -> None:
    now = 0.0
    places = Places("streams", STREAMS, lambda: now)
    assert STREAMS.taking is not None
    for _ in range(int(STREAMS.taking.at_once)):
        places.take(operator(1))()
    with pytest.raises(Refusal, match="10 a second") as refused:
        places.take(operator(1))
    assert refused.value.status == 429 and "Retry-After" in refused.value.headers
    places.take(operator(2))()
    places.take(ADMIN)()
    now = 1.0
    for _ in range(int(STREAMS.taking.per_second)):
        places.take(operator(1))()
    with pytest.raises(Refusal, match="10 a second"):
        places.take(operator(1))


@pytest.mark.anyio
async def test_an_operator_with_all_of_its_streams_open_keeps_no_other_from_following(world: World) -> None:
    async with AsyncExitStack() as stack:
        http, viewer = [await stack.enter_async_context(world.http(user)) for user in ("oscar", "vera")]
        async with AsyncExitStack() as open_streams:
            for _ in range(STREAMS.each):
                stream = await open_streams.enter_async_context(http.stream("GET", "/api/v1/events"))
                assert stream.status_code == 200
            refused = await http.get("/api/v1/events")
            assert refused.status_code == 429 and "Retry-After" in refused.headers
            async with viewer.stream("GET", "/api/v1/events") as response:
                assert response.status_code == 200


@pytest.mark.anyio
async def test_who_asks_in_vain_is_told_late_so_that_it_does_not_ask_again_at_once(world: World) -> None:
    assert STREAMS.taking is not None
    async with world.http("oscar") as http, world.http("vera") as viewer:
        for _ in range(3 * int(STREAMS.taking.at_once)):
            begun = time.monotonic()
            answer = await http.get("/api/v1/events", params={"from": "999999.0"})
            took = time.monotonic() - begun
            if answer.status_code != 422:
                break
        assert (answer.status_code, answer.json()["error"]) == (429, "too_often") and took >= SLOW_SECONDS
        async with viewer.stream("GET", "/api/v1/events") as response:
            assert response.status_code == 200
