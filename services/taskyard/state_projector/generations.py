"""The read models that may be in PostgreSQL at once, each in its schema: the live one, one that is made, one retired."""

import logging

import asyncpg

from taskyard.state_projector.database import NOTIFY_CHANNEL, SCHEMA
from taskyard.state_projector.errors import LeftOverInUse, RebuildRunning

REBUILD_SCHEMA = "taskyard_rebuild"
RETIRED_SCHEMA = "taskyard_retired"

RETIRED_GENERATION = "retired"
"""No writer has read it as the generation of its rows, so none can write any more. The position stays for readers."""

DROP_WAIT_SECONDS = 2.0
"""How long to wait for who still reads what is to be dropped. A backup, say, may read it for hours."""

_REBUILD_LOCK = 0x7A5C_0003

_HOLDER = """
SELECT to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.objid::bigint = $1 AND l.granted
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


_log = logging.getLogger(__name__)


async def claim_rebuild(connection: asyncpg.Connection) -> None:
    """Become the one rebuild of this database, until the connection ends.

    Raises:
        RebuildRunning: there is one.
    """
    if await connection.fetchval("SELECT pg_try_advisory_lock($1)", _REBUILD_LOCK):
        return
    since = await connection.fetchval(_HOLDER, _REBUILD_LOCK)
    begun = f", begun at {since} UTC" if since else ""
    raise RebuildRunning(f"another rebuild of this read model is at work{begun}; wait for it, or end it")


async def drop_left_over(connection: asyncpg.Connection) -> None:
    """Drop what a rebuild has left behind, unless one is at work, or somebody still reads it."""
    left_over = await connection.fetchval(
        "SELECT count(*) FROM pg_namespace WHERE nspname = ANY ($1::text[])", [REBUILD_SCHEMA, RETIRED_SCHEMA]
    )
    if not left_over or not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _REBUILD_LOCK):
        return
    try:
        await drop_others(connection)
    except LeftOverInUse as error:
        _log.warning("what a rebuild has left behind stays for now", extra={"reason": str(error)})
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _REBUILD_LOCK)


async def drop_others(connection: asyncpg.Connection) -> None:
    """Drop every read model but the live one.

    Raises:
        LeftOverInUse: somebody still reads one.
    """
    for schema in (REBUILD_SCHEMA, RETIRED_SCHEMA):
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{DROP_WAIT_SECONDS}s'")
                await connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
        except asyncpg.LockNotAvailableError as error:
            message = (
                f"the rows that an earlier rebuild left in the schema {schema} are still read; wait, or end who reads"
            )
            raise LeftOverInUse(message) from error


async def put_in_place(live: asyncpg.Connection, sequence: int) -> None:
    """Make the rebuilt read model the live one; in a transaction in which the live position is locked.

    Readers go on: what they began on the old rows they end there, and the next statement finds the new ones.
    """
    await live.execute("UPDATE log_position SET generation = $1", RETIRED_GENERATION)
    await live.execute(f'ALTER SCHEMA "{SCHEMA}" RENAME TO "{RETIRED_SCHEMA}"')
    await live.execute(f'ALTER SCHEMA "{REBUILD_SCHEMA}" RENAME TO "{SCHEMA}"')
    await live.execute("SELECT pg_notify($1, $2)", NOTIFY_CHANNEL, str(sequence))
