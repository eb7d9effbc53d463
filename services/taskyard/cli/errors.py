"""What can go wrong, and the exit status that tells it."""

from collections.abc import Sequence

from msgspec import Raw, Struct

NOT_COMPLETED = 1
USAGE = 2
REFUSED = 3
UNREACHABLE = 4

EXIT_STATUSES = (
    "Exit status: 0 all well · 1 the task did not complete, or a check found a break · 2 wrong usage · "
    "3 the server refused · 4 the server is not reachable or failed"
)


class Fault(Struct, frozen=True, kw_only=True):
    """A fault of one field of what was sent."""

    path: str = ""
    message: str = ""


class CliError(Exception):
    """The root: the message is the line that people read."""

    exit_status = NOT_COMPLETED


class Broken(CliError):
    """A check found that something is not as it should be."""


class WrongUsage(CliError):
    """The command line, a file that it names, or the environment does not fit. Remedy: see `--help`."""

    exit_status = USAGE


class Refused(CliError):
    """The server refused. `status` is the HTTP status, `error` a short code, `faults` name fields; of a batch of which all was
    refused `tasks` tell of each.
    """

    exit_status = REFUSED

    def __init__(
        self, status: int, error: str, detail: str, faults: tuple[Fault, ...] = (), tasks: Sequence[Raw] = ()
    ) -> None:
        told = [f"{fault.path}: {fault.message}" if fault.path else fault.message for fault in faults]
        # The detail often tells the first faults already.
        more = [text for text in told if text not in detail]
        code = f"{status} {error}" if error else str(status)
        super().__init__("; ".join((f"refused ({code}): {detail}", *more)))
        self.status = status
        self.error = error
        self.detail = detail
        self.faults = faults
        self.tasks = tasks


class Unreachable(CliError):
    """Nobody answers, or the server failed. Remedy: see that it runs, then try again; nothing is done twice."""

    exit_status = UNREACHABLE
