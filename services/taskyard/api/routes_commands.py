"""The door over HTTP: routes that submit and command."""

from collections.abc import Awaitable
from typing import Any

import msgspec
from litestar import Request, Response, post
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from msgspec import Raw

from taskyard.api.errors import ReadModelUnavailable, Refusal, invalid, not_found, too_large
from taskyard.api.http_shared import HttpRequest, Parts, parts_of, read_body, respond, task_id_in
from taskyard.api.openapi import PROBLEM_RESPONSES, SUBMIT_RESPONSES, body_operation
from taskyard.api.principals import Caller
from taskyard.api.replies import Accepted, AcceptedBatch, Reply
from taskyard.api.submission import HTTP_LIMITS
from taskyard.contracts.commands import COMMAND_BYTES_MAX, TaskBatch, TaskSpec, may_touch
from taskyard.contracts.events import FieldError
from taskyard.contracts.subjects import HEADER_TRACEPARENT
from taskyard.contracts.validation import UNREADABLE, InvalidCommand, fields_of
from taskyard.contracts.values import POOL_DEFAULT, is_name
from taskyard.contracts.verbs import SUBMIT, VERBS, Target, Verb

DOOR = "http"
_text = msgspec.json.Decoder(str)


@post(
    "/tasks",
    status_code=202,
    tags=["commands"],
    summary="Submit one task or many",
    operation_class=body_operation(TaskSpec, TaskBatch),
    responses=SUBMIT_RESPONSES,
)
async def submit(request: Request[Caller, Any, State]) -> Response[Accepted | AcceptedBatch]:
    """Store one task, or `{"tasks": [...]}` of which each is accepted or refused by itself, and answer the verdict.

    A batch of which every task is refused is answered as a refusal, whose `tasks` tell of each.

    `position` is null when the command is stored and the scheduler has not answered within 5 s.
    """
    parts = parts_of(request)
    data = await read_body(request)
    traceparent = request.headers.get(HEADER_TRACEPARENT)
    answering = parts.door.submit(request.user, data, pool=None, limits=HTTP_LIMITS, traceparent=traceparent)
    reply = await _counted(parts, SUBMIT, answering)
    return respond(request, reply)


def _about(target: Target, verb: Verb, address: str) -> Any:
    """The decorator of a route for a verb about a target at an address."""
    return post(
        f"{address}/{verb.word}",
        name=f"{target}-{verb.word}",
        operation_id=f"{target}_{verb.word.replace('-', '_')}",
        status_code=202,
        tags=["commands"],
        summary=f"{verb.word.capitalize()} a {target}",
        description=verb.summary.format(target=target),
        operation_class=body_operation(verb.body),
        responses=PROBLEM_RESPONSES,
    )


def _task_route(verb: Verb) -> HTTPRouteHandler:
    @_about(Target.TASK, verb, "/tasks/{task_id:str}")
    async def command_task(request: Request[Caller, Any, State], task_id: FromPath[str]) -> Response[Accepted]:
        request.user.require(verb.name)
        task = task_id_in(task_id)
        fields = _read_fields(await read_body(request))
        _fix(fields, Target.TASK, task)
        _accept_either_word(fields, verb)
        pool = await _pool_of_task(request, task, fields)
        return await _send(request, verb, pool, fields)

    return command_task


def _pool_route(verb: Verb) -> HTTPRouteHandler:
    @_about(Target.POOL, verb, "/pools/{pool:str}")
    async def command_pool(request: Request[Caller, Any, State], pool: FromPath[str]) -> Response[Accepted]:
        _require_name(pool, Target.POOL)
        fields = _read_fields(await read_body(request))
        if Target.QUEUE in fields:
            raise invalid(FieldError(path="queue", message="queues are commanded below /api/v1/queues"))
        return await _send(request, verb, pool, fields)

    return command_pool


def _queue_route(verb: Verb) -> HTTPRouteHandler:
    @_about(Target.QUEUE, verb, "/queues/{pool:str}")
    async def command_queue(request: Request[Caller, Any, State], pool: FromPath[str]) -> Response[Accepted]:
        _require_name(pool, Target.POOL)
        fields = _read_fields(await read_body(request))
        if fields.get(Target.QUEUE) in (None, b"null"):
            raise invalid(FieldError(path="queue", message="is required"))
        return await _send(request, verb, pool, fields)

    return command_queue


