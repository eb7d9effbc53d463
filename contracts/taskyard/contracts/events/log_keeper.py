"""What the log keeper appends, which concerns the log itself."""

from taskyard.contracts.events.event import Event

LOG_KEEPER = "log_keeper"
"""The writer of what concerns the log itself. It is no service: an operator's command appends for it, fenced as all are."""

LOG_VERSION = 1
"""The newest version of the log's meaning that this program knows: which events there are, and what they do.

A version that gives an event another effect, or adds one that this version may not pass over, raises it; its new
effects begin behind the `LogVersionActivated` that names it, so that every reader folds the same at every position.
"""


class LogVersionActivated(Event):
    """From here on the log means what version `version` says; an instance that does not know it stops."""

    version: int
    by: str


LogKeeperEvent = LogVersionActivated
