"""Reading over HTTP from the read model: tasks and their history, workers, queues, pools, statistics."""

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, QueryParameter

from taskyard.api.errors import invalid
from taskyard.api.http_shared import await_after, parts_of, reflect, task_id_in
from taskyard.api.inputs import outlined
from taskyard.api.list_pages import (
    HISTORY,
    LIST_ITEMS_MAX,
    POOLS,
    QUEUES,
    WORKERS,
    Listed,
    ListWanted,
    page_of,
    read_wanted,
)
from taskyard.api.openapi import READ_PROBLEM_RESPONSES
from taskyard.api.pages import FilterInvalid
from taskyard.api.past.explaining import Why
from taskyard.api.past.questions import AsOf, TaskAsOf, TaskPageAsOf
from taskyard.api.principals import Caller
from taskyard.api.read_model import TaskFilter
from taskyard.api.views import (
    HistoryItem,
    PoolView,
    QueueView,
    StatsView,
    TaskPage,
    TaskView,
    View,
    WorkerView,
)
from taskyard.contracts.events import FieldError
from taskyard.contracts.values import Status, TaskId

LIMIT_MAX = 500
LIMIT_DEFAULT = 100
FILTERS_MAX = 32

V = TypeVar("V")

AfterPosition = Annotated[
    str | None, QueryParameter(name="after", description="wait until the read model has this position (10 s at most)")
]
AtMoment = Annotated[
    str | None,
    QueryParameter(name="at", description="as it was then: a position of the log, or an RFC 3339 time with a zone"),
]
ListLimit = Annotated[int, QueryParameter(ge=1, le=LIST_ITEMS_MAX, description="how many at most")]
CursorText = Annotated[str | None, QueryParameter(description="`next_cursor` of the page before")]
Texts = Annotated[list[str] | None, QueryParameter(max_items=FILTERS_MAX)]


class History(View):
    """Events of a task, in the order of the log, and the cursor of those after them."""

    items: Sequence[HistoryItem]
    next_cursor: str | None


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


@get("/tasks", tags=["reading"], summary="List tasks", responses=READ_PROBLEM_RESPONSES)
async def list_tasks(
    request: Request[Caller, Any, State],
    *,
    status: Texts = None,
    kind: Texts = None,
    queue: Texts = None,
    pool: Texts = None,
    submitted_by: Texts = None,
    worker: Texts = None,
    label: Annotated[list[str] | None, QueryParameter(max_items=FILTERS_MAX, description="key:value")] = None,
    sort: Annotated[str | None, QueryParameter(description="a field; a leading minus turns the order round")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=LIMIT_MAX)] = LIMIT_DEFAULT,
    cursor: CursorText = None,
    after: AfterPosition = None,
    at: AtMoment = None,
) -> Response[TaskPage | TaskPageAsOf]:
    """Tasks that fit every filter, page by page, as they are or as they were. A filter may be repeated, or hold several
    values with commas.

    With `at` filters and order go by what was then, and all pages show the same moment, whatever happens meanwhile: give
    `at` again with each cursor. An operator sees own tasks only.
    """
    wanted = TaskFilter(
        statuses=tuple(_status(text) for text in _values("status", status)),
        kinds=_values("kind", kind),
        queues=_values("queue", queue),
        pools=_values("pool", pool),
        submitters=_values("submitted_by", submitted_by),
        workers=_values("worker", worker),
        labels=tuple(_label(text) for text in label or ()),
        sees_only=request.user.sees_only,
        sort=_clean("sort", sort),
        limit=limit,
        cursor=_clean("cursor", cursor),
    )
    parts = parts_of(request)
    if at is None:
        await await_after(request, after)
        return Response(await parts.read_model.tasks(wanted))
    _refuse_both(after)
    position, page = await parts.past.tasks(wanted, at)
    reflect(request, position)
    return Response(page)


@get("/tasks/{task_id:str}", tags=["reading"], summary="One task", responses=READ_PROBLEM_RESPONSES)
async def get_task(
    request: Request[Caller, Any, State], task_id: FromPath[str], after: AfterPosition = None, at: AtMoment = None
) -> Response[TaskView | TaskAsOf]:
    """The task as it is now, or as it was at a moment. A task of others is not found by an operator."""
    parts, id, sees_only = parts_of(request), task_id_in(task_id), request.user.sees_only
    if at is None:
        await await_after(request, after)
        return Response(await parts.read_model.task(id, sees_only=sees_only))
    _refuse_both(after)
    position, task = await parts.past.task(TaskId(id), at, sees_only=sees_only)
    reflect(request, position)
    return Response(task)


