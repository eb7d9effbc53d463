"""What the routes ask of the past: tasks, workers, queues and pools at a moment, each with the moment that it shows.

Tasks come from two places. Those that lived at the moment are in the state that was folded to it, with their fields as they
were. Those that had ended by then are rows of the read model: a task that has ended never changes, so its row is what it was
then, and the place of its last event, its end, tells that it had ended. Whatever was submitted before the moment is in
exactly one of the two. The read model must have everything up to the moment, so it is waited for. All pages of a list show
one moment: the first one resolves it, and the cursor carries it on.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import asdict

from taskyard.api.errors import Refusal, invalid, not_found
from taskyard.api.list_pages import HISTORY, POOLS, QUEUES, WORKERS, Listed, ListWanted, first_page, page_of
from taskyard.api.pages import Cursor, FilterInvalid, Placed, ShownMoment, Sort, make_page, read_cursor, read_sort
from taskyard.api.past.moments import Moment
from taskyard.api.past.selecting import live_tasks
from taskyard.api.past.state import PastState
from taskyard.api.past.travel import TimeTravel, moment_in
from taskyard.api.past.views import closing_tasks, live_task_view, pool_views, queue_views, without_others, worker_views
from taskyard.api.query_values import no_such_pools, unknown_pools
from taskyard.api.read_model import ENDED, EndedBy, ReadModel, TaskFilter
from taskyard.api.views import PoolView, QueueView, TaskPage, TaskView, View, WorkerView
from taskyard.contracts.events import FieldError
from taskyard.contracts.values import (
    Instant,
    Position,
    TaskId,
    commit_sequence,
    format_instant,
    format_position,
    parse_position,
)

CATCH_UP_SECONDS_MAX = 3.0
"""How long is waited until the read model has what was at the moment: it lacks little, and only of moments just passed."""

T = TypeVar("T")
V = TypeVar("V")


class AsOf(View):
    """The moment that an answer shows: the last event that it reflects, and the log's time then."""

    position: str
    at: str


class TaskAsOf(TaskView):
    """A task as it was."""

    as_of: AsOf


class TaskPageAsOf(TaskPage):
    """Some tasks as they were."""

    as_of: AsOf


