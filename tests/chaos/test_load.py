"""The load is sent again with the same ids until it is acknowledged, and what clients know is kept."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import httpx
import nats.errors
import pytest

from taskyard.chaos import load as loads
from taskyard.chaos.load import Load
from taskyard.chaos.witnesses import Witnesses
from taskyard.contracts.values import make_position

Answers = Callable[[list[dict[str, Any]]], httpx.Response]


class Silent:
    """NATS does not answer."""

    async def request(self, *_: object, **__: object) -> None:
        raise nats.errors.NoRespondersError


def accepted(tasks: list[dict[str, Any]]) -> httpx.Response:
    return httpx.Response(202, json={"tasks": [{"id": task["id"], "position": "7.2"} for task in tasks]})


def send(tmp_path: Path, answers: list[Answers], *, tasks: int = 3) -> tuple[Load, list[list[str]]]:
    """What became of a batch that is sent over HTTP, and which ids came each time."""
    came: list[list[str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)["tasks"]
        came.append([task["id"] for task in body])
        return answers.pop(0)(body)

    async def run() -> Load:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            system: Any = SimpleNamespace(layout=SimpleNamespace(directory=tmp_path), http_urls=("http://one",))
            client: Any = Silent()
            load = Load(
                system=system,
                witnesses=Witnesses(tmp_path, {}),
                http=http,
                client=client,
                random=Random(1),
                ended=lambda: 0,
            )
            async with asyncio.timeout(20):
                await load._send([load._noop() for _ in range(tasks)], load._by_http)
            return load

    return asyncio.run(run()), came


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loads, "RETRY_SECONDS", 0.001)


def test_what_is_accepted_is_remembered_with_what_was_told(tmp_path: Path) -> None:
    load, came = send(tmp_path, [accepted])
    assert list(load.account.accepted) == came[0]
    assert not load.account.unsure
    assert {told.position for told in load.account.told} == {make_position(7, 2)}


@pytest.mark.parametrize("status", [429, 503, 504])
def test_whoever_is_asked_to_come_again_comes_with_the_same_ids(tmp_path: Path, status: int) -> None:
    def away(_: object) -> httpx.Response:
        return httpx.Response(status)

    load, came = send(tmp_path, [away, away, accepted])
    assert len(came) == 3
    assert came[0] == came[1] == came[2]
    assert set(load.account.accepted) == set(came[0])
    assert not load.account.refused


def test_an_error_of_the_door_is_noted_and_the_batch_comes_again(tmp_path: Path) -> None:
    load, came = send(tmp_path, [lambda _: httpx.Response(500, text="internal"), accepted])
    assert len(came) == 2
    assert load.account.refused == ["500: internal"]
    assert set(load.account.accepted) == set(came[0])


def test_what_is_refused_is_noted_and_counts_as_never_acknowledged(tmp_path: Path) -> None:
    load, came = send(tmp_path, [lambda _: httpx.Response(422, text="wrong")])
    assert load.account.refused == ["422: wrong"]
    assert not load.account.accepted
    assert load.account.unsure == set(came[0])


def test_one_task_of_a_batch_may_be_refused_alone(tmp_path: Path) -> None:
    def partly(tasks: list[dict[str, Any]]) -> httpx.Response:
        first, *others = (task["id"] for task in tasks)
        entries = [{"id": first, "error": {"code": "conflict"}}, *({"id": id, "position": None} for id in others)]
        return httpx.Response(202, json={"tasks": entries})

    load, came = send(tmp_path, [partly])
    assert set(load.account.accepted) == set(came[0][1:])
    assert load.account.unsure == {came[0][0]}
    assert len(load.account.refused) == 1
