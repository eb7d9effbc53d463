"""Which rows of two read models differ, and in what: the first few of each table.

Both are read in the order of their keys, side by side, so that memory is bounded whatever the tables hold.
"""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any, Literal

import asyncpg
from msgspec import Struct

from taskyard.state_projector.digest import DIGEST_SECONDS_MAX, KEYS

DIFFERENCES_MAX = 10
"""How many rows of a table are named."""
FETCH_ROWS = 2_000

_NUMBERS = frozenset(("position", "attempt"))
"""Key columns that hold no text."""

Key = tuple[str | int, ...]


class RowDifference(Struct, frozen=True, kw_only=True):
    """A row that is not the same in both: where it is missing, or which of its columns differ."""

    table: str
    key: Key
    kind: Literal["missing", "surplus", "changed"]
    """As the live row is: not there, there without reason, or with other values."""
    columns: tuple[str, ...] = ()


async def find_differences(
    live: asyncpg.Connection, live_schema: str, beside: asyncpg.Connection, schema: str, tables: Iterable[str]
) -> tuple[RowDifference, ...]:
    """The first differences of each table. Each connection must be in a transaction of isolation `repeatable_read`."""
    found: list[RowDifference] = []
    for table in tables:
        for kind, key in await _differing_keys(live, live_schema, beside, schema, table):
            columns: tuple[str, ...] = ()
            if kind == "changed":
                first, second = await _row(live, live_schema, table, key), await _row(beside, schema, table, key)
                columns = tuple(name for name in first if first[name] != second.get(name))
            found.append(RowDifference(table=table, key=key, kind=kind, columns=columns))
    return tuple(found)


async def _differing_keys(
    live: asyncpg.Connection, live_schema: str, beside: asyncpg.Connection, schema: str, table: str
) -> list[tuple[Literal["missing", "surplus", "changed"], Key]]:
    found: list[tuple[Literal["missing", "surplus", "changed"], Key]] = []
    async with aclosing(_rows(live, live_schema, table)) as lives, aclosing(_rows(beside, schema, table)) as others:
        old, new = await anext(lives, None), await anext(others, None)
        while (old or new) and len(found) < DIFFERENCES_MAX:
            if new is None or (old is not None and old[0] < new[0]):
                assert old is not None
                found.append(("surplus", old[0]))
                old = await anext(lives, None)
            elif old is None or new[0] < old[0]:
                found.append(("missing", new[0]))
                new = await anext(others, None)
            else:
                if old[1] != new[1]:
                    found.append(("changed", old[0]))
                old, new = await anext(lives, None), await anext(others, None)
    return found


async def _rows(connection: asyncpg.Connection, schema: str, table: str) -> AsyncGenerator[tuple[Key, str], None]:
    """Keys and hashes of a table in the order of the keys, by which Python compares them too."""
    names = KEYS[table]
    order = ", ".join(name if name in _NUMBERS else f'{name} COLLATE "C"' for name in names)
    statement = f'SELECT md5(r::text), {", ".join(names)} FROM "{schema}".{table} r ORDER BY {order}'  # noqa: S608 - constants
    async for row in connection.cursor(statement, prefetch=FETCH_ROWS, timeout=DIGEST_SECONDS_MAX):
        yield tuple(row)[1:], row[0]


async def _row(connection: asyncpg.Connection, schema: str, table: str, key: Key) -> dict[str, Any]:
    match = " AND ".join(f"{name} = ${number}" for number, name in enumerate(KEYS[table], 1))
    row = await connection.fetchrow(f'SELECT * FROM "{schema}".{table} WHERE {match}', *key)  # noqa: S608 - constants
    return {} if row is None else dict(row)
