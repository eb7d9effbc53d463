"""What every executor must do, over a real nats-server and a real agent: programs, functions, and one that only awaits.

An executor that is added is added to EXECUTORS with work that ends, work that goes on, and work that fails.
"""

import asyncio
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from agent_harness import harness, server

from taskyard.agent import app
from taskyard.agent.executors import Completed, Context, Outcome, Unsuccessful
from taskyard.contracts.agent_protocol import Assignment, Failed, Started, Succeeded
from taskyard.contracts.events import TaskError
from taskyard.contracts.values import TaskId

__all__ = ["harness", "server"]

FUNCTIONS = """
import asyncio
from typing import Any
from taskyard.task import TaskFailed, task

@task("function", timeout_seconds=60, example={})
async def function(given: dict[str, Any]) -> Any:
    if given.get("fails"):
        raise TaskFailed("no luck", code="unlucky")
    await asyncio.sleep(given.get("seconds", 0))
    return {"done": True}
"""
MODULE = "functions_under_test"


class Awaiting:
    """Waits, and runs no program."""

    kinds: tuple[str, ...] = ("awaiting",)
    stop_signal = signal.SIGTERM

    async def run(self, assignment: Assignment, context: Context) -> Outcome:
        given = msgspec.json.decode(assignment.input)
        if given.get("fails"):
            return Unsuccessful(error=TaskError(code="unlucky", message="no luck", retryable=False))
        await asyncio.sleep(given.get("seconds", 0))
        return Completed(result=msgspec.Raw(b'{"done":true}'))

    def forget(self, task: TaskId) -> None:
        """Nothing is kept."""


class Work(NamedTuple):
    """Inputs of one kind."""

    kind: str
    ends: Mapping[str, Any]
    goes_on: Mapping[str, Any]
    fails: Mapping[str, Any]


EXECUTORS = (
    Work("command", {"argv": ["true"]}, {"argv": ["sleep", "60"]}, {"argv": ["false"]}),
    Work("function", {}, {"seconds": 60}, {"fails": True}),
    Work("awaiting", {}, {"seconds": 60}, {"fails": True}),
)


@pytest.fixture(params=EXECUTORS, ids=[work.kind for work in EXECUTORS])
def work(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    (tmp_path / f"{MODULE}.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    make = app._make_executors
    monkeypatch.setattr(app, "_make_executors", lambda *given: make(*given) | {"awaiting": Awaiting()})
    return request.param


@pytest.fixture
def run(harness: Any) -> Callable[[Any], None]:
    return lambda scenario: harness.run_with_agent(scenario, modules=[MODULE])


def test_it_starts_once_and_ends_once_with_a_result(work: Work, run: Any) -> None:
    async def scenario(d: Any) -> None:
        one = d.assignment(work.kind, work.ends)
        await d.assign(one)
        await d.report(one.task, Succeeded)

        started, ended = await d.reports(one.task)
        assert (type(started), type(ended)) == (Started, Succeeded)
        assert msgspec.json.decode(ended.result)

    run(scenario)


def test_its_failure_is_told_with_a_code(work: Work, run: Any) -> None:
    async def scenario(d: Any) -> None:
        one = d.assignment(work.kind, work.fails)
        await d.assign(one)

        assert (await d.report(one.task, Failed)).error.code in {"exit_status", "unlucky"}

    run(scenario)


def test_that_it_has_started_is_told_while_it_runs_and_its_deadline_ends_it_as_timeout(work: Work, run: Any) -> None:
    async def scenario(d: Any) -> None:
        one = d.assignment(work.kind, work.goes_on, timeout_seconds=1.0)
        await d.assign(one)

        assert (await d.report(one.task, Started)).attempt == 1
        assert (await d.report(one.task, Failed)).error.code == "timeout"

    run(scenario)


def test_a_cancel_ends_it_at_once_as_cancelled(work: Work, run: Any) -> None:
    async def scenario(d: Any) -> None:
        one = d.assignment(work.kind, work.goes_on)
        await d.assign(one)
        await d.report(one.task, Started)
        await d.cancel(one, grace_seconds=60)

        assert (await d.report(one.task, Failed)).error.code == "cancelled"

    run(scenario)


def test_a_cancel_before_it_has_started_ends_it_too(work: Work, run: Any) -> None:
    async def scenario(d: Any) -> None:
        one = d.assignment(work.kind, work.goes_on)
        await d.assign(one)
        await d.cancel(one, grace_seconds=60)

        assert (await d.report(one.task, Failed)).error.code == "cancelled"

    run(scenario)


def test_an_agent_that_leaves_stops_it(work: Work, harness: Any) -> None:
    async def scenario(d: Any) -> None:
        async with harness.agent(d, modules=[MODULE], drain_seconds=0.1) as agent:
            one = d.assignment(work.kind, work.goes_on)
            await d.assign(one)
            await d.report(one.task, Started)
            await agent.stop()

        assert (await d.report(one.task, Failed)).error.retryable

    harness.run(scenario)
