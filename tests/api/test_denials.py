"""Who is refused for want of credentials or of a right leaves a line in the log, and a flood of them a bounded number."""

import json
import logging

import pytest

from taskyard.api.denials import LINES_PER_MINUTE_MAX, Denials

pytestmark = pytest.mark.anyio

NOOP = {"kind": "noop", "input": 1}


def denied(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.getMessage() == "access was denied"]


def test_a_flood_of_denials_leaves_a_bounded_number_of_lines_and_the_next_one_tells_how_many_are_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    denials = Denials("http", lambda: now)
    for _ in range(10_000):
        denials.note(401, who=None, where="10.0.0.1", what="GET /api/v1/tasks", reason="a bearer token is needed")
    assert len(denied(caplog)) == LINES_PER_MINUTE_MAX

    now = 60.0
    denials.note(403, who="oscar", where=None, what="x" * 10_000, reason="an operator may not pause")

    last = denied(caplog)[-1]
    assert (last.by, last.status, last.left_out) == ("oscar", 403, 10_000 - LINES_PER_MINUTE_MAX)
    assert len(last.what) < 1_000


def test_other_refusals_leave_none(caplog: pytest.LogCaptureFixture) -> None:
    for status in (404, 409, 422, 503):
        Denials("http").note(status, who="oscar", where=None, what="", reason="")
    assert denied(caplog) == []


async def test_both_doors_tell_whom_they_denied_what(world, caplog: pytest.LogCaptureFixture) -> None:
    async with world.http("") as nobody, world.http("vera") as vera:
        assert (await nobody.get("/api/v1/tasks")).status_code == 401
        assert (await vera.post("/api/v1/tasks", json=NOOP)).status_code == 403
    client = await world.nats("vera")
    answer = await client.request("taskyard.request.vera.default.submit", json.dumps(NOOP).encode(), timeout=10)
    assert json.loads(answer.data)["code"] == 403
    await client.close()

    told = [(record.door, record.status, getattr(record, "by", None), record.what) for record in denied(caplog)]
    assert told == [
        ("http", 401, None, "GET /api/v1/tasks"),
        ("http", 403, "vera", "POST /api/v1/tasks"),
        ("nats", 403, "vera", "default.submit"),
    ]
