"""Who speaks: heartbeats are observations of this instance, turned into events only where they change something.

Silence is measured by the time for which this instance has listened, which stands still with it, with the server, and
with the connection between them: what it could not hear is nobody's silence. It never counts from before this instance
began to lead or was connected again.
"""

import msgspec
from msgspec import Struct

from taskyard.contracts.agent_protocol import Heartbeat
from taskyard.contracts.events import Event, WorkerJoined, WorkerLost, WorkerRecovered, WorkerSuspected
from taskyard.contracts.fleet import Fleet, Worker
from taskyard.contracts.incarnations import FOLLOWS_TOLD_MAX
from taskyard.contracts.values import SECOND, Incarnation, Instant, is_name, seconds
from taskyard.machine.aside import Aside
from taskyard.machine.machine import Fault
from taskyard.slot_allocator.unwilling import Unwilling

LISTENED_SECONDS_MAX = 1.0
"""So much has been listened between two answers of the server at most, however long the second one took."""
DESCRIPTION_BYTES_MAX = 64 * 1024
"""A worker that describes itself at greater length is not heard: its joining would not fit a commit."""
WORKERS_MAX = 10_000
"""Workers that may be there at once; the heartbeats of more are not heard."""


class HeartbeatSeen(Struct, frozen=True, kw_only=True):
    """An agent spoke."""

    agent: str
    heartbeat: Heartbeat


class Reconnected(Struct, frozen=True, kw_only=True):
    """This instance could not hear anybody until now."""


class Listened(Struct, frozen=True, kw_only=True):
    """The server has answered this instance at `at`, in monotonic seconds, and all that it had sent before was heard."""

    at: float


