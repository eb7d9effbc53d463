"""A simulated agent: the real memory of slots, and around it what an agent does with disk, processes and network.

It decides by the memory, makes that durable, answers, and only then acts, as `taskyard.agent.app` does.
"""

from collections.abc import Callable

import msgspec

from taskyard.agent.mark import confirms
from taskyard.agent.refusing import why_nothing_new
from taskyard.agent.slots import Decision, Live, Remembered, SlotMemory
from taskyard.agent.stopping import fenced, leaving, replaced, requested
from taskyard.contracts.agent_protocol import (
    HEARTBEAT_SECONDS,
    LINEAGE_MAX,
    START_SECONDS_MAX,
    Assignment,
    AssignReply,
    AssignRequest,
    CancelRequest,
    Heartbeat,
    LiveAttempt,
    ReportBatch,
)
from taskyard.contracts.kinds import KINDS
from taskyard.contracts.subjects import report_subject
from taskyard.simulation.attempts import STOP_SECONDS_MAX, Attempts
from taskyard.simulation.host import Disk, Folder, Witness
from taskyard.simulation.journal import Journal
from taskyard.simulation.network import Network, Reply
from taskyard.simulation.streams import Servers
from taskyard.simulation.time import Process

SELF_FENCE_SECONDS = 3.0
FENCED_SECONDS = SELF_FENCE_SECONDS + HEARTBEAT_SECONDS + STOP_SECONDS_MAX + 0.1
"""So long after its last contact nothing runs any more that others may run: before the allocator of this world declares
the worker lost."""
NOTICE_SECONDS_MAX = 3.0
"""How long the server may believe in a connection that is gone."""
APPLY_DRAIN_SECONDS = 3.0
DOWN, FROZEN, CUT_OFF, LEAVING = "down", "frozen", "cut off", "leaving"
"""What may be the trouble with an agent."""

TEMPLATES: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("any",), ("plan",), ("plan",)),
    (("any",), ("any",)),
    (("any",),),
    (("plan",), ("any",), ("any",), ("any",)),
)
"""What slots a worker may come back with; the first is the default."""
ALL_KINDS = tuple(KINDS)
KINDS_CHOICES: tuple[tuple[str, ...], ...] = (
    ALL_KINDS,
    ALL_KINDS,
    tuple(kind for kind in KINDS if kind != "plan_and_apply"),
    tuple(kind for kind in KINDS if kind not in {"plan", "command"}),
)
"""What a worker may come back able to run."""

_encode = msgspec.json.Encoder().encode
_decode_assign = msgspec.json.Decoder(AssignRequest).decode
_decode_cancel = msgspec.json.Decoder(CancelRequest).decode
_decode_remembered = msgspec.json.Decoder(Remembered).decode
_decode_live = msgspec.json.Decoder(Live).decode