class Past:
    """The past of the log, as far as answers show it. Every method raises as `TimeTravel.look`."""

    def __init__(self, travel: TimeTravel, read_model: ReadModel) -> None:
        self._travel = travel
        self._read_model = read_model

    async def workers(
        self, at: str, wanted: ListWanted, *, sees_only: str | None
    ) -> tuple[Position, AsOf, Sequence[WorkerView], str | None]:
        """A page of workers with their slots, and the cursor of the next one; tasks of others are not named."""
        closing: set[str] = set()

        def read(state: PastState) -> Sequence[WorkerView]:
            closing.update(closing_tasks(state))
            return worker_views(state, state.at, sees_only)

        position, as_of, items, cursor = await self._list(WORKERS, at, wanted, read)
        if sees_only is not None and closing:
            own = await self._read_model.own_tasks(sorted(closing), sees_only)
            items = without_others(items, closing - own)
        return position, as_of, items, cursor

    async def queues(self, at: str, wanted: ListWanted) -> tuple[Position, AsOf, Sequence[QueueView], str | None]:
        """A page of queues, and the cursor of the next one."""
        return await self._list(QUEUES, at, wanted, queue_views)

    async def pools(self, at: str, wanted: ListWanted) -> tuple[Position, AsOf, Sequence[PoolView], str | None]:
        """A page of pools, and the cursor of the next one."""
        return await self._list(POOLS, at, wanted, pool_views)

    async def _list(
        self, listed: Listed[V], at: str, wanted: ListWanted, read: Callable[[PastState], Sequence[V]]
    ) -> tuple[Position, AsOf, Sequence[V], str | None]:
        asked = moment_in(at)
        try:
            moment = asked if wanted.behind == listed.start else _moment_of(wanted.moment, asked)
        except FilterInvalid as error:
            raise invalid(FieldError(path=error.field, message=error.message)) from error
        shown, found = await self._look(moment, read)
        found = [item for item in found if listed.key(item) > wanted.behind]
        items, cursor = page_of(listed, found, wanted, ShownMoment(shown.reached, asked.at))
        return shown.last_event, shown.as_of, items, cursor

    async def tasks(self, wanted: TaskFilter, at: str) -> tuple[Position, TaskPageAsOf]:
        """A page of tasks. Raises 422 also for a sort or a cursor that is none, or a cursor of another list."""
        asked = moment_in(at)
        try:
            sort = read_sort(wanted.sort)
            cursor = read_cursor(wanted.cursor, sort)
            moment = asked if cursor is None else _moment_of(cursor.moment, asked)
        except FilterInvalid as error:
            raise invalid(FieldError(path=error.field, message=error.message)) from error
        shown, found = await self._look(moment, lambda state: _live(state, wanted, sort, cursor))
        if not wanted.statuses or not ENDED.isdisjoint(wanted.statuses):
            await self._catch_up(shown.reached)
            found += await self._read_model.ended_tasks(wanted, EndedBy(position=shown.reached, at=shown.at))
        page = make_page(found, sort, wanted.limit, ShownMoment(shown.reached, asked.at))
        return shown.last_event, TaskPageAsOf(**asdict(page), as_of=shown.as_of)

    async def task(self, id: TaskId, at: str, *, sees_only: str | None) -> tuple[Position, TaskAsOf]:
        """One task. Raises 404 for one that is not there, or was not yet, or is of another than `sees_only`."""
        shown, found = await self._look(moment_in(at), lambda state: live_task_view(state, id, state.at, sees_only))
        if found is None:
            found = await self._ended(id, shown, sees_only)
        if sees_only is not None and found.submitted_by != sees_only:
            raise not_found("there is no such task")
        return shown.last_event, TaskAsOf(**asdict(found), as_of=shown.as_of)

    async def _look(self, moment: Moment, read: Callable[[PastState], T]) -> "tuple[_Shown, T]":
        def show(state: PastState) -> tuple[_Shown, T]:
            return _Shown(reached=state.reached, last_event=state.last_event, at=state.at), read(state)

        return await self._travel.look(moment, show)

    async def _catch_up(self, reached: Position) -> None:
        """Wait until the read model has everything up to a moment. Raises 504."""
        if not await self._read_model.wait_for(reached, CATCH_UP_SECONDS_MAX):
            message = f"the read model has not reached commit {commit_sequence(reached)} in time; try again"
            raise Refusal(504, "position_not_reached", message)

    async def _ended(self, id: TaskId, shown: "_Shown", sees_only: str | None) -> TaskView:
        """A task that did not live at the moment: it had ended, or was not submitted yet."""
        await self._catch_up(shown.reached)
        task = await self._read_model.task(id, sees_only=sees_only)
        if task.finished_at is not None and parse_position(task.position) <= shown.reached:
            return task
        history = await self._read_model.history(id, first_page(HISTORY, limit=1))
        since = f" (position {history[0].position})" if history else ""
        if history and parse_position(history[0].position) <= shown.reached:
            raise not_found(f"the log has no submission of {id} where the read model knows of one{since}")
        message = f"the task was submitted later, at {task.submitted_at}{since}"
        raise Refusal(404, "not_submitted_yet", message)


class _Shown(Struct, frozen=True, kw_only=True):
    """The moment of a state: what it had reached, its last event, and the log's time."""

    reached: Position
    last_event: Position
    at: Instant

    @property
    def as_of(self) -> AsOf:
        """The moment as answers show it."""
        return AsOf(position=format_position(self.last_event), at=format_instant(self.at))


def _live(state: PastState, wanted: TaskFilter, sort: Sort, cursor: Cursor | None) -> list[Placed]:
    """Those that lived then and fit. Raises 422 for a pool that was not there then."""
    if unknown := unknown_pools(wanted.pools, state.pools):
        raise no_such_pools(unknown, state.pools, then=f" at {format_instant(state.at)}")
    return live_tasks(state, wanted, sort, cursor)


def _moment_of(shown: ShownMoment | None, asked: Moment) -> Moment:
    """The moment that the page before has shown. Raises `FilterInvalid`."""
    if shown is None:
        raise FilterInvalid("cursor", "belongs to a list of now")
    if shown.asked != asked.at or (asked.position is not None and asked.position != shown.reached):
        raise FilterInvalid("cursor", "belongs to a list of another moment: give the same `at` for each page")
    return Moment(position=shown.reached)
