"""The command line run against a server in this process."""

import sys
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cli_server import TOKEN, FakeServer, Handler, Ran, Run

from taskyard.cli.app import main


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    handler = type("BoundHandler", (Handler,), {"fake": fake})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        http.daemon_threads = True
        fake.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield fake
        http.shutdown()
        thread.join()


@pytest.fixture
def run(server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("TASKYARD_URL", server.url)
    monkeypatch.setenv("TASKYARD_TOKEN", TOKEN)
    monkeypatch.delenv("TASKYARD_CONNECTION", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("taskyard.cli.client.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("taskyard.cli.following.RECONNECT_SECONDS", 0.01)
    monkeypatch.setattr("taskyard.cli.following.LOOK_SECONDS_MIN", 0.0)

    def run_it(*arguments: str) -> Ran:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        shown = capsys.readouterr()
        return Ran(int(ended.value.code or 0), shown.out, shown.err)

    return run_it
