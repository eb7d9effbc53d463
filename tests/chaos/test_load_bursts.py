"""What is sent on purpose: bursts of which every command is stored, and commands that outlive a standstill."""

import asyncio
import json
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import nats.errors
import pytest

from taskyard.chaos.load import BURST, BURST_TASKS, Load
from taskyard.chaos.witnesses import Witnesses


class Stored:
    """NATS stores what it is sent, but for the first so many."""

    def __init__(self, silent: int = 0) -> None:
        self.silent = silent
        self.came: list[tuple[str, Any]] = []

    async def request(self, subject: str, data: bytes, *, timeout: float) -> Any:
        """A message and its acknowledgement."""
        del timeout
        self.came.append((subject, json.loads(data)))
        if len(self.came) <= self.silent:
            raise nats.errors.TimeoutError
        return SimpleNamespace(data=b'{"stream":"COMMANDS","seq":1}')


def load_of(tmp_path: Path, client: Any) -> Load:
    system: Any = SimpleNamespace(layout=SimpleNamespace(directory=tmp_path), http_urls=("http://one",))
    http: Any = None
    return Load(
        system=system,
        witnesses=Witnesses(tmp_path, {}),
        http=http,
        client=client,
        random=Random(1),
        ended=lambda: 0,
        long_seconds=20.0,
    )


@pytest.mark.parametrize("silent", [0, 3])
def test_a_burst_is_of_commands_that_hold_no_task_and_counts_what_was_stored(tmp_path: Path, silent: int) -> None:
    client = Stored(silent)
    assert asyncio.run(load_of(tmp_path, client).burst()) == BURST - silent
    assert client.came == [("taskyard.command.admin.default.submit", {"tasks": [1] * BURST_TASKS})] * BURST


def test_some_commands_are_long_and_others_have_little_more_time_than_that(tmp_path: Path) -> None:
    load = load_of(tmp_path, Stored())
    commands = [load._command() for _ in range(2_000)]
    assert any("sleep 20.0" in command["input"]["script"] for command in commands)
    assert {command.get("timeout_seconds") for command in commands} == {None, 30.0}
