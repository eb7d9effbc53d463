"""Logs of a service: one JSON object a line on standard error, a constant message and fields.

`at`, `level`, `service` and `message` come first, then what the line is about (`task` where one task is concerned). What
libraries log through the standard library comes out in the same form.
"""

import logging
import sys
import time
from typing import Any

import msgspec
import structlog
from structlog.contextvars import bind_contextvars, merge_contextvars
from structlog.stdlib import ExtraAdder, ProcessorFormatter
from structlog.types import EventDict

from taskyard.contracts.values import Instant, format_instant

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
QUIET = ("uvicorn", "faststream", "nats", "opentelemetry", "urllib3", "asyncio")
"""Libraries whose everyday lines say nothing about our work: only what may be wrong is shown."""
_FIELDS = "fields"


def set_up_logs(level: str = "info") -> None:
    """Send all logs of this process to standard error."""
    number = LEVELS[level]
    structlog.configure(
        processors=[merge_contextvars, structlog.processors.add_log_level, _exception, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[merge_contextvars, structlog.stdlib.add_log_level, ExtraAdder(), _from_standard],
            processors=[ProcessorFormatter.remove_processors_meta, _exception, render],
        )
    )
    logging.basicConfig(level=number, handlers=[handler], force=True)
    for name in QUIET:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(max(number, logging.WARNING))


def name_service(service: str) -> None:
    """Let what the current task, and those that it starts, log from now on bear the name of a service."""
    bind_contextvars(service=service)


def is_debugging() -> bool:
    """Whether lines of the level `debug` are shown."""
    return structlog.get_logger().is_enabled_for(logging.DEBUG)


def render(_: object, __: str, line: EventDict) -> str:
    """The text of a line."""
    first = {
        "at": format_instant(Instant(time.time_ns() // 1000)),
        "level": line.pop("level", "info"),
        "service": line.pop("service", "-"),
        "message": line.pop("event", ""),
    }
    return msgspec.json.encode({**first, **line}, enc_hook=str).decode()


def _from_standard(_: object, __: str, line: EventDict) -> EventDict:
    """Names and fields of a record of the standard library."""
    record: logging.LogRecord = line["_record"]
    line["logger"] = record.name
    fields: Any = line.pop(_FIELDS, None)
    if isinstance(fields, dict):
        line.update(fields)
    return line


_exception = structlog.processors.ExceptionRenderer()
