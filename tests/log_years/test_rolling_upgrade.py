"""A rolling upgrade: a writer one version ahead has appended to the log that today's services fold, decide on and show."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import nats
import pytest
from folding import CODEC, read_history
from log_servers import HISTORY, STREAM, Server, make_log, next_commit, open_log
from real_servers import service_settings
from system import System

from taskyard.contracts.events import (
    LOG_KEEPER,
    LOG_VERSION,
    LogVersionActivated,
    TaskScheduled,
    UnknownEvent,
    event_name,
    named_task,
)
from taskyard.contracts.values import Instant, make_position, make_uuid7
from taskyard.dispatcher.machine import Dispatcher
from taskyard.embedded.nats_users import CONTROL_KEEPER
from taskyard.eventlog.commit import Commit, hash_commit
from taskyard.eventlog.errors import FenceMoved, LogVersionUnknown
from taskyard.eventlog.jetstream import JetStreamLog
from taskyard.eventlog.leases import MemoryLease, MemoryLeases
from taskyard.eventlog.memory import MemoryLog, MemoryStream
from taskyard.eventlog.snapshots import MemorySnapshots
from taskyard.eventlog.versions import Activation, activate_version, read_version
from taskyard.machine.core import LoopCore, SavedLoop
from taskyard.machine.loop import MachineLoop
from taskyard.scheduler.machine import Scheduler
from taskyard.service import linked
from taskyard.slot_allocator.machine import SlotAllocator

TASK = "01a1fe98-829e-71ee-b445-436fcb4feff3"
NEXT_VERSION = LOG_VERSION + 1


def newer_commit(writer: str, *events: dict[str, Any], previous: str = "", epoch: int = 1) -> bytes:
    """What a writer of a newer version appends: unknown events, and unknown fields in the commit itself too."""
    fields = {"writer": writer, "instance": "newer", "epoch": epoch, "at": 0, "previous": previous, "cursors": {}}
    return msgspec.json.encode({**fields, "events": events, "weather": {"wind": 7}})


# -- the codec and the fold --------------------------------------------------------------------------------------------


def test_an_unknown_event_and_an_unknown_field_are_kept_and_the_rest_of_the_commit_is_understood() -> None:
    announced = {"type": "TaskAnnotated", "task": TASK, "note": {"text": "hm"}}
    data = newer_commit("scheduler", announced, {"type": "TaskScheduled", "task": TASK, "weight": 5})
    commit = CODEC.decode(data)
    unknown, scheduled = commit.events
    assert isinstance(unknown, UnknownEvent) and msgspec.json.decode(unknown.raw) == announced
    assert (event_name(unknown), named_task(unknown)) == ("TaskAnnotated", TASK)
    assert scheduled == TaskScheduled(task=TASK)


@pytest.mark.parametrize("raw", [b"5", b"null", b'"text"', b"[1]", b"{}", b'{"type":7}', b'{"type":"A","task":[]}'])
def test_an_event_of_any_form_has_a_name_and_stops_nothing(raw: bytes) -> None:
    commit = newer_commit("scheduler").replace(b'"events":[]', b'"events":[%s]' % raw)
    [event] = CODEC.decode(commit).events
    assert isinstance(event, UnknownEvent)
    assert isinstance(event_name(event), str) and isinstance(named_task(event), str)
    for machine in (Scheduler({}), SlotAllocator(10, 30), Dispatcher()):
        before = _state(machine)
        machine.apply(event, Instant(1), make_position(1, 0))
        assert _state(machine) == before


@pytest.mark.parametrize(
    "history", sorted(HISTORY.parent.glob("*.jsonl")), ids=lambda path: path.name.partition(".")[0]
)
def test_a_snapshot_with_fields_of_a_newer_version_is_restored_and_folded_on(history: Path) -> None:
    """Fields that are unknown here, at every level of the state, change nothing of what is known."""
    commits = read_history(history)
    for make in (lambda: Scheduler({}), lambda: SlotAllocator(10, 30), Dispatcher):
        for cut in range(0, len(commits), 5):
            before, restored = make(), make()
            for machine, some in ((before, commits[:cut]), (before, ()), (restored, ())):
                _fold(machine, some)
            restored.restore(msgspec.json.encode(_with_more_fields(msgspec.json.decode(before.snapshot()))))
            _fold(before, commits[cut:])
            _fold(restored, commits[cut:])
            assert restored.snapshot() == before.snapshot()


def test_the_loops_part_of_a_newer_snapshot_is_understood() -> None:
    saved = SavedLoop(sequence=5, log_time=Instant(7), writer_sequence=4, writer_hash="aa", epoch=2, cursors={"S": 1})
    newer = {**msgspec.to_builtins(saved), "mood": "good"}
    assert msgspec.json.decode(msgspec.json.encode(newer), type=SavedLoop) == saved


# -- versions of the log's meaning -------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_version_that_is_active_is_not_activated_again_and_one_that_is_unknown_not_at_all(
    server: Server,
) -> None:
    async with server.connected() as nc:
        await make_log(nc)
        log = open_log(nc)
        head = await log.head()
        assert await read_version(log) == 1
        assert await activate_version(log, CODEC, 1, by="me", now=Instant(0)) == Activation(version=1, sequence=0)
        with pytest.raises(LogVersionUnknown, match=f"version {NEXT_VERSION} is not known to this program"):
            await activate_version(log, CODEC, NEXT_VERSION, by="me", now=Instant(0))
        assert await log.head() == head


@pytest.mark.anyio
async def test_a_newer_program_activates_its_version_once_and_fenced(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskyard.eventlog.versions.LOG_VERSION", NEXT_VERSION + 1)
    async with server.connected() as nc:
        await make_log(nc)
        log = open_log(nc)
        first = await activate_version(log, CODEC, NEXT_VERSION, by="me", now=Instant(0))
        assert first == Activation(version=NEXT_VERSION, sequence=await log.head())
        assert await read_version(log) == NEXT_VERSION
        again = await activate_version(log, CODEC, NEXT_VERSION, by="me", now=Instant(0))
        assert again == Activation(version=NEXT_VERSION, sequence=0)
        second = await activate_version(log, CODEC, NEXT_VERSION + 1, by="me", now=Instant(0))
        last = await log.last(LOG_KEEPER)
        assert last is not None and last.sequence == second.sequence == first.sequence + 1
        with pytest.raises(FenceMoved):
            await log.append(next_commit("scheduler"), writer=LOG_KEEPER, expected=first.sequence)


@pytest.mark.anyio
async def test_no_service_starts_on_a_log_of_a_version_that_it_does_not_know(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with server.connected() as nc:
        await make_log(nc)
        with monkeypatch.context() as newer:
            newer.setattr("taskyard.eventlog.versions.LOG_VERSION", NEXT_VERSION)
            await activate_version(open_log(nc), CODEC, NEXT_VERSION, by="me", now=Instant(0))
    with pytest.raises(LogVersionUnknown, match=f"version {NEXT_VERSION} since commit"):
        async with linked("scheduler", service_settings(server.nats, postgres_dsn="")):
            pytest.fail("it has begun")


@pytest.mark.anyio
async def test_a_machine_that_does_not_know_the_version_stops_before_it_decides() -> None:
    stream = MemoryStream("LOG", lambda: Instant(time.time_ns() // 1000))
    log: MemoryLog[Any] = MemoryLog(stream, "log", CODEC)
    loop = MachineLoop(
        LoopCore(Scheduler({}), CODEC, "old"),
        log=log,
        lease=MemoryLease(MemoryLeases(lambda: Instant(time.time_ns() // 1000)), "scheduler"),
        lease_seconds=1.0,
        snapshots=MemorySnapshots(),
    )
    stop = asyncio.Event()
    running = asyncio.create_task(loop.run(stop, [], _nothing))
    async with asyncio.timeout(20):
        while await log.head() == 0:  # it leads
            await asyncio.sleep(0.005)
    _, activation = _activated()
    stream.store(f"log.{LOG_KEEPER}", activation)
    stream.store("log.scheduler", newer_commit("scheduler", {"type": "TaskScheduled", "task": TASK}))
    async with asyncio.timeout(20):
        with pytest.raises(LogVersionUnknown, match=f"version {NEXT_VERSION} since commit 2, which is not known"):
            await running
    # Nothing of what the newer version wrote was folded, and nothing was decided behind it.
    assert (loop.core.folded, await log.head()) == (1, 3)


@pytest.mark.anyio
async def test_what_stands_before_an_unknown_version_is_handed_out_first() -> None:
    stream = MemoryStream("LOG", lambda: Instant(1))
    log: MemoryLog[Any] = MemoryLog(stream, "log", CODEC)
    for _ in range(3):
        stream.store("log.scheduler", newer_commit("scheduler"))
    stream.store(f"log.{LOG_KEEPER}", _activated()[1])
    async with log.follow(0) as batches:
        assert [stored.sequence for stored in await anext(batches)] == [1, 2, 3]
        for _ in range(2):
            with pytest.raises(LogVersionUnknown):
                await anext(batches)
    with pytest.raises(LogVersionUnknown):
        await read_version(log)


# -- the whole system --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_services_run_on_over_a_newer_writer_and_stop_at_a_version_that_they_do_not_know(tmp_path: Path) -> None:
    system = System(tmp_path)
    system.start()
    try:
        before = system.submit("noop", input={})
        system.wait(before, "completed")
        _a_newer_scheduler_leads_for_a_while(system, before)
        _a_version_is_activated(system)
    finally:
        assert system.stop() == 0


def _a_newer_scheduler_leads_for_a_while(system: System, known: str) -> None:
    new = make_uuid7(Instant(time.time_ns() // 1000), 5)
    submitted = {
        "type": "TaskSubmitted", "task": new, "kind": "noop", "pool": "default", "queue": "default", "by": "admin",
        "input": {}, "digest": "00", "timeout_seconds": 60.0, "colour": "green",
    }  # fmt: skip
    annotated = {"type": "TaskAnnotated", "task": known, "note": "from the next version"}
    sequence = asyncio.run(_append_as_newer_scheduler(system, [annotated, submitted]))
    # Today's scheduler takes over again, and what the newer one accepted runs.
    assert system.wait(new, "completed")["kind"] == "noop"
    assert system.wait(system.submit("noop", input={}), "completed")
    shown = [item for item in system.history(known) if item["type"] == "TaskAnnotated"]
    assert [(item["void"], item["position"], item["data"]["note"]) for item in shown] == [
        (True, f"{sequence}.0", "from the next version")
    ]
    assert b"TaskAnnotated" in _first_events(system, f"{sequence - 1}.999", 1)
    assert asyncio.run(_stored(system, sequence)).count(b'"colour":"green"') == 1


def _a_version_is_activated(system: System) -> None:
    head = asyncio.run(_append_activation(system))
    services = ("scheduler", "slot_allocator", "dispatcher", "state_projector")

    def told(service: str) -> bool:
        log = (system.data / "logs" / f"{service}.log").read_text()
        return "stopped: this program is too old for the log" in log and f"version {NEXT_VERSION}" in log

    system.until(lambda: all(map(told, services)), "every service says why it stops")
    # However often they are started again: nobody appends any more.
    assert asyncio.run(_head(system)) == head


async def _append_as_newer_scheduler(system: System, events: list[dict[str, Any]]) -> int:
    """Take over as the scheduler, then decide, as a newer version does; the sequence of what it decided."""

    async def append(log: JetStreamLog[Any]) -> int:
        while True:
            last = await log.last("scheduler")
            assert last is not None
            epoch = last.commit.epoch + 1
            takeover = newer_commit("scheduler", previous=last.hash, epoch=epoch)
            try:
                fence = await log.append(takeover, writer="scheduler", expected=last.sequence)
                decided = newer_commit("scheduler", *events, previous=hash_commit(takeover), epoch=epoch)
                return await log.append(decided, writer="scheduler", expected=fence)
            except FenceMoved:
                continue  # today's scheduler was faster

    return await _with_log(system, append)


async def _append_activation(system: System) -> int:
    async def append(log: JetStreamLog[Any]) -> int:
        sequence = await log.append(_activated()[1], writer=LOG_KEEPER, expected=0)
        assert sequence == await log.head()
        return sequence

    return await _with_log(system, append)


async def _head(system: System) -> int:
    return await _with_log(system, lambda log: log.head())


async def _stored(system: System, sequence: int) -> bytes:
    async with _connection(system) as nc:
        return (await nc.jetstream().get_msg(STREAM, sequence)).data or b""


async def _with_log(system: System, act: Callable[[JetStreamLog[Any]], Any]) -> int:
    async with _connection(system) as nc:
        return await act(open_log(nc))


def _connection(system: System) -> Any:
    settings = json.loads((system.data / "config" / "services.json").read_text())

    class _Connected:
        async def __aenter__(self) -> nats.NATS:
            self.nc = await nats.connect(
                settings["nats_urls"], user=CONTROL_KEEPER, password=settings["control_password"]
            )
            return self.nc

        async def __aexit__(self, *_: object) -> None:
            await self.nc.close()

    return _Connected()


def _first_events(system: System, position: str, count: int) -> bytes:
    """What the event feed says from a position on."""
    with system.http.stream("GET", "/events", params={"from": position}) as answer:
        answer.raise_for_status()
        text = b""
        for part in answer.iter_bytes():
            text += part
            if text.count(b"\ndata:") >= count:
                return text
    raise httpx.ReadError("the feed ended")


def _activated() -> tuple[Commit[Any], bytes]:
    commit = Commit[Any](
        writer=LOG_KEEPER,
        instance="newer",
        epoch=0,
        at=Instant(0),
        events=(LogVersionActivated(version=NEXT_VERSION, by="newer"),),
    )
    return commit, CODEC.encode(commit)


def _with_more_fields(value: Any) -> Any:
    """A JSON value with an unknown field in every object that has the fields of a Struct, not ids or names, as keys."""
    match value:
        case dict():
            more = {name: _with_more_fields(each) for name, each in value.items()}
            return (
                more | {"of_the_next_version": [1, {"a": "b"}]}
                if {"id", "name", "tasks", "digest"} & set(value)
                else more
            )
        case list():
            return [_with_more_fields(each) for each in value]
        case _:
            return value


def _state(machine: Any) -> dict[str, Any]:
    """The folded state, without how far it was folded."""
    return {name: value for name, value in msgspec.json.decode(machine.snapshot()).items() if name != "folded"}


def _fold(machine: Any, commits: Any) -> None:
    machine.stand_by()
    for stored in commits:
        for index, event in enumerate(stored.commit.events):
            machine.apply(event, stored.at, make_position(stored.sequence, index))


async def _nothing(_effect: object) -> None:
    """Effects are not carried out."""
