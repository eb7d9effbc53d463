"""What waits for a decision of the scheduler: lanes of pending tasks, timers, and the pools that were touched.

It is a cache of the folded state that deciding uses up. A leader makes a new one from the state when it begins, so it
never has to survive anything.

A lane holds the waiting tasks of one kind in one queue, by priority, then submission. `heads` of a pool and kind has an
entry for the head of every lane that may be open; one found to be blocked is dropped and comes back by `reopen`. Applies
that were confirmed wait beside the lanes: each has its slot, so only what closes a pool, a queue or a workspace holds it back.
"""

from heapq import heappop, heappush

from taskyard.contracts.lifecycle import Phase, TaskRecord
from taskyard.contracts.tasks import TaskTable
from taskyard.contracts.values import Instant, Position, TaskId

Entry = tuple[int, Position, TaskId]
"""Priority, submission, id: what a lane is ordered by."""
Head = tuple[int, Position, str]
"""Priority and submission of a lane's head, and its queue."""

DUE, START_BY, ANSWER_BY, CONFIRM = "due", "start_by", "answer_by", "confirm"
"""Kinds of timers: a pending task or an apply may go on; a task must have started; a plan must have been answered; one that
is confirmed by itself stood aside."""


class Agenda:
    """What is to be looked at. A standby's is closed: it decides nothing, and remembers nothing to decide."""

    def __init__(self, *, is_open: bool) -> None:
        self._is_open = is_open
        self.touched: dict[str, None] = {}
        self.auto_confirm: dict[TaskId, None] = {}
        self._applies: dict[str, dict[TaskId, None]] = {}
        self._pools: dict[str, dict[str, None]] = {}
        self._lanes: dict[tuple[str, str, str], list[Entry]] = {}
        self._kinds: dict[tuple[str, str], dict[str, None]] = {}
        self._heads: dict[str, dict[str, list[Head]]] = {}
        self._timers: list[tuple[Instant, str, TaskId]] = []
        self._unread: dict[TaskId, None] = {}

    def touch(self, pool: str) -> None:
        """Something of the pool changed: look whether more of it may run."""
        if self._is_open:
            self.touched[pool] = None

    def wait(self, record: TaskRecord) -> None:
        """A pending task takes its place in its lane."""
        if not self._is_open:
            return
        key = (record.pool, record.queue, record.kind)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = []
            self._kinds.setdefault((record.pool, record.queue), {})[record.kind] = None
            self._pools.setdefault(record.queue, {})[record.pool] = None
        entry = (_rank(record), record.submitted, record.id)
        heappush(lane, entry)
        if lane[0] is entry:
            self._offer(key, entry)
        self.touch(record.pool)

    def reopen(self, pool: str, queue: str) -> None:
        """What blocked a queue may be over: its lanes take part again."""
        for kind in self._kinds.get((pool, queue), ()):
            lane = self._lanes[(pool, queue, kind)]
            if lane:
                self._offer((pool, queue, kind), lane[0])
        self.touch(pool)

    def reopen_workspace(self, name: str) -> None:
        """What blocked the tasks that lock this queue may be over, in every pool where some wait."""
        for pool in list(self._pools.get(name, ())):
            self.reopen(pool, name)

    def offer_apply(self, record: TaskRecord) -> None:
        """A plan was confirmed, or what held its apply back may be over: it may be scheduled, if nothing else does."""
        if self._is_open:
            self._applies.setdefault(record.pool, {})[record.id] = None
            self.touch(record.pool)

    def applies(self, pool: str) -> list[TaskId]:
        """Applies that may be scheduled, in the order in which they were offered."""
        return list(self._applies.get(pool, ()))

    def drop_apply(self, pool: str, task: TaskId) -> None:
        """An apply was scheduled, or is held back until it is offered again."""
        applies = self._applies[pool]
        del applies[task]
        if not applies:
            del self._applies[pool]

    def kinds(self, pool: str) -> list[str]:
        """The kinds that may have something waiting, in a fixed order."""
        return sorted(kind for kind, heads in self._heads.get(pool, {}).items() if heads)

    def confirm_by_itself(self, task: TaskId) -> None:
        """The plan of a task that asked for no question is there."""
        if self._is_open:
            self.auto_confirm[task] = None

    def head(
        self, pool: str, kind: str, tasks: TaskTable, taken: set[TaskId], now: Instant
    ) -> tuple[Head, TaskRecord] | None:
        """The first waiting task of a kind in a pool that is not `taken` by this decision, left where it is."""
        heads = self._heads.get(pool, {}).get(kind, [])
        while heads:
            head = heads[0]
            key = (pool, head[2], kind)
            lane = self._lanes.get(key, [])
            while lane and (lane[0][2] in taken or not _still_waits(lane[0], tasks, now)):
                heappop(lane)
            if lane and lane[0][:2] == head[:2]:
                return head, tasks.live[lane[0][2]]
            heappop(heads)
            if lane and head[:2] < lane[0][:2]:  # the head that was announced is gone; its successor takes part
                self._offer(key, lane[0])
            elif not lane and key in self._lanes:
                self._forget_lane(key)
        return None

    def take(self, pool: str, kind: str, head: Head) -> None:
        """The task of this head is being scheduled: the next of its lane takes its place."""
        heappop(self._heads[pool][kind])
        key = (pool, head[2], kind)
        lane = self._lanes[key]
        heappop(lane)
        if lane:
            self._offer(key, lane[0])
        else:
            self._forget_lane(key)

    def block(self, pool: str, kind: str) -> None:
        """The first lane of a kind is blocked: it takes no part until its queue is reopened."""
        heappop(self._heads[pool][kind])

    def set_timer(self, at: Instant, kind: str, task: TaskId) -> None:
        """Look at the task at `at`."""
        if self._is_open:
            heappush(self._timers, (at, kind, task))

    def wait_for_answers(self, task: TaskId) -> None:
        """The plan must have been answered by now: its time is over once what was stored until then was read."""
        self._unread[task] = None

    def answers_were_read(self, now: Instant) -> None:
        """Look again at the plans that waited for it."""
        for task in self._unread:
            self.set_timer(now, ANSWER_BY, task)
        self._unread.clear()

    def pop_due(self, now: Instant) -> tuple[str, TaskId] | None:
        """The next timer that is due, taken off."""
        if self._timers and self._timers[0][0] <= now:
            _, kind, task = heappop(self._timers)
            return kind, task
        return None

    @property
    def next_deadline(self) -> Instant | None:
        """When the next timer is due."""
        return self._timers[0][0] if self._timers else None

    def _offer(self, key: tuple[str, str, str], entry: Entry) -> None:
        pool, queue, kind = key
        heappush(self._heads.setdefault(pool, {}).setdefault(kind, []), (entry[0], entry[1], queue))

    def _forget_lane(self, key: tuple[str, str, str]) -> None:
        del self._lanes[key]
        kinds = self._kinds[key[:2]]
        del kinds[key[2]]
        if kinds:
            return
        del self._kinds[key[:2]]
        pools = self._pools[key[1]]
        del pools[key[0]]
        if not pools:
            del self._pools[key[1]]


def _still_waits(entry: Entry, tasks: TaskTable, now: Instant) -> bool:
    """An entry of an earlier wait may be left over; a task whose delay runs has a timer and comes again."""
    record = tasks.live.get(entry[2])
    return record is not None and record.phase is Phase.PENDING and record.due <= now and _rank(record) == entry[0]


def _rank(record: TaskRecord) -> int:
    """A task that holds its workspace goes first when it has to run again: whatever comes before it would wait for it."""
    return 0 if record.holds_workspace else record.priority
