"""Routes for whoever runs the service: liveness, readiness, health, metrics. They tell nothing of tasks; whether they ask for a
token before they tell details is a setting.
"""

import time
from typing import Any

from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import ResponseSpec
from msgspec import Struct, structs

from taskyard.api.errors import Refusal, unauthorized
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


class Ready(Struct, frozen=True, kw_only=True):
    """Whether the service can do its work, for those who are not told more."""

    ready: bool


@get("/readyz", tags=["system"], summary="Readiness", security=[])
async def readyz(request: Request[Any, Any, State]) -> Response[Readiness | Ready]:
    """200 when everything that the service needs is well, otherwise 503 with the reasons.

    Where the setting `details` asks for a token, who bears none is told `ready` alone.
    """
    found = await parts_of(request).health.look()
    told = found if _may_see_details(request) else Ready(ready=found.ready)
    return Response(told, status_code=200 if found.ready else 503)


@get(
    "/api/v1/health",
    tags=["system"],
    summary="Whether commands are decided",
    security=[],
    responses={
        503: ResponseSpec(
            WritersHealth,
            description="`reasons` names each service that has no leader that stays",
            generate_examples=False,
        )
    },
)
async def health(request: Request[Any, Any, State]) -> Response[WritersHealth]:
    """200 while each deciding service has a leader, or is taking one; 503 when one has been without for too long, or begins to
    lead again and again, as one does that is started and fails in a loop.

    This is about the whole installation. `/readyz` is about the instance that is asked: it reads, and stores commands,
    also where nobody decides on them. A stream of which more than four fifths are full is a warning.
    """
    parts = parts_of(request)
    found = structs.replace(parts.leaders.health(time.monotonic()), warnings=await parts.health.full_streams())
    return Response(found, status_code=200 if found.healthy else 503)


@get("/metrics", tags=["system"], summary="Metrics for Prometheus", security=[], include_in_schema=False)
async def metrics(request: Request[Any, Any, State]) -> Response[bytes]:
    """Counters, gauges and histograms of this process; where the setting `details` says so, for who bears a token."""
    if not _may_see_details(request):
        raise unauthorized("a bearer token is needed")
    return Response(await parts_of(request).metrics.text(), media_type=METRICS_MEDIA_TYPE)


SYSTEM_ROUTES: list[HTTPRouteHandler] = [healthz, readyz, health, metrics]


def _may_see_details(request: Request[Any, Any, State]) -> bool:
    parts = parts_of(request)
    if parts.shows_details_to_anyone:
        return True
    try:
        parts.principals.bearing(request.headers.get("authorization"))
    except Refusal:
        return False
    return True
