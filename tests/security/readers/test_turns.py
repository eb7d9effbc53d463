"""Questions about the past take their turns: who asks many waits for itself alone."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from taskyard.api.errors import Refusal
from taskyard.api.places import QUESTIONS
from taskyard.api.principals import Caller
from taskyard.api.turns import Turns
from taskyard.contracts.values import Role

ADMIN = Caller(name="admin", role=Role.ADMIN)


def viewer(number: int) -> Caller:
    return Caller(name=f"viewer-{number}", role=Role.VIEWER)


class Asking:
    """Questions that are asked in an order, and the order in which their turns come."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.came: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def ask(self, caller: Caller) -> None:
        async def one() -> None:
            async with self.turns.turn(caller):
                self.came.append(caller.name)

        self.tasks.append(asyncio.create_task(one()))
        await asyncio.sleep(0)


@pytest.mark.anyio
async def test_a_question_waits_for_one_of_each_other_principal_and_not_for_all_of_them() -> None:
    asking = Asking(Turns("questions", QUESTIONS, wait_seconds_max=10))
    async with asking.turns.turn(ADMIN):
        for number in (1, 1, 1, 1, 2, 3, 2):
            await asking.ask(viewer(number))
    await asyncio.gather(*asking.tasks)
    assert asking.came == [f"viewer-{number}" for number in (1, 2, 3, 1, 2, 1, 1)]


@pytest.mark.anyio
async def test_one_principal_has_so_many_questions_and_an_admin_finds_a_place_whoever_asks() -> None:
    asking = Asking(Turns("questions", QUESTIONS, wait_seconds_max=10))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asking.turns.turn(viewer(1)))
        for number in range(1, QUESTIONS.total - QUESTIONS.for_admins):
            await asking.ask(viewer(1 + number // QUESTIONS.each))
        with pytest.raises(Refusal, match="of yours") as refused:
            await stack.enter_async_context(asking.turns.turn(viewer(1)))
        assert refused.value.status == 429 and "Retry-After" in refused.value.headers
        with pytest.raises(Refusal, match="too many"):
            await stack.enter_async_context(asking.turns.turn(viewer(9)))
        await asking.ask(ADMIN)
    await asyncio.gather(*asking.tasks)
    assert "admin" in asking.came[:3]


@pytest.mark.anyio
async def test_who_waits_too_long_or_goes_away_leaves_its_turn_to_the_others() -> None:
    asking = Asking(Turns("questions", QUESTIONS, wait_seconds_max=0.02))
    async with asking.turns.turn(viewer(1)):
        await asking.ask(viewer(2))
        await asking.ask(viewer(3))
        asking.tasks[1].cancel()
        with pytest.raises(Refusal, match="take long"):
            await asking.tasks[0]
    await asking.ask(viewer(4))
    await asking.tasks[2]
    assert asking.came == ["viewer-4"]
    with pytest.raises(asyncio.CancelledError):
        await asking.tasks[1]
