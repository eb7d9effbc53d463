"""Routes for whoever runs the service: liveness, readiness, health, metrics. They ask for no token and tell nothing of tasks."""

import time
from typing import Any

from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import ResponseSpec
from msgspec import Struct

from taskyard.api.health import Readiness
from taskyard.api.http_shared import parts_of
from taskyard.api.leaders import WritersHealth

METRICS_MEDIA_TYPE = "text/plain; version=0.0.4"
"""The framework adds the charset to every text."""


class Alive(Struct, frozen=True, kw_only=True):
    """The process runs."""

    status: str = "ok"


@get("/healthz", tags=["system"], summary="Liveness", security=[])
async def healthz() -> Alive:
    """The process runs and its event loop turns."""
    return Alive()


@get("/readyz", tags=["system"], summary="Readiness", security=[])
async def readyz(request: Request[Any, Any, State]) -> Response[Readiness]:
    """200 when everything that the service needs is well, otherwise 503 with the reasons."""
    readiness = await parts_of(request).health.look()
    return Response(readiness, status_code=200 if readiness.ready else 503)


@get(
    "/api/v1/health",
    tags=["system"],
    summary="Whether commands are decided",
    security=[],
    responses={
        503: ResponseSpec(
            WritersHealth, description="`reasons` names each service without a leader", generate_examples=False
        )
    },
)
async def health(request: Request[Any, Any, State]) -> Response[WritersHealth]:
    """200 while each deciding service has a leader, or is taking one; 503 when one has been without for too long.

    This is about the whole installation. `/readyz` is about the instance that is asked: it reads, and stores commands,
    also where nobody decides on them.
    """
    found = parts_of(request).leaders.health(time.monotonic())
    return Response(found, status_code=200 if found.healthy else 503)


@get("/metrics", tags=["system"], summary="Metrics for Prometheus", security=[], include_in_schema=False)
async def metrics(request: Request[Any, Any, State]) -> Response[bytes]:
    """Counters, gauges and histograms of this process."""
    return Response(await parts_of(request).metrics.text(), media_type=METRICS_MEDIA_TYPE)


SYSTEM_ROUTES: list[HTTPRouteHandler] = [healthz, readyz, health, metrics]
