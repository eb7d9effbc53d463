"""The HTTP application: all routes below `/api/v1`, guarded, and what every answer has in common."""

import time
from importlib.metadata import version
from typing import Any

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from taskyard.api.costs import answering_slowly
from taskyard.api.health import Health
from taskyard.api.http_shared import EXCEPTION_HANDLERS, Parts, add_position, authenticate, refuse_unknown_parameters
from taskyard.api.methods import methods_of, with_every_method
from taskyard.api.metrics import Metrics
from taskyard.api.openapi import openapi_config
from taskyard.api.routes_commands import COMMAND_ROUTES
from taskyard.api.routes_lists import LIST_ROUTES
from taskyard.api.routes_streams import STREAM_ROUTES
from taskyard.api.routes_system import SYSTEM_ROUTES
from taskyard.api.routes_tasks import TASK_ROUTES

PREFIX = "/api/v1"
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


def make_app(parts: Parts) -> ASGIApp:
    """The ASGI application that serves these parts."""
    guarded = Router(
        path=PREFIX,
        route_handlers=[*COMMAND_ROUTES, *TASK_ROUTES, *LIST_ROUTES, *STREAM_ROUTES],
        guards=[authenticate, refuse_unknown_parameters],
    )
    app = Litestar(
        route_handlers=[guarded, Router(path="/", route_handlers=SYSTEM_ROUTES, guards=[refuse_unknown_parameters])],
        exception_handlers=EXCEPTION_HANDLERS,
        before_send=[add_position],
        openapi_config=openapi_config(version("taskyard")),
        state=State({"parts": parts}),
        logging_config=None,
        # Bodies are read by ourselves: what is too large is read on for a while, so that our answer arrives.
        request_max_body_size=None,
    )
    return with_every_method(
        _measured(_sending_away(answering_slowly(app), parts.health), parts.metrics), methods_of(app)
    )


def _sending_away(app: ASGIApp, health: Health) -> ASGIApp:
    """Once the service is about to stop, each answer ends its connection: the next request comes to another instance."""

    async def send_away(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_and_close(message: Message) -> None:
            if health.is_leaving and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await app(scope, receive, send_and_close)

    return send_away


def _measured(app: ASGIApp, metrics: Metrics) -> ASGIApp:
    async def measure(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        began = time.monotonic()

        async def send_and_count(message: Message) -> None:
            if message["type"] == "http.response.start":
                metrics.http(
                    scope["method"] if scope["method"] in METHODS else "OTHER",
                    _route(scope),
                    message["status"],
                    time.monotonic() - began,
                )
            await send(message)

        await app(scope, receive, send_and_count)

    return measure


def _route(scope: Scope) -> str:
    found: Any = scope.get("path_template")
    return str(found) if found else "unknown"
