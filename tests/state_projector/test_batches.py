"""How commits are gathered into transactions, and where a writer dies, leaves no trace in the rows."""

import random
from typing import Any

import asyncpg
import pytest

from taskyard.state_projector import rebuild as rebuild_module
from taskyard.state_projector import store as store_module
from taskyard.state_projector.advance import advance
from taskyard.state_projector.database import DATABASE_ERRORS, connect, migrate
from taskyard.state_projector.projection import Projection
from taskyard.state_projector.rebuild import rebuild
from taskyard.state_projector.store import Store

COMMITS = 80
CALLS_OF_A_WRITE = 16
"""Writing the whole log takes more calls than this, however it is gathered."""
DEATHS_MAX = 12


class DyingConnection:
    """A connection that is cut before its n-th call."""

    def __init__(self, connection: asyncpg.Connection, calls: int) -> None:
        self._connection = connection
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        self._calls -= 1
        if self._calls == 0:
            self._connection.terminate()
        return getattr(self._connection, name)


async def project_with_deaths(story: Any, dsn: str, chance: random.Random) -> int:
    """Write the whole log in batches of any length, dying now and then; how often it died."""
    deaths = 0
    while True:
        connection = await connect(dsn)
        await migrate(connection)
        state, position = await Store(connection).load()
        if position.sequence == story.head:
            await connection.close()
            return deaths
        often = CALLS_OF_A_WRITE if deaths == 0 else 4 * CALLS_OF_A_WRITE
        calls = chance.randint(1, often) if deaths < DEATHS_MAX else 0
        dying: Any = DyingConnection(connection, calls)
        store = Store(dying)
        projection = Projection(state)
        try:
            while position.sequence < story.head:
                last = min(position.sequence + chance.choice((1, 1, 2, 5, 17, COMMITS)), story.head)
                commits = [each async for each in story.log.read(position.sequence + 1, last)]
                position = await advance(store, projection, position, commits)
        except DATABASE_ERRORS:
            deaths += 1
        finally:
            connection.terminate()


@pytest.mark.parametrize("seed", range(5))
def test_any_batches_and_any_deaths_lead_to_the_rows_of_one_rebuild(
    story: Any, dsn: str, run: Any, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(store_module, "STAGED_ROWS_MIN", chance.choice((1, 5)))
    story.tell_anything(1_000 + seed, commits=COMMITS)

    async def scenario() -> None:
        assert await project_with_deaths(story, dsn, chance) > 0
        for events in (1, chance.randint(2, 60), rebuild_module.WRITE_EVENTS):
            monkeypatch.setattr(rebuild_module, "WRITE_EVENTS", events)
            report = await rebuild(story.log, dsn, verify_only=True)
            assert report.is_equal, report.differences
            assert report.sequence == story.head

    run(scenario())
