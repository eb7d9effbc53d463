"""When `taskyard dev` says that a task could run: what the API answers, and what is missing by that."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from taskyard.dev.readiness import what_is_missing

LEADERS = {"scheduler": "s-1", "slot_allocator": "a-1", "dispatcher": "d-1"}
BEGUN = datetime(2026, 1, 1, 0, 0, 10, tzinfo=UTC)


class Api:
    """Answers as the API does."""

    def __init__(self) -> None:
        self.status = 200
        self.readiness: dict[str, Any] = {"leaders": LEADERS}
        self.workers: list[dict[str, Any]] = [
            {"id": "worker-1", "status": "active", "joined_at": "2026-01-01T00:00:10Z"}
        ]
        api = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                is_readiness = self.path == "/readyz"
                body = json.dumps(api.readiness if is_readiness else {"items": api.workers}).encode()
                self.send_response(api.status if is_readiness else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def missing(self) -> str | None:
        url = f"http://127.0.0.1:{self.server.server_port}"
        return what_is_missing(url, "token", ["worker-1"], joined_since=BEGUN)


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    thread = threading.Thread(target=api.server.serve_forever)
    thread.start()
    yield api
    api.server.shutdown()
    thread.join()
    api.server.server_close()


def test_nothing_is_missing_when_all_lead_and_all_workers_joined(api: Api) -> None:
    assert api.missing() is None


def test_an_api_that_is_not_ready_says_why(api: Api) -> None:
    api.status, api.readiness = 503, {"reasons": {"read model": "lags"}}
    assert api.missing() == "the API is not ready (read model: lags)"


def test_somebody_must_lead_everywhere(api: Api) -> None:
    api.readiness = {"leaders": {**LEADERS, "dispatcher": None}}
    assert api.missing() == "nobody leads as dispatcher yet"


@pytest.mark.parametrize(
    "worker",
    [
        {"id": "worker-2", "status": "active", "joined_at": "2026-01-01T00:00:10Z"},
        {"id": "worker-1", "status": "lost", "joined_at": "2026-01-01T00:00:10Z"},
    ],
    ids=["another", "lost"],
)
def test_every_worker_must_have_joined_in_this_run(api: Api, worker: dict[str, Any]) -> None:
    api.workers = [worker]
    assert api.missing() == "worker-1 did not join yet"


@pytest.mark.parametrize("status", ["active", "suspect"])
def test_a_worker_whose_folder_was_moved_is_told_to_wait_for_the_loss_of_the_earlier_one(api: Api, status: str) -> None:
    api.workers = [{"id": "worker-1", "status": status, "joined_at": "2026-01-01T00:00:09Z"}]
    assert api.missing() == (
        "worker-1 did not join yet (an earlier worker-1 still counts as there; where the folder is new or was moved, "
        "the worker joins once that is lost)"
    )


def test_an_api_that_is_not_there_is_missing(api: Api) -> None:
    url = f"http://127.0.0.1:{api.server.server_port}"
    api.server.server_close()
    assert what_is_missing(url, "token", [], joined_since=BEGUN) == "the API does not answer yet"
