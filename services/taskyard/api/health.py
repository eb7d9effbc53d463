"""Whether the service can do its work: NATS, PostgreSQL, and a read model that keeps up."""

import asyncio
from contextlib import aclosing

from msgspec import Struct
from nats.aio.client import Client

from taskyard.api.clock import now
from taskyard.api.errors import ReadModelBehind, ReadModelUnavailable
from taskyard.api.feed import LogEvent
from taskyard.api.leaders import Look
from taskyard.api.metrics import Metrics
from taskyard.api.read_model import FoldedTo, ReadModel
from taskyard.contracts.events import DECIDERS
from taskyard.contracts.subjects import LEASES_BUCKET
from taskyard.contracts.values import SECOND, make_position
from taskyard.eventlog.errors import EventLogError
from taskyard.eventlog.leases import read_holder
from taskyard.eventlog.log import EventLog
from taskyard.eventlog.space import Fills, LogSpace

CHECK_SECONDS_MAX = 2.0
"""How long one look at one part may take."""
LAG_SECONDS_MAX = 5.0
"""A read model that lacks what was stored longer ago than this is behind: the service is not ready."""


class Readiness(Struct, frozen=True, kw_only=True):
    """What readiness found: `reasons` says for each part that is not well what is wrong with it.

    `projection_lag_commits` is how many commits the read model lacks, `projection_lag_seconds` the age of the first of
    them; null where that could not be learnt. `leaders` names the instance that leads each deciding service, for
    information: commands are stored without one; of the services in `leaders_unknown` it was not learnt. `warnings` says
    what is well now and will not stay so: `space` where the log will soon have no room, and each stream that will soon be full.
    """

    ready: bool
    reasons: dict[str, str]
    warnings: dict[str, str]
    projection_lag_commits: int | None
    projection_lag_seconds: float | None
    leaders: dict[str, str | None]
    leaders_unknown: list[str]


