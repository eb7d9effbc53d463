"""What all HTTP routes share: the parts they use, who asks, reading a body, positions, and answering problems."""

import asyncio
import logging
from dataclasses import dataclass
from functools import cache
from typing import Any

from litestar import MediaType, Request, Response
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler
from litestar.params import QueryParameter
from litestar.types import Message, Scope
from nats.errors import Error as NatsError

from taskyard.api import replies
from taskyard.api.costs import Costs, be_slow
from taskyard.api.denials import Denials
from taskyard.api.directory import TaskDirectory
from taskyard.api.doors import Door
from taskyard.api.errors import (
    BeyondShare,
    ClientGone,
    ReadModelBehind,
    ReadModelUnavailable,
    Refusal,
    invalid,
    not_found,
    too_large,
    unavailable,
)
from taskyard.api.feed import EventFeed, LogEvent
from taskyard.api.health import Health
from taskyard.api.leaders import Leaders
from taskyard.api.metrics import Metrics
from taskyard.api.openapi import PROBLEM_MEDIA_TYPE
from taskyard.api.output import TaskOutput
from taskyard.api.past.explaining import Explaining
from taskyard.api.past.questions import Past
from taskyard.api.places import Places
from taskyard.api.principals import Caller, Principals
from taskyard.api.read_model import ReadModel
from taskyard.api.replies import Problem, Reply
from taskyard.api.submission import HTTP_BODY_BYTES_MAX
from taskyard.api.turns import Turns
from taskyard.contracts.events import FieldError
from taskyard.contracts.faults import in_words
from taskyard.contracts.values import Position, format_position, is_uuid7, parse_position
from taskyard.eventlog.errors import EventLogError
from taskyard.eventlog.log import EventLog

POSITION_HEADER = "Taskyard-Position"
AFTER_SECONDS_MAX = 10.0
BODY_SECONDS_MAX = 30.0
"""How long a client may take to send a body: nobody may hold a connection by sending nothing."""
DISCARDED_BYTES_MAX = 16 << 20
"""A body that is too large is read up to here, so that the client reads our answer instead of a broken connection."""
NAME_CHARACTERS_MAX = 100
UNKNOWN_TOLD_MAX = 20
"""What is told of parameters that are unknown: so many, and so much of the name of each."""
CLIENT_GONE = 499
"""What other servers call it, in the metrics only."""
JSON_TYPES = frozenset(("", "application/json", "application/octet-stream", "application/x-www-form-urlencoded"))
"""Bodies are JSON. The last one is what curl says by itself of anything."""

_STATE_POSITION = "taskyard_position"
_STATE_BODY_BYTES = "taskyard_body_bytes"
_log = logging.getLogger(__name__)

HttpRequest = Request[Caller, Any, State]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the routes work with."""

    door: Door
    costs: Costs
    principals: Principals
    directory: TaskDirectory
    read_model: ReadModel
    past: Past
    explaining: Explaining
    log: EventLog[LogEvent]
    feed: EventFeed
    output: TaskOutput
    health: Health
    leaders: Leaders
    metrics: Metrics
    closing: asyncio.Event
    denials: Denials
    shows_details_to_anyone: bool
    event_places: Places
    output_places: Places
    questions: Turns
    after_seconds_max: float = AFTER_SECONDS_MAX


def parts_of(request: ASGIConnection[Any, Any, Any, Any]) -> Parts:
    """The parts of the application that serves the request."""
    parts = request.app.state.parts
    assert isinstance(parts, Parts)
    return parts


async def authenticate(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Recognise the caller, or answer 401 (a guard of routes; one that is not async would run in a thread)."""
    connection.scope["user"] = parts_of(connection).principals.bearing(connection.headers.get("authorization"))