@get("/tasks/{task_id:str}/history", tags=["reading"], summary="A task's events", responses=READ_PROBLEM_RESPONSES)
async def get_history(
    request: Request[Caller, Any, State],
    *,
    task_id: FromPath[str],
    limit: ListLimit = LIST_ITEMS_MAX,
    cursor: CursorText = None,
    after: AfterPosition = None,
) -> Response[History]:
    """The events that concern the task, in the order of the log; those without effect bear `void: true`.

    Inputs are shown to the task's owner and admins; others see the directory, and names of variables with null values.
    """
    wanted = _wanted(HISTORY, limit, cursor)
    await await_after(request, after)
    model, user = parts_of(request).read_model, request.user
    task = await model.task(task_id_in(task_id), sees_only=user.sees_only)
    items, following = page_of(HISTORY, await model.history(task_id, wanted), wanted)
    is_shown = user.reads_inputs_of in (None, task.submitted_by)
    return Response(History(items=items if is_shown else list(map(outlined, items)), next_cursor=following))


@get(
    "/tasks/{task_id:str}/why", tags=["reading"], summary="Why a task is where it is", responses=READ_PROBLEM_RESPONSES
)
async def get_why(
    request: Request[Caller, Any, State], task_id: FromPath[str], after: AfterPosition = None
) -> Response[Why]:
    """Why the task waits or waited, was placed, tried again, refused or stopped: told from events, decision by decision."""
    await await_after(request, after)
    explaining = parts_of(request).explaining
    return Response(await explaining.why(TaskId(task_id_in(task_id)), sees_only=request.user.sees_only))


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
    wanted = _wanted(WORKERS, limit, cursor)
    if at is None:
        _refuse_past(wanted)
        await await_after(request, after)
        found = await parts_of(request).read_model.workers(wanted, sees_only=request.user.sees_only)
        items, following = page_of(WORKERS, found, wanted)
        return Response(Workers(items=items, next_cursor=following))
    _refuse_both(after)
    position, as_of, items, following = await parts_of(request).past.workers(
        at, wanted, sees_only=request.user.sees_only
    )
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
    wanted = _wanted(QUEUES, limit, cursor)
    if at is None:
        _refuse_past(wanted)
        await await_after(request, after)
        found = await parts_of(request).read_model.queues(wanted)
        items, following = page_of(QUEUES, found, wanted)
        return Response(Queues(items=items, next_cursor=following))
    _refuse_both(after)
    position, as_of, items, following = await parts_of(request).past.queues(at, wanted)
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
    wanted = _wanted(POOLS, limit, cursor)
    if at is None:
        _refuse_past(wanted)
        await await_after(request, after)
        found = await parts_of(request).read_model.pools(wanted)
        items, following = page_of(POOLS, found, wanted)
        return Response(Pools(items=items, next_cursor=following))
    _refuse_both(after)
    position, as_of, items, following = await parts_of(request).past.pools(at, wanted)
    reflect(request, position)
    return Response(PoolsAsOf(items=items, next_cursor=following, as_of=as_of))


@get("/stats", tags=["reading"], summary="Statistics", responses=READ_PROBLEM_RESPONSES)
async def get_stats(request: Request[Caller, Any, State], after: AfterPosition = None) -> Response[StatsView]:
    """Counts by status and kind; waiting and execution times. An operator is told of own tasks only."""
    await await_after(request, after)
    return Response(await parts_of(request).read_model.stats(sees_only=request.user.sees_only))


READ_ROUTES: list[HTTPRouteHandler] = [
    list_tasks,
    get_task,
    get_history,
    get_why,
    list_workers,
    list_queues,
    list_pools,
    get_stats,
]


def _refuse_both(after: str | None) -> None:
    if after is not None:
        raise invalid(FieldError(path="after", message="means nothing beside `at`, which names the moment itself"))


def _wanted(listed: Listed[V], limit: int, cursor: str | None) -> ListWanted:
    try:
        return read_wanted(listed, limit, cursor)
    except FilterInvalid as error:
        raise invalid(FieldError(path=error.field, message=error.message)) from error


def _refuse_past(wanted: ListWanted) -> None:
    if wanted.moment is not None:
        raise invalid(FieldError(path="cursor", message="belongs to a list of the past: give its `at` as well"))


def _values(name: str, given: list[str] | None) -> tuple[str, ...]:
    values = tuple(value for text in given or () for value in text.split(",") if value)
    if len(values) > FILTERS_MAX:
        raise invalid(FieldError(path=name, message=f"at most {FILTERS_MAX} values"))
    return tuple(value for value in values if _clean(name, value))


def _clean(name: str, text: str | None) -> str | None:
    """The text, if PostgreSQL can hold it."""
    if text is not None and "\x00" in text:
        raise invalid(FieldError(path=name, message="must not hold a NUL character"))
    return text


def _status(text: str) -> Status:
    try:
        return Status("cancelled" if text == "canceled" else text)
    except ValueError as error:
        known = ", ".join(Status)
        raise invalid(FieldError(path="status", message=f"unknown; known are {known}")) from error


def _label(text: str) -> tuple[str, str]:
    key, colon, value = text.partition(":")
    if not (key and colon):
        raise invalid(FieldError(path="label", message="must be key:value"))
    _clean("label", text)
    return key, value
