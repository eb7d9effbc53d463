"""Defects at the edges: what agents remember, and how the read model is written."""

# pyright: reportPrivateUsage=none

from dataclasses import replace as changed
from typing import Any

from msgspec import structs

import taskyard.simulation.agent as agent
from taskyard.agent.refusing import why_nothing_new
from taskyard.agent.slots import SlotMemory
from taskyard.contracts.agent_protocol import SEEN_NEW
from taskyard.contracts.values import Instant
from taskyard.simulation.defects.patching import Replace
from taskyard.simulation.journal import Journal
from taskyard.simulation.tables import Tables
from taskyard.slot_allocator.liveness import Liveness


def _no_slot_memory(replace: Replace) -> None:
    """An agent does not remember what its slots have seen."""
    assign = SlotMemory._assign_one

    def forgetful(self: Any, assignment: Any, *more: Any) -> Any:
        self._remembered.pop(assignment.slot, None)
        return assign(self, assignment, *more)

    replace(SlotMemory, "_assign_one", forgetful)


def _cancels_are_not_remembered(replace: Replace) -> None:
    """A cancel of an assignment that was never seen leaves no trace, and the assignment may still come."""
    cancel = SlotMemory._cancel_one

    def forgetful(self: Any, one: Any, decision: Any, now: Instant) -> None:
        before = self._remembered.get(one.slot)
        cancel(self, one, decision, now)
        if before is None or before.position < one.position:
            self._remembered.pop(one.slot, None)
            self._changed_slots.discard(one.slot)

    replace(SlotMemory, "_cancel_one", forgetful)


def _memory_is_not_on_disk(replace: Replace) -> None:
    """What slots have seen is forgotten when the agent restarts."""
    begin = SlotMemory.__init__

    def forgetful(self: Any, **more: Any) -> None:
        more["remembered"] = {}
        begin(self, **more)

    replace(SlotMemory, "__init__", forgetful)


class _All:
    def __contains__(self, _: object) -> bool:
        return True


def _answers_for_what_it_never_had(replace: Replace) -> None:
    """An agent that lost its journal does not know that what was given to it before is not in there."""
    begin = SlotMemory.__init__

    def unaware(self: Any, **more: Any) -> None:
        begin(self, **more)
        self._lineage = _All()

    replace(SlotMemory, "__init__", unaware)


def _believes_a_journal_that_was_put_back(replace: Replace) -> None:
    """An agent does not look at the mark of its journal."""
    replace(agent, "confirms", lambda *_: True)


def _log_is_not_believed(replace: Replace) -> None:
    """An agent does not look how far the log has seen an attempt that it does not remember."""
    assign = SlotMemory._assign_one

    def trusting(self: Any, assignment: Any, *more: Any) -> Any:
        return assign(self, structs.replace(assignment, seen=SEEN_NEW), *more)

    replace(SlotMemory, "_assign_one", trusting)


def _never_fences_itself(replace: Replace) -> None:
    """An agent without contact runs on, whatever it runs."""
    replace(agent, "SELF_FENCE_SECONDS", float("inf"))


def _acts_before_it_is_durable(replace: Replace) -> None:
    """An agent answers and begins before its journal is on disk."""
    sync = Journal.sync

    def hasty(self: Any, then: Any = None) -> None:
        sync(self, None)
        if then is not None:
            self._agent.later(0.0, then)

    replace(Journal, "sync", hasty)


def _gives_a_name_that_is_taken(replace: Replace) -> None:
    """Another host that has the name of a worker takes its place while it is there."""
    newcomer = Liveness._newcomer

    def careless(self: Any, seen: Any, worker: Any, *more: Any) -> Any:
        gone = None if worker is None else structs.replace(worker, is_lost=True)
        return newcomer(self, seen, gone, *more)

    replace(Liveness, "_newcomer", careless)


def _takes_work_on_a_full_disk(replace: Replace) -> None:
    """An agent does not look how much room there is."""
    replace(agent, "why_nothing_new", lambda **known: why_nothing_new(**{**known, "is_disk_full": False}))


def _rows_apart_from_position(replace: Replace) -> None:
    """Rows are written without their position, which follows only if the connection lives."""

    async def apart(self: Any, changes: Any, *, after: Any, **_: Any) -> None:
        self.keep(changes)
        if self.is_cut:
            raise ConnectionError("the connection was lost")
        self.position = changed(after)

    replace(Tables, "write", apart)


DEFECTS = {
    "no-slot-memory": _no_slot_memory,
    "cancels-are-not-remembered": _cancels_are_not_remembered,
    "memory-is-not-on-disk": _memory_is_not_on_disk,
    "answers-for-what-it-never-had": _answers_for_what_it_never_had,
    "believes-a-journal-that-was-put-back": _believes_a_journal_that_was_put_back,
    "log-is-not-believed": _log_is_not_believed,
    "never-fences-itself": _never_fences_itself,
    "acts-before-it-is-durable": _acts_before_it_is_durable,
    "gives-a-name-that-is-taken": _gives_a_name_that_is_taken,
    "takes-work-on-a-full-disk": _takes_work_on_a_full_disk,
    "rows-apart-from-position": _rows_apart_from_position,
}
