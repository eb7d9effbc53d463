"""`log verify` and `log tail`: the checks by themselves, and the commands over a real nats-server."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest
from cli_server import SECOND, Run
from real_servers import nats_running, service_settings

from taskyard.cli.verification import Verification
from taskyard.contracts.events import AnyEvent, TaskDispatched, TaskScheduled, decode_event
from taskyard.contracts.subjects import log_stream, log_subject, streams
from taskyard.contracts.values import Instant, TaskId
from taskyard.embedded.nats_server import NatsServer
from taskyard.embedded.nats_users import CONTROL_KEEPER
from taskyard.eventlog.commit import Commit, CommitCodec, hash_commit
from taskyard.eventlog.log import StreamMessage
from taskyard.eventlog.streams import stream_config

CODEC: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)
EVENTS = {"scheduler": TaskScheduled(task=TaskId(SECOND)), "dispatcher": TaskDispatched(task=TaskId(SECOND), attempt=1)}
Message = tuple[str, bytes]


def a_log(*writers: str) -> list[Message]:
    """A whole log: a commit of each of these writers, chained to its one before."""
    hashes: dict[str, str] = {}
    messages: list[Message] = []
    for writer in writers:
        commit = Commit[Any](
            writer=writer,
            instance="a",
            epoch=1,
            at=Instant(0),
            previous=hashes.get(writer, ""),
            events=(EVENTS[writer],),
        )
        data = CODEC.encode(commit)
        hashes[writer] = hash_commit(data)
        messages.append((writer, data))
    return messages


def altered(message: Message, **changes: Any) -> Message:
    writer, data = message
    return writer, msgspec.json.encode(msgspec.json.decode(data) | changes)


def verified(messages: list[Message], *, missing: tuple[int, ...] = (), head: int | None = None) -> Verification:
    found = Verification()
    found.see(
        StreamMessage(sequence=sequence, at=Instant(sequence), subject=log_subject("0", writer), data=data)
        for sequence, (writer, data) in enumerate(messages, 1)
        if sequence not in missing
    )
    found.end(len(messages) if head is None else head)
    return found


WHOLE = a_log("scheduler", "dispatcher", "scheduler", "dispatcher", "scheduler")


def test_a_whole_log_has_no_breaks() -> None:
    found = verified(WHOLE)
    assert (found.found, found.commits, found.events) == (0, 5, 5)
    assert {c.writer: (c.commits, c.first, c.last) for c in found.chains.values()} == {
        "scheduler": (3, 1, 5), "dispatcher": (2, 2, 4),
    }  # fmt: skip


def test_an_empty_log_is_whole() -> None:
    assert verified([]).found == 0


@pytest.mark.parametrize(
    ("messages", "missing", "head", "whats"),
    [
        (WHOLE, (3,), 5, ["commits 3 to 3 are missing", "names"]),
        (WHOLE, (1, 2), 5, ["commits 1 to 2 are missing", "first", "first"]),
        (WHOLE, (), 7, ["commits 6 to 7 are missing at the end"]),
        ([*WHOLE[:2], altered(WHOLE[2], instance="b"), *WHOLE[3:]], (), 5, ["names"]),
        ([*WHOLE[:4], altered(WHOLE[4], epoch=0)], (), 5, ["epoch 0 after epoch 1"]),
        ([*WHOLE[:4], altered(WHOLE[4], previous="")], (), 5, ["names none"]),
        ([*WHOLE, ("scheduler", b"{")], (), 6, ["not readable"]),
        ([*WHOLE, altered(WHOLE[4], writer="dispatcher")], (), 6, ["not readable"]),
    ],
)
def test_every_sort_of_break_is_found(
    messages: list[Message], missing: tuple[int, ...], head: int, whats: list[str]
) -> None:
    found = verified(messages, missing=missing, head=head)
    assert len(found.breaks) == found.found == len(whats)
    assert all(what in b.what for what, b in zip(whats, found.breaks, strict=True))


def test_an_event_of_a_newer_version_is_counted_and_no_break() -> None:
    found = verified([altered(WHOLE[0], events=[{"type": "SomethingNew", "task": SECOND}])])
    assert (found.found, found.unknown_events) == (0, 1)


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_running(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def store(nats_server: NatsServer, tmp_path: Path) -> Callable[[str, list[Message]], Path]:
    """Stores messages in the log of a partition of its own; the file of settings for it."""

    async def fill(partition: str, messages: list[Message]) -> None:
        nc = await nats.connect(nats_server.url, user=CONTROL_KEEPER, password=nats_server.password(CONTROL_KEEPER))
        spec = next(spec for spec in streams(partition) if spec.name == log_stream(partition))
        created = await nc.request(f"$JS.API.STREAM.CREATE.{spec.name}", msgspec.json.encode(stream_config(spec, 1)))
        assert b'"error"' not in created.data
        for writer, data in messages:
            await nc.jetstream().publish(log_subject(partition, writer), data)
        await nc.close()

    def stored(partition: str, messages: list[Message]) -> Path:
        asyncio.run(fill(partition, messages))
        settings = service_settings(nats_server, postgres_dsn="", partition=partition)
        file = tmp_path / "config" / "services.json"
        file.parent.mkdir()
        file.write_bytes(msgspec.json.encode(settings))
        return file

    return stored


def test_verify_of_a_whole_log_ends_with_0(run: Run, store: Callable[..., Path]) -> None:
    file = store("a", WHOLE)
    shown = run("log", "verify", "--config", str(file))
    assert shown.status == 0 and "whole: 5 commits with 5 events" in shown.out
    [found] = run("log", "verify", "--json", "--connection", str(file.parent.parent / "connection.json")).objects
    assert (
        found["ok"] and found["commits"] == 5 and [w["writer"] for w in found["writers"]] == ["dispatcher", "scheduler"]
    )


def test_verify_of_a_broken_log_shows_where_and_ends_with_1(run: Run, store: Callable[..., Path]) -> None:
    file = store("b", [*WHOLE[:2], ("scheduler", b"no commit"), *WHOLE[3:]])
    shown = run("log", "verify", "--config", str(file))
    assert shown.status == 1 and "not readable" in shown.out and "2 breaks in" in shown.out
    ran = run("log", "verify", "--config", str(file), "--json")
    assert ran.status == 1 and [b["sequence"] for b in ran.objects[0]["breaks"]] == [3, 5]


def test_tail_shows_events_from_a_position(run: Run, store: Callable[..., Path]) -> None:
    file = store("c", WHOLE)
    assert len(run("log", "tail", "--config", str(file)).out.splitlines()) == 5
    ran = run("log", "tail", "--config", str(file), "--from", "4.0", "--json")
    assert [(e["position"], e["writer"], e["type"]) for e in ran.objects] == [
        ("4.0", "dispatcher", "TaskDispatched"), ("5.0", "scheduler", "TaskScheduled"),
    ]  # fmt: skip
    assert ran.objects[0]["data"] == {"task": SECOND, "attempt": 1}
    assert run("log", "tail", "--config", str(file), "--from", "x").status == 2


def test_without_nats_the_log_commands_end_with_4(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "services.json"
    names = ("control_user", "control_password", "fleet_user", "fleet_password", "postgres_dsn")
    file.write_text(json.dumps({"nats_urls": ["nats://127.0.0.1:9"], **dict.fromkeys(names, "x")}))
    ran = run("log", "verify", "--config", str(file))
    assert ran.status == 4 and "nats://127.0.0.1:9 is not reachable" in ran.err