class Agent(Process):
    """One agent on one host, which has the agent's name unless it is told. `beat` is told every heartbeat that gets out.

    `is_gone`: nobody will start it again. `is_retired`: for it was told to go, since another host has its name.
    """

    def __init__(
        self,
        name: str,
        pool: str,
        servers: Servers,
        network: Network,
        *,
        witness: Witness,
        beat: Callable[[str, bytes], None],
        host: str | None = None,
    ) -> None:
        super().__init__(servers.world, host or name)
        self.name, self.host = name, host or name
        self.pool = pool
        self.slots = TEMPLATES[0]
        self.kinds = ALL_KINDS
        self.incarnation = ""
        self.disk = self._new_disk()
        self.folder = Folder()
        self.is_connected = False
        self.is_leaving = False
        self.is_gone = self.is_retired = False
        self.on_request: Callable[[Agent], None] = lambda _: None
        self._slowness = self.random.choice((1.0, 1.0, 4.0))
        self._reconfigured_chance = self.random.choice((0.0, 0.3))
        self._is_reachable = False
        self._contact_at = 0.0
        self._servers = servers
        self._network = network
        self._witness = witness
        self._beat = beat
        self._memory: SlotMemory
        self._journal: Journal
        self._attempts: Attempts
        self._connection = 0
        self._knows_little_room = False
        witness.knows(self.host, name)
        network.agents.setdefault(name, []).append(self)

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the agent on its disk, perhaps with another configuration. One that is gone stays so."""
        if self.is_gone:
            return
        if self.world.chance(self._reconfigured_chance, self.random):
            self.slots, self.kinds = self.random.choice(TEMPLATES), self.random.choice(KINDS_CHOICES)
        self.start_as_told()

    def start_as_told(self) -> None:
        """Start with the slots and kinds that it has: what an earlier run left running is killed and reported lost."""
        disk = self.disk
        self.life += 1
        self.is_up, self.is_leaving = True, False
        self._witness.trouble_over(self.host, DOWN, LEAVING)
        if not confirms(b"%d" % self.folder.mark, disk.commits):
            disk.begin_anew()
        self._knows_little_room = self.folder.has_little_room
        self._contact_at = self.world.now
        self.incarnation = f"r{self.random.getrandbits(64):016x}"
        disk.lineage = (self.incarnation, *disk.lineage)[: LINEAGE_MAX + 1]
        left = [_decode_live(disk.live[position]) for position in sorted(disk.live)]
        for run in self._witness.running_on(self.host):
            self._witness.ends(run)  # it bears the mark of this folder, whether the journal knows it or not
        self._memory = SlotMemory(
            lineage=disk.lineage,
            slot_count=len(self.slots),
            kinds=self.kinds,
            remembered={slot: _decode_remembered(record) for slot, record in disk.slots.items()},
            live=left,
        )
        self._journal = Journal(
            self,
            disk,
            self.folder,
            self._servers,
            self._network,
            is_reachable=lambda: self._is_reachable,
            on_full=self._look_for_room,
        )
        self._attempts = Attempts(
            self, self.host, disk, self._memory, self._journal, witness=self._witness, slowness=self._slowness
        )
        lost = [one for one in left if not one.is_unbegun]
        self._journal.report(self._memory.lose([one.position for one in lost], now=self.wall))
        for live in lost:
            disk.forget_plans(live.task)
        if len(lost) < len(left):
            self._memory.keep_unbegun([one.position for one in left if one.is_unbegun])
            self.later(START_SECONDS_MAX, self._give_up_unbegun)
        self._journal.write(self._memory.take_changes())
        self._journal.sync(self._ready)

    def _give_up_unbegun(self) -> None:
        reports = self._memory.give_up_unbegun(now=self.wall)
        self._journal.report(reports)
        for one in reports:
            self.disk.forget_plans(one.task)
        self._journal.write(self._memory.take_changes())
        self._journal.sync()

    def _ready(self) -> None:
        self._heartbeat()
        self.connect()

    def crash(self) -> None:
        """End the agent's process at once; what it started runs on."""
        self.life += 1
        self.is_up = False
        self._witness.trouble(self.host, DOWN)
        self.disconnect()
        self._witness.no_longer_cut_off(self.host)

    def freeze(self, duration_seconds: float) -> None:
        """Stand still: nothing is stopped meanwhile."""
        self._witness.no_longer_cut_off(self.host)
        self._witness.trouble(self.host, FROZEN)
        super().freeze(duration_seconds)

    def went_on(self) -> None:
        """Called when it does not stand still any more."""
        self._witness.trouble_over(self.host, FROZEN)

    def lose_host(self) -> None:
        """The host is gone, with everything that ran and was kept there."""
        self.crash()
        for run in self._witness.running_on(self.host):
            self._witness.ends(run)
        self.disk = self._new_disk()
        self.folder = Folder()
        self._witness.has_room(self.host)

    def lose_journal(self) -> None:
        """Its journal is deleted while it works, and then it is killed."""
        self.crash()
        self.disk = Disk(place=self.disk.place, plans=self.disk.plans)  # plans are files of their own

    def fill_disk(self, *, to_the_last_byte: bool) -> None:
        """There is little room on its disk, or none."""
        self.folder.has_little_room, self.folder.has_no_room = True, to_the_last_byte

    def make_room(self) -> None:
        """There is room on its disk."""
        self.folder.has_little_room = self.folder.has_no_room = False
        self._witness.has_room(self.host)

    def _look_for_room(self) -> None:
        self._knows_little_room = self.folder.has_little_room

    def _new_disk(self) -> Disk:
        return Disk(place=f"{self.random.getrandbits(64):016x}")

    def connect(self) -> None:
        """The network reaches it again."""
        self._connection += 1
        self.is_connected = self._is_reachable = True
        self._witness.no_longer_cut_off(self.host)
        self._witness.trouble_over(self.host, CUT_OFF)
        self._stop_if_cut_off()
        self._contact_at = self.world.now
        self._tell_heartbeat()
        self._journal.send()

    def disconnect(self) -> None:
        """The network does not reach it; the server notices a while later."""
        if self.is_up and self._is_reachable and not self.is_frozen:
            self._witness.cut_off(self.host)
        self._witness.trouble(self.host, CUT_OFF)
        self._is_reachable = False
        connection = self._connection

        def notice() -> None:
            if self._connection == connection:
                self.is_connected = False

        self.world.later(self.random.uniform(0.0, NOTICE_SECONDS_MAX), notice)

    def leave(self) -> None:
        """Stop in order: take nothing new, let applies end for a while, stop the rest."""
        self.is_leaving = True
        self._witness.trouble(self.host, LEAVING)
        self._give_up_unbegun()
        self._tell_heartbeat()
        self.later(0.5, lambda: self._attempts.stop_where(lambda one: not one.apply, leaving))
        self.later(APPLY_DRAIN_SECONDS, lambda: self._attempts.stop_where(lambda _: True, leaving))
        self.later(APPLY_DRAIN_SECONDS + 2 * STOP_SECONDS_MAX, self.crash)

    def _heartbeat(self) -> None:
        self.later(HEARTBEAT_SECONDS, self._heartbeat)
        self._look_for_room()
        self._tell_heartbeat()
        self._stop_if_cut_off()
        if self._is_reachable:
            self._contact_at = self.world.now

    def _stop_if_cut_off(self) -> None:
        """Also if the network is there again: one that stood still finds out when it wakes."""
        if self._is_cut_off:
            self._attempts.stop_where(lambda one: one.repeatable, fenced)

    @property
    def _is_cut_off(self) -> bool:
        return self.world.now - self._contact_at > SELF_FENCE_SECONDS

    def _retire(self, reason: str) -> None:
        """Another host has its name: stop what runs, tell the ends, and go."""
        self.world.note(f"{self.name} is told to go from {self.host}")
        self.is_leaving = True
        self._witness.trouble(self.host, LEAVING)
        self._give_up_unbegun()
        self._attempts.stop_where(lambda _: True, lambda _: replaced(reason))
        self.later(2 * STOP_SECONDS_MAX, self._retired)

    def _retired(self) -> None:
        self.crash()
        self.is_gone = self.is_retired = True

    def start_once_more(self) -> None:
        """Somebody starts it again, though it was told to go."""
        self.is_gone = self.is_retired = False
        self.start()

    def _tell_heartbeat(self) -> None:
        if not self._is_reachable:
            return
        heartbeat = Heartbeat(
            incarnation=self.incarnation,
            pool=self.pool,
            slots=self.slots,
            kinds=self.kinds,
            labels={"host": self.name},
            leaving=self.is_leaving,
            running=len(self._attempts),
            follows=self.disk.lineage[1:],
            place=self.disk.place,
            live=tuple(
                LiveAttempt(position=one.position, task=one.task, attempt=one.attempt, slot=one.slot)
                for one in self._memory.live
            ),
        )
        self._beat(self.name, _encode(heartbeat))

    # -- requests ------------------------------------------------------------------------------------------------------

    def receive(self, verb: str, data: bytes, reply: Reply) -> None:
        """A request arrives, if the connection over which it comes is still there."""
        if self.is_up and self._is_reachable:
            handle = self._on_cancel if verb == "cancel" else self._on_assign
            self.later(0.0, lambda: handle(data, reply))
            self.on_request(self)

    def _on_assign(self, data: bytes, reply: Reply) -> None:
        refusal = why_nothing_new(
            is_leaving=self.is_leaving,
            is_disk_full=self._knows_little_room,
            is_outbox_full=self._journal.is_full,
            is_cut_off=self._is_cut_off,
        )
        request = _decode_assign(data)
        if request.incarnation != self.incarnation:
            return
        decision = self._memory.assign(request, now=self.wall, refusal=refusal)
        to_run = [one for one in decision.begin if not self._attempts.complete_at_once(one)]
        self._carry_out(decision, reply, to_run)

    def _on_cancel(self, data: bytes, reply: Reply) -> None:
        request = _decode_cancel(data)
        if request.incarnation != self.incarnation:
            return
        if request.retire and not self.is_leaving:
            self._retire(request.retire)
        self._carry_out(self._memory.cancel(request.cancels, now=self.wall), reply, [])

    def _carry_out(self, decision: Decision, reply: Reply, to_run: list[Assignment]) -> None:
        self._journal.report(decision.reports)
        self._journal.write(self._memory.take_changes())
        self._attempts.begin(to_run)

        def durable() -> None:
            reply(_encode(AssignReply(answers=tuple(decision.answers))))
            for stop in decision.stops:
                self._attempts.stop(stop.position, requested(stop))
            for task in decision.plans_over:
                self.disk.forget_plans(task)

        self._journal.sync(durable)

    def say(self, batch: ReportBatch) -> None:
        """Report anything, true or not."""
        self.say_bytes(_encode(batch))

    def say_bytes(self, data: bytes) -> None:
        """Store any bytes where reports are stored."""
        self._servers.store(self._servers.reports, report_subject(self.name), data)
