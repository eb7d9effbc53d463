"""What an earlier run of the agent has left: it goes on, waits to begin, is lost, or is unknown to the journal and ended."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from taskyard.agent import clock
from taskyard.agent.journal import Journal
from taskyard.agent.logs import fields
from taskyard.agent.outbox import Outbox
from taskyard.agent.process import end_marked, marked
from taskyard.agent.slots import Live, SlotMemory
from taskyard.agent.supervised import Supervised
from taskyard.agent.supervisor.protocol import AttemptState, Room
from taskyard.contracts.values import Position, TaskId

STRANGERS_GRACE_SECONDS = 10.0
"""How long what the journal does not know may take to end in order, before the agent joins."""

_log = logging.getLogger(__name__)


class EarlierRun:
    """What the supervisor has, and of that and besides what the journal knows to live."""

    def __init__(self, directory: Path, live: Sequence[Live], supervised: Supervised) -> None:
        self._directory = directory
        self._supervised = supervised
        known = supervised.left
        positions = {one.position for one in live}
        self._missing = [one for one in live if one.position not in known]
        self._resumed = [one for position, one in known.items() if position in positions]
        self._strangers = [one for position, one in known.items() if position not in positions]

    @property
    def resumed(self) -> list[AttemptState]:
        """What goes on, with the newest that is known of it."""
        return [self._supervised.left.get(one.attempt, one) for one in self._resumed]

    async def end_strangers(self, journal: Journal) -> None:
        """End what this journal does not know to live, before anybody hears of this agent: it is the journal that counts.

        Who joins with a new journal says by that that nothing of its place lives, which is on disk until it is so: this run
        may be killed before.
        """
        are_ended = [await self._end_stranger(one) for one in self._strangers]
        if journal.may_have_strangers or not all(are_ended):
            await end_marked(self._directory)
        if journal.may_have_strangers:
            journal.has_no_strangers()
            await journal.sync()

    async def end(
        self, one: AttemptState, memory: SlotMemory, journal: Journal, outbox: Outbox, forget: Callable[[TaskId], None]
    ) -> None:
        """End an attempt that nobody can go on with, and tell that it is lost."""
        position = Position(one.attempt)
        await self._end_stranger(one)
        for live in [each for each in memory.live if each.position == position]:
            await end_marked(self._directory, live.task)
            forget(live.task)
        outbox.add(memory.lose([position], now=clock.now()))
        journal.write_memory(memory.take_changes())
        await journal.sync()

    async def _end_stranger(self, one: AttemptState) -> bool:
        """End one attempt; whether the supervisor told its end. One that is killed meanwhile leaves it to its keepers."""
        position = Position(one.attempt)
        _log.warning("ends what it cannot go on with", extra=fields(position=position))
        self._supervised.adopt(position)
        self._supervised.stop(position, STRANGERS_GRACE_SECONDS, b"")
        is_ended = True
        for state in one.programs:
            program = self._supervised.program(position, state.step, (Room(0, 0), Room(0, 0)))
            while program is not None and not program.is_over:
                await program.next_change().wait()
            is_ended = is_ended and program is not None and program.state.status is not None
        self._supervised.forget(position)
        return is_ended

    async def settle(
        self, memory: SlotMemory, journal: Journal, outbox: Outbox, forget: Callable[[TaskId], None]
    ) -> None:
        """What the supervisor does not have does not live; what it left is ended before that is told.

        What has certainly not begun is not lost: it begins when it is assigned again.
        """
        unbegun = [one for one in self._missing if one.is_unbegun and not marked(self._directory, one.task)]
        memory.keep_unbegun([one.position for one in unbegun])
        for live in unbegun:
            _log.info("an attempt of an earlier run waits to begin", extra=fields(task=live.task, attempt=live.attempt))
        lost = [one for one in self._missing if one not in unbegun]
        for live in lost:
            await end_marked(self._directory, live.task)
            _log.info("an attempt of an earlier run is lost", extra=fields(task=live.task, attempt=live.attempt))
            forget(live.task)
        outbox.add(memory.lose([live.position for live in lost], now=clock.now()))
        journal.write_memory(memory.take_changes())
        await journal.sync()
