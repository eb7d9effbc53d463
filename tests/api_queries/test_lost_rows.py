"""A PostgreSQL that died has lost the last moment of the rows: the projector writes them again, and until then nobody reads
what is older than what was read before."""

import asyncio
from contextlib import suppress
from typing import Any

import asyncpg
import pytest

from taskyard.api import position_feed
from taskyard.api.errors import ReadModelUnavailable
from taskyard.api.postgres_read_model import PostgresReadModel
from taskyard.contracts.values import Position, commit_sequence, make_position

SOON_SECONDS = 0.2


async def die_and_lose(dsn: str, sequence: int) -> None:
    """What is seen of a crash: all connections are gone, and the rows are those of an earlier moment."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("UPDATE taskyard.log_position SET sequence = $1", sequence)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()


async def until_away(model: PostgresReadModel, position: Position) -> None:
    """Wait until the model has heard that its connections are gone: a PostgreSQL needs longer to come back."""
    async with asyncio.timeout(5):
        with suppress(ReadModelUnavailable):
            while await model.wait_for(position, SOON_SECONDS):
                await asyncio.sleep(0.01)


async def write_again(dsn: str, sequence: int) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("UPDATE taskyard.log_position SET sequence = $1", sequence)
    await connection.close()


def test_nothing_older_than_what_was_read_is_read_until_lost_rows_are_written_again(
    story: Any, dsn: str, run: Any, project: Any
) -> None:
    story.join()
    story.submit()

    async def scenario() -> None:
        await project(story)
        head = make_position(story.head, 0)
        async with PostgresReadModel.connect(dsn, lambda: story.now) as model:
            assert await model.wait_for(head, 5)
            assert commit_sequence(await model.position()) == story.head

            await die_and_lose(dsn, story.head - 1)
            await until_away(model, head)
            with pytest.raises(ReadModelUnavailable):
                await model.wait_for(head, SOON_SECONDS)
            with pytest.raises(ReadModelUnavailable):
                await model.position()
            with pytest.raises(ReadModelUnavailable):
                await model.stats(sees_only=None)

            waiting = asyncio.create_task(model.wait_for(head, 5))
            await write_again(dsn, story.head)
            assert await waiting
            assert commit_sequence(await model.position()) == story.head

    run(scenario())


def test_rows_that_nobody_writes_again_are_read_after_a_while(
    story: Any, dsn: str, run: Any, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    story.join()
    story.submit()
    monkeypatch.setattr(position_feed, "CATCH_UP_SECONDS_MAX", 0.5)

    async def scenario() -> None:
        await project(story)
        async with PostgresReadModel.connect(dsn, lambda: story.now) as model:
            head = make_position(story.head, 0)
            assert await model.wait_for(head, 5)
            await die_and_lose(dsn, story.head - 1)
            await until_away(model, head)
            assert await model.wait_for(make_position(story.head - 1, 0), 5)
            assert commit_sequence(await model.position()) == story.head - 1

    run(scenario())
