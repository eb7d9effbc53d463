"""How much room there is left for the log: by JetStream's own limits, and on the disk where that is known; and how full streams
are that have a limit.

A log that has no room left stores no command and no commit, and says so only by silence: it must be seen to fill.
"""

import asyncio
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct
from nats.aio.client import Client

from taskyard.eventlog.errors import EventLogError
from taskyard.eventlog.jetstream_api import api_request, stream_info
from taskyard.eventlog.monitoring import MonitoringUnreachable, read_jetstream

FREE_SHARE_MIN = 0.1
FREE_BYTES_ENOUGH = 10 << 30
"""Room is scarce where less than this share of it is free, unless as much as this is."""
FILL_SHARE_MAX = 0.8
"""A stream that holds more of its limit will soon be full."""
ANSWER_SECONDS_MAX = 2.0
LOOK_SECONDS = 10.0
"""Room is looked for at most this often: it does not change faster than this matters."""


class Room(Struct, frozen=True, kw_only=True):
    """One limit to the log, in bytes. `limit` names it: `account`, `server` (JetStream's store), or `disk`."""

    limit: str
    free: int
    size: int

    @property
    def is_scarce(self) -> bool:
        """Whether somebody should make room, or archive, soon."""
        return self.free < min(self.size * FREE_SHARE_MIN, FREE_BYTES_ENOUGH)

    @property
    def told(self) -> str:
        """What is left, in words."""
        return f"{self.free / (1 << 20):,.0f} MiB of {self.size / (1 << 20):,.0f} MiB are free ({self.limit})"


class Fill(Struct, frozen=True, kw_only=True):
    """How full a stream is that refuses what is new once it is full, in bytes."""

    stream: str
    held: int
    size: int

    @property
    def share(self) -> float:
        """The part of its limit that it holds."""
        return self.held / self.size

    @property
    def warning(self) -> str | None:
        """What is told where it will soon be full."""
        if self.share <= FILL_SHARE_MAX:
            return None
        held, size = self.held / (1 << 20), self.size / (1 << 20)
        return f"{self.share:.0%} full ({held:,.0f} of {size:,.0f} MiB): what is full refuses what is new; give it more room"


class Fills:
    """Looks how full streams are, each over a connection of its account. What gives no answer, or has no limit, is left out."""

    def __init__(self, clients: Mapping[str, Client]) -> None:
        self._clients = clients
        self._fills: tuple[Fill, ...] = ()
        self._looked_at = -LOOK_SECONDS

    async def look(self) -> tuple[Fill, ...]:
        """What is known; it is looked at most every LOOK_SECONDS."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            found = await asyncio.gather(*(_fill(nc, stream) for stream, nc in self._clients.items()))
            self._fills = tuple(fill for fill in found if fill is not None)
        return self._fills


async def _fill(nc: Client, stream: str) -> Fill | None:
    try:
        found = await stream_info(nc, stream, timeout=ANSWER_SECONDS_MAX)
    except EventLogError:
        return None
    size = found.config.get("max_bytes")
    return Fill(stream=stream, held=found.state.bytes, size=size) if isinstance(size, int) and size > 0 else None


class LogSpace:
    """Looks for the room that is left, over the connection `nc` in the account of the log.

    `monitoring_urls` are those of all servers, which tell their own limits; `directory` is the folder that a server on
    this host stores in, where it is one.
    """

    def __init__(self, nc: Client, *, monitoring_urls: Sequence[str] = (), directory: Path | None = None) -> None:
        self._nc = nc
        self._monitoring_urls = monitoring_urls
        self._directory = directory
        self._rooms: tuple[Room, ...] = ()
        self._looked_at = -LOOK_SECONDS

    async def rooms(self) -> tuple[Room, ...]:
        """The limits that are known, the scarcest of each sort; what gives no answer is left out."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            pages = [asyncio.to_thread(_server_room, url) for url in self._monitoring_urls]
            found = await asyncio.gather(self._account_room(), asyncio.to_thread(_disk_room, self._directory), *pages)
            self._rooms = _scarcest([room for room in found if room is not None])
        return self._rooms

    async def _account_room(self) -> Room | None:
        try:
            answer = await api_request(self._nc, "INFO", timeout=ANSWER_SECONDS_MAX)
            account = msgspec.json.decode(answer, type=_Account)
        except (EventLogError, msgspec.DecodeError):
            return None
        return _room("account", account.limits.max_storage, account.storage)


class _Limits(Struct, frozen=True):
    max_storage: int = -1


class _Account(Struct, frozen=True):
    storage: int = 0
    limits: _Limits = _Limits()


class _Server(Struct, frozen=True):
    storage: int = 0
    config: _Limits = _Limits()


def _server_room(url: str) -> Room | None:
    try:
        server = msgspec.json.decode(read_jetstream(url), type=_Server)
    except (MonitoringUnreachable, msgspec.DecodeError):
        return None
    return _room("server", server.config.max_storage, server.storage)


def _disk_room(directory: Path | None) -> Room | None:
    if directory is None:
        return None
    try:
        usage = shutil.disk_usage(directory)
    except OSError:
        return None
    return Room(limit="disk", free=usage.free, size=usage.total)


def _room(limit: str, size: int, used: int) -> Room | None:
    """The room below a limit of JetStream; none where there is no limit."""
    return Room(limit=limit, free=max(size - used, 0), size=size) if size > 0 else None


def _scarcest(rooms: Sequence[Room]) -> tuple[Room, ...]:
    found: dict[str, Room] = {}
    for room in rooms:
        known = found.get(room.limit)
        if known is None or room.free < known.free:
            found[room.limit] = room
    return tuple(found.values())
