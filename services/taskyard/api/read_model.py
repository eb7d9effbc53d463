"""What the routes ask of the read model, which another service writes."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from taskyard.api.directory import Place
from taskyard.api.list_pages import ListWanted
from taskyard.api.pages import Placed
from taskyard.api.views import HistoryItem, PoolView, QueueView, Rejection, StatsView, TaskPage, TaskView, WorkerView
from taskyard.contracts.values import Instant, Position, Status

ENDED = frozenset((Status.COMPLETED, Status.FAILED, Status.TIMEOUT, Status.CANCELLED))

REJECTIONS_MAX = 100
"""How often one command or task may be refused before it is told no more."""


class TaskFilter(Struct, frozen=True, kw_only=True):
    """Which tasks are wanted: of each field one of the values, if it has any; of labels all.

    `sees_only` is the one principal whose tasks the caller may see, `cursor` the `next_cursor` of the page before.
    """

    statuses: tuple[Status, ...] = ()
    kinds: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    submitters: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    sees_only: str | None = None
    sort: str | None = None
    limit: int = 100
    cursor: str | None = None


class EndedBy(Struct, frozen=True, kw_only=True):
    """Tasks that had ended by a moment: after the event at `position`, when the log's time was `at`."""

    position: Position
    at: Instant


class FoldedTo(Struct, frozen=True, kw_only=True):
    """The last commit that the rows reflect, and its hash, which tells of which log they are; 0 and "" for none."""

    sequence: int
    hash: str


class ReadModel(Protocol):
    """Every method raises `ReadModelUnavailable` when PostgreSQL gives no answer."""

    last_position: Position
    """The last position that was read; answers that read nothing show it."""

    @property
    def generation(self) -> str:
        """Names the rows: it is another once a rebuild has put others in their place."""
        ...

    async def position(self) -> Position:
        """The position that the rows reflect."""
        ...

    async def folded_to(self) -> FoldedTo:
        """The commit that the rows reflect."""
        ...

    async def wait_for(self, position: Position, timeout_seconds: float) -> bool:
        """Wait until the rows reflect the position; False when they do not in time."""
        ...

    async def task(self, id: str, *, sees_only: str | None) -> TaskView:
        """One task. Raises 404, also for one of another than `sees_only`; of a refused one it tells the refusals."""
        ...

    async def place(self, task: str) -> Place | None:
        """Where a task belongs."""
        ...

    async def own_tasks(self, tasks: Sequence[str], principal: str) -> set[str]:
        """Those of the tasks that the principal submitted."""
        ...

    async def workers_of(self, task: str) -> dict[int, str]:
        """Which worker had each attempt of a task."""
        ...

    async def tasks(self, wanted: TaskFilter) -> TaskPage:
        """A page of tasks. Raises 422 for a sort or a cursor that is none."""
        ...

    async def ended_tasks(self, wanted: TaskFilter, ended_by: EndedBy) -> Sequence[Placed]:
        """Those that had ended by a moment, one more than a page has if there are so many. Raises as `tasks`.

        They are as they were then, for what has ended does not change.
        """
        ...

    async def history(self, task: str, wanted: ListWanted) -> Sequence[HistoryItem]:
        """The events of a task in the order of the log: those of a page, and one more if there is another page."""
        ...

    async def rejections(self, command: str, *, sees_only: str | None) -> Sequence[Rejection]:
        """How a command of this id was refused, in the order of the log; only those given by `sees_only`."""
        ...

    async def workers(self, wanted: ListWanted, *, sees_only: str | None) -> Sequence[WorkerView]:
        """Workers with their slots, as `history`; of tasks of others than `sees_only` it does not tell which they are."""
        ...

    async def pool_of_worker(self, worker: str) -> str | None:
        """The pool of a worker."""
        ...

    async def queues(self, wanted: ListWanted) -> Sequence[QueueView]:
        """Queues, as `history`."""
        ...

    async def pools(self, wanted: ListWanted) -> Sequence[PoolView]:
        """Pools, as `history`."""
        ...

    async def known_pools(self, wanted: Sequence[str]) -> Sequence[str]:
        """Those of the wanted pools that are there, and others that may have been meant."""
        ...

    async def known_workers(self, wanted: Sequence[str]) -> Sequence[str]:
        """Those of the wanted workers that have ever joined, and others that may have been meant."""
        ...

    async def stats(self, *, sees_only: str | None) -> StatsView:
        """Counts and times; only of tasks of `sees_only`."""
        ...
