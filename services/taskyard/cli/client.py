"""The HTTP API as the command line uses it: answers or typed errors, retries that do nothing twice, live streams."""

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from taskyard.cli.connection import Connection
from taskyard.cli.errors import Fault, Refused, Unreachable
from taskyard.cli.views import FeedEvent, Problem, Readiness
from taskyard.contracts.values import Instant, make_uuid7, seconds

PREFIX = "/api/v1"
CONNECT_SECONDS_MAX = 5.0
ANSWER_SECONDS_MAX = 20.0
"""Longer than the server waits for a position (10 s) or a verdict (5 s)."""
SILENCE_SECONDS_MAX = 35.0
"""A live stream says something every 10 s."""
TRIES_MAX = 3
CLOCKS_DIFFER_SECONDS = 60.0
"""Two clocks that differ by less need not agree: ids may be 5 min ahead."""
RETRY_SECONDS = 0.3
MESSAGE_BYTES_MAX = 4 << 20
"""A live event that is longer than this is none of ours."""
LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1"))

T = TypeVar("T")
Parameters = Mapping[str, str | int | list[str] | None]


class Api:
    """One server, as one principal. Close it, or use it as a context manager.

    Every method raises `Refused` where the server refuses and `Unreachable` where it gives no answer or fails.
    """

    def __init__(self, connection: Connection) -> None:
        self._url = connection.http_url
        self._ahead_seconds = 0.0
        self._server_time: float | None = None
        headers = {"Authorization": f"Bearer {connection.admin_token}"} if connection.admin_token else {}
        try:
            self._http = httpx.Client(
                base_url=connection.http_url.rstrip("/") + PREFIX,
                headers=headers,
                timeout=httpx.Timeout(ANSWER_SECONDS_MAX, connect=CONNECT_SECONDS_MAX),
                # A proxy from the environment cannot know this machine's own addresses.
                trust_env=urlsplit(connection.http_url).hostname not in LOOPBACK,
                # Where nothing is encrypted no certificate is looked at, and loading them all takes longer than most commands.
                verify=urlsplit(connection.http_url).scheme != "http",
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise Unreachable(f"{connection.http_url!r} is not an address: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, /, **parameters: str | int | list[str] | None) -> bytes:
        """The body of an answer."""
        return self._ask("GET", path, parameters, None)

    def read(self, path: str, kind: type[T], /, **parameters: str | int | list[str] | None) -> T:
        """An answer as `kind`."""
        return decode(self.get(path, **parameters), kind)

    def readiness(self) -> Readiness | None:
        """What the service says of its parts, ready or not; None if it says nothing of the kind."""
        try:
            response = self._http.get(f"{self._url.rstrip('/')}/readyz")
            self._note_time(response)
            return msgspec.json.decode(response.content, type=Readiness)
        except (httpx.TransportError, msgspec.DecodeError):
            return None

    def health(self) -> bytes:
        """Whether commands are decided; an installation that is not well says so with 503."""
        return self._ask("GET", "/health", {}, None, tells=503)

    def send(self, path: str, body: Mapping[str, object]) -> bytes:
        """Post a command that bears an id: without an answer it is sent again, and still done once."""
        return self._ask("POST", path, {}, msgspec.json.encode(body))

    def command(self, path: str, body: Mapping[str, object]) -> bytes:
        """Post a command. Where it bears no id it gets one of this machine's time, and if that is refused, one of the
        server's: nobody is to hear of an id that they never gave, whatever their clock says.
        """
        if "id" in body:
            return self.send(path, body)
        try:
            return self.send(path, {"id": self.make_id(), **body})
        except Refused as refusal:
            is_of_its_time = refusal.status == 422 and any(fault.path == "id" for fault in refusal.faults)
            if not is_of_its_time or not self._take_server_time():
                raise
        return self.send(path, {"id": self.make_id(), **body})

    def make_id(self) -> str:
        """A fresh UUIDv7."""
        at = Instant(time.time_ns() // 1_000 - seconds(self._ahead_seconds))
        return make_uuid7(at, secrets.randbits(74))

    def learn_time(self) -> None:
        """Ask the server what time it is, for the ids of what comes many at a time."""
        self.readiness()
        self._take_server_time()

    def _take_server_time(self) -> bool:
        """Make ids of the server's time from now on, if the last answer told it; whether it is quite another one."""
        if self._server_time is None or abs(time.time() - self._server_time) < CLOCKS_DIFFER_SECONDS:
            return False
        self._ahead_seconds = time.time() - self._server_time
        return True

    def _note_time(self, response: httpx.Response) -> None:
        try:
            self._server_time = parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
        except ValueError:
            self._server_time = None

    @contextmanager
    def stream(self, path: str, /, **parameters: str | int | list[str] | None) -> Iterator[Iterator[bytes]]:
        """The body of an answer piece by piece, for as long as it goes on."""
        timeout = httpx.Timeout(ANSWER_SECONDS_MAX, connect=CONNECT_SECONDS_MAX, read=SILENCE_SECONDS_MAX)
        try:
            with self._http.stream("GET", path, params=_given(parameters), timeout=timeout) as response:
                if response.status_code >= 300:
                    raise _failure(response.status_code, response.read())
                yield response.iter_bytes()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    @contextmanager
    def events(self, **parameters: str | int | list[str] | None) -> Iterator[Iterator[list[FeedEvent]]]:
        """Live events from now on, as they arrive together; an empty list is a sign of life."""
        with self.stream("/events", **parameters) as pieces:
            yield _parse_events(pieces)

    def _ask(self, method: str, path: str, parameters: Parameters, content: bytes | None, tells: int = 200) -> bytes:
        """The body of an answer, of one with the status `tells` too."""
        headers = {} if content is None else {"Content-Type": "application/json"}
        for attempt in range(1, TRIES_MAX + 1):
            try:
                response = self._http.request(method, path, params=_given(parameters), content=content, headers=headers)
                break
            except httpx.TransportError as error:
                if attempt == TRIES_MAX:
                    raise self._unreachable(error) from error
                time.sleep(RETRY_SECONDS * attempt)
        else:
            raise AssertionError("the last try breaks or raises")
        self._note_time(response)
        if response.status_code >= 300 and response.status_code != tells:
            raise _failure(response.status_code, response.content)
        return response.content

    def _unreachable(self, error: httpx.TransportError) -> Unreachable:
        return Unreachable(f"{self._url} is not reachable: {str(error) or type(error).__name__}")


def segment(text: str) -> str:
    """A name as one part of a path."""
    return quote(text, safe="")


def decode(data: bytes, kind: type[T]) -> T:
    """A body as `kind`; one that is something else comes from no server of ours."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise Unreachable("the answer cannot be understood (is this the address of a Taskyard server?)") from error


def _given(parameters: Parameters) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None and value != []}


def _failure(status: int, body: bytes) -> Refused | Unreachable:
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except msgspec.DecodeError:
        problem = Problem()
    detail = problem.detail or problem.title or "no reason was given"
    if status >= 500:
        return Unreachable(f"the server failed ({status}): {detail}")
    return Refused(status, problem.error, detail, faults_of(problem), problem.tasks)


def faults_of(problem: Problem) -> tuple[Fault, ...]:
    """The faults of fields that a problem names."""
    return tuple(Fault(path=fault.get("path", ""), message=fault.get("message", "")) for fault in problem.errors)


def _parse_events(pieces: Iterator[bytes]) -> Iterator[list[FeedEvent]]:
    """Server-sent events from bytes: messages end with an empty line, their data stands on one line."""
    rest = b""
    for piece in pieces:
        *messages, rest = (rest + piece).split(b"\n\n")
        if len(rest) > MESSAGE_BYTES_MAX:
            raise Unreachable("the live stream holds no events")
        lines = (line for message in messages for line in message.split(b"\n"))
        yield [decode(line[5:], FeedEvent) for line in lines if line.startswith(b"data:")]
