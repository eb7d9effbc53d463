"""What somebody without a token can do to the API of a running system, by sockets and bytes: they are refused in order."""

import asyncio
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from raw_http import Answer, Target
from system import System

from taskyard.http_server.headers import HEADERS
from taskyard.http_server.protocol import HEAD_BYTES_MAX, HEAD_SECONDS_MAX

LATE_SECONDS = 3.0
"""How much later than promised something may end on a busy machine."""
SILENT = 1_000
HALF = 500
BLOCK = b"x" * (1 << 20)


@pytest.fixture(autouse=True)
def _logs_stay_clean(yard: System):
    """Whatever is sent, nothing is logged as an error of ours, and no line a request."""
    log = yard.data / "logs" / "services.log"
    before = log.stat().st_size
    yield
    with log.open() as lines:
        lines.seek(before)
        told = lines.read()
    assert "Traceback" not in told
    assert '"level":"error"' not in told.replace(" ", "")
    assert len(told) < 20_000


def memory_of(yard: System) -> int:
    """The resident bytes of the services."""
    pages = Path(f"/proc/{yard.connection['processes']['api']}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def is_refused(answer: Answer, status: int, name: str) -> None:
    assert answer.status == status, answer
    assert (answer.problem["error"], answer.headers["connection"]) == (name, "close")
    assert {name.decode() for name, _ in HEADERS} <= answer.headers.keys()


HEADS = {
    "one header": [b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ", *[BLOCK] * 57],
    "many headers": [b"GET /healthz HTTP/1.1\r\nHost: x\r\n", *[b"X: y\r\n" * (1 << 17)] * 70],
    "a name": [b"GET /healthz HTTP/1.1\r\nHost: x\r\n", *[BLOCK] * 57],
    "the address": [b"GET /", *[BLOCK] * 57],
    "one packet": [b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * HEAD_BYTES_MAX + b"\r\n\r\n"],
}


@pytest.mark.parametrize("where", HEADS)
def test_57_megabytes_of_headers_are_431_and_cost_no_memory(yard: System, target: Target, where: str):
    before = memory_of(yard)
    is_refused(asyncio.run(target.say(*HEADS[where])), 431, "head_too_large")
    assert memory_of(yard) - before < 16 << 20


@pytest.mark.parametrize(
    "behind", [b"GET / HTTP/1.1\r\nX: " + BLOCK, b"\x00\x01", b"GET / HTTP/1.1\r\nX: y\r\n" * 9_000]
)
def test_a_whole_request_is_answered_before_what_is_wrong_behind_it(target: Target, behind: bytes):
    async def attack() -> list[Answer]:
        async with await target.connect() as raw:
            await raw.send(target.head("GET /api/v1/stats") + behind)
            return [await raw.answer(), await raw.answer()]

    served, refused = asyncio.run(attack())
    assert served.status == 200
    assert refused.status in {400, 431} and refused.problem


def test_57_megabytes_behind_a_body_are_431_too(yard: System, target: Target):
    head = target.head("POST /api/v1/tasks", **{"transfer-encoding": "chunked"})
    before = memory_of(yard)
    trailers = asyncio.run(target.say(head + b"2\r\n{}\r\n0\r\nX: ", *[BLOCK] * 57))
    extensions = asyncio.run(target.say(head + b"2;", *[BLOCK] * 57))
    is_refused(trailers, 431, "head_too_large")
    is_refused(extensions, 431, "head_too_large")
    assert memory_of(yard) - before < 16 << 20


def test_almost_32_kilobytes_of_headers_are_read(target: Target):
    whole = target.head("GET /api/v1/stats", x="y" * (HEAD_BYTES_MAX - 1_000))
    assert asyncio.run(target.say(whole)).status == 200
    pieces = [whole[start : start + 1_000] for start in range(0, len(whole), 1_000)]
    assert asyncio.run(target.say(*pieces, pause=0.001)).status == 200


@dataclass
class Slow:
    """What came of everybody who is slow, all at once: their answers, when each ended, and how others fared meanwhile."""

    silent: list[float]
    half: list[Answer]
    drops: list[Answer]
    empty_lines: list[float]
    unread_bodies: list[float]
    served: list[tuple[int, float]]


@pytest.fixture(scope="module")
def slow(yard: System, target: Target) -> Slow:
    """A thousand silent connections, 500 half requests, and those that send a little every second."""
    url, headers = f"{target.url}/api/v1/stats", {"Authorization": f"Bearer {target.token}"}

    async def silent() -> float:
        async with await target.connect() as raw:
            return await raw.ended()

    async def empty_lines() -> float:
        async with await target.connect() as raw:
            assert (await raw.say(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200
            ending = asyncio.ensure_future(raw.ended())
            while not ending.done():
                raw.writer.write(b"\r\n")
                await asyncio.wait((ending,), timeout=1)
            return await ending

    async def unread_body() -> float:
        async with await target.connect() as raw:
            assert (
                await raw.say(b"POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n")
            ).status == 401
            ending = asyncio.ensure_future(raw.ended())
            while not ending.done():
                raw.writer.write(b" ")
                await asyncio.wait((ending,), timeout=1)
            return await ending

    async def others() -> list[tuple[int, float]]:
        served = []
        end = time.monotonic() + HEAD_SECONDS_MAX
        while time.monotonic() < end:
            begun = time.monotonic()
            async with httpx.AsyncClient(trust_env=False, verify=False, timeout=10) as http:  # a connection each time
                status = (await http.get(url, headers=headers)).status_code
            served.append((status, time.monotonic() - begun))
            await asyncio.sleep(0.2)
        return served

    async def all_at_once() -> Slow:
        quiet = [asyncio.ensure_future(silent()) for _ in range(SILENT)]
        half = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
        found = await asyncio.gather(
            asyncio.gather(*(target.say(half) for _ in range(HALF))),
            asyncio.gather(*(target.say(*[b"GET /"], *[b"x"] * 60, pause=1) for _ in range(20))),
            asyncio.gather(*(empty_lines() for _ in range(10))),
            asyncio.gather(*(unread_body() for _ in range(10))),
            others(),
        )
        return Slow(list(await asyncio.gather(*quiet)), *map(list, found))

    return asyncio.run(all_at_once())


def test_while_a_thousand_connections_are_silent_a_client_with_a_token_is_served(slow: Slow):
    assert len(slow.served) > 10
    assert {status for status, _ in slow.served} == {200}
    assert max(seconds for _, seconds in slow.served) < 3


def test_silent_connections_end_after_ten_seconds(slow: Slow):
    assert len(slow.silent) == SILENT
    assert max(slow.silent) < HEAD_SECONDS_MAX + LATE_SECONDS


def test_half_requests_are_408_after_ten_seconds_or_make_room_for_others_before(slow: Slow):
    for answer in slow.half:
        is_refused(answer, *((408, "head_too_slow") if answer.status == 408 else (503, "full")))
    assert max(answer.seconds for answer in slow.half) < HEAD_SECONDS_MAX + LATE_SECONDS
    assert {answer.status for answer in slow.half} >= {408}


def test_a_head_that_comes_drop_by_drop_has_ten_seconds_as_a_whole(slow: Slow):
    for answer in slow.drops:
        is_refused(answer, *((408, "head_too_slow") if answer.status == 408 else (503, "full")))
    assert max(answer.seconds for answer in slow.drops) < HEAD_SECONDS_MAX + LATE_SECONDS


def test_who_sends_empty_lines_after_a_request_is_not_kept(slow: Slow):
    assert max(slow.empty_lines) < HEAD_SECONDS_MAX + LATE_SECONDS


def test_a_body_that_nobody_wants_may_not_go_on_for_ever(slow: Slow):
    assert max(slow.unread_bodies) < HEAD_SECONDS_MAX + LATE_SECONDS


GARBAGE = {
    "nothing but zeros": b"\x00" * 1_000,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no method": b"/healthz HTTP/1.1\r\n\r\n",
    "an unknown method": b"STEAL /healthz HTTP/1.1\r\n\r\n",
    "bytes in the address": b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "an address without a path": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "two lengths": b"POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "a length and chunks": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": b"POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a huge length": b"POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
    "a bad chunk": b"POST /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a bad name": b"GET /healthz HTTP/1.1\r\nHo st: x\r\n\r\n",
    "a NUL in a header": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: \x00\r\n\r\n",
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_what_is_no_http_is_refused_without_a_word_in_the_log(target: Target, kind: str):
    answer = asyncio.run(target.say(GARBAGE[kind]))
    assert 400 <= answer.status < 500, answer
    assert answer.problem["status"] == answer.status


def test_who_asks_for_another_protocol_is_answered_as_if_they_had_not(target: Target):
    for protocol in ("websocket", "h2c"):
        asked = target.head("GET /healthz", connection="Upgrade", upgrade=protocol)
        assert asyncio.run(target.say(asked)).status == 200


def test_hang_ups_at_any_moment_are_no_errors(yard: System, target: Target):
    body = json.dumps({"kind": "noop", "input": "x" * 900}).encode()
    post = target.head("POST /api/v1/tasks", **{"content-length": str(len(body))}) + body
    said = [post[:size] for size in range(10, len(post) + 1, 40)]
    said += [target.head("GET /api/v1/stats?after=9999999.0"), target.head("GET /api/v1/events"), post]

    async def hang_up(data: bytes, *, hard: bool) -> None:
        raw = await target.connect()
        await raw.send(data)
        if hard:
            raw.writer.transport.abort()
        else:
            raw.writer.close()

    async def all_of_them() -> None:
        await asyncio.gather(*(hang_up(data, hard=hard) for data in said for hard in (True, False)))

    asyncio.run(all_of_them())
    gone = 'taskyard_http_requests_total{method="POST",route="/api/v1/tasks",status="499"}'
    with httpx.Client(base_url=target.url, trust_env=False, verify=False) as http:
        yard.until(lambda: gone in http.get("/metrics").text, "the metrics tell of clients that hung up")
        assert 'status="500"' not in http.get("/metrics").text


def test_a_stream_in_front_of_another_request_ends_with_its_client(yard: System, target: Target):
    def streams() -> float:
        text = httpx.get(f"{target.url}/metrics", trust_env=False).text
        return float(text.split("\ntaskyard_event_streams ")[1].split("\n")[0])

    async def follow_and_go() -> None:
        async with await target.connect() as raw:
            await raw.send(target.head("GET /api/v1/events") + target.head("GET /api/v1/stats"))
            assert b"200 OK" in await raw.reader.readline()
            await raw.reader.readuntil(b"retry")

    yard.until(lambda: streams() == 0, "no stream is open")
    asyncio.run(follow_and_go())
    yard.until(lambda: streams() == 0, "the stream has ended")
