"""Reading live: events that are resumed and filtered, and readers that do not read."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import httpx
from forms import is_position, is_time
from system import System

STUCK = 40
"""Readers that open a stream and take nothing of it."""


def events(answer: httpx.Response) -> Iterator[dict[str, str]]:
    """The events of a stream, each with its fields."""
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        else:
            if "event" in fields:
                yield fields
            fields = {}


def ran(yard: System, **fields: Any) -> tuple[str, str]:
    """A no-op that has completed, and the position of its submission."""
    made = yard.http.post("/tasks", json={"kind": "noop", "input": {}, **fields}).json()
    yard.wait(made["id"], "completed")
    return made["id"], made["position"]


def test_an_event_bears_its_position_its_type_and_what_it_says(yard: System) -> None:
    id, position = ran(yard)
    history = yard.history(id)
    with yard.http.stream("GET", "/events", params={"task": id}, headers={"Last-Event-ID": position}) as answer:
        live = events(answer)
        seen = [next(live) for _ in history[1:]]
    assert [(event["id"], event["event"]) for event in seen] == [
        (item["position"], item["type"]) for item in history[1:]
    ]
    for event in seen:
        data = json.loads(event["data"])
        assert (data["position"], data["type"]) == (event["id"], event["event"])
        assert is_position(data["position"])
        assert is_time(data["at"])


def test_each_event_is_seen_once_however_often_a_reader_comes_back(yard: System) -> None:
    queue = "resumed"
    first, position = ran(yard, queue=queue)
    ids = [first, *(ran(yard, queue=queue)[0] for _ in range(3))]
    expected = [item["position"] for id in ids for item in yard.history(id)][1:]
    seen: list[str] = []
    while len(seen) < len(expected):
        last = seen[-1] if seen else position
        with yard.http.stream("GET", "/events", params={"queue": queue}, headers={"Last-Event-ID": last}) as answer:
            seen += [event["id"] for event in islice(events(answer), min(2, len(expected) - len(seen)))]
    assert seen == expected


def test_a_stream_begins_now_and_types_may_be_named_in_both_ways(yard: System) -> None:
    for types in ("TaskSubmitted,AttemptSucceeded", ["TaskSubmitted", "AttemptSucceeded"]):
        with yard.http.stream("GET", "/events", params={"type": types}) as answer:
            id, position = ran(yard)
            live = events(answer)
            assert next(live)["id"] == position
            assert json.loads(next(live)["data"])["data"]["task"] == id


def test_readers_that_do_not_read_cost_the_others_nothing(yard: System) -> None:
    loud = yard.command("head -c 3000000 /dev/zero | base64 -w 60")
    yard.wait(loud, "completed")
    whole = yard.http.get(f"/tasks/{loud}/output").content
    with ExitStack() as readers:
        for number in range(STUCK):
            path = "/events" if number % 2 else f"/tasks/{loud}/output?follow=1"
            readers.enter_context(stuck_reader(yard, path))
        for _ in range(5):
            id, position = ran(yard)
            with yard.http.stream("GET", "/events", params={"task": id}, headers={"Last-Event-ID": position}) as answer:
                assert next(events(answer))["event"] == "TaskScheduled"
            assert yard.http.get("/stats").status_code == 200
        assert yard.http.get(f"/tasks/{loud}/output").content == whole
    assert len(whole) > 4_000_000


@contextmanager
def stuck_reader(yard: System, path: str) -> Iterator[None]:
    """Asks for a stream and never reads of it."""
    address = urlsplit(yard.connection["http_url"])
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((address.hostname, address.port))
        headers = f"Host: {address.netloc}\r\nAuthorization: Bearer {yard.connection['admin_token']}\r\n"
        client.sendall(f"GET /api/v1{path} HTTP/1.1\r\n{headers}Last-Event-ID: 0\r\n\r\n".encode())
        assert client.recv(12) == b"HTTP/1.1 200"
        yield
