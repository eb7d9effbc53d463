"""Workers that say why they take nothing new: what is told of them, and how often.

Such a worker is suspect with its own words, from its first heartbeat on, so it is given nothing. One memory of that is the
folded worker itself, whoever leads; here is only when something was told, so that an agent that changes its mind with each
heartbeat does not fill the log. It is believed at once when it takes nothing, and then may have to wait until it takes tasks.
"""

from taskyard.contracts.events import WorkerSuspected
from taskyard.contracts.fleet import Worker
from taskyard.contracts.readable import plain_text
from taskyard.contracts.values import Incarnation, seconds

CHANGE_SECONDS_MIN = 30.0
"""Between two times that a worker takes tasks again, and between other words for why it takes none, at the least."""
REASON_CHARACTERS_MAX = 200


class Unwilling:
    """When something was told last of each worker that takes nothing new, in time listened."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}
        self._taking: dict[str, int] = {}

    def declines(
        self, name: str, incarnation: Incarnation, worker: Worker | None, reason: str, listened: int
    ) -> WorkerSuspected | None:
        """It takes nothing new; `worker` as it is folded, None for one that joins just now."""
        told = plain_text(reason[:REASON_CHARACTERS_MAX])
        if (
            worker is not None
            and worker.is_suspect
            and (worker.reason == told or _is_fresh(self._told, name, listened))
        ):
            return None
        self._told[name] = listened
        return WorkerSuspected(worker=name, incarnation=incarnation, reason=told)

    def takes(self, name: str, listened: int) -> bool:
        """It has no reason any more; whether that may be told already."""
        if name not in self._told:
            return True
        if _is_fresh(self._taking, name, listened):
            return False
        self._taking[name] = listened
        return True

    def forget(self, name: str) -> None:
        """The worker is gone."""
        self._told.pop(name, None)
        self._taking.pop(name, None)


def _is_fresh(times: dict[str, int], name: str, listened: int) -> bool:
    return name in times and listened - times[name] < seconds(CHANGE_SECONDS_MIN)