class Liveness:
    """When each worker was heard last, in time listened, and what follows."""

    def __init__(self, suspect_seconds: float, lost_seconds: float) -> None:
        self._suspect = seconds(suspect_seconds)
        self._lost = seconds(lost_seconds)
        self._listened = self._since = 0
        self._answered_at: float | None = None
        self._heard: dict[str, int] = {}
        self._leaving: dict[str, Incarnation] = {}
        self._unwilling = Unwilling()
        self._unreachable: dict[str, Incarnation] = {}
        self._is_due = False
        self._aside: Aside[str] = Aside()

    def begin(self) -> None:
        """Nobody could be heard before now."""
        self._since = self._listened
        self._answered_at = None

    def listened(self, seen: Listened) -> None:
        """All who spoke until now were heard: silence may be looked at."""
        if self._answered_at is not None:
            self._listened += seconds(min(seen.at - self._answered_at, LISTENED_SECONDS_MAX))
        self._answered_at = seen.at
        self._is_due = True

    def not_reached(self, worker: str, incarnation: Incarnation) -> None:
        """Nobody listened on the worker's subject."""
        self._unreachable[worker] = incarnation
        self._is_due = True

    def hear(self, seen: HeartbeatSeen, fleet: Fleet, joined: dict[str, Incarnation]) -> list[Event]:
        """What a heartbeat changes. `joined` is the overlay of workers that this decision lets join."""
        heartbeat, name = seen.heartbeat, seen.agent
        worker = fleet.workers.get(name)
        if not (is_name(name) and is_name(heartbeat.pool)):
            return []
        if name in joined or worker is None or heartbeat.incarnation != worker.incarnation or worker.is_lost:
            event = self._newcomer(seen, worker, fleet, joined)
            return [] if event is None else [event, *self._declined(seen, None)]
        self._heard[name] = self._listened
        if heartbeat.leaving:
            self._leaving[name] = heartbeat.incarnation
            self._is_due = True
        elif heartbeat.reason:
            return self._declined(seen, worker)
        elif worker.is_suspect and self._may_recover(name):
            return [WorkerRecovered(worker=name, incarnation=heartbeat.incarnation)]
        return []

    def _may_recover(self, name: str) -> bool:
        return self._unreachable.pop(name, None) is None and self._unwilling.takes(name, self._listened)

    def _declined(self, seen: HeartbeatSeen, worker: Worker | None) -> list[Event]:
        """That it takes nothing new, where it says so; `worker` None for one that joins just now."""
        heartbeat = seen.heartbeat
        if not heartbeat.reason:
            return []
        event = self._unwilling.declines(seen.agent, heartbeat.incarnation, worker, heartbeat.reason, self._listened)
        return [] if event is None else [event]

    def _newcomer(
        self, seen: HeartbeatSeen, worker: Worker | None, fleet: Fleet, joined: dict[str, Incarnation]
    ) -> WorkerJoined | None:
        """One that is not there: it joins, unless it was replaced, or another host of its name is there and speaks."""
        heartbeat = seen.heartbeat
        if seen.agent in joined:
            if joined[seen.agent] == heartbeat.incarnation:
                self._heard[seen.agent] = self._listened
            return None
        continued = _continued(heartbeat, worker)
        is_taken = worker is not None and not worker.is_lost and continued is None
        is_replaced = worker is not None and heartbeat.incarnation in worker.replaced
        if heartbeat.leaving or is_taken or is_replaced:
            return None
        if worker is None and len(fleet.workers) + len(joined) >= WORKERS_MAX:
            return None
        event = WorkerJoined(
            worker=seen.agent,
            incarnation=heartbeat.incarnation,
            pool=heartbeat.pool,
            slots=heartbeat.slots,
            kinds=heartbeat.kinds,
            labels=heartbeat.labels,
            continues=continued,
            follows=heartbeat.follows[:FOLLOWS_TOLD_MAX],
            place=heartbeat.place,
        )
        if stored_bytes(event) > DESCRIPTION_BYTES_MAX:
            return None
        self._heard[seen.agent] = self._listened
        joined[seen.agent] = heartbeat.incarnation
        self._unreachable.pop(seen.agent, None)  # that was before
        return event

    def check(self, fleet: Fleet, faults: list[Fault]) -> list[Event]:
        """Who has been silent for too long, or goes. One at whom looking raises stands aside, and is among the faults."""
        if not self._is_due:
            return []
        self._is_due = False
        now = Instant(self._listened)
        self._aside.take_back(now)
        events: list[Event] = []
        for worker in fleet.workers.values():
            if worker.is_lost or worker.name in self._aside:
                continue
            try:
                event = self._check(worker)
            except Exception as error:  # noqa: BLE001 - one worker must not stop all others
                faults.append(self._aside.put(worker.name, f"worker {worker.name}", error, now))
            else:
                events += () if event is None else (event,)
        self._forget_who_is_gone(fleet)
        return events

    def _forget_who_is_gone(self, fleet: Fleet) -> None:
        for gone in self._unreachable.keys() - fleet.workers.keys():
            del self._unreachable[gone]
        for gone in self._heard.keys() - fleet.workers.keys():
            if self._heard[gone] < self._listened - self._lost:  # a heartbeat from before may still be on its way
                del self._heard[gone]
                self._leaving.pop(gone, None)
                self._unwilling.forget(gone)

    def _check(self, worker: Worker) -> Event | None:
        name, incarnation = worker.name, worker.incarnation
        if self._leaving.get(name) == incarnation:
            if not worker.busy:
                return WorkerLost(worker=name, incarnation=incarnation, reason="left")
            if not worker.is_suspect:
                return WorkerSuspected(worker=name, incarnation=incarnation, reason="leaving")
            # What it still had may never end: a process that went counts as lost by its silence, as any other.
        silent = self._listened - max(self._heard.get(name, 0), self._since)
        if silent >= self._lost:
            reason = f"silent for {silent // SECOND} s"
            return WorkerLost(worker=name, incarnation=incarnation, reason=reason)
        if worker.is_suspect:
            return None
        if self._unreachable.get(name) == incarnation:
            return WorkerSuspected(worker=name, incarnation=incarnation, reason="nobody listens on its subject")
        if silent >= self._suspect:
            return WorkerSuspected(worker=name, incarnation=incarnation, reason=f"silent for {silent // SECOND} s")
        return None


def stored_bytes(event: Event) -> int:
    """How long an event is in a commit."""
    return len(msgspec.json.encode(event))


def _continued(heartbeat: Heartbeat, worker: Worker | None) -> Incarnation | None:
    """The incarnation for whose attempts the agent answers: itself, one before with its journal, or one of its place."""
    if worker is None:
        return None
    has_place = bool(heartbeat.place) and heartbeat.place == worker.place
    is_its = has_place or worker.incarnation == heartbeat.incarnation or worker.incarnation in heartbeat.follows
    return worker.incarnation if is_its else None
