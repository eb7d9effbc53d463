"""Whether the service can do its work: NATS, PostgreSQL, and a read model that keeps up."""

import asyncio

from msgspec import Struct
from nats.aio.client import Client

from taskyard.api.errors import ReadModelUnavailable
from taskyard.api.feed import LogEvent
from taskyard.api.metrics import Metrics
from taskyard.api.read_model import ReadModel
from taskyard.contracts.events import OWNERS
from taskyard.contracts.subjects import LEASES_BUCKET
from taskyard.contracts.values import commit_sequence, make_position
from taskyard.eventlog.errors import EventLogError
from taskyard.eventlog.leases import read_holder
from taskyard.eventlog.log import EventLog

CHECK_SECONDS_MAX = 2.0
"""How long one look may take. A read model that has not even reached where the log ended before is behind."""


class Readiness(Struct, frozen=True, kw_only=True):
    """What readiness found: `reasons` says for each part that is not well what is wrong with it.

    `leaders` names the instance that leads each deciding service, for information: commands are stored without one.
    """

    ready: bool
    reasons: dict[str, str]
    projection_lag_commits: int | None
    leaders: dict[str, str | None]


class Health:
    """Looks at what the service needs."""

    def __init__(
        self,
        control: Client,
        log: EventLog[LogEvent],
        read_model: ReadModel,
        metrics: Metrics,
        *,
        check_seconds_max: float = CHECK_SECONDS_MAX,
    ) -> None:
        self._control = control
        self._log = log
        self._read_model = read_model
        self._metrics = metrics
        self._check_seconds_max = check_seconds_max

    async def look(self) -> Readiness:
        """Look at everything once; bounded in time."""
        reasons: dict[str, str] = {}
        head = await self._head(reasons)
        lag = await self._lag(head, reasons)
        if lag is not None:
            self._metrics.projection_lag(lag)
        leaders = await self._leaders()
        return Readiness(ready=not reasons, reasons=reasons, projection_lag_commits=lag, leaders=leaders)

    async def _leaders(self) -> dict[str, str | None]:
        try:
            async with asyncio.timeout(self._check_seconds_max):
                return {writer: await read_holder(self._control, LEASES_BUCKET, writer) for writer in OWNERS}
        except (EventLogError, TimeoutError):
            return dict.fromkeys(OWNERS)

    async def catch_up(self) -> None:
        """Wait for a moment until the read model has everything that is stored now; do without where that fails.

        Raises:
            ReadModelUnavailable: PostgreSQL is away.
        """
        head = await self._head({})
        if head:
            await self._read_model.wait_for(make_position(head, 0), self._check_seconds_max)

    async def _head(self, reasons: dict[str, str]) -> int | None:
        if not self._control.is_connected:
            reasons["nats"] = "not connected"
            return None
        try:
            async with asyncio.timeout(self._check_seconds_max):
                return await self._log.head()
        except (EventLogError, TimeoutError) as error:
            reasons["nats"] = f"the log gives no answer: {str(error) or 'time is up'}"
            return None

    async def _lag(self, head: int | None, reasons: dict[str, str]) -> int | None:
        try:
            async with asyncio.timeout(2 * self._check_seconds_max):
                if head:
                    await self._read_model.wait_for(make_position(head, 0), self._check_seconds_max)
                reached = commit_sequence(await self._read_model.position())
        except (ReadModelUnavailable, TimeoutError) as error:
            reasons["postgres"] = f"no answer: {str(error) or 'time is up'}"
            return None
        if head is None:
            return None
        lag = max(head - reached, 0)
        if lag:
            reasons["projection"] = f"the read model is {lag} commits behind"
        return lag
