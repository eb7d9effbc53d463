"""The agent as a running program: wires memory, journal, outbox, attempts and the connection together."""

import asyncio
import logging
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec
from nats.aio.msg import Msg

from taskyard.agent import clock
from taskyard.agent.aside import standing_aside
from taskyard.agent.attempt import Host
from taskyard.agent.attempts import Attempts
from taskyard.agent.contact import Contact
from taskyard.agent.disk import Disk
from taskyard.agent.earlier_run import EarlierRun
from taskyard.agent.errors import JournalError, ReplacedError
from taskyard.agent.executors import Executor, command, noop, terraform
from taskyard.agent.executors.directories import Roots
from taskyard.agent.executors.functions import Functions, functions_of
from taskyard.agent.journal import Journal, Left
from taskyard.agent.link import Link
from taskyard.agent.logs import fields
from taskyard.agent.outbox import Outbox
from taskyard.agent.process import place_of
from taskyard.agent.refusing import why_nothing_new
from taskyard.agent.slots import Decision, SlotMemory
from taskyard.agent.stopping import fenced, leaving, replaced, requested
from taskyard.agent.supervised import Supervised
from taskyard.agent.supervisor.protocol import AttemptState
from taskyard.agent.task_users import WORD_ROOT, TaskUsers
from taskyard.agent.tracing import make_tracing
from taskyard.contracts.agent_protocol import (
    HEARTBEAT_SECONDS,
    START_SECONDS_MAX,
    Assignment,
    AssignReply,
    AssignRequest,
    CancelRequest,
    Heartbeat,
    LiveAttempt,
)
from taskyard.contracts.subjects import assign_subject, cancel_subject, heartbeat_subject
from taskyard.contracts.values import Position, TaskId
from taskyard.settings import AgentSettings

APPLY_DRAIN_SECONDS = 10.0
FLUSH_SECONDS = 3.0

_encode = msgspec.json.Encoder().encode
_decode_assign = msgspec.json.Decoder(AssignRequest).decode
_decode_cancel = msgspec.json.Decoder(CancelRequest).decode
_log = logging.getLogger(__name__)


async def run(settings: AgentSettings, stop: asyncio.Event, hand_over: asyncio.Event | None = None) -> None:
    """Run an agent until `stop` is set, then let its attempts end or end them; `hand_over`, set before, lets them go on.

    Raises:
        DirectoryInUseError: another agent works in the same directory.
        JournalError: the journal cannot be read or written; what runs goes on for the next agent.
        TaskUserError: tasks cannot run as whom the settings name.
        ModuleWithoutTasksError: a module that the settings name has no task.
        ReplacedError: another host has taken this agent's place; what ran was stopped.
    """
    directory = Path(settings.directory)
    functions = functions_of(settings.modules)
    users = TaskUsers(settings.run_as, slots=len(settings.slots), allow_root=settings.allow_root)
    disk = Disk(directory)
    journal = Journal(directory, incarnation=clock.make_incarnation())
    supervised = Supervised(directory)
    try:
        users.open_way(directory)
        await supervised.connect()
        async with asyncio.TaskGroup() as group:
            agent = Agent(
                settings,
                functions,
                journal,
                journal.left,
                supervised=supervised,
                disk=disk,
                users=users,
                group=group,
                stop=stop,
            )
            await agent.run(hand_over or asyncio.Event())
            agent.cancel_background()
        if agent.retired_for is not None:
            raise ReplacedError(agent.retired_for)
    except BaseExceptionGroup as errors:
        if errors.subgroup(JournalError) is not None:
            raise JournalError(
                "the journal cannot be written; what runs goes on until the agent is started again"
            ) from errors
        raise
    finally:
        journal.close()
        await supervised.close(leave_running=True)


