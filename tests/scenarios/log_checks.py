"""What must be true of every run, read from the whole log of a system that runs, and compared with what HTTP tells.

Apart from the code that decides: it knows the contracts and reads the log, nothing else. What a task is at a position
is the fold of the contracts; who may hold what when is told here once more, from the events alone.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import nats

from taskyard.contracts.events import (
    OWNERS,
    AnyEvent,
    ApplyConfirmed,
    AttemptSucceeded,
    CommandRejected,
    SlotAssigned,
    TaskScheduled,
    TaskSubmitted,
    UnknownEvent,
    WorkerJoined,
    decode_event,
    event_name,
)
from taskyard.contracts.fleet import ANY_KIND
from taskyard.contracts.lifecycle import Phase, TaskRecord, Verdict
from taskyard.contracts.subjects import log_stream
from taskyard.contracts.tasks import Change, TaskTable
from taskyard.contracts.values import Instant, make_position
from taskyard.eventlog.commit import CommitCodec, StoredCommit
from taskyard.eventlog.jetstream import JetStreamLog

READ_SECONDS_MAX = 30.0
FAULTS_SHOWN_MAX = 30
HISTORIES_MAX = 20

_APPROVED_KIND = "plan_and_apply"
_SLOTS_FOR_PLANS = (1, 2)

LogEvent = AnyEvent | UnknownEvent


@dataclass(frozen=True, kw_only=True)
class Takeover:
    """An instance began to lead a writer, at this log time."""

    writer: str
    instance: str
    epoch: int
    at: Instant


class Run:
    """Folds a whole log, and collects what should not be.

    `records` are all tasks that were ever accepted, `ends` says how often each ended, `types` which events each has,
    `voids` how many of them without effect.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.records: dict[str, TaskRecord] = {}
        self.ends: Counter[str] = Counter()
        self.voids: Counter[str] = Counter()
        self.types: dict[str, list[str]] = {}
        self.takeovers: list[Takeover] = []
        self.head = 0
        self._table = TaskTable()
        self._at = Instant(0)
        self._chains: dict[str, tuple[int, str]] = {}
        self._leaders: dict[tuple[str, int], str] = {}
        self._commands: dict[str, str] = {}
        self._slots: dict[tuple[str, int], str] = {}
        self._workspaces: dict[tuple[str, str], str] = {}
        self._templates: dict[str, tuple[tuple[str, ...], ...]] = {}
        self._confirmed: dict[str, int] = {}
        self._attempts: dict[str, int] = {}

    def see(self, stored: StoredCommit[LogEvent]) -> None:
        """Fold the next commit."""
        commit = stored.commit
        self._require(stored.sequence == self.head + 1, f"commit {stored.sequence} follows {self.head}")
        self.head = stored.sequence
        self._require(stored.at >= self._at, f"the time of commit {stored.sequence} goes back")
        self._at = stored.at
        epoch, hash_before = self._chains.get(commit.writer, (0, ""))
        where = f"commit {stored.sequence} of {commit.writer}"
        self._require(commit.previous == hash_before, f"{where} names {commit.previous!r} and follows {hash_before!r}")
        self._require(commit.epoch >= epoch, f"{where} has epoch {commit.epoch} after {epoch}")
        if commit.epoch > epoch:
            self._require(not commit.events, f"{where} takes over and decides at once")
            self.takeovers.append(
                Takeover(writer=commit.writer, instance=commit.instance, epoch=commit.epoch, at=stored.at)
            )
        leader = self._leaders.setdefault((commit.writer, commit.epoch), commit.instance)
        self._require(leader == commit.instance, f"{where} is {commit.instance}'s in the epoch of {leader}")
        self._chains[commit.writer] = (commit.epoch, stored.hash)
        for index, event in enumerate(commit.events):
            self._require(isinstance(event, OWNERS[commit.writer]), f"{where} holds a {event_name(event)}")
            self._event(event, stored, index)

    def _event(self, event: LogEvent, stored: StoredCommit[LogEvent], index: int) -> None:
        where = f"{stored.sequence}.{index} {event_name(event)}"
        if isinstance(event, WorkerJoined):
            self._templates[event.worker] = event.slots
        if isinstance(event, TaskSubmitted):
            self._require(event.task not in self.records, f"{where}: {event.task} is accepted twice")
        self._decided_once(event, where)
        changes = self._table.apply(event, stored.at, make_position(stored.sequence, index))
        task = getattr(event, "task", None)
        if task is not None and not isinstance(event, CommandRejected):
            self._require(task in self.records or isinstance(event, TaskSubmitted), f"{where}: nobody knows {task}")
            self.types.setdefault(task, []).append(event_name(event))
            self.voids[task] += all(change.verdict is Verdict.VOID for change in changes)
        for change in changes:
            if change.record is not None and change.verdict is Verdict.EFFECTIVE:
                self._changed(event, change, change.record, where)

    def _decided_once(self, event: LogEvent, where: str) -> None:
        """A command bears one id and is decided once; a submission is told by its tasks' ids.

        What cannot be read is refused as often as it comes: whether its id is one is not known.
        """
        command = getattr(event, "command", None)
        is_submission = (isinstance(event, TaskSubmitted) and event.retry_of is None) or (
            isinstance(event, CommandRejected) and (event.verb == "submit" or event.status == 422)
        )
        if command is None or is_submission:
            return
        self._require(command not in self._commands, f"{where}: {command} was decided by {self._commands.get(command)}")
        self._commands[command] = where

    def _changed(self, event: LogEvent, change: Change, record: TaskRecord, where: str) -> None:
        self.records[record.id] = record
        self._slot(change, record, where)
        match event:
            case TaskScheduled() if record.kind == _APPROVED_KIND:
                holder = self._workspaces.setdefault((record.pool, record.queue), record.id)
                self._require(holder == record.id, f"{where}: {record.queue} is {holder}'s, not {record.id}'s")
            case SlotAssigned():
                self._assigned(event, record, where)
            case ApplyConfirmed():
                self._confirmed[record.id] = event.attempt
            case AttemptSucceeded() if record.kind == _APPROVED_KIND:
                plan = self._confirmed.get(record.id)
                self._require(plan is not None and plan < event.attempt, f"{where}: {record.id} applied unconfirmed")
            case _:
                pass
        if record.phase is Phase.PENDING and record.kind == _APPROVED_KIND:
            self._confirmed.pop(record.id, None)
        if record.has_ended:
            self.ends[record.id] += 1
            if self._workspaces.get((record.pool, record.queue)) == record.id:
                del self._workspaces[record.pool, record.queue]

    def _slot(self, change: Change, record: TaskRecord, where: str) -> None:
        if change.held is not None and change.held != record.held_slot:
            self._require(self._slots.pop(change.held, None) == record.id, f"{where}: {change.held} was not its own")
        if record.held_slot is not None:
            holder = self._slots.setdefault(record.held_slot, record.id)
            self._require(holder == record.id, f"{where}: {record.held_slot} is {holder}'s, not {record.id}'s")

    def _assigned(self, event: SlotAssigned, record: TaskRecord, where: str) -> None:
        before = self._attempts.get(record.id, 0)
        self._require(event.attempt > before, f"{where}: attempt {event.attempt} of {record.id} after {before}")
        self._attempts[record.id] = event.attempt
        template = self._templates[event.worker][event.slot]
        fits = ANY_KIND in template or record.kind in template
        self._require(fits, f"{where}: slot {event.slot} takes {template}, not {record.kind}")
        if event.slot in _SLOTS_FOR_PLANS:
            self._require(record.kind == "plan", f"{where}: a {record.kind} in slot {event.slot}")

    def idle(self) -> None:
        """Nothing may hold anything at the end."""
        self._require(not self._slots, f"slots are held at the end: {self._slots}")
        self._require(not self._workspaces, f"workspaces are held at the end: {self._workspaces}")

    def _require(self, holds: bool, fault: str) -> None:
        if not holds:
            self.faults.append(fault)


