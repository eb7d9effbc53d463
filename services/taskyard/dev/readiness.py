"""Whether a task could run now, asked from outside as any client would; and if not, what is still missing."""

from collections.abc import Collection
from datetime import datetime

import httpx
import msgspec

REQUEST_SECONDS_MAX = 2.0


class _Worker(msgspec.Struct):
    id: str
    status: str
    joined_at: datetime


class _Readiness(msgspec.Struct):
    leaders: dict[str, str | None] = {}
    reasons: dict[str, str] = {}


class _WorkerList(msgspec.Struct):
    items: list[_Worker]


def what_is_missing(http_url: str, token: str, workers: Collection[str], *, joined_since: datetime) -> str | None:
    """What a task could not do without, as a phrase; `None` when nothing is missing. Blocks for seconds at most.

    A worker that was killed is shown for a while as if it were there: only one that joined since then counts.
    """
    headers = {"Authorization": f"Bearer {token}"}
    try:
        # Plain HTTP on loopback, asked many times while everything starts: else each time would load all certificates.
        with httpx.Client(base_url=http_url, timeout=REQUEST_SECONDS_MAX, trust_env=False, verify=False) as client:  # noqa: S501 - no TLS here
            answer = client.get("/readyz")
            if not answer.is_success:
                return _not_ready(answer)
            leaders = msgspec.json.decode(answer.content, type=_Readiness).leaders
            listed = msgspec.json.decode(
                client.get("/api/v1/workers", headers=headers).raise_for_status().content, type=_WorkerList
            )
    except httpx.HTTPStatusError as error:
        return f"the API answers {error.response.status_code} to {error.request.url.path}"
    except httpx.HTTPError:
        return "the API does not answer yet"
    if absent := [name for name, leader in leaders.items() if leader is None]:
        return f"nobody leads as {', '.join(absent)} yet"
    present = {one.id for one in listed.items if one.status != "lost" and one.joined_at >= joined_since}
    if absent := [name for name in workers if name not in present]:
        earlier = {one.id for one in listed.items if one.status != "lost"} & set(absent)
        return f"{', '.join(absent)} did not join yet{_told_of_earlier(sorted(earlier))}"
    return None


def _told_of_earlier(names: list[str]) -> str:
    """Why those may not join yet of whom an earlier run still counts as there."""
    if not names:
        return ""
    told = ", ".join(names)
    return f" (an earlier {told} still counts as there; where the folder is new or was moved, the worker joins once that is lost)"


def _not_ready(answer: httpx.Response) -> str:
    try:
        reasons = msgspec.json.decode(answer.content, type=_Readiness).reasons
    except msgspec.DecodeError:
        reasons = {}
    told = "; ".join(f"{part}: {reason}" for part, reason in reasons.items())
    return f"the API is not ready ({told or answer.status_code})"
