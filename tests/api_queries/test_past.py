"""The past: at every moment it says what the read model said then, however the log went on, and refuses what is no moment."""

import asyncio
import threading
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from taskyard.api.errors import Refusal
from taskyard.api.past.checkpoints import Checkpoints
from taskyard.api.past.moments import parse_moment
from taskyard.api.past.questions import Past
from taskyard.api.past.state import PastState
from taskyard.api.past.travel import TimeTravel
from taskyard.api.postgres_read_model import PostgresReadModel
from taskyard.api.read_model import TaskFilter
from taskyard.contracts.events import QueuePaused, TaskProgressed
from taskyard.contracts.values import SECOND, Instant, TaskId, format_instant
from taskyard.eventlog.snapshots import MemorySnapshots


def travel(story: Any, snapshots: MemorySnapshots | None = None, **limits: Any) -> TimeTravel:
    checkpoints = Checkpoints(snapshots or MemorySnapshots(), step_events=50, at_most=6)
    return TimeTravel(story.log, checkpoints, lambda: story.now, **limits)


def plain(views: Any) -> Any:
    """Views as JSON, with texts and numbers as PostgreSQL keeps them and without the moment that they name."""
    text = msgspec.json.encode(views).decode().replace("\\u0000", "\ufffd").replace(str(1 << 70), str((1 << 63) - 1))
    found = msgspec.json.decode(text)
    for view in found if isinstance(found, list) else [found]:
        view.pop("as_of", None)
        for slot in view.get("slots", ()):
            slot.pop("task")  # what is told here gives a slot to two tasks at times, which nobody else does
    return found


async def said_by_the_read_model(model: PostgresReadModel) -> dict[str, Any]:
    page = await model.tasks(TaskFilter(limit=500))
    return {
        "tasks": {task.id: plain(task) for task in page.items},
        "workers": plain(await model.workers()),
        "queues": plain(await model.queues()),
        "pools": plain(await model.pools()),
    }


