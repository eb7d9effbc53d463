"""Connections of the projector, and the forward-only migrations of its schema."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.resources import files

import asyncpg

from taskyard.state_projector.errors import SchemaTooNew

SCHEMA = "taskyard"
NOTIFY_CHANNEL = "taskyard_position"

CONNECT_SECONDS_MAX = 5
STATEMENT_SECONDS_MAX = 60.0
CLOSE_SECONDS_MAX = 2.0
CLIENT_CHECK_SECONDS = 1
KEEPALIVE_SECONDS = 10
"""How soon the server looks for a client that has gone without a word, and so frees its locks."""

DATABASE_ERRORS = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises when PostgreSQL is away, goes away, or refuses."""

_MIGRATIONS_TABLE = "CREATE TABLE IF NOT EXISTS migrations (number integer PRIMARY KEY, name text NOT NULL)"
_MIGRATION_LOCK = 0x7A5C_0001
_FILE_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")


async def connect(dsn: str, schema: str = SCHEMA) -> asyncpg.Connection:
    """A connection whose unqualified names are those of `schema`.

    Commits do not wait for the disk: rows and position would be lost together, and the log is the truth.
    """
    return await asyncpg.connect(
        dsn,
        timeout=CONNECT_SECONDS_MAX,
        command_timeout=STATEMENT_SECONDS_MAX,
        server_settings={
            "application_name": "taskyard state_projector",
            "search_path": schema,
            "synchronous_commit": "off",
            "tcp_keepalives_idle": str(KEEPALIVE_SECONDS),
            "tcp_keepalives_interval": str(KEEPALIVE_SECONDS),
            "tcp_keepalives_count": "3",
            # A client that was killed in the middle of a long statement must not hold its locks until that ends.
            "client_connection_check_interval": f"{CLIENT_CHECK_SECONDS}s",
            "idle_in_transaction_session_timeout": f"{int(STATEMENT_SECONDS_MAX)}s",
            "jit": "off",
            # Statements find rows by key. A plan that was made while a table was small must not scan it for ever.
            "enable_seqscan": "off",
            "enable_hashjoin": "off",
            "enable_mergejoin": "off",
        },
    )


@asynccontextmanager
async def connected(dsn: str, schema: str = SCHEMA) -> AsyncIterator[asyncpg.Connection]:
    """A connection of `connect` that is closed at the end, also where PostgreSQL does not answer any more."""
    connection = await connect(dsn, schema)
    try:
        yield connection
    finally:
        with suppress(*DATABASE_ERRORS):
            await connection.close(timeout=CLOSE_SECONDS_MAX)


async def migrate(connection: asyncpg.Connection, schema: str = SCHEMA) -> None:
    """Bring `schema` to the newest version; instances that start together wait for one another.

    Raises:
        SchemaTooNew: it is newer than this program.
    """
    migrations = _migrations()
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _MIGRATION_LOCK)
        await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        await connection.execute(_MIGRATIONS_TABLE)
        applied: int = await connection.fetchval("SELECT coalesce(max(number), 0) FROM migrations") or 0
        if applied > max(migrations):
            message = f"the read model has version {applied}, this program knows {max(migrations)}"
            raise SchemaTooNew(message)
        for number, (name, sql) in sorted(migrations.items()):
            if number > applied:
                await connection.execute(sql)
                await connection.execute("INSERT INTO migrations (number, name) VALUES ($1, $2)", number, name)


def _migrations() -> dict[int, tuple[str, str]]:
    found: dict[int, tuple[str, str]] = {}
    for entry in files("taskyard.state_projector").joinpath("migrations").iterdir():
        if match := _FILE_NAME.match(entry.name):
            found[int(match[1])] = (entry.name, entry.read_text(encoding="utf-8"))
    return found
