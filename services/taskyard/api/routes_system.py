"""Routes for whoever runs the service: liveness, readiness, metrics. They ask for no token and tell nothing of tasks."""

from typing import Any

from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from taskyard.api.health import Readiness
from taskyard.api.http_shared import parts_of

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


@get("/metrics", tags=["system"], summary="Metrics for Prometheus", security=[], include_in_schema=False)
async def metrics(request: Request[Any, Any, State]) -> Response[bytes]:
    """Counters, gauges and histograms of this process."""
    return Response(await parts_of(request).metrics.text(), media_type=METRICS_MEDIA_TYPE)


SYSTEM_ROUTES: list[HTTPRouteHandler] = [healthz, readyz, metrics]