class Agent:
    """One agent. Handlers decide by the memory, and answer when it is durable; programs begin no sooner."""

    def __init__(
        self,
        settings: AgentSettings,
        functions: Mapping[str, str],
        journal: Journal,
        left: Left,
        *,
        supervised: Supervised,
        disk: Disk,
        users: TaskUsers,
        group: asyncio.TaskGroup,
        stop: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._supervised = supervised
        self._disk = disk
        journal.on_full = disk.release
        self._journal = journal
        self._group = group
        self._background: list[asyncio.Task[None]] = []
        self._leaving = False
        self._stop = stop
        self.retired_for: str | None = None
        """Why this agent has to go for good, None if it has not."""
        self._place = place_of(Path(settings.directory))
        self._beat_now = asyncio.Event()
        self._earlier = EarlierRun(Path(settings.directory), left.live, supervised)
        self._executors = _make_executors(settings, functions, {one.position for one in left.live})
        self._tracing = make_tracing(settings)
        self._link = Link(
            urls=settings.nats_urls,
            name=settings.name,
            password=settings.password,
            handlers={
                assign_subject(settings.name): self._on_assign,
                cancel_subject(settings.name): self._on_cancel,
            },
            on_up=self._come_up,
        )
        self._contact = Contact(self._link.has_contact, lambda: self._attempts.stop_where(_is_repeatable, fenced))
        self._outbox = Outbox(
            agent=settings.name, incarnation=journal.incarnation, store=journal, sender=self._link, kept=left.batches
        )
        journal.before_commit(self._outbox.seal)
        self._kinds = (*sorted(self._executors if users.may_run_code else ()), noop.KIND)
        if not users.may_run_code:
            _log.error(WORD_ROOT)
        self._memory = SlotMemory(
            lineage=(journal.incarnation, *journal.lineage),
            slot_count=len(settings.slots),
            kinds=self._kinds,
            remembered=left.slots,
            live=left.live,
        )
        host = Host(
            name=settings.name,
            directory=Path(settings.directory),
            output_bytes_max=settings.output_bytes_max,
            memory=self._memory,
            journal=journal,
            outbox=self._outbox,
            sender=self._link,
            supervised=supervised,
            executors=self._executors,
            users=users,
            tracing=self._tracing,
        )
        self._attempts = Attempts(group=group, host=host)

    async def run(self, hand_over: asyncio.Event) -> None:
        """Go on with what an earlier run began, tell what is lost of it, work until `stop`, leave in order."""
        self._background = [self._group.create_task(self._supervised.run())]
        await self._earlier.end_strangers(self._journal)
        await self._earlier.settle(self._memory, self._journal, self._outbox, self._forget)
        for left in self._earlier.resumed:
            await self._resume(left)
        work = (
            self._link.run(),
            self._outbox.run(),
            self._beat(),
            self._contact.watch(),
            self._watch_journal(),
            self._watch_disk(),
            self._watch_unbegun(),
        )
        self._background += [self._group.create_task(one) for one in work]
        _log.info(
            "the agent runs",
            extra=fields(agent=self._settings.name, incarnation=self._journal.incarnation, kinds=self._kinds),
        )
        await self._stop.wait()
        await (self._hand_over() if hand_over.is_set() else self._leave())

    async def _resume(self, left: AttemptState) -> None:
        _log.info("an attempt of an earlier run goes on", extra=fields(position=left.attempt))
        try:
            self._attempts.resume(left)
        except Exception:  # noqa: BLE001 (one that nobody can go on with must not keep the agent from the others)
            _log.exception("an attempt of an earlier run cannot go on", extra=fields(position=left.attempt))
            await self._earlier.end(left, self._memory, self._journal, self._outbox, self._forget)

    def cancel_background(self) -> None:
        """End the loops that would go on for ever."""
        for task in self._background:
            task.cancel()

    async def _on_assign(self, message: Msg) -> None:
        request = _decode_assign(message.data)
        if request.incarnation != self._journal.incarnation:
            return  # another of this name may be meant, and would be drowned out by an answer
        decision = self._memory.assign(request, now=clock.now(), refusal=self._refusal)
        to_run = [one for one in decision.begin if not self._complete_at_once(one)]
        await self._carry_out(decision, message, to_run)

    @property
    def _refusal(self) -> str | None:
        """Why nothing new may begin now."""
        return why_nothing_new(
            is_leaving=self._leaving,
            is_disk_full=self._disk.is_full,
            is_outbox_full=self._outbox.full,
            is_cut_off=self._contact.is_cut_off,
        )

    async def _on_cancel(self, message: Msg) -> None:
        request = _decode_cancel(message.data)
        if request.incarnation != self._journal.incarnation:
            return
        if request.retire and self.retired_for is None:
            self._retire(request.retire)
        decision = self._memory.cancel(request.cancels, now=clock.now())
        await self._carry_out(decision, message, [])

    def _retire(self, reason: str) -> None:
        """Another host has this name now: stop what runs, tell its ends, and go."""
        _log.error("another agent of this name has taken this one's place", extra=fields(reason=reason))
        self.retired_for = reason
        self._give_up_unbegun()
        self._attempts.stop_where(lambda _: True, lambda _: replaced(reason))
        self._stop.set()

    async def _carry_out(self, decision: Decision, message: Msg, to_run: list[Assignment]) -> None:
        for position, error in decision.faults:
            _log.error("could not be judged", exc_info=error, extra=fields(position=position))
        self._outbox.add(decision.reports)
        self._journal.write_memory(self._memory.take_changes())
        self._attempts.begin(to_run)
        for stop in decision.stops:
            with standing_aside("a stop", position=stop.position):
                self._attempts.stop(stop.position, requested(stop))
        await self._journal.sync()
        for task in decision.plans_over:
            self._forget(task)
        # Last: the connection may be gone, and what is left out here would not be asked for again.
        if message.reply:
            await message.respond(_encode(AssignReply(answers=tuple(decision.answers))))

    def _complete_at_once(self, assignment: Assignment) -> bool:
        if assignment.kind != noop.KIND:
            return False
        started, ended = noop.complete(assignment, now=clock.now())
        self._memory.ended(assignment.position, ended)
        self._outbox.add((started, ended))
        if self._tracing is not None:
            with standing_aside("a trace", task=assignment.task):
                self._tracing.ran(assignment, started.at, ended.at, None)
        return True

    async def _beat(self) -> None:
        """Tell that the agent is there: at once when it is connected or leaves, then regularly."""
        while True:
            self._beat_now.clear()
            with standing_aside("a heartbeat"):
                await self._tell_heartbeat()
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._beat_now.wait()
            except TimeoutError:
                continue

    def _come_up(self) -> None:
        """There is a connection, and its server has answered."""
        self._contact.made()
        self._beat_now.set()

    async def _watch_disk(self) -> None:
        """While the disk is full spools take as little as they can, and nothing new begins."""
        was_full = False
        while True:
            with standing_aside("a look at the disk"):
                self._disk.check()
                if self._disk.is_full:
                    self._supervised.squeeze()
            if self._disk.is_full != was_full:
                was_full = self._disk.is_full
                _log.warning("the disk is full" if was_full else "the disk has room again")
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _watch_journal(self) -> None:
        await self._journal.failed.wait()
        raise JournalError("the journal cannot be written")

    async def _watch_unbegun(self) -> None:
        """What an earlier run has accepted and not begun is assigned again soon; if it is not, it is lost.

        Nobody can assign anything before the server was there.
        """
        await self._contact.begun.wait()
        await asyncio.sleep(START_SECONDS_MAX)
        self._give_up_unbegun()
        await self._journal.sync()

    def _give_up_unbegun(self) -> None:
        reports = self._memory.give_up_unbegun(now=clock.now())
        for one in reports:
            self._forget(one.task)
        self._outbox.add(reports)
        self._journal.write_memory(self._memory.take_changes())

    async def _leave(self) -> None:
        """Take nothing new, wait for what runs, stop the rest, send what is unsent."""
        _log.info("the agent leaves", extra=fields(running=len(self._attempts)))
        self._leaving = True
        self._give_up_unbegun()
        await self._tell_heartbeat()
        await self._attempts.idle(timeout_seconds=self._settings.drain_seconds)
        self._attempts.force_where(lambda one: not one.apply, leaving)
        if self._attempts.any_applies():
            await self._attempts.idle(timeout_seconds=APPLY_DRAIN_SECONDS)
            self._attempts.force_where(lambda _: True, leaving)
        await self._attempts.idle(timeout_seconds=None)
        await self._close()
        await self._supervised.close(leave_running=False)

    async def _hand_over(self) -> None:
        """Take nothing new, and go: what runs goes on, and the next agent of this folder takes it over."""
        _log.info("the agent hands over", extra=fields(running=len(self._attempts)))
        self._leaving = True
        self._attempts.let_go()
        await self._close()
        await self._supervised.close(leave_running=True)

    async def _close(self) -> None:
        if not await self._outbox.flushed(timeout_seconds=FLUSH_SECONDS):
            _log.warning("left with unsent reports; they are kept for the next start")
        await self._journal.sync()
        await self._link.close()
        if self._tracing is not None:
            await self._tracing.close()

    async def _tell_heartbeat(self) -> None:
        heartbeat = Heartbeat(
            incarnation=self._journal.incarnation,
            pool=self._settings.pool,
            slots=tuple(tuple(kinds) for kinds in self._settings.slots),
            kinds=self._kinds,
            labels=self._settings.labels,
            leaving=self._leaving,
            running=len(self._attempts),
            follows=self._journal.lineage,
            place=self._place,
            live=tuple(
                LiveAttempt(position=one.position, task=one.task, attempt=one.attempt, slot=one.slot)
                for one in self._memory.live
            ),
            reason=self._refusal or "",
        )
        await self._link.publish(heartbeat_subject(self._settings.name), _encode(heartbeat))

    def _forget(self, task: TaskId) -> None:
        for executor in set(self._executors.values()):
            with standing_aside("what is kept of a task", task=task):
                executor.forget(task)


def _is_repeatable(assignment: Assignment) -> bool:
    return assignment.repeatable


def _make_executors(
    settings: AgentSettings, functions: Mapping[str, str], live: Collection[Position]
) -> dict[str, Executor]:
    """What this host can run besides `noop`, by kind."""
    directory = Path(settings.directory)
    executors: list[Executor] = [command.Command(directory / "work", live)]
    if functions:
        executors.append(Functions(functions, directory / "functions", live))
    program = settings.terraform or terraform.find_program()
    if program and not shutil.which(program[0]):
        _log.error("Terraform is not there, so plans are not taken", extra=fields(terraform=program[0]))
    elif program:
        executors.append(
            terraform.Terraform(
                program,
                directory / "terraform",
                roots=Roots(settings.terraform_roots),
                environment=settings.terraform_environment,
            )
        )
    return {kind: executor for executor in executors for kind in executor.kinds}
