"""A simulated agent: the real memory of slots, and around it what an agent does with disk, processes and network.

It decides by the memory, makes that durable, answers, and only then acts, as `taskyard.agent.app` does.
"""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from taskyard.agent.slots import Decision, Live, ProcessIdentity, Remembered, SlotMemory
from taskyard.contracts.agent_protocol import (
    HEARTBEAT_SECONDS,
    AnyReport,
    Assignment,
    AssignReply,
    AssignRequest,
    CancelRequest,
    Failed,
    Heartbeat,
    Planned,
    Progressed,
    ReportBatch,
    Started,
    Succeeded,
)
from taskyard.contracts.events import Changes, TaskError
from taskyard.contracts.kinds import KINDS, OnLost
from taskyard.contracts.lifecycle import PLAN_MISSING
from taskyard.contracts.subjects import report_subject
from taskyard.contracts.values import Instant, Position, TaskId
from taskyard.simulation.evidence import Ran
from taskyard.simulation.host import Disk, Witness
from taskyard.simulation.network import Network, Reply
from taskyard.simulation.streams import Servers
from taskyard.simulation.time import Process, Step

SELF_FENCE_SECONDS = 4.0
"""Before the allocator of this world declares a worker lost."""
STOP_SECONDS_MAX = 1.5
STORE_SECONDS_MAX = 2.0
NOTICE_SECONDS_MAX = 3.0
"""How long the server may believe in a connection that is gone."""
APPLY_DRAIN_SECONDS = 3.0

RECONFIGURED_CHANCE = 0.2
TEMPLATES: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("any",), ("plan",), ("plan",)),
    (("any",), ("any",)),
    (("any",),),
    (("plan",), ("any",), ("any",), ("any",)),
)
"""What slots a worker may come back with; the first is the default."""

_encode = msgspec.json.Encoder().encode
_decode_assign = msgspec.json.Decoder(AssignRequest).decode
_decode_cancel = msgspec.json.Decoder(CancelRequest).decode
_decode_remembered = msgspec.json.Decoder(Remembered).decode
_decode_live = msgspec.json.Decoder(Live).decode


@dataclass(kw_only=True)
class _Attempt:
    assignment: Assignment
    stop: TaskError | None = None
    run: Ran | None = None


