"""`python -m taskyard.agent.run_function MODULE:NAME INPUT`: run one attempt of a function that is a task.

The input is a file of JSON; the end is left in the working folder, as its result or its error.
"""

import asyncio
import sys
import traceback
from importlib import import_module
from pathlib import Path

import msgspec
from msgspec import Raw, Struct

from taskyard.contracts.events import TaskError
from taskyard.private_files import write_passing
from taskyard.task import TaskFailed, TaskFunction

ENDED = "taskyard-ended.json"
FAILED_STATUS = 1


class Ended(Struct, frozen=True, kw_only=True):
    """What is left of an attempt: its result, or why there is none."""

    result: Raw = Raw(b"null")
    error: TaskError | None = None


def main(where: str, given: Path) -> int:
    """Run it; what it raises is told on stderr, and in the end that is left."""
    module, _, name = where.partition(":")
    try:
        function = getattr(import_module(module), name)
        assert isinstance(function, TaskFunction)
        ended = Ended(result=Raw(asyncio.run(function.run(given.read_bytes()))))
    except TaskFailed as failed:
        ended = Ended(error=TaskError(code=failed.code, message=str(failed), retryable=failed.retryable))
    except msgspec.ValidationError as error:
        ended = Ended(error=TaskError(code="invalid_input", message=str(error), retryable=False))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is how the task ended
        traceback.print_exc()
        ended = Ended(error=TaskError(code="exception", message=f"{type(error).__name__}: {error}", retryable=True))
    write_passing(Path(ENDED), msgspec.json.encode(ended))
    return FAILED_STATUS if ended.error is not None else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
