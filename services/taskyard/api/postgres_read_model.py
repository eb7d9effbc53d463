"""The read model as the routes see it, on PostgreSQL: queries with limits of time, errors in the API's own words."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Self, TypeVar

import asyncpg

from taskyard.api import queries
from taskyard.api.directory import Place
from taskyard.api.errors import ReadModelUnavailable, invalid, no_such_task, not_found
from taskyard.api.list_pages import ListWanted
from taskyard.api.listing import Listing, make_listing
from taskyard.api.pages import FilterInvalid, Placed, make_page
from taskyard.api.position_feed import CONNECTION_ERRORS, PositionFeed
from taskyard.api.read_model import EndedBy, FoldedTo, TaskFilter
from taskyard.api.views import HistoryItem, PoolView, QueueView, Rejection, StatsView, TaskPage, TaskView, WorkerView
from taskyard.contracts.events import FieldError
from taskyard.contracts.values import Instant, Position

CONNECTIONS_MAX = 8
CONNECT_SECONDS_MAX = 5
QUERY_SECONDS_MAX = 10.0
"""How long one answer may take, waiting for a connection included."""
AWAY_SECONDS_MAX = 1.0
"""The same while PostgreSQL is known to be away: who asks is told soon, and it may be back."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class PostgresReadModel:
    """Reads the read model; it may be away at the start and whenever it likes."""

    def __init__(self, pool: asyncpg.Pool, feed: PositionFeed, now: Callable[[], Instant]) -> None:
        self.last_position = queries.whole_commit(0)
        self._pool = pool
        self._feed = feed
        self._now = now
        self._asking: set[asyncio.Task[Any]] = set()

    @classmethod
    @asynccontextmanager
    async def connect(cls, dsn: str, now: Callable[[], Instant]) -> AsyncIterator[Self]:
        """A read model over an own pool of connections; `now` is the clock by which reasons are told."""
        pool = asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=CONNECTIONS_MAX,
            timeout=CONNECT_SECONDS_MAX,
            command_timeout=QUERY_SECONDS_MAX,
            server_settings={
                "application_name": "taskyard api",
                "default_transaction_read_only": "on",
                "statement_timeout": f"{QUERY_SECONDS_MAX:g}s",
                "jit": "off",
                # Pages come in the order of an index. Right after a burst the statistics know nothing of it yet, and
                # a plan that reads the whole table looks cheap.
                "enable_seqscan": "off",
                # One plan for all values of a filter would be a bad one for rare values.
                "plan_cache_mode": "force_custom_plan",
            },
        )
        feed = PositionFeed(dsn)
        async with pool:
            following = asyncio.create_task(feed.run(), name="api follows the position of the read model")
            try:
                yield cls(pool, feed, now)
            finally:
                following.cancel()
                with suppress(asyncio.CancelledError):
                    await following

    async def position(self) -> Position:
        """The position that the rows reflect."""
        self.last_position = await self._answer(queries.get_position(self._pool))
        return self.last_position

    async def folded_to(self) -> FoldedTo:
        """The commit that the rows reflect."""
        return await self._answer(queries.get_folded_to(self._pool))

    @property
    def generation(self) -> str:
        """Names the rows: it is another once a rebuild has put others in their place."""
        return self._feed.generation

    async def wait_for(self, position: Position, timeout_seconds: float) -> bool:
        """Wait until the rows reflect the position; False when they do not in time."""
        is_reached = await self._feed.wait_for(position, timeout_seconds)
        if not is_reached and not self._feed.is_connected:
            raise ReadModelUnavailable("PostgreSQL gives no answer")
        return is_reached

    async def task(self, id: str, *, sees_only: str | None) -> TaskView:
        """One task. Raises 404, also for one of another than `sees_only`; of a refused one it tells the refusals."""
        task = await self._answer(queries.get_task(self._pool, id, self._now(), sees_only))
        if task is None:
            raise no_such_task(await self.rejections(id, sees_only=sees_only))
        if sees_only is not None and task.submitted_by != sees_only:
            raise not_found("there is no such task")
        return task

    async def place(self, task: str) -> Place | None:
        """Where a task belongs."""
        return await self._answer(queries.get_place(self._pool, task))

    async def own_tasks(self, tasks: Sequence[str], principal: str) -> set[str]:
        """Those of the tasks that the principal submitted."""
        return await self._answer(queries.get_own_tasks(self._pool, tasks, principal))

    async def workers_of(self, task: str) -> dict[int, str]:
        """Which worker had each attempt of a task."""
        return await self._answer(queries.get_workers_of(self._pool, task))

    async def tasks(self, wanted: TaskFilter) -> TaskPage:
        """A page of tasks. Raises 422 for a sort or a cursor that is none."""
        listing = _listing(wanted)
        found = await self._answer(queries.list_tasks(self._pool, listing, self._now(), wanted.sees_only))
        return make_page(found, listing.sort, listing.limit)

    async def ended_tasks(self, wanted: TaskFilter, ended_by: EndedBy) -> Sequence[Placed]:
        """Those that had ended by a moment, one more than a page has if there are so many. Raises as `tasks`."""
        return await self._answer(
            queries.list_tasks(self._pool, _listing(wanted, ended_by), ended_by.at, wanted.sees_only)
        )

    async def history(self, task: str, wanted: ListWanted) -> Sequence[HistoryItem]:
        """The events of a task in the order of the log: those of a page, and one more if there is another page."""
        return await self._answer(queries.get_history(self._pool, task, wanted))

    async def rejections(self, command: str, *, sees_only: str | None) -> Sequence[Rejection]:
        """How a command of this id was refused, in the order of the log; only those given by `sees_only`."""
        found = await self._answer(queries.get_rejections(self._pool, command))
        return [each for each in found if sees_only in (None, each.by)]

    async def workers(self, wanted: ListWanted, *, sees_only: str | None) -> Sequence[WorkerView]:
        """Workers with their slots, as `history`; of tasks of others than `sees_only` it does not tell which they are."""
        return await self._answer(queries.list_workers(self._pool, self._now(), wanted, sees_only))

    async def pool_of_worker(self, worker: str) -> str | None:
        """The pool of a worker."""
        return await self._answer(queries.get_pool_of_worker(self._pool, worker))

    async def queues(self, wanted: ListWanted) -> Sequence[QueueView]:
        """Queues, as `history`."""
        return await self._answer(queries.list_queues(self._pool, wanted))

    async def pools(self, wanted: ListWanted) -> Sequence[PoolView]:
        """Pools, as `history`."""
        return await self._answer(queries.list_pools(self._pool, wanted))

    async def known_pools(self, wanted: Sequence[str]) -> Sequence[str]:
        """Those of the wanted pools that are there, and others that may have been meant."""
        return await self._answer(queries.get_known_pools(self._pool, wanted))

    async def known_workers(self, wanted: Sequence[str]) -> Sequence[str]:
        """Those of the wanted workers that have ever joined, and others that may have been meant."""
        return await self._answer(queries.get_known_workers(self._pool, wanted))

    async def stats(self, *, sees_only: str | None) -> StatsView:
        """Counts and times; only of tasks of `sees_only`."""
        return await self._answer(queries.get_stats(self._pool, sees_only))

    async def _answer(self, query: Coroutine[Any, Any, T]) -> T:
        if not await self._feed.wait_until_connected(AWAY_SECONDS_MAX):
            query.close()
            raise ReadModelUnavailable("PostgreSQL gives no answer, or its lost rows are not written again yet")
        task = asyncio.create_task(query)
        self._asking.add(task)
        task.add_done_callback(self._forget)
        try:
            # To cancel a query asyncpg asks the server, and waits. One that stands still must not keep us: no
            # `asyncio.timeout`, which waits for the cancelled too.
            is_done = await self._is_done(task)
        finally:
            task.cancel()
        if not is_done:
            _log.warning("read model gave no answer", extra={"error": "no answer in time"})
            raise ReadModelUnavailable("no answer in time")
        try:
            return task.result()
        except CONNECTION_ERRORS as error:
            # Tables that are not there yet are as good as no PostgreSQL: the projector makes them.
            _log.warning("read model gave no answer", extra={"error": f"{type(error).__name__}: {error}"})
            raise ReadModelUnavailable(f"{type(error).__name__}: {error}") from error

    async def _is_done(self, task: "asyncio.Task[Any]") -> bool:
        """Whether the answer comes in time: of a server that stands still, which the feed learns, none is waited for."""
        first = (task, self._feed.silence)
        await asyncio.wait(first, timeout=QUERY_SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED)
        return task.done()

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._asking.discard(task)
        if not task.cancelled():
            task.exception()  # Nobody asks any more for that of an answer which came too late.


def _listing(wanted: TaskFilter, ended_by: EndedBy | None = None) -> Listing:
    try:
        return make_listing(wanted, ended_by)
    except FilterInvalid as error:
        raise invalid(FieldError(path=error.field, message=error.message)) from error
