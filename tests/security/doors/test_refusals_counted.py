"""Who sends what is refused, without end, does not fill the log with it, and is told each time."""

import asyncio
import json
import time
from typing import Any

from nats_doors import connected
from system import System

from taskyard.api.intake import COMMANDS_HEARD
from taskyard.client import make_id

SENT = 20_000
AT_ONCE = 100
SUBJECT = "taskyard.command.admin.default.dance-{}"
ANSWER_SECONDS_MAX = 4.0
LOG_BYTES_MAX = 128 * 1024
"""What 20,000 refusals leave; each of them written in the log would be 3.7 MB."""


async def _send(yard: System, count: int) -> None:
    """Have so many commands stored that nobody knows, as fast as one principal may."""
    async with connected(yard) as client:
        left = list(range(count))
        while left:
            numbers, left = left[:AT_ONCE], left[AT_ONCE:]
            begun = time.monotonic()
            asked = [client.request(SUBJECT.format(number), b"{}", timeout=10) for number in numbers]
            answers = [json.loads(answer.data) for answer in await asyncio.gather(*asked)]
            left += [number for number, answer in zip(numbers, answers, strict=True) if "error" in answer]
            # Who goes on beyond its share is not heard for a while.
            await asyncio.sleep(max(0.0, AT_ONCE / COMMANDS_HEARD.per_second - (time.monotonic() - begun)))


def _refusals(yard: System) -> list[dict[str, Any]]:
    """Every event of the log that tells of refusals."""
    found: list[dict[str, Any]] = []
    following = 1
    while (page := yard.http.get("/log", params={"from": following, "limit": 500}).json())["items"]:
        found += [
            event
            for item in page["items"]
            for event in item["events"]
            if event["type"] in {"CommandRejected", "RefusalsCounted"}
        ]
        following = page["next"]
    return found


def _count(events: list[dict[str, Any]]) -> int:
    return sum(event.get("count", 1) for event in events)


def test_twenty_thousand_unknown_verbs_leave_some_kilobytes_in_the_log(yard: System) -> None:
    before = len(_refusals(yard))

    asyncio.run(_send(yard, SENT))

    yard.until(
        lambda: _count(_refusals(yard)[before:]) >= SENT,
        lambda: f"each is accounted for: {_count(_refusals(yard)[before:])} of {SENT}",
    )
    left = _refusals(yard)[before:]
    assert _count(left) == SENT and {event["by"] for event in left} == {"admin"}
    assert len(json.dumps(left)) < LOG_BYTES_MAX


def test_who_is_refused_beyond_the_rate_is_told_in_full_and_may_go_on(yard: System) -> None:
    asyncio.run(_send(yard, 1_000))
    before = len(_refusals(yard))

    answer = yard.http.post(f"/tasks/{make_id()}/cancel", json={})

    assert answer.status_code == 404 and answer.json()["error"] == "not_found"
    assert answer.elapsed.total_seconds() < ANSWER_SECONDS_MAX
    assert {event["type"] for event in _refusals(yard)[before:]} == {"RefusalsCounted"}
    yard.wait(yard.submit("noop", input={}), "completed")
