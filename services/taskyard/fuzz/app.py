"""`python -m taskyard.fuzz`: start a system, send what nobody means, judge the answers and the logs."""

import argparse
import asyncio
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Any

import httpx
import msgspec
from msgspec import Struct

from taskyard.bench.command_line import count, ended_in_order
from taskyard.client import make_id
from taskyard.dev.layout import Layout
from taskyard.fuzz.making import Maker, Request
from taskyard.fuzz.sending import HANG, NOTHING, Answer, Wire
from taskyard.private_files import open_to_append

REQUESTS_DEFAULT = 100_000
CONNECTIONS = 6
TASKS = 40
FAULTS_TOLD_MAX = 20
STOP_SECONDS_MAX = 40.0
SETUP_SECONDS_MAX = 20.0
INTERNAL = 500
TOLD_BYTES = 300
INTERRUPTED = 128 + signal.SIGINT


class Failed(Exception):
    """The run came to no verdict; the message is for the person at the terminal."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to do."""

    requests: int
    seed: int
    as_json: bool


class Result(Struct, kw_only=True):
    """What came of it. `statuses` counts answers, 0 stands for a connection that ended without one."""

    ok: bool
    requests: int
    seed: int
    seconds: float
    routes: int
    statuses: dict[str, int]
    faults: list[str]
    tracebacks: int


def main(argv: list[str]) -> int:
    """Do it all, print, and return 0 if all is well, 1 if not, 2 for wrong usage, 130 when interrupted."""
    options = parse(argv)
    folder = Path(tempfile.mkdtemp(prefix="taskyard-fuzz-"))
    is_well = False
    try:
        with ended_in_order():
            result = run(options, folder)
        is_well = result.ok
    except KeyboardInterrupt:
        print("taskyard fuzz: interrupted", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        return INTERRUPTED
    except (Failed, OSError, httpx.HTTPError) as error:
        print(f"taskyard fuzz: {error or type(error).__name__}; data and logs are in {folder}", file=sys.stderr)
        return 1
    told = sys.stderr if options.as_json else sys.stdout
    statuses = ", ".join(f"{number:,} of {status}" for status, number in sorted(result.statuses.items()))
    print(f"{result.requests:,} requests to {result.routes} routes in {result.seconds:.0f} s: {statuses}", file=told)
    for fault in result.faults[:FAULTS_TOLD_MAX]:
        print(f"wrong: {fault}", file=told)
    if is_well:
        print(f"all is well (seed {result.seed})", file=told)
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"not well (seed {result.seed}); data and logs are in {folder}", file=told)
    if options.as_json:
        print(msgspec.json.encode(result).decode(), flush=True)
    return 0 if is_well else 1


def parse(argv: list[str]) -> Options:
    """Read the command line; what is wrong there ends the program with status 2."""
    parser = argparse.ArgumentParser(
        prog="./dev fuzz",
        description="Starts a system without workers and sends requests that nobody means to its API, made from its OpenAPI"
        " document: bytes, huge numbers, nesting, unicode, wrong types in paths, parameters, headers and bodies, with the"
        " tokens of every role and without. Ends with 0 only if each was answered in time, none with an error of the API's"
        " own (5xx), and no traceback stands in the logs.",
        epilog="The same seed makes the same requests; tasks have new ids in each run.",
    )
    parser.add_argument("--requests", type=count, default=REQUESTS_DEFAULT, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, help="draws the requests (default: any)")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object as the last line, the rest to stderr"
    )
    found = parser.parse_args(argv)
    seed = SystemRandom().randrange(1 << 31) if found.seed is None else found.seed
    return Options(requests=found.requests, seed=seed, as_json=found.json)


def run(options: Options, folder: Path) -> Result:
    """One run on a system of its own. Raises `Failed`."""
    layout = Layout(folder / "data")
    with _system(layout, folder / "dev.log") as (url, token):
        tokens = sorted(layout.credentials(()).tokens.values())
        maker = _maker(url, token, tokens, options.seed)
        begun = time.monotonic()
        statuses, faults = asyncio.run(_send_all(maker, url, options.requests))
        seconds = time.monotonic() - begun
        if not _is_alive(url):
            faults.append("the API does not answer any more")
    logs = [log.read_text(errors="replace") for log in sorted((layout.directory / "logs").glob("*.log"))]
    tracebacks = sum(log.count("Traceback (most recent call last)") for log in logs)
    if tracebacks:
        faults.append(f"{tracebacks} tracebacks stand in the logs")
    return Result(
        ok=not faults,
        requests=options.requests,
        seed=options.seed,
        seconds=round(seconds, 1),
        routes=len(maker.routes),
        statuses=statuses,
        faults=faults,
        tracebacks=tracebacks,
    )


def what_is_wrong(request: Request, answer: Answer) -> str | None:
    """What must not come back."""
    if answer == HANG:
        return "no answer came in time"
    if answer == NOTHING:
        return "the connection ended without an answer"
    if answer.status < INTERNAL or answer.status in request.excused:
        return None
    return f"{answer.status}: {answer.body[:TOLD_BYTES]!r}"


async def _send_all(maker: Maker, url: str, requests: int) -> tuple[dict[str, int], list[str]]:
    statuses: Counter[str] = Counter()
    faults: list[str] = []
    numbers = iter(range(requests))

    async def send() -> None:
        wire = Wire(url)
        for number in numbers:
            request = maker.make(number)
            answer = await wire.send(request)
            if answer == NOTHING:  # it had rested for too long, or was to end: that is seen by a new one
                answer = await wire.send(request)
            statuses[str(answer.status)] += 1
            if (wrong := what_is_wrong(request, answer)) is not None:
                sent = f"{request.method.decode()} {request.target[:TOLD_BYTES]!r} {request.body[:TOLD_BYTES]!r}"
                faults.append(f"request {number} ({request.route}): {wrong}; sent {sent}")
        wire.close()

    await asyncio.gather(*(send() for _ in range(CONNECTIONS)))
    return dict(statuses), faults


def _maker(url: str, token: str, tokens: list[str], seed: int) -> Maker:
    """Learn the document, and submit the tasks that requests are about. Raises `Failed`."""
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=url, headers=headers, timeout=SETUP_SECONDS_MAX, trust_env=False) as http:
        document: dict[str, Any] = http.get("/docs/openapi.json").raise_for_status().json()
        tasks = [make_id() for _ in range(TASKS)]
        body = {"tasks": [{"id": task, "kind": "noop", "queue": "prod", "input": {}} for task in tasks]}
        http.post("/api/v1/tasks", json=body).raise_for_status()
    return Maker(document, seed=seed, tokens=tokens, tasks=tasks)


def _is_alive(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=SETUP_SECONDS_MAX, trust_env=False).is_success
    except httpx.HTTPError:
        return False


@contextmanager
def _system(layout: Layout, log_file: Path) -> Iterator[tuple[str, str]]:
    """A system that takes tasks and runs none; its address and the admin's token. Raises `Failed`."""
    program = Path(sysconfig.get_path("scripts")) / "taskyard"
    argv = (program, "dev", "--data", str(layout.directory), "--http-port", "0")
    with open_to_append(log_file) as log:
        child = subprocess.Popen(
            (*argv, "--nats-port", "0", "--workers", "0"), stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
    try:
        assert child.stdout is not None
        if child.stdout.readline() != b"ready\n":
            raise Failed("the system did not start")
        connection = msgspec.json.decode(layout.connection_file.read_bytes(), type=dict[str, Any])
        yield connection["http_url"], connection["admin_token"]
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()
