"""Who is refused for want of credentials or of a right leaves a line in the log, and a flood of them a bounded number."""

import json
import logging

import pytest

from taskyard.api.denials import TOLD_OF_ONE_PER_MINUTE_MAX, TOLD_PER_MINUTE_MAX, Denials
from taskyard.contracts.audit import AccessDenied

pytestmark = pytest.mark.anyio

NOOP = {"kind": "noop", "input": 1}


def denied(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.getMessage() == "access was denied"]


def test_a_flood_of_denials_leaves_a_bounded_number_of_lines_and_the_next_one_tells_how_many_are_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    traced: list[AccessDenied] = []
    denials = Denials("http", traced.append, lambda: now)
    for number in range(10_000):
        where = f"10.0.{number % 100}.1"
        denials.note(401, who=None, where=where, what="GET /api/v1/tasks", reason="a bearer token is needed")
    assert len(denied(caplog)) == len(traced) == TOLD_PER_MINUTE_MAX

    now = 60.0
    denials.note(403, who="oscar", where=None, what="x" * 10_000, reason="an operator may not pause")

    last = denied(caplog)[-1]
    assert (last.by, last.status, last.left_out) == ("oscar", 403, 10_000 - TOLD_PER_MINUTE_MAX)
    assert len(last.what) < 1_000
    assert traced[-1] == AccessDenied(
        door="http", status=403, by="oscar", what="x" * 200, reason="an operator may not pause", left_out=last.left_out
    )


def test_one_who_is_denied_without_end_leaves_the_others_their_lines(caplog: pytest.LogCaptureFixture) -> None:
    denials = Denials("http", lambda _: None, lambda: 0.0)
    for _ in range(1_000):
        denials.note(401, who=None, where="10.0.0.1", what="GET /", reason="a bearer token is needed")
    denials.note(403, who="oscar", where="10.0.0.1", what="GET /", reason="no")

    assert [getattr(record, "by", None) for record in denied(caplog)] == [None] * TOLD_OF_ONE_PER_MINUTE_MAX + ["oscar"]


def test_other_refusals_leave_none(caplog: pytest.LogCaptureFixture) -> None:
    traced: list[AccessDenied] = []
    for status in (404, 409, 422, 503):
        Denials("http", traced.append).note(status, who="oscar", where=None, what="", reason="")
    assert denied(caplog) == [] == traced


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
