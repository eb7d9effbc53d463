"""Mixed load over every door, again and again with the same ids until it is accepted; and what was accepted when."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx
import msgspec
import nats.errors
from nats.aio.client import Client as NatsClient

from taskyard.chaos.system import System
from taskyard.chaos.witnesses import Witnesses
from taskyard.client import make_id
from taskyard.contracts.subjects import command_subject, request_subject
from taskyard.contracts.values import POOL_DEFAULT, Instant, parse_position
from taskyard.judge.evidence import Told

TICK_SECONDS = 0.1
COMMAND_SHARE = 0.1
TERRAFORM_SECONDS = 15.0
"""One plan and one plan_and_apply in so many seconds: each is seconds of processor time."""
MEDDLE_SECONDS = 1.0
WORKSPACES = 3
SLOW_WORKSPACE = "workspace-slow"
SLOW_APPLY = "for second in 1 2 3 4 5 6; do echo $second; sleep 1; done"
"""It prints: what dies when nobody reads it any more would die here."""
BURST, BURST_TASKS = 300, 100
"""So many commands at once, of so many tasks each of which is none: what is refused is told of every one."""
BATCH_MAX = 200
"""What one tick sends at most, however late it comes."""
BATCHES_IN_FLIGHT_MAX = 400
"""When so many batches wait for an answer nothing new is sent: a client that is not heard holds back."""
UNDER_WAY_MAX = 5_000
"""The same when so many tasks have not ended: a machine that is too slow for the load would never come to an end."""
REQUEST_SECONDS_MAX = 8.0
RETRY_SECONDS = 0.5
REMEMBERED_MAX = 500
PRINCIPAL = "admin"

ACCEPTED, INTERNAL = 202, 500
COME_AGAIN = frozenset((429, 503, 504))


@dataclass
class Account:
    """What clients know. `accepted` says when a task was acknowledged; `unsure` were sent and never acknowledged."""

    accepted: dict[str, Instant] = field(default_factory=dict[str, Instant])
    unsure: set[str] = field(default_factory=set[str])
    told: list[Told] = field(default_factory=list[Told])
    refused: list[str] = field(default_factory=list[str])
    held_back: int = 0


class _Entry(msgspec.Struct):
    id: str | None = None
    position: str | None = None
    error: Any = None


class _Answer(msgspec.Struct):
    tasks: list[_Entry] = []
    code: int = ACCEPTED
    stream: str = ""
    error: Any = None


_Door = Callable[[list[dict[str, Any]]], Awaitable[_Answer | None]]
"""Sends a batch; None if nobody answered, or nobody can now."""


class Load:
    """Puts load on the system until it is stopped. `ended` says how many tasks have ended.

    A few commands take `long_seconds`, and a few have little more time than that.
    """

    def __init__(
        self,
        *,
        system: System,
        witnesses: Witnesses,
        http: httpx.AsyncClient,
        client: NatsClient,
        random: Random,
        ended: Callable[[], int],
        long_seconds: float = 2.0,
    ) -> None:
        self.account = Account()
        self._system = system
        self._witnesses = witnesses
        self._http = http
        self._client = client
        self._ended = ended
        self._random = random
        self._long_seconds = long_seconds
        self._recent: list[str] = []
        self._doors: tuple[_Door, ...] = (self._by_http, self._by_request, self._by_http, self._stored)
        self._batches: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._is_over = asyncio.Event()
        self._configurations = [
            str(witnesses.configuration(system.layout.directory / "terraform" / f"workspace-{number}"))
            for number in range(WORKSPACES)
        ]
        self.slow_configuration = witnesses.configuration(
            system.layout.directory / "terraform" / SLOW_WORKSPACE, work=SLOW_APPLY
        )

    async def run(self, *, rate: float, has_terraform: bool) -> None:
        """Send `rate` tasks a second until `stop`. `has_terraform` says whether workers can run plans."""
        begun, sent = time.monotonic(), 0
        terraform_at, meddle_at = begun, begun + MEDDLE_SECONDS
        while not self._is_over.is_set():
            now = time.monotonic()
            due = int((now - begun) * rate) - sent
            sent += due
            tasks = [self._task() for _ in range(min(due, BATCH_MAX))]
            self.account.held_back += due - len(tasks)
            if has_terraform and now >= terraform_at:
                terraform_at += TERRAFORM_SECONDS
                tasks += self._terraform_tasks()
            if now >= meddle_at:
                meddle_at += MEDDLE_SECONDS
                self._spawn(self._meddle())
            if self._failure is not None:
                raise self._failure
            if len(self._batches) >= BATCHES_IN_FLIGHT_MAX or self._under_way >= UNDER_WAY_MAX:
                self.account.held_back += len(tasks)
            elif tasks:
                self._spawn(self._send(tasks, self._random.choice(self._doors)))
            await asyncio.sleep(TICK_SECONDS)

    def stop(self) -> None:
        """Send nothing new."""
        self._is_over.set()

    async def settle(self, seconds_max: float) -> None:
        """Wait for the answers that are owed; what is not answered by then stays unsure."""
        if self._batches:
            await asyncio.wait(self._batches, timeout=seconds_max)
        for batch in list(self._batches):
            batch.cancel()
        await asyncio.gather(*self._batches, return_exceptions=True)

    async def probe(self) -> list[str]:
        """The doors that do not accept a task now: HTTP, where any instance will do, and storing over NATS."""
        over_http, stored = [self._noop()], [self._noop()]
        answers = [await self._stored(stored), *[await self._post(url, over_http) for url in self._system.http_urls]]
        for sent, answer in zip((stored, *([over_http] * len(self._system.http_urls))), answers, strict=True):
            if answer is not None:
                self._acknowledged(sent, answer)
        is_open = {"NATS": answers[0] is not None, "HTTP": any(answer is not None for answer in answers[1:])}
        return [door for door, opens in is_open.items() if not opens]

    async def confirm(self) -> None:
        """Confirm every plan that waits for an answer."""
        url = self._random.choice(self._system.http_urls)
        try:
            answer = await self._http.get(f"{url}/api/v1/tasks", params={"status": "apply_pending"})
        except httpx.HTTPError:
            return
        for item in answer.json()["items"] if answer.is_success else []:
            await self._act(item["id"], "confirm")

    # -- tasks ---------------------------------------------------------------------------------------------------------

    def _task(self) -> dict[str, Any]:
        return self._command() if self._random.random() < COMMAND_SHARE else self._noop()

    def _noop(self) -> dict[str, Any]:
        return {"id": make_id(), "kind": "noop", "input": {"n": self._random.randrange(1_000)}}

    def _command(self) -> dict[str, Any]:
        """Most are short and may run once; some are long, some may be repeated, and some of these fail at first."""
        draw = self._random.random()
        work, max_attempts = ("sleep 2", 1) if draw < 0.1 else (":", 1)
        if draw > 0.7:
            max_attempts = 3
        if draw > 0.95:
            work = 'test "$TASKYARD_ATTEMPT" -gt 1'
        if draw < 0.01:
            work = f"sleep {self._long_seconds}"
        within = {"timeout_seconds": 1.5 * self._long_seconds} if 0.01 < draw < 0.04 else {}
        return {
            "id": make_id(),
            "kind": "command",
            "input": {"script": self._witnesses.script(work)},
            "max_attempts": max_attempts,
            **within,
        }

    def _terraform_tasks(self) -> list[dict[str, Any]]:
        number = self._random.randrange(WORKSPACES)
        place = {"queue": f"workspace-{number}"}
        id = make_id()
        what = {"directory": self._configurations[number], "variables": {"run": id}}
        confirms_itself = {"auto_confirm": True} if self._random.random() < 0.5 else {}
        return [
            {"id": make_id(), "kind": "plan", **place, "input": what},
            {"id": id, "kind": "plan_and_apply", **place, "input": {**what, **confirms_itself}},
        ]

    async def apply_slowly(self) -> str:
        """Have an apply done that takes a while; the id of its task once it was accepted."""
        id = make_id()
        what = {"directory": str(self.slow_configuration), "variables": {"run": id}, "auto_confirm": True}
        task = {"id": id, "kind": "plan_and_apply", "queue": SLOW_WORKSPACE, "input": what}
        await self._send([task], self._by_http)
        return id

    async def burst(self) -> int:
        """Send commands of which nothing can be accepted; how many were stored."""
        data = {"tasks": [1] * BURST_TASKS}
        subject = command_subject(PRINCIPAL, POOL_DEFAULT, "submit")
        answers = await asyncio.gather(*(self._ask(subject, data) for _ in range(BURST)))
        acks = [msgspec.json.decode(answer, type=_Answer) for answer in answers if answer is not None]
        return sum(ack.stream != "" and ack.error is None for ack in acks)

    async def _meddle(self) -> None:
        """As people do: confirm what waits for an answer, and now and then cancel something."""
        await self.confirm()
        if self._recent:
            await self._act(self._random.choice(self._recent), "cancel")

    async def _act(self, id: str, verb: str) -> None:
        url = self._random.choice(self._system.http_urls)
        with suppress(httpx.HTTPError):
            await self._http.post(f"{url}/api/v1/tasks/{id}/{verb}", json={})

    # -- doors ---------------------------------------------------------------------------------------------------------

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._batches.add(task)
        task.add_done_callback(self._batch_done)

    def _batch_done(self, batch: asyncio.Task[None]) -> None:
        self._batches.discard(batch)
        if not batch.cancelled():
            self._failure = self._failure or batch.exception()

    @property
    def _under_way(self) -> int:
        return len(self.account.accepted) - self._ended()

    async def _send(self, tasks: list[dict[str, Any]], door: _Door) -> None:
        """Send a batch until it is acknowledged: the ids make that it is decided once."""
        self.account.unsure |= {task["id"] for task in tasks}
        while (answer := await door(tasks)) is None:
            await asyncio.sleep(RETRY_SECONDS)
            door = self._random.choice(self._doors)
        self._acknowledged(tasks, answer)

    def _acknowledged(self, tasks: list[dict[str, Any]], answer: _Answer) -> None:
        if answer.code != ACCEPTED:
            return  # all of it was refused, and noted as such
        at, account = Instant(time.time_ns() // 1_000), self.account
        for entry in answer.tasks or [_Entry(id=task["id"]) for task in tasks]:
            if entry.id is None or entry.error is not None:
                account.refused.append(json.dumps(entry.error))
                continue
            account.accepted.setdefault(entry.id, at)
            account.unsure.discard(entry.id)
            if entry.position is not None:
                position = parse_position(entry.position)
                account.told.append(Told(command=entry.id, code=ACCEPTED, task=entry.id, position=position))
        commands = [task["id"] for task in tasks if task["kind"] == "command"]
        self._recent = [*self._recent, *commands][-REMEMBERED_MAX:]

    async def _by_http(self, tasks: list[dict[str, Any]]) -> _Answer | None:
        return await self._post(self._random.choice(self._system.http_urls), tasks)

    async def _post(self, url: str, tasks: list[dict[str, Any]]) -> _Answer | None:
        try:
            answer = await self._http.post(f"{url}/api/v1/tasks", json={"tasks": tasks})
        except httpx.HTTPError:
            return None
        return self._read(answer.content, answer.status_code)

    async def _by_request(self, tasks: list[dict[str, Any]]) -> _Answer | None:
        subject = request_subject(PRINCIPAL, POOL_DEFAULT, "submit")
        data = await self._ask(subject, {"id": make_id(), "tasks": tasks})
        if data is None:
            return None
        return self._read(data, msgspec.json.decode(data, type=_Answer).code)

    async def _stored(self, tasks: list[dict[str, Any]]) -> _Answer | None:
        data = await self._ask(command_subject(PRINCIPAL, POOL_DEFAULT, "submit"), {"id": make_id(), "tasks": tasks})
        if data is None:
            return None
        ack = msgspec.json.decode(data, type=_Answer)
        return ack if ack.stream and ack.error is None else None

    async def _ask(self, subject: str, body: dict[str, Any]) -> bytes | None:
        try:
            return (await self._client.request(subject, msgspec.json.encode(body), timeout=REQUEST_SECONDS_MAX)).data
        except (nats.errors.Error, TimeoutError, OSError):
            return None

    def _read(self, data: bytes, status: int) -> _Answer | None:
        """The answer of a door that answers; None where it asks to come again, or failed."""
        if status in COME_AGAIN:
            return None
        if status != ACCEPTED:
            self.account.refused.append(f"{status}: {data[:200].decode(errors='replace')}")
        if status >= INTERNAL:
            return None
        return msgspec.json.decode(data, type=_Answer) if status == ACCEPTED else _Answer(code=status)