async def refuse_unknown_parameters(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Answer 422 for a query parameter that the route does not know (a guard of routes): what is misspelt would be passed
    over, and the answer would be to another question.
    """
    if not connection.scope["query_string"]:
        return
    known = _parameters_of(handler)
    unknown = sorted(set(connection.query_params) - known)
    if unknown:
        told = f"the route knows {', '.join(sorted(known))}" if known else "the route takes no parameters"
        faults = [FieldError(path=name[:NAME_CHARACTERS_MAX], message=f"unknown parameter; {told}") for name in unknown]
        raise invalid(*faults[:UNKNOWN_TOLD_MAX])


@cache
def _parameters_of(handler: BaseRouteHandler) -> frozenset[str]:
    """The query parameters of a route, as its address names them."""
    parameters = handler.parsed_fn_signature.parameters.items()
    told = ((name, parameter.kwarg_definition) for name, parameter in parameters)
    return frozenset(kwarg.name or name for name, kwarg in told if isinstance(kwarg, QueryParameter))


async def read_body(request: HttpRequest) -> bytes:
    """The body, whatever it holds. Raises 408, 413 and 415, and 429 where too much of the caller's was refused."""
    parts_of(request).costs.admit(request.user)
    request.scope["state"][_STATE_BODY_BYTES] = 0
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in JSON_TYPES and not content_type.endswith("+json"):
        raise Refusal(415, "unsupported_media_type", "the body must be application/json")
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        message = "the body must not be compressed"
        raise Refusal(415, "unsupported_media_type", message, headers={"Accept-Encoding": "identity"})
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            return await _receive_body(request)
    except TimeoutError as error:
        message = f"the body did not come within {BODY_SECONDS_MAX:g} s"
        raise Refusal(408, "too_slow", message, headers={"Connection": "close"}) from error


async def _receive_body(request: HttpRequest) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] != "http.request":
            raise ClientGone
        chunk = message["body"]
        size += len(chunk)
        request.scope["state"][_STATE_BODY_BYTES] = size
        if size <= HTTP_BODY_BYTES_MAX:
            chunks.append(chunk)
        if size > DISCARDED_BYTES_MAX or not message.get("more_body", False):
            break
    if size > HTTP_BODY_BYTES_MAX:
        raise too_large(HTTP_BODY_BYTES_MAX)
    return b"".join(chunks)


async def await_after(request: HttpRequest, after: str | None) -> Position:
    """Wait until the read model has the position that `?after=` names; the position that the answer will reflect.

    Raises:
        Refusal: 422 for what is no position, 504 when it does not come in time.
        ReadModelUnavailable: PostgreSQL is away.
    """
    parts = parts_of(request)
    if after is not None:
        wanted = position_in("after", after)
        if not await parts.read_model.wait_for(wanted, parts.after_seconds_max):
            raise Refusal(504, "position_not_reached", f"the read model has not reached {after} in time")
    position = await parts.read_model.position()
    reflect(request, position)
    return position


def task_id_in(text: str) -> str:
    """The task id that an address holds. Raises 404: what is no id names no task."""
    if not is_uuid7(text):
        raise not_found("there is no such task")
    return text


def position_in(field: str, text: str) -> Position:
    """The position that a parameter holds. Raises 422."""
    try:
        return parse_position(text)
    except ValueError as error:
        raise invalid(FieldError(path=field, message="is not a position")) from error


def reflect(request: HttpRequest, position: Position | None) -> None:
    """Note the log position that the answer reflects."""
    if position is not None:
        request.scope["state"][_STATE_POSITION] = position


def respond(request: HttpRequest, reply: Reply) -> Response[Any]:
    """The HTTP form of a door's reply."""
    parts_of(request).costs.note(request.user, request.scope["state"][_STATE_BODY_BYTES], reply)
    return _response(request, reply)


def _response(request: HttpRequest, reply: Reply) -> Response[Any]:
    reflect(request, reply.position)
    media_type = PROBLEM_MEDIA_TYPE if isinstance(reply.body, Problem) else MediaType.JSON
    return Response(reply.body, status_code=reply.code, headers=reply.headers, media_type=media_type)


