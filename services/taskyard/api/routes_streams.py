"""Live reading over HTTP: the event feed, a range of the log, and the output of tasks."""

from contextlib import aclosing
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, HeaderParameter, QueryParameter
from msgspec import Struct

from taskyard.api.feed import EventFilter, LogEvent
from taskyard.api.http_shared import HttpRequest, await_after, parts_of, position_in, reflect, task_id_in
from taskyard.api.live import Live
from taskyard.api.openapi import READ_PROBLEM_RESPONSES
from taskyard.api.output import OutputRequest
from taskyard.api.principals import Caller
from taskyard.api.query_values import event_types_of, task_of
from taskyard.api.read_model import ENDED
from taskyard.contracts.events import shown_event
from taskyard.contracts.values import (
    commit_sequence,
    format_instant,
    make_position,
)
from taskyard.eventlog.commit import StoredCommit

LOG_ITEMS_MAX = 500
LOG_BYTES_MAX = 4 << 20
"""A range of the log ends with the commit that reaches this."""
SKIP_BYTES_MAX = 1 << 50
FROM_TOLD = (
    "first byte, in the output as it was written: what is not kept any more counts, the mark that tells of it does not"
)

PlainText = Annotated[str | None, QueryParameter(pattern=r"^[^\x00]*\Z", max_length=256)]


class LogItem(Struct, frozen=True, kw_only=True):
    """One commit of the log. `at` is the log's time, `hash` of the stored bytes, `previous` of the writer's commit before."""

    sequence: int
    at: str
    writer: str
    instance: str
    epoch: int
    hash: str
    previous: str
    cursors: dict[str, int]
    events: list[Any]


class LogPage(Struct, frozen=True, kw_only=True):
    """A range of the log; `next` is where the following range begins."""

    items: list[LogItem]
    next: int


@get("/events", tags=["live"], summary="Live events (server-sent)", responses=READ_PROBLEM_RESPONSES)
async def events(
    request: Request[Caller, Any, State],
    *,
    task: PlainText = None,
    queue: PlainText = None,
    type_: Annotated[list[str] | None, QueryParameter(name="type", max_items=64)] = None,
    from_: Annotated[str | None, QueryParameter(name="from", description="start after this position")] = None,
    last_event_id: Annotated[str | None, HeaderParameter(name="Last-Event-ID", description="resume after it")] = None,
) -> Live:
    """Every event of the log from now on, or after `Last-Event-ID` or `from`. `id:` is the position, `event:` the type.

    `type` may be repeated or hold several names with commas between them. With `queue` come pauses of whole pools, too.
    """
    feed = parts_of(request).feed
    said_by, said = ("Last-Event-ID", last_event_id) if last_event_id else ("from", from_)
    resume_after = position_in(said_by, said) if said else None
    wanted = EventFilter(
        task=task_of(task),
        queue=queue,
        types=event_types_of(type_),
        sees_only=request.user.sees_only,
        reads_inputs_of=request.user.reads_inputs_of,
    )
    give_back = parts_of(request).event_places.take(request.user)  # before anything that costs
    try:
        first = await feed.start_of(resume_after, said_by=said_by)
    except BaseException:
        give_back()
        raise
    reflect(request, make_position(max(commit_sequence(first) - 1, 0), 0))
    return Live(feed.stream(first, wanted), media_type="text/event-stream", give_back=give_back)


@get("/log", tags=["live"], summary="A range of the log (admins)", responses=READ_PROBLEM_RESPONSES)
async def log(
    request: Request[Caller, Any, State],
    from_: Annotated[
        str | None, QueryParameter(name="from", description="first commit; default: the last ones")
    ] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=LOG_ITEMS_MAX)] = 100,
) -> Response[LogPage]:
    """Commits as they stand in the log, at most `limit`."""
    request.user.require_admin()
    event_log = parts_of(request).log
    wanted = commit_sequence(position_in("from", from_)) if from_ else await event_log.head() - limit + 1
    first = max(wanted, 1)
    items: list[LogItem] = []
    size = 0
    async with aclosing(event_log.read(first, first + limit - 1)) as commits:
        async for stored in commits:
            items.append(_item(stored))
            size += len(msgspec.json.encode(items[-1]))
            if size > LOG_BYTES_MAX:
                break
    following = items[-1].sequence + 1 if items else first
    return Response(LogPage(items=items, next=following))


@get("/tasks/{task_id:str}/output", tags=["live"], summary="The output of a task", responses=READ_PROBLEM_RESPONSES)
async def output(
    request: Request[Caller, Any, State],
    *,
    task_id: FromPath[str],
    attempt: Annotated[int | None, QueryParameter(ge=1, le=1_000_000)] = None,
    stream: Annotated[Literal["stdout", "stderr", "both"], QueryParameter()] = "both",
    from_: Annotated[int, QueryParameter(name="from", ge=0, le=SKIP_BYTES_MAX, description=FROM_TOLD)] = 0,
    follow: Annotated[int, QueryParameter(ge=0, le=1, description="1 streams until the task has ended")] = 0,
    after: PlainText = None,
) -> Live:
    """Text as the task wrote it. Without `attempt` the last one, and when following also those that come after it.

    An answer that ends before the output does is broken off: its last chunk is missing, and `from` goes on.
    """
    parts = parts_of(request)
    await await_after(request, after)
    task = await parts.read_model.task(task_id_in(task_id), sees_only=request.user.sees_only)
    wanted = OutputRequest(
        task=task_id,
        attempt=attempt or max(task.attempt, 1),
        later=attempt is None,
        stream=None if stream == "both" else stream,
        skip_bytes=from_,
    )
    head = 0 if follow else await parts.output.head(task_id)
    place = parts.output_places.take(request.user)
    output = parts.output
    pieces = output.follow(wanted, lambda: _has_ended(request, task_id)) if follow else output.read(wanted, head)
    return Live(pieces, media_type="text/plain", give_back=place)


STREAM_ROUTES: list[HTTPRouteHandler] = [events, log, output]


async def _has_ended(request: HttpRequest, task: str) -> bool:
    return (await parts_of(request).read_model.task(task, sees_only=None)).status in ENDED


def _item(stored: StoredCommit[LogEvent]) -> LogItem:
    commit = stored.commit
    return LogItem(
        sequence=stored.sequence,
        at=format_instant(stored.at),
        writer=commit.writer,
        instance=commit.instance,
        epoch=commit.epoch,
        hash=stored.hash,
        previous=commit.previous,
        cursors=commit.cursors,
        events=[shown_event(event)[0] for event in commit.events],
    )
