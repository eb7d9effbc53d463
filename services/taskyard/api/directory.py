"""Where tasks belong: the pool, queue and submitter of a task, remembered from what passed by or read from the model."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable

from msgspec import Struct

from taskyard.api.errors import ReadModelUnavailable

REMEMBERED_MAX = 50_000


class Place(Struct, frozen=True, kw_only=True, gc=False):
    """What of a task never changes and is needed to route and to filter."""

    pool: str
    queue: str | None
    submitted_by: str


class TaskDirectory:
    """Finds tasks' places. `look_up` asks the read model; `catch_up` waits for a moment until it has all that is stored.

    `generation` names the rows of the read model: other rows may be of another log, where places are others.
    """

    def __init__(
        self,
        look_up: Callable[[str], Awaitable[Place | None]],
        catch_up: Callable[[], Awaitable[None]],
        generation: Callable[[], str],
    ) -> None:
        self._look_up = look_up
        self._catch_up = catch_up
        self._generation = generation
        self._known_in = generation()
        self._places: OrderedDict[str, Place] = OrderedDict()

    def remember(self, task: str, place: Place) -> None:
        """Keep a place; the oldest ones are forgotten."""
        self._forget_other_rows()
        self._places[task] = place
        if len(self._places) > REMEMBERED_MAX:
            self._places.popitem(last=False)

    async def find(self, task: str) -> Place | None:
        """The place of a task that the log has; `None` for one that it has not.

        Raises:
            ReadModelUnavailable: that cannot be told, since PostgreSQL is away, or behind the log (`ReadModelBehind`).
        """
        self._forget_other_rows()
        place = self._places.get(task) or await self._read(task)
        if place is None:
            await self._catch_up()
            place = await self._read(task)
        return place

    async def find_if_possible(self, task: str) -> Place | None:
        """As `find`, but where the read model cannot tell nothing is known: commands are taken all the same."""
        try:
            return await self.find(task)
        except ReadModelUnavailable:
            return None

    async def _read(self, task: str) -> Place | None:
        place = await self._look_up(task)
        if place is not None:
            self.remember(task, place)
        return place

    def _forget_other_rows(self) -> None:
        generation = self._generation()
        if generation != self._known_in:
            self._known_in = generation
            self._places.clear()
