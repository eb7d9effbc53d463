"""Logs of the agent: one JSON object a line on standard error, a constant message and fields."""

import logging
import sys
from typing import Any

import msgspec

from taskyard.contracts.values import Instant, format_instant

_FIELDS = "fields"


def setup() -> None:
    """Send all logs of this process to standard error, one JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def fields(**values: Any) -> dict[str, Any]:
    """The `extra` of a log call that carries these fields."""
    return {_FIELDS: values}


class JsonFormatter(logging.Formatter):
    """A record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line: dict[str, Any] = {
            "at": format_instant(Instant(int(record.created * 1_000_000))),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()