def _worker_route(verb: Verb) -> HTTPRouteHandler:
    @_about(Target.WORKER, verb, "/workers/{worker:str}")
    async def command_worker(request: Request[Caller, Any, State], worker: FromPath[str]) -> Response[Accepted]:
        _require_name(worker, Target.WORKER)
        fields = _read_fields(await read_body(request))
        _fix(fields, Target.WORKER, worker)
        pool = _named_pool(fields) or await _pool_of_worker(request, worker)
        return await _send(request, verb, pool, fields)

    return command_worker


_ROUTES = {
    Target.TASK: _task_route,
    Target.POOL: _pool_route,
    Target.QUEUE: _queue_route,
    Target.WORKER: _worker_route,
}
COMMAND_ROUTES: list[HTTPRouteHandler] = [
    submit,
    *(_ROUTES[target](verb) for verb in VERBS.values() for target in verb.targets),
]


async def _send(request: HttpRequest, verb: Verb, pool: str, fields: dict[str, Raw]) -> Response[Any]:
    parts = parts_of(request)
    data = msgspec.json.encode(fields)
    traceparent = request.headers.get(HEADER_TRACEPARENT)
    answering = parts.door.command(request.user, verb.name, data, pool=pool, traceparent=traceparent)
    reply = await _counted(parts, verb.name, answering)
    return respond(request, reply)


async def _counted(parts: Parts, verb: str, answering: Awaitable[Reply]) -> Reply:
    try:
        reply = await answering
    except Refusal as refusal:
        parts.metrics.command(DOOR, verb, refusal.status)
        raise
    parts.metrics.command(DOOR, verb, reply.code)
    return reply


async def _pool_of_task(request: HttpRequest, task: str, fields: dict[str, Raw]) -> str:
    """The pool of a task; a task that nobody knows yet is left to the scheduler, which knows the log.

    Raises:
        Refusal: 404 where the task is another's: whoever may not see it is not told that it exists.
    """
    place = await parts_of(request).directory.find_if_possible(task)
    if place is None:
        return _named_pool(fields) or POOL_DEFAULT
    if not may_touch(request.user.role, request.user.name, place.submitted_by):
        raise not_found("there is no such task")
    return place.pool


async def _pool_of_worker(request: HttpRequest, worker: str) -> str:
    try:
        return await parts_of(request).read_model.pool_of_worker(worker) or POOL_DEFAULT
    except ReadModelUnavailable:
        return POOL_DEFAULT


def _read_fields(data: bytes) -> dict[str, Raw]:
    if len(data) > COMMAND_BYTES_MAX:
        raise too_large(COMMAND_BYTES_MAX)
    try:
        return fields_of(data or b"{}")
    except InvalidCommand as error:
        raise invalid(*error.errors) from error


def _fix(fields: dict[str, Raw], name: str, value: str) -> None:
    """Set the field that the address names; a body that names another is refused."""
    encoded = msgspec.json.encode(value)
    if name in fields and bytes(fields[name]).strip() != encoded:
        raise invalid(FieldError(path=name, message="must be the one in the address"))
    fields[name] = Raw(encoded)


def _accept_either_word(fields: dict[str, Raw], verb: Verb) -> None:
    """People say `reason` and `comment` for the same; each verb stores one of them, if any."""
    for stored, spoken in (("reason", "comment"), ("comment", "reason")):
        if stored in verb.body.__struct_fields__ and spoken in fields and stored not in fields:
            fields[stored] = fields.pop(spoken)


def _named_pool(fields: dict[str, Raw]) -> str | None:
    if "pool" not in fields:
        return None
    try:
        name = _text.decode(fields["pool"])
    except UNREADABLE:
        return None
    return name if is_name(name) else None


def _require_name(name: str, what: str) -> None:
    if not is_name(name):
        raise not_found(f"there is no such {what}")
