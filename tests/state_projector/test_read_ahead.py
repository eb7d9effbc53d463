"""What is read ahead is bounded by events and by bytes, and gathered until it is due, enough, or all there is for now."""

import asyncio
from typing import Any

import pytest

from taskyard.contracts.values import Instant
from taskyard.eventlog.commit import Commit, StoredCommit
from taskyard.state_projector.projector import WAIT_SECONDS_MAX, WRITE_INTERVAL_SECONDS, _next_write
from taskyard.state_projector.read_ahead import BYTES_MAX, EVENTS_MAX, ReadAhead

NEVER_SECONDS = 3_600.0
SECONDS_MAX = 20.0


def commit(sequence: int, *, events: int = 1, size: int = 100) -> StoredCommit[Any]:
    found: Commit[Any] = Commit(writer="scheduler", instance="test", epoch=1, at=Instant(0), events=(None,) * events)
    return StoredCommit(sequence=sequence, at=Instant(sequence), commit=found, hash="", size=size)


def sequences(commits: list[StoredCommit[Any]]) -> list[int]:
    return [each.sequence for each in commits]


async def limited(coroutine: Any) -> Any:
    async with asyncio.timeout(SECONDS_MAX):
        return await coroutine


async def started(coroutine: Any) -> asyncio.Task[Any]:
    """A task that has run up to where it waits."""
    task = asyncio.create_task(coroutine)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


def test_what_is_there_when_it_is_due_is_taken_at_once() -> None:
    async def scenario() -> None:
        ahead = ReadAhead()
        await ahead.put([commit(1), commit(2)])
        await ahead.put([commit(3)])
        assert ahead.oldest == Instant(1)
        assert sequences(await limited(ahead.gather(0.0))) == [1, 2, 3]
        assert ahead.oldest == Instant(1), "it is being written"
        waiting = await started(ahead.gather(0.0))
        assert ahead.oldest is None
        await ahead.put([commit(4)])
        assert sequences(await limited(waiting)) == [4]

    asyncio.run(scenario())


def test_before_it_is_due_more_is_waited_for_until_the_log_is_silent() -> None:
    async def scenario() -> None:
        ahead = ReadAhead()
        now = asyncio.get_running_loop().time
        await ahead.put([commit(1)])
        gathering = await started(ahead.gather(now() + NEVER_SECONDS))
        assert not gathering.done()
        await ahead.put([commit(2)])
        assert sequences(await limited(gathering)) == [1, 2]

    asyncio.run(scenario())


@pytest.mark.parametrize("much", [{"events": EVENTS_MAX}, {"size": BYTES_MAX}])
def test_what_is_enough_is_not_waited_for_and_nothing_more_is_read(much: dict[str, int]) -> None:
    async def scenario() -> None:
        ahead = ReadAhead()
        now = asyncio.get_running_loop().time
        await ahead.put([commit(1, **much)])
        putting = await started(ahead.put([commit(2)]))
        assert not putting.done()
        gathering = await started(ahead.gather(now() + NEVER_SECONDS))
        assert sequences(gathering.result()) == [1]
        await limited(putting)
        assert sequences(await limited(ahead.gather(0.0))) == [2]

    asyncio.run(scenario())


def test_writes_that_take_longer_wait_longer_up_to_a_bound() -> None:
    assert _next_write(10.0, 10.001) == 10.0 + WRITE_INTERVAL_SECONDS
    assert _next_write(10.0, 10.05) == pytest.approx(10.15)
    assert _next_write(10.0, 12.0) == 12.0 + WAIT_SECONDS_MAX
