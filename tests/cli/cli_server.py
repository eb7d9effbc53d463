"""A server of the contract's forms, for the tests of the command line."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "secret"
FIRST = "0199f3c1-0000-7000-8000-000000000001"
SECOND = "0199f3c2-0000-7000-8000-000000000002"
Answer = tuple[int, Any]


def a_task(id: str = SECOND, **changes: Any) -> dict[str, Any]:
    """A task in the contract's form."""
    return {
        "id": id, "kind": "plan_and_apply", "pool": "default", "queue": "prod", "priority": 5, "status": "pending",
        "attempt": 0, "worker": None, "slot": None, "progress": 0, "error": None, "pending_reason": None,
        "submitted_by": "admin", "submitted_at": "2026-11-21T10:00:00.123Z", "scheduled_at": None, "started_at": None,
        "finished_at": None, "result": None, "labels": {"team": "net"}, "retry_of": None, "parent": None,
        "position": "1842.0",
    } | changes  # fmt: skip


def a_problem(status: int, error: str, detail: str, errors: list[dict[str, str]] | None = None) -> Answer:
    """A refusal in the contract's form (RFC 9457)."""
    body = {"type": "about:blank", "title": "Refused", "status": status, "detail": detail, "error": error}
    return status, body | ({"errors": errors} if errors else {})


class BrokenOff(bytes):
    """Text in an answer that is broken off behind it."""


@dataclass
class Request:
    """What the command line asked."""

    method: str
    path: str
    parameters: dict[str, list[str]]
    body: Any


@dataclass
class FakeServer:
    """Answers by `routes` (method and path to an answer, or to what makes one of the request), and keeps all requests.

    A `bytes` answer is sent as text. `events` are the server-sent events of each connection to `/events`.
    """

    url: str = ""
    routes: dict[tuple[str, str], Answer | Callable[[Request], Answer]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    events: list[list[dict[str, Any]]] = field(default_factory=list)
    drop: int = 0
    """How many connections to close without an answer before answering again."""

    def on(self, method: str, path: str, answer: Any, status: int = 200) -> None:
        self.routes[method, f"/api/v1{path}"] = answer if callable(answer) else (status, answer)

    def asked(self, method: str, path: str) -> list[Request]:
        return [r for r in self.requests if (r.method, r.path) == (method, f"/api/v1{path}")]

    def answer(self, request: Request) -> Answer:
        found = self.routes.get((request.method, request.path))
        if found is None:
            return a_problem(404, "not_found", "there is nothing at this address")
        return found(request) if callable(found) else found


class Handler(BaseHTTPRequestHandler):
    """One connection to the fake server."""

    protocol_version = "HTTP/1.1"
    fake: FakeServer

    def do_GET(self) -> None:
        self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def log_message(self, *args: Any) -> None:
        pass

    def _handle(self, method: str) -> None:
        split = urlsplit(self.path)
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(method, split.path, parse_qs(split.query), json.loads(data) if data else None)
        self.fake.requests.append(request)
        if self.fake.drop:
            self.fake.drop -= 1
            self.close_connection = True
            return
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send(*a_problem(401, "unauthorized", "the token is not known"))
        elif split.path == "/api/v1/events":
            self._send_events()
        else:
            self._send(*self.fake.answer(request))

    def _send(self, status: int, body: Any) -> None:
        is_text = isinstance(body, bytes)
        data = body if is_text else json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if is_text else "application/json")
        self.send_header("Content-Length", str(len(data) + isinstance(body, BrokenOff)))
        self.close_connection = isinstance(body, BrokenOff)
        self.send_header("Taskyard-Position", "1842.0")
        self.end_headers()
        self.wfile.write(data)

    def _send_events(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"retry: 2000\n\n: alive\n\n")
        for event in self.fake.events.pop(0) if self.fake.events else []:
            text = f"id: {event['position']}\nevent: {event['type']}\ndata: {json.dumps(event)}\n\n"
            self.wfile.write(text.encode())
        self.close_connection = True


@dataclass
class Ran:
    """What a run of the command line left."""

    status: int
    out: str
    err: str

    @property
    def objects(self) -> list[Any]:
        """Standard output as JSON, a value on each line, and nothing else."""
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Ran]
