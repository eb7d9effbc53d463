"""One turn of a loop, or one item of many, that raises: it is told, and the loop and the others go on."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from taskyard.agent.errors import JournalError
from taskyard.agent.logs import fields

_log = logging.getLogger(__name__)


@contextmanager
def standing_aside(what: str, **of: object) -> Iterator[None]:
    """Whatever is raised in here ends nothing but `what`. Only without its journal the agent cannot go on."""
    try:
        yield
    except JournalError:
        raise
    except Exception:  # noqa: BLE001 (it is told)
        _log.exception("raised, and was passed over", extra=fields(what=what, **of))