async def said_by_the_past(past: Past, at: str, tasks: list[str]) -> dict[str, Any]:
    return {
        "tasks": {id: plain((await past.task(TaskId(id), at, sees_only=None))[1]) for id in tasks},
        "workers": plain((await past.workers(at))[2]),
        "queues": plain((await past.queues(at))[2]),
        "pools": plain((await past.pools(at))[2]),
    }


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two answers differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [each for key in one for each in differences(one[key], other[key], f"{path}.{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [each for number, pair in pairs for each in differences(*pair, f"{path}[{number}]")]
    return [] if one == other else [f"{path}: {one!r} instead of {other!r}"]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_moment_is_shown_as_the_read_model_showed_it(
    seed: int, story: Any, dsn: str, run: Any, project: Any
) -> None:
    async def scenario() -> None:
        remembered: list[tuple[int, Instant, dict[str, Any]]] = []
        async with PostgresReadModel.connect(dsn, lambda: story.now) as model:
            story.join("worker-1")
            story.join("worker-2")
            for part in range(4):
                story.tell_anything(seed * 10 + part, 20)
                await project(story)
                remembered.append((story.head, story.now, await said_by_the_read_model(model)))
            snapshots = MemorySnapshots()
            await travel(story, snapshots).keep_until(story.head, rest=0)
            past = Past(travel(story, snapshots), story.log, model)
            forwards = [(str(sequence), said) for sequence, _, said in remembered]
            backwards = [(format_instant(at), said) for _, at, said in reversed(remembered)]
            for moment, said in [*forwards, *backwards]:
                differing = differences(await said_by_the_past(past, moment, list(said["tasks"])), said)
                assert not differing, f"at {moment}: {differing[:3]}"

    run(scenario())


def test_a_position_inside_a_commit_shows_the_events_up_to_it(story: Any, run: Any) -> None:
    async def scenario() -> None:
        one, two = (QueuePaused(pool="default", queue=queue, by="admin") for queue in ("a", "b"))
        story.commit(one, two)
        past = Past(travel(story), story.log, None)  # type: ignore[arg-type] (settings are not in the read model)
        assert [queue.queue for queue in (await past.queues("1.0"))[2]] == ["a"]
        _, as_of, queues = await past.queues("1.1")
        assert [queue.queue for queue in queues] == ["a", "b"]
        assert (as_of.position, as_of.at) == ("1.1", format_instant(story.now))
        assert [queue.queue for queue in (await past.queues("1.0"))[2]] == ["a"], "it can go back"

    run(scenario())


def test_a_task_that_was_not_submitted_yet_is_not_found_and_told_since_when_it_is(
    story: Any, run: Any, dsn: str, project: Any
) -> None:
    async def scenario() -> None:
        story.join()
        task = story.submit(by="alice")
        await project(story)
        async with PostgresReadModel.connect(dsn, lambda: story.now) as model:
            past = Past(travel(story), story.log, model)
            with pytest.raises(Refusal, match=r"submitted later, at 20.*\(position 2.0\)") as refused:
                await past.task(task, "1", sees_only=None)
            assert refused.value.status == 404
            for seer in ("bob", "alice"):
                expected = pytest.raises(Refusal, match="no such task") if seer == "bob" else None
                if expected:
                    with expected:
                        await past.task(task, "2", sees_only=seer)
                else:
                    assert (await past.task(task, "2", sees_only=seer))[1].status == "pending"

    run(scenario())


@pytest.mark.parametrize(
    ("at", "says"),
    [
        ("9", "the log ends with commit 2"),
        ("0", "before the beginning of the log at position 1.0"),
        ("2001-01-01T00:00:00Z", "before the beginning of the log at 20"),
        ("2999-01-01T00:00:00Z", "is in the future"),
        ("2026-11-21T10:00:00", "an RFC 3339 time with a zone"),
        ("yesterday", "must be a position of the log, or an RFC 3339 time with a zone"),
        ("", "must be a position of the log"),
        ("99999-01-01T00:00:00Z", "must be a position of the log"),
    ],
)
def test_what_is_no_moment_of_the_log_is_refused_at_its_field(at: str, says: str, story: Any, run: Any) -> None:
    story.join()
    story.submit()
    with pytest.raises(Refusal, match=says) as refused:
        run(travel(story).look(at, lambda state: state))
    assert refused.value.status == 422
    assert [error.path for error in refused.value.errors] == ["at"]


def test_an_empty_log_has_no_past(story: Any, run: Any) -> None:
    with pytest.raises(Refusal, match="the log is empty"):
        run(travel(story).look("2026-11-21T10:00:00Z", lambda state: state))


def test_a_time_between_two_commits_shows_the_earlier_one(story: Any, run: Any) -> None:
    story.join()
    between = Instant(story.now + SECOND // 2)
    story.submit()
    assert run(travel(story).look(format_instant(between), lambda state: state.sequence)) == 1


def busy(story: Any, commits: int) -> TaskId:
    story.join()
    task = story.submit()
    story.start(task)
    for number in range(commits):
        story.commit(TaskProgressed(task=task, attempt=1, progress=number % 100), writer="dispatcher")
    return task


def test_a_fold_that_takes_too_long_is_answered_503_and_goes_on_the_next_time(story: Any, run: Any) -> None:
    busy(story, 3_000)
    traveller = travel(story, fold_seconds_max=0.0001)
    refusals: list[Refusal] = []

    async def scenario() -> PastState:
        while True:
            try:
                return await traveller.look(str(story.head), lambda state: state)
            except Refusal as refused:
                refusals.append(refused)

    assert run(scenario()).sequence == story.head
    assert len(refusals) > 5
    assert all(each.status == 503 and "Retry-After" in each.headers for each in refusals)
    assert "try again, it goes on from there" in refusals[0].detail


def test_more_questions_than_may_wait_are_refused(story: Any, run: Any) -> None:
    busy(story, 10)
    traveller = travel(story, waiting_max=2)

    async def scenario() -> list[Any]:
        release = threading.Event()
        first = asyncio.create_task(traveller.look("3", lambda _: release.wait(20)))
        async with asyncio.timeout(10):
            while not traveller._folding.locked():
                await asyncio.sleep(0)
        waiting = [asyncio.create_task(traveller.look("3", lambda state: state.sequence)) for _ in range(3)]
        async with asyncio.timeout(10):
            while not any(each.done() for each in waiting):
                await asyncio.sleep(0.001)
        release.set()
        return [await first, *await asyncio.gather(*waiting, return_exceptions=True)]

    first, *others = run(scenario())
    assert first is True
    assert sorted(str(other) for other in others)[:2] == ["2 questions about the past wait already; try again", "3"]


def test_the_fold_does_not_run_on_the_event_loop(story: Any, run: Any) -> None:
    busy(story, 5)
    threads: list[str] = []
    run(travel(story).look("3", lambda _: threads.append(threading.current_thread().name)))
    assert threads and threads[0] != threading.main_thread().name


def test_kept_states_are_bounded_and_every_moment_is_a_bounded_fold_away(story: Any, run: Any) -> None:
    busy(story, 2_000)

    async def scenario() -> None:
        snapshots = MemorySnapshots()
        keeper = travel(story, snapshots)
        await keeper.keep_until(story.head, rest=0)
        await keeper.keep_until(story.head, rest=0)  # a second round finds nothing to do
        fresh = Checkpoints(snapshots, step_events=50, at_most=6)
        kept = sorted((await fresh._known()).values(), key=lambda each: each.ordinal)
        assert 3 <= len(kept) <= 6
        assert len({each.place for each in kept}) == len(kept)
        gaps = {later.ordinal - earlier.ordinal for earlier, later in pairwise(kept)}
        assert gaps == {kept[0].ordinal}, "they stand at equal distances from the beginning on"
        for each in kept:
            state = await fresh.before(parse_moment(str(each.sequence + 3)))
            assert state is not None and state.sequence == each.sequence
        assert await fresh.before(parse_moment("3")) is None

    run(scenario())


def test_a_damaged_kept_state_is_passed_over(story: Any, run: Any) -> None:
    task = busy(story, 300)

    async def scenario() -> None:
        snapshots = MemorySnapshots()
        await travel(story, snapshots).keep_until(story.head, rest=0)
        for place in range(7):
            if f"past_{place:02}" in snapshots._kept:
                snapshots.damage(f"past_{place:02}")
        progress = await travel(story, snapshots).look("250", lambda state: state.tasks.live[task].progress)
        assert progress == await travel(story).look("250", lambda state: state.tasks.live[task].progress)

    run(scenario())
