"""A small client over NATS: commands with an answer, and stored submissions as fast as the broker takes them.

    async with connect(".taskyard/connection.json") as taskyard:
        task = await taskyard.submit("command", {"argv": ["uptime"]})
        await taskyard.cancel(task.id, reason="not needed")

Reading goes over HTTP. Every task and command gets an id here, so whatever is sent again is decided once; where this
machine's clock is wrong and its ids are refused, the door makes them.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from nats.aio.client import Client as NatsClient
from nats.errors import Error as NatsError

from taskyard.contracts.commands import COMMAND_BYTES_MAX, TASKS_PER_COMMAND_MAX
from taskyard.contracts.events import FieldError
from taskyard.contracts.subjects import command_subject, request_subject
from taskyard.contracts.values import POOL_DEFAULT, PRIORITY_DEFAULT, Instant, make_uuid7
from taskyard.contracts.verbs import SUBMIT

CONNECT_SECONDS_MAX = 5.0
"""How long to try until the first connection stands; one that is lost later is sought for ever."""
REQUEST_SECONDS_MAX = 10.0
"""Longer than a door waits for the verdict (5 s)."""
STORE_SECONDS_MAX = 5.0
STORE_TRIES_MAX = 6
"""Together longer than the 4 to 9 s that a leader election leaves without an answer."""
STORES_IN_FLIGHT_MAX = 8
ENVELOPE_BYTES = 128

T = TypeVar("T")

_log = logging.getLogger(__name__)


class CommandRefused(Exception):
    """The command was answered with a problem. `code` is the HTTP status, `error` a short code, `errors` name fields."""

    def __init__(self, code: int, error: str, detail: str, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(f"{code} {error}: {detail}")
        self.code = code
        self.error = error
        self.detail = detail
        self.errors = errors


class NotAnswered(Exception):
    """Nobody answered, or nothing that is an answer, or storing was not acknowledged; the effect is unknown.

    Remedy: send it again with its id.
    """


class Connection(Struct, frozen=True, kw_only=True):
    """What of `connection.json` a client over NATS needs."""

    nats_url: str
    nats_user: str
    nats_password: str
    nats_inbox_prefix: str


class Accepted(Struct, frozen=True, kw_only=True):
    """A command was stored. `id` is the task that it made; `position` is null when no verdict came in time."""

    id: str | None = None
    position: str | None = None


class _Reply(Struct):
    code: int
    id: str | None = None
    position: str | None = None
    error: str | Any = ""
    detail: str = ""
    errors: tuple[FieldError, ...] = ()


class _StoreAck(Struct):
    stream: str = ""
    error: Any = None


@asynccontextmanager
async def connect(connection_file: str | Path) -> AsyncIterator["Client"]:
    """Connect as the principal of a `connection.json`.

    Raises:
        NotAnswered: nobody listens there, or does not let this principal in.
        OSError, msgspec.DecodeError: the file cannot be read, or is none.
    """
    connection = msgspec.json.decode(Path(connection_file).read_bytes(), type=Connection)
    nc = NatsClient()
    try:
        await _open(nc, connection)
        yield Client(nc, connection.nats_user)
    finally:
        await nc.close()


class Client:
    """Commands of one principal over a connection that somebody else opens and closes."""

    def __init__(self, nc: NatsClient, principal: str, *, pool: str = POOL_DEFAULT) -> None:
        self._nc = nc
        self._principal = principal
        self._pool = pool

    async def submit(
        self,
        kind: str,
        input: object,  # noqa: A002 - the field's name
        *,
        id: str | None = None,
        pool: str | None = None,
        queue: str | None = None,
        priority: int = PRIORITY_DEFAULT,
        timeout_seconds: float | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Accepted:
        """Submit one task and wait for the verdict. Raises `CommandRefused`, `NotAnswered`."""
        body: dict[str, object] = {"kind": kind, "input": input, "priority": priority}
        optional = {"id": id, "queue": queue, "timeout_seconds": timeout_seconds, "labels": labels}
        body |= {name: value for name, value in optional.items() if value is not None}
        return await self.request(SUBMIT, body, pool=pool)

    async def submit_many(
        self,
        tasks: Iterable[Mapping[str, object]],
        *,
        pool: str | None = None,
        on_stored: Callable[[int], None] | None = None,
    ) -> list[str]:
        """Store many tasks (bodies as in JSON) without waiting for their verdicts; the ids, in order.

        `on_stored` is told the number of tasks of each command when it is stored.

        Raises:
            NotAnswered: storing was not acknowledged, tries included.
        """
        subject = command_subject(self._principal, pool or self._pool, SUBMIT)
        ids: list[str] = []
        slots = asyncio.Semaphore(STORES_IN_FLIGHT_MAX)

        async def store(data: bytes, count: int) -> None:
            try:
                await self._store(subject, data)
            finally:
                slots.release()
            if on_stored is not None:
                on_stored(count)

        try:
            async with asyncio.TaskGroup() as group:
                for items in _packed(tasks, ids):
                    await slots.acquire()
                    data = b'{"id":"%s","tasks":[%s]}' % (make_id().encode(), b",".join(items))
                    group.create_task(store(data, len(items)))
        except* NotAnswered as failures:
            raise failures.exceptions[0] from failures
        return ids

    async def cancel(self, task: str, *, reason: str = "", pool: str | None = None) -> Accepted:
        """Ask a task to stop."""
        return await self.request("cancel", {"task": task, "reason": reason}, pool=pool)

    async def force_stop(self, task: str, *, reason: str, pool: str | None = None) -> Accepted:
        """End a task at once, whatever its process does (admins only)."""
        return await self.request("force-stop", {"task": task, "reason": reason}, pool=pool)

    async def release(self, task: str, *, reason: str, pool: str | None = None) -> Accepted:
        """Give up a held task whose host is gone for good (admins only)."""
        return await self.request("release", {"task": task, "reason": reason}, pool=pool)

    async def retry(self, task: str, *, reason: str = "", pool: str | None = None) -> Accepted:
        """Run a task that ended badly again, as a new task: its id is in the answer."""
        return await self.request("retry", {"task": task, "reason": reason}, pool=pool)

    async def confirm(
        self, task: str, *, attempt: int | None = None, comment: str = "", pool: str | None = None
    ) -> Accepted:
        """Let the plan that was shown be applied; `attempt` names the one that was seen."""
        return await self.request("confirm", _approval(task, attempt, comment), pool=pool)

    async def discard(
        self, task: str, *, attempt: int | None = None, comment: str = "", pool: str | None = None
    ) -> Accepted:
        """Do not apply the plan that was shown; `attempt` names the one that was seen."""
        return await self.request("discard", _approval(task, attempt, comment), pool=pool)

    async def request(self, verb: str, body: Mapping[str, object], *, pool: str | None = None) -> Accepted:
        """Send any command and wait for its verdict.

        Raises:
            CommandRefused: the answer is a problem.
            NotAnswered: there is no answer.
        """
        subject = request_subject(self._principal, pool or self._pool, verb)
        reply = await self._request(subject, {"id": make_id(), **body})
        if "id" not in body and reply.code == 422 and any(error.path == "id" for error in reply.errors):
            reply = await self._request(subject, body)
        if reply.code >= 300:
            raise CommandRefused(reply.code, str(reply.error), reply.detail, reply.errors)
        return Accepted(id=reply.id, position=reply.position)

    async def _request(self, subject: str, body: Mapping[str, object]) -> _Reply:
        return await self._ask(subject, msgspec.json.encode(body), REQUEST_SECONDS_MAX, _Reply)

    async def _store(self, subject: str, data: bytes) -> None:
        """Store one command, trying again while nothing is acknowledged: its id makes it be decided once."""
        for attempt in range(1, STORE_TRIES_MAX + 1):
            try:
                ack = await self._ask(subject, data, STORE_SECONDS_MAX, _StoreAck)
                if ack.stream and ack.error is None:
                    return
                cause = NotAnswered(f"{subject}: {ack.error}")
            except NotAnswered as error:
                cause = error
            if attempt == STORE_TRIES_MAX:
                raise cause
            await asyncio.sleep(0.1 * 2**attempt)

    async def _ask(self, subject: str, data: bytes, seconds_max: float, kind: type[T]) -> T:
        try:
            answer = await self._nc.request(subject, data, timeout=seconds_max)
            return msgspec.json.decode(answer.data, type=kind)
        except (NatsError, TimeoutError, OSError, msgspec.DecodeError) as error:
            raise NotAnswered(f"{subject}: {_text(error)}") from error


def make_id() -> str:
    """A fresh UUIDv7."""
    return make_uuid7(Instant(time.time_ns() // 1_000), secrets.randbits(74))


async def _open(nc: NatsClient, connection: Connection) -> None:
    try:
        # nats-py tries for ever where it may reconnect for ever, also before it was ever connected.
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            await nc.connect(
                connection.nats_url,
                user=connection.nats_user,
                password=connection.nats_password,
                inbox_prefix=connection.nats_inbox_prefix.encode(),
                allow_reconnect=True,
                max_reconnect_attempts=-1,
                error_cb=_on_error,
                name=f"taskyard client {connection.nats_user}",
            )
    except (NatsError, TimeoutError, OSError) as error:
        cause = nc.last_error or error
        raise NotAnswered(f"{connection.nats_url}: {_text(cause)}") from error


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


def _approval(task: str, attempt: int | None, comment: str) -> dict[str, object]:
    body: dict[str, object] = {"task": task, "comment": comment}
    return body if attempt is None else {**body, "attempt": attempt}


def _packed(tasks: Iterable[Mapping[str, object]], ids: list[str]) -> Iterable[list[bytes]]:
    """The tasks in as few commands as their limits allow; each gets an id, which is noted in `ids`."""
    items: list[bytes] = []
    size = 0
    for task in tasks:
        id = str(task.get("id") or make_id())
        ids.append(id)
        item = msgspec.json.encode({**task, "id": id})
        if items and (len(items) == TASKS_PER_COMMAND_MAX or size + len(item) + 1 > COMMAND_BYTES_MAX - ENVELOPE_BYTES):
            yield items
            items, size = [], 0
        items.append(item)
        size += len(item) + 1
    if items:
        yield items


async def _on_error(error: Exception) -> None:
    """A denied publish shows here only; nats-py would print it."""
    _log.warning("NATS reported an error", extra={"error": str(error)})