async def add_position(message: Message, scope: Scope) -> None:
    """Give every answer the header that tells the position it reflects (a hook before sending)."""
    if message["type"] != "http.response.start":
        return
    app = scope["litestar_app"]
    parts: Parts = app.state.parts
    position = scope["state"].get(_STATE_POSITION, parts.read_model.last_position)
    headers = [*message["headers"], (POSITION_HEADER.lower().encode(), format_position(position).encode())]
    message["headers"] = headers


def on_refusal(request: HttpRequest, refusal: Refusal) -> Response[Any]:
    """Answer a refusal."""
    caller = request.scope.get("user")
    parts_of(request).denials.note(
        refusal.status,
        who=caller.name if isinstance(caller, Caller) else None,
        where=request.client.host if request.client else None,
        what=f"{request.method} {request.url.path}",
        reason=refusal.detail,
    )
    body_bytes = request.scope["state"].get(_STATE_BODY_BYTES)
    if isinstance(caller, Caller) and body_bytes is not None:
        parts_of(request).costs.note(caller, body_bytes, refusal)
    if isinstance(caller, Caller) and isinstance(refusal, BeyondShare):
        be_slow(request.scope, caller)
    return _response(request, replies.refused(refusal))


def on_http_exception(request: HttpRequest, error: HTTPException) -> Response[Any]:
    """Answer what the framework refuses: unknown routes and methods, parameters that do not fit."""
    if error.status_code == 400:
        return on_refusal(request, invalid(*_faults(error)))
    if error.status_code == 404:
        return on_refusal(request, not_found("there is nothing at this address"))
    if error.status_code >= 500:
        return on_failure(request, error)
    refusal = Refusal(error.status_code, "refused", error.detail, headers=dict(error.headers or {}))
    return on_refusal(request, refusal)


def on_gone(request: HttpRequest, error: ClientGone) -> Response[Any]:
    """Let the metrics tell of a client that hung up: nobody hears an answer, and nothing of ours has failed."""
    del request, error
    return Response(None, status_code=CLIENT_GONE)


def on_away(request: HttpRequest, error: Exception) -> Response[Any]:
    """Answer that a part which the request needs is away."""
    what = "PostgreSQL" if isinstance(error, ReadModelUnavailable) else "NATS"
    _log.warning("request was not served", extra={"away": what, "cause": str(error)[:300]})
    is_behind = isinstance(error, ReadModelBehind)
    return on_refusal(request, unavailable(f"{error if is_behind else f'{what} is away'}; try again"))


def on_failure(request: HttpRequest, error: Exception) -> Response[Any]:
    """Answer a bug of ours: log it, and tell nothing of it."""
    _log.error("request failed", extra={"path": request.url.path[:200]}, exc_info=error)
    return on_refusal(request, Refusal(500, "internal", "the request could not be handled"))


EXCEPTION_HANDLERS = {
    ClientGone: on_gone,
    Refusal: on_refusal,
    HTTPException: on_http_exception,
    ReadModelUnavailable: on_away,
    EventLogError: on_away,
    NatsError: on_away,
    Exception: on_failure,
}


def _faults(error: HTTPException) -> tuple[FieldError, ...]:
    extra = error.extra if isinstance(error.extra, list) else []
    faults = [
        # A parameter that Python keeps for itself bears an underscore in our code, as `from_` does.
        FieldError(
            path=str(fault.get("key", "")).rstrip("_"), message=_of_parameter(str(fault.get("message", "does not fit")))
        )
        for fault in extra
        if isinstance(fault, dict)
    ]
    return tuple(faults) or (FieldError(path="", message=error.detail or "the request cannot be read"),)


def _of_parameter(message: str) -> str:
    """What is wrong with a query parameter, which is a string whatever it should be."""
    return in_words(message).removesuffix(", not a string")
