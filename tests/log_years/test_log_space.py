"""Room for the log is watched: JetStream's own limits and the disk, told before there is none left."""

import json
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
from log_servers import SPEC, Server
from nats.aio.client import Client

from taskyard.eventlog import space
from taskyard.eventlog.jetstream_api import api_request, publish
from taskyard.eventlog.space import FREE_BYTES_ENOUGH, FREE_SHARE_MIN, LogSpace, Room
from taskyard.eventlog.streams import stream_config

MEBIBYTE = 1 << 20
GIBIBYTE = 1 << 30

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("free", "size", "is_scarce"),
    [
        (GIBIBYTE, 9 * GIBIBYTE, False),
        (GIBIBYTE, 11 * GIBIBYTE, True),
        (0, GIBIBYTE, True),
        (5 * GIBIBYTE, 1000 * GIBIBYTE, True),
        (FREE_BYTES_ENOUGH, 100_000 * GIBIBYTE, False),
        (int(100 * MEBIBYTE * FREE_SHARE_MIN) - 1, 100 * MEBIBYTE, True),
    ],
)
async def test_room_is_scarce_below_a_share_unless_there_is_plenty(free: int, size: int, is_scarce: bool) -> None:
    assert Room(limit="disk", free=free, size=size).is_scarce is is_scarce


async def test_the_limits_of_the_server_and_the_disk_are_known(server: Server, tmp_path: Path) -> None:
    async with server.connected() as nc:
        look = LogSpace(nc, monitoring_urls=[server.nats.monitor_url], directory=tmp_path)
        rooms = {room.limit: room for room in await look.rooms()}
    # The account of the log has no limit of its own.
    assert sorted(rooms) == ["disk", "server"]
    assert all(0 < room.free <= room.size for room in rooms.values())


async def test_what_gives_no_answer_is_left_out(server: Server, tmp_path: Path) -> None:
    async with server.connected() as nc:
        look = LogSpace(nc, monitoring_urls=["http://127.0.0.1:9"], directory=tmp_path / "absent")
        assert await look.rooms() == ()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Server]:
    """A server whose account of the log may hold 2 MiB."""
    server = Server(tmp_path / "small")
    file = tmp_path / "small" / "nats-server.conf"
    configuration = json.loads(file.read_text())
    configuration["accounts"]["CONTROL"]["jetstream"] = {"max_store": 2 * MEBIBYTE, "max_mem": MEBIBYTE}
    file.write_text(json.dumps(configuration))
    server.nats.start()
    yield server
    server.nats.stop()


async def test_a_log_that_fills_is_told_before_it_is_full(small: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "LOOK_SECONDS", 0.0)
    async with small.connected() as nc:
        await api_request(nc, f"STREAM.CREATE.{SPEC.name}", stream_config(SPEC, 1))
        look = LogSpace(nc)
        stored = 0
        while not (await _account(look)).is_scarce:
            await publish(nc, "taskyard.log.0.scheduler", bytes(100_000))
            stored += 1
        assert stored > 10
        assert "MiB are free (account)" in (await _account(look)).told
        # There was still room when it was told.
        await publish(nc, "taskyard.log.0.scheduler", bytes(100_000))


async def test_the_room_is_not_looked_for_at_every_question(server: Server) -> None:
    asked: list[str] = []

    class Counting(Client):
        """Asked by nobody twice."""

        async def request(self, subject: str, *arguments: object, **options: object) -> object:
            asked.append(subject)
            raise nats.errors.TimeoutError

    look = LogSpace(Counting())
    assert [await look.rooms() for _ in range(5)] == [()] * 5
    assert asked == ["$JS.API.INFO"]


async def _account(look: LogSpace) -> Room:
    return next(room for room in await look.rooms() if room.limit == "account")
