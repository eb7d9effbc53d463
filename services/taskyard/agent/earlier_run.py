"""What an earlier run of the agent has left: it goes on, is lost, or is unknown to the journal and ended."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from taskyard.agent import clock
from taskyard.agent.journal import Journal
from taskyard.agent.logs import fields
from taskyard.agent.outbox import Outbox
from taskyard.agent.process import end_marked
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
        self._lost = [one for one in live if one.position not in known]
        self._resumed = [one for position, one in known.items() if position in positions]
        self._strangers = [one for position, one in known.items() if position not in positions]

    @property
    def resumed(self) -> list[AttemptState]:
        """What goes on, with the newest that is known of it."""
        return [self._supervised.left.get(one.attempt, one) for one in self._resumed]

    async def end_strangers(self, *, is_journal_new: bool) -> None:
        """End what this journal does not know to live, before anybody hears of this agent: it is the journal that counts."""
        for one in self._strangers:
            _log.warning("ends what its journal does not know", extra=fields(position=one.attempt))
            self._supervised.stop(Position(one.attempt), STRANGERS_GRACE_SECONDS, b"")
            for state in one.programs:
                program = self._supervised.program(Position(one.attempt), state.step, (Room(0, 0), Room(0, 0)))
                while program is not None and not program.is_over:
                    await program.next_change().wait()
            self._supervised.forget(Position(one.attempt))
        if is_journal_new:  # who joins with a new journal says by that that nothing of its place lives
            await end_marked(self._directory)

    async def report_lost(
        self, memory: SlotMemory, journal: Journal, outbox: Outbox, forget: Callable[[TaskId], None]
    ) -> None:
        """What the supervisor does not have does not live; what it left is ended before that is told."""
        for live in self._lost:
            await end_marked(self._directory, live.task)
            _log.info("an attempt of an earlier run is lost", extra=fields(task=live.task, attempt=live.attempt))
            forget(live.task)
        outbox.add(memory.lose([live.position for live in self._lost], now=clock.now()))
        journal.write_memory(memory.take_changes())
        await journal.sync()
