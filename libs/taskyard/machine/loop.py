"""Drives one machine with asyncio: follows the log, campaigns for leadership, and, while leading, decides and acts.

What may happen when is in `core.py`; here is only waiting and I/O.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec
import structlog
from msgspec import Raw, Struct

from taskyard.eventlog.errors import FenceMoved, LogUnavailable
from taskyard.eventlog.leases import Lease
from taskyard.eventlog.log import EventLog, InputStream, StreamMessage
from taskyard.eventlog.snapshots import SnapshotStore
from taskyard.machine.core import Append, LoopCore, Offered, Role, SavedLoop

InputT = TypeVar("InputT")
EffectT = TypeVar("EffectT")

EFFECTS_AT_ONCE_MAX = 1_024
SNAPSHOT_EVENTS = 200_000
"""Events folded since the last snapshot after which a leader saves one: to fold so many takes about two seconds."""
SNAPSHOT_ON_STOP_EVENTS = 1_000
STOP_SECONDS_MAX = 5.0
RENEWALS_PER_LEASE = 3


class SteppedDown(Exception):
    """This instance no longer leads; it goes on as a standby."""


class Source(Struct, Generic[InputT], frozen=True):
    """A stream of inputs, and how one of its messages becomes an input of the machine."""

    stream: InputStream
    read: Callable[[StreamMessage], Awaitable[InputT]]


class _Snapshot(Struct, frozen=True):
    loop: SavedLoop
    machine: Raw


class MachineLoop(Generic[InputT, EffectT]):
    """One instance of one machine, running. `lease_seconds` is the lease's length."""

    def __init__(
        self,
        core: LoopCore[InputT, EffectT],
        *,
        log: EventLog[Any],
        lease: Lease,
        lease_seconds: float,
        snapshots: SnapshotStore,
    ) -> None:
        self.core = core
        self.is_recovered = False
        self.commits_appended = 0
        self.snapshots_saved = 0
        self._log = log
        self._lease = lease
        self._renew_seconds = lease_seconds / RENEWALS_PER_LEASE
        self._snapshots = snapshots
        self._sources: Sequence[Source[InputT]] = ()
        self._perform: Callable[[EffectT], Awaitable[None]] = _do_nothing
        self._wake = asyncio.Event()
        self._folded = asyncio.Event()
        self._room = asyncio.Event()
        self._effects: set[asyncio.Task[None]] = set()
        self._saved_events = 0
        self._logger = structlog.get_logger(service=core.machine.writer, instance=core.instance)

    async def run(
        self,
        stop: asyncio.Event,
        sources: Sequence[Source[InputT]],
        perform: Callable[[EffectT], Awaitable[None]],
    ) -> None:
        """Run until `stop` is set, then hand over cleanly.

        A leader reads its inputs from `sources`, and `perform` carries out one effect; what comes of that, and whatever
        else is observed, is given back with `post`.
        """
        self._sources, self._perform = sources, perform
        await self._recover()
        follow = asyncio.create_task(self._follow())
        campaign = asyncio.create_task(self._campaign())
        stopped = asyncio.create_task(stop.wait())
        tasks = (follow, campaign, stopped)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done() and task is not stopped:
                    task.result()
            await self._hand_over(campaign)
        finally:
            for task in (*tasks, *self._effects):
                task.cancel()
            await asyncio.gather(*tasks, *self._effects, return_exceptions=True)

    def post(self, observation: InputT) -> None:
        """Let the machine decide on something that was observed; dropped unless this instance leads."""
        if self.core.has_room:
            self.core.offer(Offered(observation))
            self._wake.set()

    # -- recovering and following --------------------------------------------------------------------------------------

    async def _recover(self) -> None:
        machine = self.core.machine
        found = await self._snapshots.load(machine.writer, machine.snapshot_version)
        if found is not None:
            try:
                snapshot = msgspec.json.decode(found[1], type=_Snapshot)
                machine.restore(bytes(snapshot.machine))
            except msgspec.DecodeError:
                self._logger.warning("skipped an unreadable snapshot", sequence=found[0], exc_info=True)
            else:
                self.core.restore(snapshot.loop, time.monotonic())
        machine.stand_by()
        self._logger.info("recovered", sequence=self.core.folded)

    async def _follow(self) -> None:
        head = await self._log.head()
        self.is_recovered = self.core.folded >= head
        async with self._log.follow(self.core.folded, floor=self.core.log_time) as batches:
            async for batch in batches:
                for stored in batch:
                    self.core.fold(stored, time.monotonic())
                if not self.is_recovered:
                    self.is_recovered = self.core.folded >= head
                self._wake.set()
                self._folded.set()

    async def _until_folded(self, sequence: int) -> None:
        while self.core.folded < sequence:
            self._folded.clear()
            await self._folded.wait()

    # -- leading -------------------------------------------------------------------------------------------------------

    async def _campaign(self) -> None:
        while True:
            if await self._lease.try_acquire(self.core.instance):
                try:
                    await self._lead()
                except SteppedDown as reason:
                    self._logger.warning("stepped down", reason=str(reason), epoch=self.core.epoch)
                self.core.step_down()
            await asyncio.sleep(self._renew_seconds)

    async def _lead(self) -> None:
        renewal = asyncio.create_task(self._keep_lease())
        leading = asyncio.create_task(self._take_over_and_decide())
        try:
            await asyncio.wait((renewal, leading), return_when=asyncio.FIRST_COMPLETED)
            for task in (renewal, leading):
                if task.done():
                    task.result()
        finally:
            for task in (renewal, leading):
                task.cancel()
            await asyncio.gather(renewal, leading, return_exceptions=True)

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(self._renew_seconds)
            if not await self._lease.renew():
                raise SteppedDown("the lease was lost")

    async def _take_over_and_decide(self) -> None:
        await self._until_folded(await self._head())
        await self._append(self.core.take_over(time.monotonic()))
        if self.core.role is not Role.LEADER:
            raise SteppedDown("another instance took over")
        self._logger.info("leads", epoch=self.core.epoch, sequence=self.core.folded)
        readers = [asyncio.create_task(self._read(source)) for source in self._sources]
        try:
            deciding = asyncio.create_task(self._decide())
            readers.append(deciding)
            done, _ = await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in readers:
                task.cancel()
            await asyncio.gather(*readers, return_exceptions=True)

    async def _head(self) -> int:
        try:
            return await self._log.head()
        except LogUnavailable as error:
            raise SteppedDown("the log is away") from error

    async def _decide(self) -> None:
        while True:
            self._wake.clear()
            while (append := self.core.decide(time.monotonic())) is not None:
                await self._append(append)
                self._act()
                await self._save_snapshot_if_due()
            self._act()
            self._room.set()
            if self.core.role is not Role.LEADER:
                raise SteppedDown("another instance took over")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self.core.wait_seconds(time.monotonic()))

    async def _append(self, append: Append) -> None:
        """Append, and wait until it is folded here: only then something may be decided again."""
        try:
            sequence = await self._log.append(append.data, writer=self.core.machine.writer, expected=append.expected)
        except (FenceMoved, LogUnavailable) as error:
            raise SteppedDown(str(error)) from error
        self.commits_appended += 1
        self.core.appended(sequence)
        await self._until_folded(sequence)

    async def _read(self, source: Source[InputT]) -> None:
        name = source.stream.name
        async with source.stream.follow(self.core.cursors.get(name, 0)) as batches:
            async for batch in batches:
                for message in batch:
                    while not self.core.has_room:
                        await self._has_room()
                    self.core.offer(Offered(await source.read(message), name, message.sequence))
                self._wake.set()

    async def _has_room(self) -> None:
        """Until inputs were decided on, which need not have made any event."""
        self._room.clear()
        self._wake.set()
        await self._room.wait()

    # -- acting --------------------------------------------------------------------------------------------------------

    def _act(self) -> None:
        # Asked for only when there is room: a machine counts what it gave out as done, and an outcome is told once.
        if len(self._effects) >= EFFECTS_AT_ONCE_MAX:
            self._logger.warning("too many effects at once", limit=EFFECTS_AT_ONCE_MAX)
            return
        for effect in self.core.effects(time.monotonic()):
            task = asyncio.create_task(self._run_effect(effect))
            self._effects.add(task)
            task.add_done_callback(self._effect_done)

    def _effect_done(self, task: asyncio.Task[None]) -> None:
        if len(self._effects) == EFFECTS_AT_ONCE_MAX:
            self._wake.set()
        self._effects.discard(task)

    async def _run_effect(self, effect: EffectT) -> None:
        try:
            await self._perform(effect)
        except Exception:
            self._logger.exception("an effect failed", effect=type(effect).__name__)

    # -- snapshots and stopping ----------------------------------------------------------------------------------------

    async def _save_snapshot_if_due(self, events: int = SNAPSHOT_EVENTS) -> None:
        if self.core.events_folded - self._saved_events < events:
            return
        self._saved_events = self.core.events_folded
        machine = self.core.machine
        snapshot = msgspec.json.encode(_Snapshot(self.core.saved(), Raw(machine.snapshot())))
        try:
            await self._snapshots.save(machine.writer, machine.snapshot_version, self.core.folded, snapshot)
        except LogUnavailable:
            self._logger.warning("a snapshot was not saved", exc_info=True)
        else:
            self.snapshots_saved += 1

    async def _hand_over(self, campaign: asyncio.Task[None]) -> None:
        """Stop deciding, save what was folded, and let another instance lead at once."""
        was_leader = self.core.role is Role.LEADER
        campaign.cancel()
        await asyncio.gather(campaign, return_exceptions=True)
        self.core.step_down()
        if was_leader:
            try:
                async with asyncio.timeout(STOP_SECONDS_MAX):
                    await self._save_snapshot_if_due(SNAPSHOT_ON_STOP_EVENTS)
                    await self._lease.release()
            except TimeoutError:
                self._logger.warning("handing over took too long")


async def _do_nothing(effect: object) -> None:
    """Effects before the loop runs: there are none."""
