"""A nats-server whose disk was full stores nothing any more, also when there is room, and says so: it has to be started anew."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nats
import nats.errors
import pytest

from taskyard.embedded.nats_server import NatsServer
from taskyard.embedded.nats_users import CONTROL_KEEPER

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small disk needs root on Linux"
)
SECONDS_MAX = 20.0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Sets the size of the disk of the server in `tmp_path`."""
    store = tmp_path / "store"
    store.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(store)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting is not permitted here")

    def resize(size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(store)], check=True)

    try:
        yield resize
    finally:
        subprocess.run(["umount", "--lazy", str(store)], check=True)


def test_a_server_whose_disk_was_full_says_so_until_it_is_started_again(
    tmp_path: Path, small_disk: Callable[[str], None]
) -> None:
    asyncio.run(fill_and_free(tmp_path, small_disk))


async def fill_and_free(tmp_path: Path, small_disk: Callable[[str], None]) -> None:
    server = NatsServer(tmp_path)
    server.start()
    try:
        client = await nats.connect(server.url, user=CONTROL_KEEPER, password=server.password(CONTROL_KEEPER))
        stream = client.jetstream(timeout=1)
        await stream.add_stream(name="S", subjects=["s"])
        await stream.publish("s", b"before")
        assert server.write_error() is None
        assert server.has_room()

        found = os.statvfs(tmp_path / "store")
        small_disk(str((found.f_blocks - found.f_bfree) * found.f_frsize))
        await until(lambda: publish_fails(stream))
        assert "no space left" in (server.write_error() or "")
        assert not server.has_room()

        small_disk("1g")
        assert await publish_fails(stream)
        assert server.write_error() is not None
        assert server.has_room()

        server.stop()
        server.start()
        await until(lambda: publish_works(stream))
        assert server.write_error() is None
        await client.close()
    finally:
        server.stop()


async def publish_works(stream: nats.js.JetStreamContext) -> bool:
    try:
        await stream.publish("s", b"x" * 4096)
    except (nats.errors.Error, nats.js.errors.Error, TimeoutError):
        return False
    return True


async def publish_fails(stream: nats.js.JetStreamContext) -> bool:
    return not await publish_works(stream)


async def until(condition) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        while not await condition():
            await asyncio.sleep(0.02)
