"""What routes that read have in common: their parameters, and what of these does not go together."""

from typing import Annotated, TypeVar

from litestar.params import QueryParameter

from taskyard.api.errors import invalid
from taskyard.api.http_shared import Parts
from taskyard.api.list_pages import LIST_ITEMS_MAX, Listed, ListWanted, read_wanted
from taskyard.api.pages import FilterInvalid
from taskyard.api.query_values import FILTERS_MAX, no_such_pools, no_such_workers, unknown_pools
from taskyard.contracts.events import FieldError

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


def refuse_both(after: str | None) -> None:
    """Raise 422 for `after` beside `at`."""
    if after is not None:
        raise invalid(FieldError(path="after", message="means nothing beside `at`, which names the moment itself"))


def wanted_of(listed: Listed[V], limit: int, cursor: str | None) -> ListWanted:
    """The page that was asked for. Raises 422 for a cursor that is none."""
    try:
        return read_wanted(listed, limit, cursor)
    except FilterInvalid as error:
        raise invalid(FieldError(path=error.field, message=error.message)) from error


def refuse_past(wanted: ListWanted) -> None:
    """Raise 422 for the cursor of a list of the past without its `at`."""
    if wanted.moment is not None:
        raise invalid(FieldError(path="cursor", message="belongs to a list of the past: give its `at` as well"))


async def require_pools(parts: Parts, pools: tuple[str, ...]) -> None:
    """Raise 422 for a pool that is not there, once the read model has what is stored."""
    if not pools:
        return
    if unknown_pools(pools, await parts.read_model.known_pools(pools)):
        await parts.health.catch_up()  # it may have come to be a moment ago
        known = await parts.read_model.known_pools(pools)
        if unknown := unknown_pools(pools, known):
            raise no_such_pools(unknown, known)


async def require_workers(parts: Parts, workers: tuple[str, ...]) -> None:
    """Raise 422 for a worker that has never joined, once the read model has what is stored."""
    if not workers or set(workers) <= set(await parts.read_model.known_workers(workers)):
        return
    await parts.health.catch_up()  # it may have joined a moment ago
    known = await parts.read_model.known_workers(workers)
    if unknown := [worker for worker in workers if worker not in known]:
        raise no_such_workers(unknown, known)