class Health:
    """Looks at what the service needs."""

    def __init__(
        self,
        control: Client,
        log: EventLog[LogEvent],
        read_model: ReadModel,
        metrics: Metrics,
        space: LogSpace,
        *,
        fills: Fills,
        check_seconds_max: float = CHECK_SECONDS_MAX,
        lag_seconds_max: float = LAG_SECONDS_MAX,
    ) -> None:
        self._control = control
        self._log = log
        self._read_model = read_model
        self._metrics = metrics
        self._check_seconds_max = check_seconds_max
        self._lag_seconds_max = lag_seconds_max
        self._space = space
        self._fills = fills
        self._looking: asyncio.Task[Readiness] | None = None
        self.is_leaving = False

    def leave(self) -> None:
        """The service was told to stop: it is not ready any more, and answers what still comes."""
        self.is_leaving = True

    async def look(self) -> Readiness:
        """Look at everything once; bounded in time. Whoever asks meanwhile is told the same: nobody without a token can have
        NATS and PostgreSQL asked more often than that.
        """
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="api looks at its health")
        return await asyncio.shield(self._looking)

    async def _look(self) -> Readiness:
        reasons: dict[str, str] = {"service": "it stops"} if self.is_leaving else {}
        lag, looks, warnings = await asyncio.gather(self._lag(reasons), self._look_at_all(), self._warnings())
        if lag is not None and await self._is_of_another_log(lag.folded):
            reasons["projection"] = (
                f"the read model was folded to commit {lag.folded.sequence} of another log: this one was restored or "
                "made anew; `taskyard rebuild --other-log` makes the read model again, and the service goes on with it"
            )
        return Readiness(
            ready=not reasons,
            reasons=reasons,
            warnings=warnings,
            projection_lag_commits=None if lag is None else lag.commits,
            projection_lag_seconds=None if lag is None else lag.seconds,
            leaders={writer: None if look is None else look.leader for writer, look in looks.items()},
            leaders_unknown=[writer for writer, look in looks.items() if look is None],
        )

    async def measure(self) -> None:
        """Learn how far the read model is behind, and how much room the log has, for the metrics."""
        await self._lag({})
        await self._warnings()

    async def _warnings(self) -> dict[str, str]:
        rooms = await self._space.rooms()
        self._metrics.log_rooms(rooms)
        scarce = [room.told for room in rooms if room.is_scarce]
        space = {"space": f"the log will soon have no room: {'; '.join(scarce)}"} if scarce else {}
        return {**space, **await self.full_streams()}

    async def full_streams(self) -> dict[str, str]:
        """What is told of each stream that will soon be full."""
        fills = await self._fills.look()
        self._metrics.stream_fills(fills)
        return {fill.stream: fill.warning for fill in fills if fill.warning is not None}

    async def _look_at_all(self) -> dict[str, Look | None]:
        """Who leads each service; all are asked at once."""
        looks = await asyncio.gather(*(self.look_at(writer) for writer in DECIDERS))
        return dict(zip(DECIDERS, looks, strict=True))

    async def look_at(self, writer: str) -> Look | None:
        """Who leads a service now, and its epoch; None where that was not learnt."""
        try:
            async with asyncio.timeout(self._check_seconds_max):
                holder, last = await asyncio.gather(
                    read_holder(self._control, LEASES_BUCKET, writer), self._log.last(writer)
                )
        except (EventLogError, TimeoutError):
            return None
        return Look(leader=holder, epoch=0 if last is None else last.commit.epoch)

    async def catch_up(self) -> None:
        """Wait for a moment until the read model has everything that is stored now.

        Raises:
            ReadModelUnavailable: PostgreSQL is away.
            ReadModelBehind: it does not get it in time, or what is stored cannot be learnt.
        """
        reasons: dict[str, str] = {}
        head = await self._head(reasons)
        if head is None:
            raise ReadModelBehind(f"how far the log is cannot be learnt: {reasons['nats']}")
        if head and not await self._read_model.wait_for(make_position(head, 0), self._check_seconds_max):
            raise ReadModelBehind(f"the read model does not get to commit {head} in time")

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

    async def _lag(self, reasons: dict[str, str]) -> "_Lag | None":
        self._metrics.projection_lag(None)  # what was true before is not shown where nobody can tell
        head, folded = await asyncio.gather(self._head(reasons), self._folded(reasons))
        if head is None or folded is None:
            return None
        commits = max(head - folded.sequence, 0)
        lag = _Lag(folded=folded, commits=commits, seconds=await self._age(folded.sequence + 1) if commits else 0.0)
        self._metrics.projection_lag(lag.commits, lag.seconds)
        if lag.seconds is not None and lag.seconds > self._lag_seconds_max:
            reasons["projection"] = (
                f"the read model is {lag.seconds:.1f} s behind the log, commits it lacks: {lag.commits}"
            )
        return lag

    async def _folded(self, reasons: dict[str, str]) -> FoldedTo | None:
        try:
            async with asyncio.timeout(self._check_seconds_max):
                return await self._read_model.folded_to()
        except (ReadModelUnavailable, TimeoutError) as error:
            reasons["postgres"] = f"no answer: {str(error) or 'time is up'}"
            return None

    async def _is_of_another_log(self, folded: FoldedTo) -> bool:
        """Whether the commit that the rows reflect stands not in the log; False where that cannot be learnt."""
        if not folded.sequence:
            return False
        try:
            async with asyncio.timeout(self._check_seconds_max):
                async with aclosing(self._log.read(folded.sequence, folded.sequence)) as commits:
                    async for stored in commits:
                        return stored.hash != folded.hash
        except (EventLogError, TimeoutError):
            return False
        return True

    async def _age(self, sequence: int) -> float | None:
        """How long ago the commit was stored, in seconds."""
        try:
            async with asyncio.timeout(self._check_seconds_max):
                async with aclosing(self._log.read(sequence, sequence)) as commits:
                    async for stored in commits:
                        return max(now() - stored.at, 0) / SECOND
        except (EventLogError, TimeoutError):
            return None
        return None


class _Lag(Struct, frozen=True, kw_only=True):
    folded: FoldedTo
    commits: int
    seconds: float | None
