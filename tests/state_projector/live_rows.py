"""What the live read model holds, for tests that look at it themselves."""

from typing import Any

from taskyard.state_projector.database import SCHEMA, connected
from taskyard.state_projector.digest import KEYS, digest_table


async def rows(dsn: str, statement: str) -> list[Any]:
    """The rows of a query."""
    async with connected(dsn) as connection:
        return [tuple(row) for row in await connection.fetch(statement)]


async def live_digest(dsn: str) -> dict[str, str]:
    """The digest of every table."""
    async with connected(dsn) as connection:
        return {table: await digest_table(connection, SCHEMA, table) for table in KEYS}
