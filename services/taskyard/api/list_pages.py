"""Pages of what is listed in the order of its name or place: workers, queues, pools, the history of a task. Pure."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from msgspec import Struct

from taskyard.api.pages import KEY_MAX, FilterInvalid, ShownMoment, decode_cursor, encode_cursor
from taskyard.api.views import HistoryItem, PoolView, QueueView, WorkerView
from taskyard.contracts.values import parse_position

LIST_ITEMS_MAX = 10_000
"""The longest page, which is what is given where nobody asks for fewer."""

Key = tuple[str | int, ...]
V = TypeVar("V")


class Listed(Struct, Generic[V], frozen=True, kw_only=True):
    """A kind of list: its name in cursors, the key that orders it, and a key before all of them."""

    name: str
    start: Key
    key: Callable[[V], Key]


WORKERS = Listed[WorkerView](name="workers", start=("",), key=lambda worker: (worker.id,))
QUEUES = Listed[QueueView](name="queues", start=("", ""), key=lambda queue: (queue.pool, queue.queue))
POOLS = Listed[PoolView](name="pools", start=("",), key=lambda pool: (pool.pool,))
HISTORY = Listed[HistoryItem](name="history", start=(-1,), key=lambda item: (parse_position(item.position),))


class _ListCursor(Struct, frozen=True, array_like=True):
    list: str
    key: Key
    moment: ShownMoment | None = None


class ListWanted(Struct, frozen=True, kw_only=True):
    """A page of a list: so many items at most that come behind the key. `moment` is what the page before has shown."""

    behind: Key
    limit: int
    moment: ShownMoment | None = None


def first_page(listed: Listed[V], limit: int = LIST_ITEMS_MAX) -> ListWanted:
    """The beginning of a list."""
    return ListWanted(behind=listed.start, limit=limit)


def read_wanted(listed: Listed[V], limit: int, cursor: str | None) -> ListWanted:
    """The page that was asked for. Raises `FilterInvalid`."""
    if cursor is None:
        return first_page(listed, limit)
    found = decode_cursor(cursor, _ListCursor)
    if found.list != listed.name:
        raise FilterInvalid("cursor", "belongs to another list")
    if [type(part) for part in found.key] != [type(part) for part in listed.start] or not all(map(_is_part, found.key)):
        raise FilterInvalid("cursor", "is not a cursor")
    if found.moment is not None and not 0 <= found.moment.reached <= KEY_MAX:
        raise FilterInvalid("cursor", "is not a cursor")
    return ListWanted(behind=found.key, limit=limit, moment=found.moment)


def page_of(
    listed: Listed[V], found: Sequence[V], wanted: ListWanted, moment: ShownMoment | None = None
) -> tuple[Sequence[V], str | None]:
    """The items of the page, and the cursor of what comes after it. `found` is in order, and goes on behind the page if
    there is another one.
    """
    shown = found[: wanted.limit]
    if len(shown) == len(found):
        return shown, None
    return shown, encode_cursor(_ListCursor(listed.name, listed.key(shown[-1]), moment))


def _is_part(part: str | int) -> bool:
    """Whether PostgreSQL can take it."""
    return "\x00" not in part if isinstance(part, str) else -1 <= part <= KEY_MAX