class Agent(Process):
    """One agent on one host. `beat` is told every heartbeat that gets out."""

    def __init__(
        self,
        name: str,
        slots: tuple[tuple[str, ...], ...],
        servers: Servers,
        network: Network,
        *,
        witness: Witness,
        beat: Callable[[str, bytes], None],
    ) -> None:
        super().__init__(servers.world, name)
        self.slots = slots
        self.disk = Disk()
        self.is_connected = False
        self.is_leaving = False
        # Only in some seeds, so that those of found failures stay what they are.
        self.is_restless = servers.world.seed % 3 == 1
        self.slowness = servers.world.random.choice((1.0, 1.0, 4.0))
        self.on_request: Callable[[Agent], None] = lambda _: None
        self._is_reachable = False
        self._contact_at = 0.0
        self._servers = servers
        self._network = network
        self._witness = witness
        self._beat = beat
        self._memory: SlotMemory
        self._running: dict[Position, _Attempt] = {}
        self._open: list[AnyReport] = []
        self._number = 0
        self._after_sync: list[Step] = []
        self._pending: list[Step] = []
        self._is_sync_due = False
        self._is_sending = False
        self._connection = 0
        network.agents[name] = self

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the agent on its disk: what an earlier run left running is killed and reported lost."""
        disk = self.disk
        self.life += 1
        self.is_up, self.is_leaving = True, False
        if self.is_restless and self.world.chance(RECONFIGURED_CHANCE):
            self.slots = self.world.random.choice(TEMPLATES)
        self._running, self._open, self._number = {}, [], 0
        self._after_sync, self._pending = [], []
        self._is_sync_due = self._is_sending = False
        disk.incarnation = max(self.wall // 1000, disk.incarnation + 1)
        disk.born = disk.incarnation if disk.born is None else disk.born
        left = [_decode_live(disk.live[position]) for position in sorted(disk.live)]
        for run in self._witness.runs:
            if run.host == self.name and run.ended is None and run.position in disk.live:
                self._witness.ends(run)
        self._memory = SlotMemory(
            born=disk.born,
            incarnation=disk.incarnation,
            slot_count=len(self.slots),
            kinds=tuple(KINDS),
            remembered={slot: _decode_remembered(record) for slot, record in disk.slots.items()},
            live=left,
        )
        self._open += self._memory.lose_all(now=self.wall)
        for live in left:
            disk.forget_plans(live.task)
        self._write_memory()
        self._sync(self._ready)

    def _ready(self) -> None:
        self._heartbeat()
        self.connect()

    def crash(self) -> None:
        """End the agent's process at once; what it started runs on."""
        self.life += 1
        self.is_up = False
        self.disconnect()

    def lose_host(self) -> None:
        """The host is gone, with everything that ran and was kept there."""
        self.crash()
        for run in self._witness.runs:
            if run.host == self.name:
                self._witness.ends(run)
        self.disk = Disk()

    def connect(self) -> None:
        """The network reaches it again."""
        self._connection += 1
        self.is_connected = self._is_reachable = True
        self._contact_at = self.world.now
        self._tell_heartbeat()
        self._send_reports()

    def disconnect(self) -> None:
        """The network does not reach it; the server notices a while later."""
        self._is_reachable = False
        connection = self._connection

        def notice() -> None:
            if self._connection == connection:
                self.is_connected = False

        self.world.later(self.world.random.uniform(0.0, NOTICE_SECONDS_MAX), notice)

    def leave(self) -> None:
        """Stop in order: take nothing new, let applies end for a while, stop the rest."""
        self.is_leaving = True
        self._tell_heartbeat()
        self.later(0.5, lambda: self._stop_where(lambda one: not one.apply, _leaving))
        self.later(APPLY_DRAIN_SECONDS, lambda: self._stop_where(lambda _: True, _leaving))
        self.later(APPLY_DRAIN_SECONDS + 2 * STOP_SECONDS_MAX, self.crash)

    def _heartbeat(self) -> None:
        self.later(HEARTBEAT_SECONDS, self._heartbeat)
        self._tell_heartbeat()
        if self._is_reachable:
            self._contact_at = self.world.now
        elif self.world.now - self._contact_at > SELF_FENCE_SECONDS:
            self._stop_where(_retries, _self_fenced)

    def _tell_heartbeat(self) -> None:
        if not self._is_reachable:
            return
        heartbeat = Heartbeat(
            incarnation=self.disk.incarnation,
            pool="default",
            slots=self.slots,
            kinds=tuple(KINDS),
            leaving=self.is_leaving,
            running=len(self._running),
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
        refusal = "draining" if self.is_leaving else None
        decision = self._memory.assign(_decode_assign(data), now=self.wall, refusal=refusal)
        to_run = [one for one in decision.begin if not self._complete_at_once(one)]
        self._carry_out(decision, reply, to_run)

    def _on_cancel(self, data: bytes, reply: Reply) -> None:
        self._carry_out(self._memory.cancel(_decode_cancel(data).cancels, now=self.wall), reply, [])

    def _carry_out(self, decision: Decision, reply: Reply, to_run: list[Assignment]) -> None:
        self._open += decision.reports
        self._write_memory()
        for one in to_run:
            attempt = _Attempt(assignment=one)
            self._running[one.position] = attempt
            self._sync(lambda attempt=attempt: self._spawn(attempt))

        def durable() -> None:
            reply(_encode(AssignReply(answers=tuple(decision.answers))))
            for stop in decision.stops:
                code = "timeout" if stop.cause == "timeout" else "cancelled"
                self._stop(stop.position, TaskError(code=code, message=f"stopped: {stop.cause}"))
            for task in decision.plans_over:
                self.disk.forget_plans(task)

        self._sync(durable)

    def _complete_at_once(self, one: Assignment) -> bool:
        if one.kind != "noop":
            return False
        now = self.wall
        end = Succeeded(task=one.task, attempt=one.attempt, at=now)
        self._memory.ended(one.position, end)
        self._open += (Started(task=one.task, attempt=one.attempt, at=now), end)
        # Before it is durable nobody hears of it, and a crash undoes it.
        self._sync(lambda: self._witness.ends(self._witness.begins(self._ran(one))))
        return True

    # -- attempts ------------------------------------------------------------------------------------------------------

    def _spawn(self, attempt: _Attempt) -> None:
        """Make the process; its program runs only when it is written down."""
        one = attempt.assignment
        if attempt.stop is not None:
            self._ended(attempt, _failed(one, attempt.stop, self.wall))
            return
        if one.apply and (one.task, one.plan_attempt or 0) not in self.disk.plans:
            error = TaskError(code=PLAN_MISSING, message="the plan is not on this worker")
            self._ended(attempt, _failed(one, error, self.wall))
            return
        self._memory.spawned(one.position, ProcessIdentity(pid=one.position, start_ticks=1, boot="simulated"))
        self._memory.began(one.position)
        self._open.append(Started(task=one.task, attempt=one.attempt, at=self.wall))
        self._write_memory()
        self._sync(lambda: self._open_gate(attempt))

    def _open_gate(self, attempt: _Attempt) -> None:
        one, random = attempt.assignment, self.world.random
        if attempt.stop is not None:
            self._ended(attempt, _failed(one, attempt.stop, self.wall))
            return
        attempt.run = run = self._witness.begins(self._ran(one))
        if not one.apply:
            self.disk.forget_plans(one.task)
        takes = random.choice((0.01, 0.1, 0.5, 1.0, 2.0, 4.0)) * random.uniform(0.5, 1.5) * self.slowness
        outcome = random.random()
        self.later(takes / 2, lambda: self._progress(attempt))
        timeout = TaskError(code="timeout", message="execution timeout")
        self.later(one.timeout_seconds, lambda: self._stop(one.position, timeout))

        def exited() -> None:
            if run.ended is None:
                self._witness.ends(run)
                self.later(0.0, lambda: self._exited(attempt, outcome))

        self.world.later(takes, exited)

    def _exited(self, attempt: _Attempt, outcome: float) -> None:
        one = attempt.assignment
        if attempt.stop is not None:
            report: AnyReport = _failed(one, attempt.stop, self.wall)
        elif outcome > 0.85:
            error = TaskError(code="exit_status", message="failed", retryable=outcome > 0.92)
            report = _failed(one, error, self.wall)
        elif one.kind == "plan_and_apply" and not one.apply:
            self.disk.plans.add((one.task, one.attempt))
            changes = Changes(add=1 + one.attempt, change=0, destroy=0)
            report = Planned(task=one.task, attempt=one.attempt, at=self.wall, changes=changes)
        else:
            report = Succeeded(task=one.task, attempt=one.attempt, at=self.wall, result=msgspec.Raw(b'{"exit_code":0}'))
        self._ended(attempt, report)

    def _ended(self, attempt: _Attempt, report: AnyReport) -> None:
        one = attempt.assignment
        if not isinstance(report, Planned):
            self.disk.forget_plans(one.task)
        self._memory.ended(one.position, report)
        self._write_memory()
        self._open.append(report)
        del self._running[one.position]
        self._sync(lambda: None)

    def _progress(self, attempt: _Attempt) -> None:
        if attempt.run is not None and attempt.run.ended is None:
            one = attempt.assignment
            self._open.append(Progressed(task=one.task, attempt=one.attempt, at=self.wall, progress=50, message="half"))
            self._sync(lambda: None)

    def _stop(self, position: Position, error: TaskError) -> None:
        attempt = self._running.get(position)
        if attempt is None or attempt.stop is not None:
            return
        attempt.stop = error
        run = attempt.run
        if run is None:
            return  # it will not begin

        def killed() -> None:
            if run.ended is None:
                self._witness.ends(run)
                self.later(0.0, lambda: self._exited(attempt, 0.0))

        self.later(self.world.random.uniform(0.0, STOP_SECONDS_MAX), killed)

    def _stop_where(self, condition: Callable[[Assignment], bool], error: Callable[[Assignment], TaskError]) -> None:
        for position, attempt in list(self._running.items()):
            if condition(attempt.assignment):
                self._stop(position, error(attempt.assignment))

    def _ran(self, one: Assignment) -> Ran:
        return Ran(
            host=self.name,
            slot=one.slot,
            position=one.position,
            task=one.task,
            attempt=one.attempt,
            kind=one.kind,
            apply=one.apply,
            began=self.world.now,
        )

    # -- disk and reports ----------------------------------------------------------------------------------------------

    def _write_memory(self) -> None:
        changes = self._memory.take_changes()
        slots = [(slot, _encode(record)) for slot, record in changes.slots]
        live = [(position, None if one is None else _encode(one)) for position, one in changes.live]

        def write() -> None:
            self.disk.slots.update(slots)
            for position, record in live:
                if record is None:
                    self.disk.live.pop(position, None)
                else:
                    self.disk.live[position] = record

        self._pending.append(write)

    def _sync(self, then: Step) -> None:
        self._after_sync.append(then)
        if not self._is_sync_due:
            self._is_sync_due = True
            self.later(self.world.random.uniform(0.0005, 0.01), self._commit)

    def _commit(self) -> None:
        """One transaction: everything that was written until now, and the batches of what is to be reported."""
        self._is_sync_due = False
        for write in self._pending:
            write()
        self._pending = []
        if self._open:
            self._number += 1
            batch = ReportBatch(incarnation=self.disk.incarnation, number=self._number, reports=tuple(self._open))
            self.disk.batches[self.disk.incarnation, self._number] = _encode(batch)
            self._open = []
        after, self._after_sync = self._after_sync, []
        for then in after:
            then()
        self._send_reports()

    def _send_reports(self) -> None:
        """One batch at a time, again and again until it is stored."""
        if self._is_sending or not self.disk.batches or not self.is_up or not self._is_reachable:
            return
        self._is_sending = True
        key = next(iter(self.disk.batches))
        data = self.disk.batches[key]
        is_over = False

        def store() -> None:
            if not self._network.is_log_away:
                id = f"{self.name}-{key[0]}-{key[1]}"
                self._servers.store(self._servers.reports, report_subject(self.name), data, id=id)
                self._network.carry(lambda: self.later(0.0, stored))

        def stored() -> None:
            self.disk.batches.pop(key, None)
            again()

        def again() -> None:
            nonlocal is_over
            if not is_over:
                is_over, self._is_sending = True, False
                self._send_reports()

        self._network.carry(store)
        self.later(STORE_SECONDS_MAX, again)

    def say(self, batch: ReportBatch) -> None:
        """Report anything, true or not."""
        self._servers.store(self._servers.reports, report_subject(self.name), _encode(batch))


def _retries(assignment: Assignment) -> bool:
    return KINDS[assignment.kind].on_lost is OnLost.RETRY


def _self_fenced(assignment: Assignment) -> TaskError:
    return TaskError(code="self_fenced", message="no contact", retryable=_retries(assignment))


def _leaving(assignment: Assignment) -> TaskError:
    return TaskError(code="worker_stopped", message="the worker was stopped", retryable=_retries(assignment))


def _failed(one: Assignment, error: TaskError, at: Instant) -> Failed:
    return Failed(task=TaskId(one.task), attempt=one.attempt, at=at, error=error)
