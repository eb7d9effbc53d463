"""A read model in memory: tasks that a test puts in, a position that it moves, and an outage that it turns on."""

import asyncio
from typing import Any

from msgspec import Struct

from taskyard.api.directory import Place
from taskyard.api.errors import ReadModelUnavailable, not_found
from taskyard.api.read_model import EndedBy, FoldedTo, TaskFilter
from taskyard.contracts.values import Position, commit_sequence


class FakeTask(Struct, kw_only=True):
    """As much of a task as the routes look at."""

    id: str
    pool: str = "default"
    queue: str = "default"
    submitted_by: str = "admin"
    status: str = "running"
    attempt: int = 1
    pending_reason: None = None


class FakeReadModel:
    """The port of the routes; its rows are of `log`."""

    def __init__(self, log: Any) -> None:
        self.log = log
        self.generation = "first"
        self.hash: str | None = None
        self.last_position = Position(0)
        self.reached = Position(1 << 40)
        self.is_away = False
        self.rows: dict[str, FakeTask] = {}
        self.workers_by_attempt: dict[int, str] = {1: "worker-1"}
        self.asked: list[TaskFilter] = []
        self.moved = asyncio.Event()

    def put(self, task: FakeTask) -> FakeTask:
        """Add a task or replace it."""
        self.rows[task.id] = task
        return task

    def move_to(self, position: Position) -> None:
        """Fold up to here."""
        self.reached = position
        self.moved.set()

    async def position(self) -> Position:
        self._check()
        self.last_position = self.reached
        return self.reached

    async def folded_to(self) -> FoldedTo:
        self._check()
        sequence = min(commit_sequence(self.reached), await self.log.head())
        found = [stored.hash async for stored in self.log.read(sequence, sequence)] if sequence else [""]
        return FoldedTo(sequence=sequence, hash=self.hash or found[0])

    async def wait_for(self, position: Position, timeout_seconds: float) -> bool:
        self._check()
        try:
            async with asyncio.timeout(timeout_seconds):
                while self.reached < position:
                    self.moved.clear()
                    await self.moved.wait()
        except TimeoutError:
            return False
        return True

    async def task(self, id: str, *, sees_only: str | None) -> FakeTask:
        self._check()
        task = self.rows.get(id)
        if task is None or sees_only not in (None, task.submitted_by):
            raise not_found("there is no such task")
        return task

    async def place(self, task: str) -> Place | None:
        self._check()
        row = self.rows.get(task)
        return row and Place(pool=row.pool, queue=row.queue, submitted_by=row.submitted_by)

    async def own_tasks(self, tasks: Any, principal: str) -> set[str]:
        self._check()
        return {task for task in tasks if task in self.rows and self.rows[task].submitted_by == principal}

    async def workers_of(self, task: str) -> dict[int, str]:
        self._check()
        return self.workers_by_attempt

    async def tasks(self, wanted: TaskFilter) -> Any:
        self._check()
        self.asked.append(wanted)
        return {"items": list(self.rows.values()), "next_cursor": None}

    async def ended_tasks(self, wanted: TaskFilter, ended_by: EndedBy) -> list[Any]:
        self._check()
        return []

    async def history(self, task: str, wanted: Any) -> list[Any]:
        self._check()
        return []

    async def rejections(self, command: str, *, sees_only: str | None) -> list[Any]:
        self._check()
        return []

    async def pool_of_worker(self, worker: str) -> str | None:
        self._check()
        return {"worker-1": "gpu"}.get(worker)

    async def workers(self, wanted: Any, *, sees_only: str | None) -> list[Any]:
        self._check()
        return []

    async def queues(self, wanted: Any) -> list[Any]:
        self._check()
        return []

    pools = queues

    async def known_pools(self, wanted: Any) -> list[str]:
        self._check()
        return ["default", "gpu"]

    async def known_workers(self, wanted: Any) -> list[str]:
        self._check()
        return ["worker-1", "w"]

    async def stats(self, *, sees_only: str | None) -> Any:
        self._check()
        return []

    def _check(self) -> None:
        if self.is_away:
            raise ReadModelUnavailable("away")
