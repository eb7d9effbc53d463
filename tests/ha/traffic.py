"""Clients that command all the time: over HTTP to whichever instance is ready, and over NATS, answered and only stored.

Each notes every command that was acknowledged, and everything that was no success.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import httpx
import msgspec
import nats
from installation import TOKEN, Installation, is_open
from nats.aio.client import Client

from taskyard.client import make_id

PAUSE_SECONDS = 0.05
ANSWER_SECONDS_MAX = 10.0
STORED_SECONDS_MAX = 5.0
READY_SECONDS = 0.1
"""How often the balancer looks who is ready."""


class Traffic:
    """Commands from `start` to `finish`. `again` sends a command that was not acknowledged once more, under its id."""

    def __init__(self, installation: Installation, *, again: bool) -> None:
        self._installation = installation
        self._again = again
        self.ids: list[str] = []
        self.failures: list[str] = []
        self.repeats: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.longest_answer: dict[str, float] = {}
        self.longest_gap: dict[str, float] = {}
        self._ready: list[str] = list(installation.http_urls)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        nc = await self._connect()
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS_MAX, trust_env=False) as http:
            balancing = asyncio.create_task(self._balance(http))
            try:
                async with asyncio.TaskGroup() as group:
                    for number in range(2):
                        group.create_task(self._command(f"http {number}", lambda body: self._over_http(http, body)))
                    group.create_task(self._command("nats answered", lambda body: self._answered(nc, body)))
                    group.create_task(self._command("nats stored", lambda body: self._stored(nc, body)))
            finally:
                balancing.cancel()
                await nc.close()

    async def _command(self, door: str, send: Callable[[bytes], Awaitable[str]]) -> None:
        acknowledged_at = time.monotonic()
        while not self._stop.is_set():
            id = make_id()
            body = msgspec.json.encode({"id": id, "kind": "noop", "input": {}})
            began = time.monotonic()
            while (fault := await send(body)) and self._again and not self._stop.is_set():
                self.repeats[door] += 1
                await asyncio.sleep(PAUSE_SECONDS)
            now = time.monotonic()
            if fault:
                if not self._again:
                    self.failures.append(f"{door}: {fault}")
            else:
                self.ids.append(id)
                self.counts[door] += 1
                self.longest_answer[door] = max(self.longest_answer.get(door, 0.0), now - began)
                self.longest_gap[door] = max(self.longest_gap.get(door, 0.0), now - acknowledged_at)
                acknowledged_at = now
            await asyncio.sleep(PAUSE_SECONDS)

    async def _balance(self, http: httpx.AsyncClient) -> None:
        """Be the load balancer: send to those that say that they are ready."""
        while True:
            ready: list[str] = []
            for url in self._installation.http_urls:
                try:
                    if (await http.get(f"{url}/readyz")).status_code == 200:
                        ready.append(url)
                except httpx.TransportError:
                    continue
            self._ready = ready or list(self._installation.http_urls)
            await asyncio.sleep(READY_SECONDS)

    async def _over_http(self, http: httpx.AsyncClient, body: bytes) -> str:
        url = next((url for url in self._ready if is_open(url)), self._ready[0])
        # Both in turn: each must answer.
        self._ready = self._ready[1:] + self._ready[:1]
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        try:
            answer = await http.post(f"{url}/api/v1/tasks", content=body, headers=headers)
        except httpx.TransportError as error:
            return f"{url}: {error!r}"
        return "" if answer.status_code == 202 and answer.json()["position"] else f"{url}: {answer.text}"

    async def _answered(self, nc: Client, body: bytes) -> str:
        try:
            answer = await nc.request("taskyard.request.admin.default.submit", body, timeout=ANSWER_SECONDS_MAX)
        except (nats.errors.Error, TimeoutError) as error:
            return repr(error)
        told = msgspec.json.decode(answer.data)
        return "" if told["code"] == 202 and told.get("position") else str(told)

    async def _stored(self, nc: Client, body: bytes) -> str:
        try:
            answer = await nc.request("taskyard.command.admin.default.submit", body, timeout=STORED_SECONDS_MAX)
        except (nats.errors.Error, TimeoutError) as error:
            return repr(error)
        told = msgspec.json.decode(answer.data)
        return "" if told.get("stream") and "error" not in told else str(told)

    async def _connect(self) -> Client:
        async def ignore(_: Exception) -> None:
            """Servers are killed here."""

        return await nats.connect(
            self._installation.nats_urls,
            user="admin",
            password=self._installation.nats.password("admin"),
            inbox_prefix=b"_INBOX_admin",
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,
            error_cb=ignore,
        )


@contextmanager
def traffic(installation: Installation, *, again: bool) -> Iterator[Traffic]:
    """Commands for as long as the block lasts."""
    flowing = Traffic(installation, again=again)
    flowing.start()
    try:
        yield flowing
    finally:
        flowing.finish()
