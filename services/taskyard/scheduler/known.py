"""The ids that the scheduler remembers: tasks that were submitted, and the outcomes of other commands.

An id bears its time and is refused when it is too old, so a window of ids is enough to decide each command once.
"""

from collections import deque

from msgspec import Struct

from taskyard.contracts.commands import ID_AGE_SECONDS_MAX, ID_AHEAD_SECONDS_MAX, Answer
from taskyard.contracts.values import CommandId, Instant, Position, Status, TaskId, seconds, uuid7_instant

IDS_MAX = 1_000_000
"""Task ids remembered at most, and as many command ids; beyond it the oldest are forgotten, and refused from then on."""

_WINDOW = seconds(ID_AGE_SECONDS_MAX + ID_AHEAD_SECONDS_MAX)


class KnownTask(Struct, kw_only=True, gc=False):
    """What is remembered of a task, also after its end.

    `plan_confirmed` is the last attempt whose plan was confirmed; `ended` its status once it has ended.
    """

    digest: str
    by: str
    position: Position
    ended: Status | None = None
    error_code: str | None = None
    plan_confirmed: int | None = None


class SavedIds(Struct, frozen=True, kw_only=True):
    """The snapshot of `KnownIds`: pairs in the order in which they came."""

    tasks: list[tuple[TaskId, KnownTask]]
    commands: list[tuple[CommandId, Answer]]
    seen_at: list[Instant]
    horizon: Instant


class KnownIds:
    """A window of ids in the order in which they came."""

    def __init__(self) -> None:
        self.tasks: dict[TaskId, KnownTask] = {}
        self.commands: dict[CommandId, Answer] = {}
        self.horizon = Instant(0)
        self._order: deque[tuple[Instant, TaskId]] = deque()

    def remember_task(self, task: TaskId, known: KnownTask, at: Instant) -> None:
        """A task was accepted at log time `at`."""
        self.tasks[task] = known
        self._order.append((at, task))
        while self._order and (self._order[0][0] < at - _WINDOW or len(self._order) > IDS_MAX):
            self._forget_first()

    def remember_command(self, command: CommandId, answer: Answer) -> None:
        """A command other than `submit` was decided."""
        self.commands.setdefault(command, answer)
        while len(self.commands) > IDS_MAX:
            del self.commands[next(iter(self.commands))]

    def age_fault(self, id: str, at: Instant) -> str | None:
        """Why an id that came at log time `at` is refused for its own time, if it is."""
        own = uuid7_instant(id)
        if own > at + seconds(ID_AHEAD_SECONDS_MAX):
            return f"its time is more than {ID_AHEAD_SECONDS_MAX} s ahead"
        if own < at - seconds(ID_AGE_SECONDS_MAX) or own <= self.horizon:
            return f"its time is more than {ID_AGE_SECONDS_MAX} s ago"
        return None

    def saved(self) -> SavedIds:
        """The window for a snapshot."""
        return SavedIds(
            tasks=[(task, self.tasks[task]) for _, task in self._order],
            commands=list(self.commands.items()),
            seen_at=[at for at, _ in self._order],
            horizon=self.horizon,
        )

    def restore(self, saved: SavedIds) -> None:
        """Replace the window by a saved one."""
        self.tasks = dict(saved.tasks)
        self.commands = dict(saved.commands)
        self.horizon = saved.horizon
        self._order = deque(zip(saved.seen_at, (task for task, _ in saved.tasks), strict=True))

    def _forget_first(self) -> None:
        at, task = self._order.popleft()
        del self.tasks[task]
        if len(self._order) >= IDS_MAX:  # forgotten before its age: it must not be accepted again
            self.horizon = max(self.horizon, min(uuid7_instant(task), at))
