"""How far the read model is: what its row and its notifications say, whichever comes first, and of whichever rows."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from taskyard.api.position_feed import PositionFeed
from taskyard.contracts.values import make_position


def row(sequence: int, generation: str) -> Any:
    return {"sequence": sequence, "generation": generation}


def with_feed(scenario: Callable[[PositionFeed], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario(PositionFeed("postgresql://nobody@127.0.0.1:9/none"))

    asyncio.run(main())


async def has(feed: PositionFeed, sequence: int) -> bool:
    return await feed.wait_for(make_position(sequence, 0), 0.01)


def test_other_rows_are_known_by_their_name_also_where_they_are_further_than_the_former_ones() -> None:
    async def scenario(feed: PositionFeed) -> None:
        feed._read(row(100, "first"), 0)
        feed._read(row(150, "second"), 100)
        assert feed.generation == "second"
        assert await has(feed, 150)

    with_feed(scenario)


def test_rows_that_fell_behind_what_was_heard_are_not_taken_to_be_as_far() -> None:
    async def scenario(feed: PositionFeed) -> None:
        feed._read(row(100, "first"), 0)
        feed._read(row(90, "first"), 100)
        assert await has(feed, 90)
        assert not await has(feed, 95)

    with_feed(scenario)


def test_what_was_heard_while_the_row_was_asked_for_counts_though_the_row_says_less() -> None:
    async def scenario(feed: PositionFeed) -> None:
        feed._read(row(100, "first"), 0)
        feed._hear(None, 1, "", "105")
        feed._read(row(102, "first"), 100)
        assert await has(feed, 105)

    with_feed(scenario)


def test_who_waited_in_vain_is_not_remembered_and_who_waits_is_woken() -> None:
    async def scenario(feed: PositionFeed) -> None:
        feed._read(row(100, "first"), 0)
        assert not await has(feed, 101)
        assert not feed._waiting
        waits = asyncio.create_task(feed.wait_for(make_position(101, 0), 10))
        await asyncio.sleep(0)
        feed._hear(None, 1, "", "101")
        assert await waits
        assert not feed._waiting

    with_feed(scenario)
