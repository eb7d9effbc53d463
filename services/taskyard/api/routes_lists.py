"""Reading over HTTP from the read model: workers, queues, pools, statistics."""

from collections.abc import Sequence
from typing import Any

from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler

from taskyard.api.http_shared import await_after, parts_of, reflect
from taskyard.api.list_pages import LIST_ITEMS_MAX, POOLS, QUEUES, WORKERS, page_of
from taskyard.api.openapi import READ_PROBLEM_RESPONSES
from taskyard.api.past.questions import AsOf
from taskyard.api.principals import Caller
from taskyard.api.read_parameters import (
    AfterPosition,
    AtMoment,
    CursorText,
    ListLimit,
    refuse_both,
    refuse_past,
    wanted_of,
)
from taskyard.api.views import PoolView, QueueView, StatsView, View, WorkerView


class Workers(View):
    """Workers that are known, and the cursor of those after them."""

    items: Sequence[WorkerView]
    next_cursor: str | None


class Queues(View):
    """Queues, and the cursor of those after them."""

    items: Sequence[QueueView]
    next_cursor: str | None


class Pools(View):
    """Pools, and the cursor of those after them."""

    items: Sequence[PoolView]
    next_cursor: str | None


class WorkersAsOf(Workers):
    """Workers as they were."""

    as_of: AsOf


class QueuesAsOf(Queues):
    """Queues as they were."""

    as_of: AsOf


class PoolsAsOf(Pools):
    """Pools as they were."""

    as_of: AsOf


@get("/workers", tags=["reading"], summary="Workers and their slots", responses=READ_PROBLEM_RESPONSES)
async def list_workers(
    request: Request[Caller, Any, State],
    *,
    limit: ListLimit = LIST_ITEMS_MAX,
    cursor: CursorText = None,
    after: AfterPosition = None,
    at: AtMoment = None,
) -> Response[Workers | WorkersAsOf]:
    """Every worker that is known, with what each slot accepts and has; now or at a moment."""
    wanted = wanted_of(WORKERS, limit, cursor)
    if at is None:
        refuse_past(wanted)
        await await_after(request, after)
        found = await parts_of(request).read_model.workers(wanted, sees_only=request.user.sees_only)
        items, following = page_of(WORKERS, found, wanted)
        return Response(Workers(items=items, next_cursor=following))
    refuse_both(after)
    parts, sees_only = parts_of(request), request.user.sees_only
    async with parts.questions.turn(request.user):
        position, as_of, items, following = await parts.past.workers(at, wanted, sees_only=sees_only)
    reflect(request, position)
    return Response(WorkersAsOf(items=items, next_cursor=following, as_of=as_of))


@get("/queues", tags=["reading"], summary="Queues", responses=READ_PROBLEM_RESPONSES)
async def list_queues(
    request: Request[Caller, Any, State],
    *,
    limit: ListLimit = LIST_ITEMS_MAX,
    cursor: CursorText = None,
    after: AfterPosition = None,
    at: AtMoment = None,
) -> Response[Queues | QueuesAsOf]:
    """Depth, running, limits, locks and pauses of every queue, now or at a moment."""
    wanted = wanted_of(QUEUES, limit, cursor)
    if at is None:
        refuse_past(wanted)
        await await_after(request, after)
        found = await parts_of(request).read_model.queues(wanted)
        items, following = page_of(QUEUES, found, wanted)
        return Response(Queues(items=items, next_cursor=following))
    refuse_both(after)
    parts = parts_of(request)
    async with parts.questions.turn(request.user):
        position, as_of, items, following = await parts.past.queues(at, wanted)
    reflect(request, position)
    return Response(QueuesAsOf(items=items, next_cursor=following, as_of=as_of))


@get("/pools", tags=["reading"], summary="Pools", responses=READ_PROBLEM_RESPONSES)
async def list_pools(
    request: Request[Caller, Any, State],
    *,
    limit: ListLimit = LIST_ITEMS_MAX,
    cursor: CursorText = None,
    after: AfterPosition = None,
    at: AtMoment = None,
) -> Response[Pools | PoolsAsOf]:
    """Capacity, depth and settings of every pool, now or at a moment."""
    wanted = wanted_of(POOLS, limit, cursor)
    if at is None:
        refuse_past(wanted)
        await await_after(request, after)
        found = await parts_of(request).read_model.pools(wanted)
        items, following = page_of(POOLS, found, wanted)
        return Response(Pools(items=items, next_cursor=following))
    refuse_both(after)
    parts = parts_of(request)
    async with parts.questions.turn(request.user):
        position, as_of, items, following = await parts.past.pools(at, wanted)
    reflect(request, position)
    return Response(PoolsAsOf(items=items, next_cursor=following, as_of=as_of))


@get("/stats", tags=["reading"], summary="Statistics", responses=READ_PROBLEM_RESPONSES)
async def get_stats(request: Request[Caller, Any, State], after: AfterPosition = None) -> Response[StatsView]:
    """Counts by status and kind; waiting and execution times. An operator is told of own tasks only."""
    await await_after(request, after)
    return Response(await parts_of(request).read_model.stats(sees_only=request.user.sees_only))


LIST_ROUTES: list[HTTPRouteHandler] = [list_workers, list_queues, list_pools, get_stats]
