"""Drives one machine with asyncio: follows the log, campaigns for leadership, and, while leading, decides and acts.

What may happen when is in `core.py`; here is only waiting and I/O.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

import structlog
from msgspec import Struct

from taskyard.eventlog.errors import FenceMoved, LeaseLost, LogUnavailable, StreamReplaced
from taskyard.eventlog.leases import RENEWALS_PER_LEASE, Lease, work_with_lease
from taskyard.eventlog.log import EventLog, InputStream, StreamMessage
from taskyard.eventlog.snapshots import SnapshotStore
from taskyard.machine.core import LoopCore, Role
from taskyard.machine.deciding import Append
from taskyard.machine.inputs import Offered
from taskyard.machine.machine import Fault
from taskyard.machine.snapshots import SnapshotKeeper
from taskyard.machine.telling import Telling

InputT = TypeVar("InputT")
EffectT = TypeVar("EffectT")

EFFECTS_AT_ONCE_MAX = 1_024
STOP_SECONDS_MAX = 5.0
LAST_DECISION_SECONDS_MAX = 1.0
"""How long a leader that is told to stop waits for its append in flight: what was decided is then told as well."""


async def at_once() -> None:
    """What was told was stored: nothing is waited for."""


class SteppedDown(Exception):
    """This instance no longer leads; it goes on as a standby."""


class Source(Struct, Generic[InputT], frozen=True):
    """A stream of inputs, and how one of its messages becomes an input of the machine."""

    stream: InputStream
    read: Callable[[StreamMessage], Awaitable[InputT]]


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
        self.inputs_failed = 0
        self.effects_failed = 0
        self._log = log
        self._lease = lease
        self._lease_seconds = lease_seconds
        self.snapshots = SnapshotKeeper(core, snapshots)
        self._sources: Sequence[Source[InputT]] = ()
        self._perform: Callable[[EffectT], Awaitable[None]] = _do_nothing
        self._told_again: Callable[[], Awaitable[None]] = at_once
        self._wake = asyncio.Event()
        self._folded = asyncio.Event()
        self._room = asyncio.Event()
        self._asked = asyncio.Event()
        self._offered = asyncio.Event()
        self._reached: dict[str, int] = {}
        self._effects: set[asyncio.Task[None]] = set()
        self._is_leaving = False
        self._telling = Telling()
        self._logger = structlog.get_logger(service=core.machine.writer, instance=core.instance)

    async def run(
        self,
        stop: asyncio.Event,
        sources: Sequence[Source[InputT]],
        perform: Callable[[EffectT], Awaitable[None]],
        told_again: Callable[[], Awaitable[None]] = at_once,
    ) -> None:
        """Run until `stop` is set, then hand over cleanly.

        A leader reads its inputs from `sources`, and `perform` carries out one effect; what comes of that, and whatever
        else is observed, is given back with `post`. `told_again` returns when what was told while nobody listened must be in
        the sources.
        """
        self._sources, self._perform = sources, perform
        self._told_again = told_again
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
            await self.snapshots.close()

    def post(self, observation: InputT, key: str | None = None) -> None:
        """Let the machine decide on something that was observed; dropped unless this instance leads.

        Of observations with the same key only the newest waits.
        """
        if self.core.has_room:
            self.core.offer(Offered(observation, key=key))
            self._wake.set()

    # -- recovering and following --------------------------------------------------------------------------------------

    async def _recover(self) -> None:
        await self.snapshots.recover()
        self.core.machine.stand_by()
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
                    await work_with_lease(self._lease, self._lease_seconds, self._take_over_and_decide())
                except (SteppedDown, LeaseLost) as reason:
                    self._logger.warning("stepped down", reason=str(reason), epoch=self.core.epoch)
                if self._is_leaving:
                    return
                self.core.step_down()
            await self._lease.until_free(self._lease_seconds / RENEWALS_PER_LEASE)

    async def _take_over_and_decide(self) -> None:
        await self._until_folded(await self._head())
        await self._append(self.core.take_over(time.monotonic()))
        if self.core.role is not Role.LEADER:
            raise SteppedDown("another instance took over")
        self._logger.info("leads", epoch=self.core.epoch, sequence=self.core.folded)
        self._reached.clear()
        readers = [asyncio.create_task(self._read(source)) for source in self._sources]
        try:
            readers += [asyncio.create_task(self._tell_ends()), asyncio.create_task(self._decide())]
            done, _ = await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except StreamReplaced as error:
            raise SteppedDown(str(error)) from error
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
            while (append := self._next()) is not None:
                await self._append(append)
                self._act()
                if self._is_leaving:
                    return
                self.snapshots.save_if_due()
            self._act()
            self._room.set()
            if self.core.waits_for_inputs:
                self._asked.set()
            if self._is_leaving:
                return
            if self.core.role is not Role.LEADER:
                raise SteppedDown("another instance took over")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self.core.wait_seconds(time.monotonic()))

    def _next(self) -> Append | None:
        append = self.core.decide(time.monotonic())
        for fault in self.core.take_faults():
            self._tell(fault)
        return append

    def _tell(self, fault: Fault) -> None:
        self.inputs_failed += 1
        if self._telling.is_news(fault.reference, fault.error, time.monotonic()):
            self._logger.error("could not be decided on", reference=fault.reference, exc_info=fault.error)

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
        name = await source.stream.cursor_name()
        reached = self.core.begin_to_read(source.stream.name, name)
        if not reached and (former := self.core.former_cursors(source.stream.name, name)):
            self._logger.error("an input stream was made anew and is read from its start", stream=name, former=former)
        self._reached[source.stream.name] = reached
        self._offered.set()
        async with source.stream.follow(reached) as batches:
            async for batch in batches:
                for message in batch:
                    while not self.core.has_room:
                        await self._has_room()
                    if message.sequence <= reached:
                        self._logger.error("an input stream lost its end and is read again", stream=name, end=reached)
                        self.core.read_again(name)
                    reached = message.sequence
                    await self._offer(source, name, message)
                    self._reached[source.stream.name] = reached
                self._offered.set()
                self._wake.set()

    async def _tell_ends(self) -> None:
        """Tell the machine that it has read what was stored, while a deadline waits for that, and as often as one does."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            until = self.core.now(time.monotonic())
            await self._told_again()
            try:
                ends = {source.stream.name: await source.stream.end() for source in self._sources}
            except LogUnavailable:
                self._logger.warning("deadlines wait: the end of an input stream is not known")
                self._wake.set()
                continue
            while any(self._reached.get(name, 0) < end for name, end in ends.items()):
                self._offered.clear()
                await self._offered.wait()
            self.core.inputs_read(until)
            self._wake.set()

    async def _offer(self, source: Source[InputT], name: str, message: StreamMessage) -> None:
        """Let a message wait for its decision; one that cannot be made an input is passed over, told and counted."""
        try:
            read = await source.read(message)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, those behind it go on
            self._tell(Fault(f"{name} {message.sequence}", error))
        else:
            self.core.offer(Offered(read, name, message.sequence))

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
        effects = self.core.effects(time.monotonic())
        for fault in self.core.take_faults():
            self.effects_failed += 1
            if self._telling.is_news(fault.reference, fault.error, time.monotonic()):
                self._logger.error("an effect could not be made", reference=fault.reference, exc_info=fault.error)
        for effect in effects:
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
            self.effects_failed += 1
            self._logger.exception("an effect failed", effect=type(effect).__name__)

    # -- stopping ------------------------------------------------------------------------------------------------------

    async def _hand_over(self, campaign: asyncio.Task[None]) -> None:
        """Stop deciding, let another instance lead at once, and save what was folded."""
        was_leader = self.core.role is Role.LEADER
        if was_leader:
            self._is_leaving = True
            self._wake.set()
            await asyncio.wait({campaign}, timeout=LAST_DECISION_SECONDS_MAX)
        campaign.cancel()
        await asyncio.gather(campaign, return_exceptions=True)
        self.core.step_down()
        if was_leader:
            try:
                async with asyncio.timeout(STOP_SECONDS_MAX):
                    await self._lease.release()  # first: another instance need not wait for the snapshot
                    await self.snapshots.save_last()
            except TimeoutError:
                self._logger.warning("handing over took too long")


async def _do_nothing(effect: object) -> None:
    """Effects before the loop runs: there are none."""
