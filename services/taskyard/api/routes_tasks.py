"""Reading over HTTP from the read model: tasks, their history, and why they are where they are."""

from collections.abc import Sequence
from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, QueryParameter

from taskyard.api.http_shared import await_after, parts_of, reflect, task_id_in
from taskyard.api.inputs import outlined
from taskyard.api.list_pages import HISTORY, LIST_ITEMS_MAX, page_of
from taskyard.api.openapi import READ_PROBLEM_RESPONSES
from taskyard.api.past.explaining import Why
from taskyard.api.past.questions import TaskAsOf, TaskPageAsOf
from taskyard.api.principals import Caller
from taskyard.api.query_values import FILTERS_MAX, clean, kinds_of, label_of, statuses_of, values_of
from taskyard.api.read_model import TaskFilter
from taskyard.api.read_parameters import (
    AfterPosition,
    AtMoment,
    CursorText,
    ListLimit,
    Texts,
    refuse_both,
    require_pools,
    require_workers,
    wanted_of,
)
from taskyard.api.views import HistoryItem, TaskPage, TaskView, View
from taskyard.contracts.values import TaskId

LIMIT_MAX = 500
LIMIT_DEFAULT = 100


class History(View):
    """Events of a task, in the order of the log, and the cursor of those after them."""

    items: Sequence[HistoryItem]
    next_cursor: str | None


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
        statuses=statuses_of(status),
        kinds=kinds_of(kind),
        queues=values_of("queue", queue),
        pools=values_of("pool", pool),
        submitters=values_of("submitted_by", submitted_by),
        workers=values_of("worker", worker),
        labels=tuple(label_of(text) for text in label or ()),
        sees_only=request.user.sees_only,
        sort=clean("sort", sort),
        limit=limit,
        cursor=clean("cursor", cursor),
    )
    parts = parts_of(request)
    if at is None:
        await await_after(request, after)
        await require_pools(parts, wanted.pools)
        await require_workers(parts, wanted.workers)
        return Response(await parts.read_model.tasks(wanted))
    refuse_both(after)
    await require_workers(parts, wanted.workers)  # whoever has never joined had not then
    async with parts.questions.turn(request.user):
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
    refuse_both(after)
    async with parts.questions.turn(request.user):
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
    wanted = wanted_of(HISTORY, limit, cursor)
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
    parts, id = parts_of(request), TaskId(task_id_in(task_id))
    async with parts.questions.turn(request.user):
        return Response(await parts.explaining.why(id, sees_only=request.user.sees_only))


TASK_ROUTES: list[HTTPRouteHandler] = [list_tasks, get_task, get_history, get_why]
