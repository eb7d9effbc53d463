"""A `retry` brings the submission of the old task from the log, whose older part may lie in an archive that is away."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from machine_story import START, A, submitted, task_id
from scheduler_story import Commands

from taskyard.contracts.events import AttemptFailed, CommandRejected, TaskError, TaskSubmitted
from taskyard.contracts.values import make_position
from taskyard.eventlog.commit import Commit, StoredCommit
from taskyard.eventlog.errors import ArchiveUnreachable, LogBegins
from taskyard.scheduler.originals import AWAY_SECONDS, Originals, Unavailable

OLD, NEW = make_position(3, 0), make_position(9, 0)


class Log:
    """A log whose commits before the fifth lie in an archive: it fails with `fault`, or hangs."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.hangs = False
        self.asked: list[int] = []

    async def read(self, first: int, last: int) -> AsyncGenerator[StoredCommit[Any], None]:
        self.asked.append(first)
        if first < 5 and self.hangs:
            await asyncio.Event().wait()
        if first < 5 and self.fault is not None:
            raise self.fault
        commit: Commit[Any] = Commit(writer="w", instance="i", epoch=1, at=START, events=(submitted(A),))
        yield StoredCommit(sequence=first, at=START, commit=commit, hash="")


class Place:
    def __init__(self) -> None:
        self.now = 100.0
        self.log = Log()
        log: Any = self.log
        self.originals = Originals(log, lambda: self.now, fetch_seconds_max=0.05)

    async def is_away(self, position: Any) -> bool:
        try:
            assert isinstance(await self.originals.fetch(A, position), TaskSubmitted)
        except Unavailable:
            return True
        return False


@pytest.mark.anyio
@pytest.mark.parametrize(
    "fault", [ArchiveUnreachable("away"), LogBegins(stream="LOG", first=5, wanted=3)], ids=["away", "not known here"]
)
async def test_an_archive_that_is_away_is_an_answer_and_no_exception(fault: Exception) -> None:
    place = Place()
    place.log.fault = fault
    assert await place.is_away(OLD)


@pytest.mark.anyio
async def test_an_archive_that_hangs_is_waited_for_once_and_what_comes_behind_is_answered_at_once() -> None:
    place = Place()
    place.log.hangs = True
    assert await place.is_away(OLD)
    for _ in range(100):
        assert await place.is_away(OLD)
    assert place.log.asked == [3]


@pytest.mark.anyio
async def test_what_the_stream_still_has_is_fetched_while_the_archive_is_away() -> None:
    place = Place()
    place.log.fault = ArchiveUnreachable("away")
    assert await place.is_away(OLD)
    assert not await place.is_away(NEW)


@pytest.mark.anyio
async def test_an_archive_that_came_back_is_asked_again() -> None:
    place = Place()
    place.log.fault = ArchiveUnreachable("away")
    assert await place.is_away(OLD)
    place.log.fault = None
    assert await place.is_away(OLD)
    place.now += AWAY_SECONDS
    assert not await place.is_away(OLD)


def test_a_retry_whose_submission_cannot_be_read_is_refused_for_now_and_may_be_sent_again_under_its_id() -> None:
    story = Commands()
    old = submitted(A, "command")
    story.given(old, AttemptFailed(task=A, attempt=0, error=TaskError(code="exit", message="1")))
    story.given(*story.decide(story.said("cancel", {"task": A})).events)
    id = story.command_id(1)

    story.when(story.said("retry", {"task": A, "id": id}, original_is_away=True))
    (refusal,) = story.chosen
    assert isinstance(refusal, CommandRejected) and (refusal.status, refusal.code) == (503, "unavailable")
    assert story.codes()[-1] == 503

    story.when(story.said("retry", {"task": A, "id": id}, original=old))
    assert any(isinstance(event, TaskSubmitted) and event.retry_of == A for event in story.chosen)


def test_other_commands_go_on_behind_a_retry_that_is_refused_for_now() -> None:
    story = Commands()
    story.given(submitted(A, "command"))
    story.given(*story.decide(story.said("cancel", {"task": A})).events)

    story.when(story.said("retry", {"task": A}, original_is_away=True), story.submit(7))

    assert [type(event) for event in story.chosen] == [CommandRejected, TaskSubmitted]
    assert story.chosen[1].task == task_id(7)