def read_log(data: Path) -> Run:
    """The whole log of the system that runs on this folder."""
    return asyncio.run(_read_log(data))


def check(data: Path, http: httpx.Client, waited_for: Iterable[str] = ()) -> Run:
    """Read everything and fail with all that is wrong. `waited_for` are ids of tasks that must have ended."""
    run = read_log(data)
    for id in waited_for:
        ended = run.ends[id]
        if ended != 1:
            run.faults.append(f"{id} ended {ended} times: {run.types.get(id)}")
    run.idle()
    run.faults += _differences(run, http)
    shown = "\n".join(run.faults[:FAULTS_SHOWN_MAX])
    assert not run.faults, f"{len(run.faults)} faults of the log\n{shown}"
    return run


async def _read_log(data: Path) -> Run:
    settings = json.loads((data / "config" / "services.json").read_text())
    client = await nats.connect(
        settings["nats_urls"], user=settings["control_user"], password=settings["control_password"]
    )
    try:
        codec = CommitCodec[LogEvent](AnyEvent, decode_event)
        partition = settings["partition"]
        log = JetStreamLog(client, log_stream(partition), f"taskyard.log.{partition}", codec)
        run = Run()
        async with asyncio.timeout(READ_SECONDS_MAX):
            async for stored in log.read(1, await log.head()):
                run.see(stored)
        return run
    finally:
        await client.close()


def _differences(run: Run, http: httpx.Client) -> list[str]:
    """Where the read model, once it has everything, differs from the fold. Nothing may run meanwhile."""
    shown = _all_tasks(http, run.head)
    faults = [f"{id} is in {where} only" for ids, where in _only(run, shown) for id in ids]
    for id, task in shown.items():
        if id not in run.records:
            continue
        record = run.records[id]
        told = tuple(task[name] for name in ("status", "attempt", "worker", "slot"))
        folded = (record.status.value, record.attempt, record.worker, record.slot)
        if told != folded:
            faults.append(f"{id} reads as {told} and folds to {folded}")
    for id in sorted(shown.keys() & run.records.keys())[-HISTORIES_MAX:]:
        history = http.get(f"/tasks/{id}/history").json()["items"]
        # A worker's events are in the histories of its tasks too, and the log does not name these tasks.
        types = [item["type"] for item in history if not item["type"].startswith("Worker")]
        if types != run.types[id]:
            faults.append(f"the history of {id} is {types}, in the log {run.types[id]}")
    return faults


def _only(run: Run, shown: dict[str, Any]) -> list[tuple[set[str], str]]:
    return [(run.records.keys() - shown.keys(), "the log"), (shown.keys() - run.records.keys(), "the read model")]


def _all_tasks(http: httpx.Client, head: int) -> dict[str, Any]:
    tasks: dict[str, Any] = {}
    parameters: dict[str, Any] = {"limit": 500, "after": str(head), "sort": "submitted_at"}
    while True:
        answer = http.get("/tasks", params=parameters)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        tasks |= {task["id"]: task for task in page["items"]}
        if page["next_cursor"] is None:
            return tasks
        parameters["cursor"] = page["next_cursor"]
