"""Stands for a service or a worker: `python -m fake_program --config FILE`, and answers as the API does if it is one.

The module is started as a service, as all services together, or as a worker; which one, the settings tell.
"""

import argparse
import json
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType


def main(*, serves: bool) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path)
    settings = json.loads(parser.parse_args().config.read_text())
    signal.signal(signal.SIGTERM, end)
    if serves:
        ThreadingHTTPServer((settings["http_host"], settings["http_port"]), Api).serve_forever()
    while True:
        signal.pause()


def end(_number: int, _frame: FrameType | None) -> None:
    print("ended in order", flush=True)
    sys.exit(0)


class Api(BaseHTTPRequestHandler):
    def log_message(self, *_values: object) -> None:
        """The log holds only what the program itself says."""

    def do_GET(self) -> None:
        joined = {"status": "active", "joined_at": "2999-01-01T00:00:00Z"}
        workers = [{"id": f"worker-{number}", **joined} for number in range(1, 10)]
        leaders = dict.fromkeys(("scheduler", "slot_allocator", "dispatcher"), "fake-1")
        body = json.dumps({"items": workers, "leaders": leaders}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    main(serves=False)
