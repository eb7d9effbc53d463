"""Log lines are JSON, whoever writes them; refused commands are logged, but never in bulk."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from taskyard.contracts.events import CommandRejected, RefusalsCounted
from taskyard.contracts.values import CommandId, Instant, TaskId, seconds
from taskyard.telemetry.event_lines import REJECTIONS_PER_MINUTE_MAX, RejectionLines
from taskyard.telemetry.logs import is_debugging, name_service, set_up_logs


class Lines:
    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()  # pytest's own stay open
    set_up_logs("info")
    yield Lines(stream)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_a_line_of_ours_is_one_json_object(lines: Lines) -> None:
    structlog.get_logger(service="scheduler").info("leads", epoch=3, task="t-1")
    (line,) = lines.read()
    assert list(line) == ["at", "level", "service", "message", "epoch", "task"]
    assert (line["level"], line["service"], line["message"], line["epoch"]) == ("info", "scheduler", "leads", 3)


def test_a_line_of_the_standard_library_bears_service_logger_and_fields(lines: Lines) -> None:
    name_service("api")
    logging.getLogger("taskyard.api.feed").warning("a stream %s", "ended", extra={"task": "t-1"})
    (line,) = lines.read()
    assert line == {
        "at": line["at"],
        "level": "warning",
        "service": "api",
        "message": "a stream ended",
        "task": "t-1",
        "logger": "taskyard.api.feed",
    }


def test_an_exception_stays_on_its_line(lines: Lines) -> None:
    for logger in (structlog.get_logger(), logging.getLogger("other")):
        try:
            raise ValueError("oh")
        except ValueError:
            logger.exception("failed")
    assert [("ValueError: oh" in line["exception"], line["level"]) for line in lines.read()] == [(True, "error")] * 2


def test_what_is_below_the_level_is_left_out(lines: Lines) -> None:
    structlog.get_logger().debug("decided")
    logging.getLogger("uvicorn.error").info("Started server process")
    assert not lines.read()
    assert not is_debugging()
    set_up_logs("debug")
    assert is_debugging()


def test_refused_commands_are_logged_up_to_a_number_a_minute(lines: Lines) -> None:
    rejections = RejectionLines("scheduler")
    more = 7
    for number in range(REJECTIONS_PER_MINUTE_MAX + more):
        rejections.rejected(_rejected(number), Instant(number))
    rejections.rejected(_rejected(99), Instant(seconds(60)))
    read = lines.read()
    assert len(read) == REJECTIONS_PER_MINUTE_MAX + 1
    assert (read[0]["message"], read[0]["command"], read[0]["task"]) == ("rejected a command", "c-0", "t-0")
    assert (read[0]["status"], read[0]["code"], read[0]["reason"]) == (404, "not_found", "no task")
    assert "left_out" not in read[0]
    assert read[-1]["left_out"] == more


def test_counted_refusals_are_one_line_for_all_and_count_where_they_are_left_out(lines: Lines) -> None:
    rejections = RejectionLines("scheduler")
    counted = RefusalsCounted(
        by="eve", stream="C", count=900, first=1, last=990, since=Instant(0), until=Instant(1), codes={"invalid": 900}
    )
    for number in range(REJECTIONS_PER_MINUTE_MAX + 2):
        rejections.counted(counted, Instant(number))
    rejections.rejected(_rejected(99), Instant(seconds(60)))
    read = lines.read()
    assert len(read) == REJECTIONS_PER_MINUTE_MAX + 1
    assert (read[0]["by"], read[0]["count"], read[0]["codes"]) == ("eve", 900, {"invalid": 900})
    assert read[-1]["left_out"] == 2 * 900


def _rejected(number: int) -> CommandRejected:
    return CommandRejected(
        command=CommandId(f"c-{number}"),
        verb="cancel",
        by="admin",
        pool="default",
        status=404,
        code="not_found",
        message="no task",
        task=TaskId(f"t-{number}"),
    )
