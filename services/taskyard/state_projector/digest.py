"""A digest of all rows that does not depend on their order, to compare two read models at the same position."""

import asyncpg

KEYS = {
    "tasks": ("id",),
    "attempts": ("task", "attempt"),
    "history": ("task", "position"),
    "queues": ("pool", "queue"),
    "pools": ("pool",),
    "workers": ("worker",),
    "rejections": ("position",),
    "refused_tasks": ("task", "position"),
    "counts": ("submitted_by", "kind", "status"),
}
"""The tables that are compared, with the columns that name a row."""
DIGEST_SECONDS_MAX = 3_600.0

_DIGEST = """
SELECT count(*) || ':' || coalesce(sum(('x' || substr(md5(r::text), 1, 15))::bit(60)::bigint), 0)
FROM "{schema}".{table} r
"""

Digest = dict[str, str]


async def digest_table(connection: asyncpg.Connection, schema: str, table: str) -> str:
    """The digest of one table: the number of its rows and the sum of their hashes."""
    return str(await connection.fetchval(_DIGEST.format(schema=schema, table=table), timeout=DIGEST_SECONDS_MAX))


def differing(first: Digest, second: Digest) -> tuple[str, ...]:
    """The tables whose rows differ."""
    return tuple(table for table in KEYS if first[table] != second[table])
