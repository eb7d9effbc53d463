"""The past: at every moment it says what the read model said then, however the log went on, and refuses what is no moment."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from taskyard.api.errors import Refusal
from taskyard.api.list_pages import POOLS, QUEUES, WORKERS, first_page, read_wanted
from taskyard.api.past import keeping, questions
from taskyard.api.past.checkpoints import Checkpoints
from taskyard.api.past.keeping import keep_until
from taskyard.api.past.moments import parse_moment
from taskyard.api.past.questions import Past
from taskyard.api.past.state import PastState, end_of
from taskyard.api.past.travel import TimeTravel, moment_in
from taskyard.api.postgres_read_model import PostgresReadModel
from taskyard.api.read_model import TaskFilter
from taskyard.api.views import TaskPage
from taskyard.contracts.events import QueuePaused, TaskProgressed, TaskScheduled
from taskyard.contracts.lifecycle import Phase
from taskyard.contracts.tasks import TaskTable
from taskyard.contracts.values import SECOND, Instant, Status, TaskId, format_instant
from taskyard.eventlog.snapshots import MemorySnapshots


def kept(story: Any, snapshots: MemorySnapshots | None = None) -> Checkpoints:
    return Checkpoints(snapshots or MemorySnapshots(), story.log, step_events=50, at_most=6)


def travel(story: Any, snapshots: MemorySnapshots | None = None, **limits: Any) -> TimeTravel:
    return TimeTravel(story.log, kept(story, snapshots), lambda: story.now, **limits)


async def keep(story: Any, snapshots: MemorySnapshots) -> None:
    await keep_until(story.head, story.log, kept(story, snapshots), rest=0)


def plain(views: Any) -> Any:
    """Views as JSON, with texts and numbers as PostgreSQL keeps them and without the moment that they name."""
    text = msgspec.json.encode(views).decode().replace("\\u0000", "\ufffd").replace(str(1 << 70), str((1 << 63) - 1))
    found = msgspec.json.decode(text)
    for view in found if isinstance(found, list) else [found]:
        view.pop("as_of", None)
        for slot in view.get("slots", ()):
            slot.pop("task")  # what is told here gives a slot to two tasks at times, which nobody else does
    return found


def test_an_event_that_the_past_cannot_fold_hides_nothing_behind_it(
    story: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = story.submit(), story.submit()
    story.commit(TaskScheduled(task=bad), TaskScheduled(task=good))
    apply = TaskTable.apply

    def touchy(self: TaskTable, event: Any, at: Any, position: Any) -> Any:
        if isinstance(event, TaskScheduled) and event.task == bad:
            raise ZeroDivisionError("a bug")
        return apply(self, event, at, position)

    async def folded() -> PastState:
        state = PastState()
        async for stored in story.log.read(1, story.head):
            state.fold(stored, end_of(stored.sequence))
        return state

    monkeypatch.setattr(TaskTable, "apply", touchy)
    state = asyncio.run(folded())

    phases = {task: record.phase for task, record in state.tasks.live.items()}
    assert phases == {bad: Phase.PENDING, good: Phase.SCHEDULED}
    assert state.sequence == story.head


def test_states_of_the_past_are_kept_again_after_whatever_went_wrong_once(
    story: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "KEEP_SECONDS", 0.01)
    monkeypatch.setattr(keeping, "KEEP_COMMITS_MIN", 1)
    story.tell_anything(1, commits=40)
    head, raised = story.log.head, asyncio.Event()

    async def touchy() -> int:
        if not raised.is_set():
            raised.set()
            raise ZeroDivisionError("a bug")
        return await head()

    async def scenario() -> None:
        monkeypatch.setattr(story.log, "head", touchy)
        checkpoints = kept(story)
        keeps = asyncio.create_task(keeping.keep_up(story.log, checkpoints))
        async with asyncio.timeout(20):
            await raised.wait()
            while await checkpoints.latest() is None:
                assert not keeps.done()
                await asyncio.sleep(0.01)
        keeps.cancel()

    asyncio.run(scenario())


async def said_by_the_read_model(model: PostgresReadModel) -> dict[str, Any]:
    page = await model.tasks(TaskFilter(limit=500))
    return {
        "tasks": {task.id: plain(task) for task in page.items},
        "workers": plain(await model.workers(first_page(WORKERS), sees_only=None)),
        "queues": plain(await model.queues(first_page(QUEUES))),
        "pools": plain(await model.pools(first_page(POOLS))),
    }


async def said_by_the_past(past: Past, at: str, tasks: list[str]) -> dict[str, Any]:
    return {
        "tasks": {id: plain((await past.task(TaskId(id), at, sees_only=None))[1]) for id in tasks},
        "workers": plain((await past.workers(at, first_page(WORKERS), sees_only=None))[2]),
        "queues": plain((await past.queues(at, first_page(QUEUES)))[2]),
        "pools": plain((await past.pools(at, first_page(POOLS)))[2]),
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
            await keep(story, snapshots)
            past = Past(travel(story, snapshots), model)
            forwards = [(str(sequence), said) for sequence, _, said in remembered]
            backwards = [(format_instant(at), said) for _, at, said in reversed(remembered)]
            for moment, said in [*forwards, *backwards]:
                differing = differences(await said_by_the_past(past, moment, list(said["tasks"])), said)
                assert not differing, f"at {moment}: {differing[:3]}"

    run(scenario())


SORTS_AND_FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"sort": "submitted_at"},
    {"sort": "priority"},
    {"sort": "-priority", "kinds": ("plan", "noop")},
    {"sort": "finished_at"},
    {"sort": "-finished_at", "queues": ("prod",)},
    {"statuses": (Status.PENDING, Status.RUNNING)},
    {"statuses": (Status.COMPLETED, Status.FAILED, Status.APPLY_PENDING), "sort": "finished_at"},
    {"workers": ("worker-1",), "pools": ("default",)},
    {"submitters": ("alice",), "sort": "-priority"},
    {"labels": (("team", "net"),), "sort": "priority"},
    {"sees_only": "bob"},
)
"""Of lists: each sort and each filter at least once."""


async def every_page(list_page: Callable[[TaskFilter], Awaitable[TaskPage]], limit: int, **wanted: Any) -> list[Any]:
    """A list page by page, as JSON."""
    items: list[Any] = []
    cursor = None
    while True:
        page = await list_page(TaskFilter(limit=limit, cursor=cursor, **wanted))
        assert len(page.items) <= limit
        items += page.items
        cursor = page.next_cursor
        if cursor is None:
            return plain(items)


def test_the_list_at_every_position_is_what_the_list_of_now_was_then(
    story: Any, dsn: str, run: Any, start_projector: Any, wait: Any
) -> None:
    async def scenario() -> None:
        remembered: dict[int, tuple[Instant, list[list[Any]]]] = {}
        story.join("worker-1")
        story.join("worker-2")
        async with PostgresReadModel.connect(dsn, lambda: story.now) as model:
            async with start_projector(story) as projector:
                for seed in range(100, 124):
                    story.tell_anything(seed, 1)
                    if seed % 3 == 0:  # what is told at random seldom gets so far
                        task = story.submit(priority=1 + seed % 4, labels={"team": "net"})
                        story.start(task)
                        if seed % 2:
                            story.succeed(task)
                    await wait(lambda: projector.folded == story.head)
                    lists = [await every_page(model.tasks, 500, **wanted) for wanted in SORTS_AND_FILTERS]
                    remembered[story.head] = story.now, lists
            lengths = [max(len(lists[i]) for _, lists in remembered.values()) for i in range(len(SORTS_AND_FILTERS))]
            assert min(lengths) > 2, f"every list has several pages at some time: {lengths}"
            past = Past(travel(story), model)
            for sequence, (at, lists) in reversed(remembered.items()):
                moment = str(sequence) if sequence % 2 else format_instant(at)
                for wanted, said in zip(SORTS_AND_FILTERS, lists, strict=True):
                    found = await every_page(page_of(past, moment), 2 if sequence % 4 == 0 else 500, **wanted)
                    order, expected = ([task["id"] for task in tasks] for tasks in (found, said))
                    assert order == expected, f"{wanted} at {moment}"
                    differing = differences(found, said)
                    assert not differing, f"{wanted} at {moment}: {differing[:3]}"

    run(scenario())


def page_of(past: Past, at: str) -> Callable[[TaskFilter], Awaitable[TaskPage]]:
    async def list_page(wanted: TaskFilter) -> TaskPage:
        return (await past.tasks(wanted, at))[1]

    return list_page


def test_pages_of_one_moment_are_one_moment_however_the_log_goes_on(
    story: Any, dsn: str, run: Any, project: Any
) -> None:
    async def scenario() -> None:
        story.join()
        tasks = [story.submit() for _ in range(6)]
        story.start(tasks[0])
        story.succeed(tasks[0])
        await project(story)
        async with PostgresReadModel.connect(dsn, lambda: story.now) as model:
            past, now = Past(travel(story), model), format_instant(Instant(story.now + SECOND // 2))
            _, first = await past.tasks(TaskFilter(limit=2), now)
            story.start(tasks[1])
            story.succeed(tasks[1])
            story.submit()
            await project(story)
            await past.queues(str(story.head), first_page(QUEUES))  # the fold goes on meanwhile, too
            _, second = await past.tasks(TaskFilter(limit=2, cursor=first.next_cursor), now)
            _, third = await past.tasks(TaskFilter(limit=2, cursor=second.next_cursor), now)
        assert [task.id for page in (first, second, third) for task in page.items] == list(reversed(tasks))
        assert [task.status for task in third.items] == ["pending", "completed"]
        assert first.as_of == second.as_of == third.as_of and third.next_cursor is None

    run(scenario())


def test_a_cursor_of_another_list_is_refused(story: Any, dsn: str, run: Any, project: Any) -> None:
    async def scenario() -> None:
        story.join()
        for _ in range(3):
            story.submit()
        await project(story)
        async with PostgresReadModel.connect(dsn, lambda: story.now) as model:
            past = Past(travel(story), model)
            of_now = (await model.tasks(TaskFilter(limit=1))).next_cursor
            of_then = (await past.tasks(TaskFilter(limit=1), "4"))[1].next_cursor
            for cursor, at, says in (
                (of_now, "4", "belongs to a list of now"),
                (of_then, "3", "another moment: give the same `at`"),
                (of_then, format_instant(story.now), "another moment"),
                (of_then, None, "of the past: give its `at`"),
                ("nonsense", "4", "is not a cursor"),
            ):
                wanted = TaskFilter(limit=1, cursor=cursor)
                with pytest.raises(Refusal, match=says) as refused:
                    await (model.tasks(wanted) if at is None else past.tasks(wanted, at))
                assert refused.value.errors[0].path == "cursor"
            with pytest.raises(Refusal, match="must be one of submitted_at"):
                await past.tasks(TaskFilter(sort="colour"), "4")

    run(scenario())


def test_what_the_read_model_lacks_of_a_moment_is_waited_for(
    story: Any, dsn: str, run: Any, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        story.join()
        task = story.submit()
        await project(story)
        story.start(task)
        story.succeed(task)
        async with PostgresReadModel.connect(dsn, lambda: story.now) as model:
            past = Past(travel(story), model)
            assert (await past.tasks(TaskFilter(statuses=(Status.PENDING,)), "2"))[1].items[0].id == task
            monkeypatch.setattr(questions, "CATCH_UP_SECONDS_MAX", 0.05)
            head = str(story.head)
            for question in (past.tasks(TaskFilter(), head), past.task(task, head, sees_only=None)):
                with pytest.raises(Refusal, match=f"has not reached commit {head} in time") as refused:
                    await question
                assert refused.value.status == 504
            monkeypatch.undo()
            waiting = asyncio.create_task(past.task(task, head, sees_only=None))
            await project(story)
            assert (await waiting)[1].status == "completed"

    run(scenario())


def test_the_same_moment_asked_twice_shows_the_same_time(story: Any, run: Any) -> None:
    story.commit(QueuePaused(pool="default", queue="a", by="admin"))
    story.commit(QueuePaused(pool="default", queue="b", by="admin"))
    past = Past(travel(story), None)  # type: ignore[arg-type] (settings are not in the read model)

    async def scenario() -> None:
        first, again = (await past.queues("1", first_page(QUEUES)))[1], (await past.queues("1", first_page(QUEUES)))[1]
        assert first == again

    run(scenario())


@pytest.mark.parametrize("events", [8, 300])
def test_a_log_that_takes_the_place_of_another_is_told_from_its_own_events(story: Any, run: Any, events: int) -> None:
    """A log that is restored from an old archive, or made anew, while the service runs and its kept states stay."""
    busy(story, 200)
    other = type(story)()
    other.submit(queue="other")
    for number in range(events):
        other.commit(QueuePaused(pool="default", queue=f"queue-{number % 7}", by="admin"))

    async def scenario() -> None:
        snapshots = MemorySnapshots()
        await keep(story, snapshots)
        traveller = travel(story, snapshots)
        past = Past(traveller, None)  # type: ignore[arg-type] (settings are not in the read model)
        assert [queue.queue for queue in (await past.queues("201", first_page(QUEUES)))[2]] == ["default"]
        story.stream.__dict__.update(other.stream.__dict__)
        for at in ("4", str(other.head)):
            assert "other" in {queue.queue for queue in (await past.queues(at, first_page(QUEUES)))[2]}, at
        with pytest.raises(Refusal, match="before the beginning of the log"):
            await past.queues(format_instant(Instant(story.now - 365 * 24 * 3600 * SECOND)), first_page(QUEUES))
        await keep_until(other.head, story.log, kept(story, snapshots), rest=0)
        checkpoints = kept(story, snapshots)
        latest = await checkpoints.latest()
        assert (latest is not None) == (events == 300)
        assert latest is None or ("default", "other") in latest.queues

    run(scenario())


def test_a_position_inside_a_commit_shows_the_events_up_to_it(story: Any, run: Any) -> None:
    async def scenario() -> None:
        one, two = (QueuePaused(pool="default", queue=queue, by="admin") for queue in ("a", "b"))
        story.commit(one, two)
        past = Past(travel(story), None)  # type: ignore[arg-type] (settings are not in the read model)
        assert [queue.queue for queue in (await past.queues("1.0", first_page(QUEUES)))[2]] == ["a"]
        _, as_of, queues, _ = await past.queues("1.1", first_page(QUEUES))
        assert [queue.queue for queue in queues] == ["a", "b"]
        assert (as_of.position, as_of.at) == ("1.1", format_instant(story.now))
        assert [queue.queue for queue in (await past.queues("1.0", first_page(QUEUES)))[2]] == ["a"], "it can go back"

    run(scenario())


def test_a_task_that_was_not_submitted_yet_is_not_found_and_told_since_when_it_is(
    story: Any, run: Any, dsn: str, project: Any
) -> None:
    async def scenario() -> None:
        story.join()
        task = story.submit(by="alice")
        await project(story)
        async with PostgresReadModel.connect(dsn, lambda: story.now) as model:
            past = Past(travel(story), model)
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
        run(travel(story).look(moment_in(at), lambda state: state))
    assert refused.value.status == 422
    assert [error.path for error in refused.value.errors] == ["at"]


def test_an_empty_log_has_no_past(story: Any, run: Any) -> None:
    with pytest.raises(Refusal, match="the log is empty"):
        run(travel(story).look(moment_in("2026-11-21T10:00:00Z"), lambda state: state))


def test_a_time_between_two_commits_shows_the_earlier_one(story: Any, run: Any) -> None:
    story.join()
    between = Instant(story.now + SECOND // 2)
    story.submit()
    assert run(travel(story).look(moment_in(format_instant(between)), lambda state: state.sequence)) == 1


def test_a_time_that_an_answer_shows_is_after_what_it_shows_at_that_time(story: Any, run: Any) -> None:
    story.now = Instant(story.now // 1_000 * 1_000 + 357)
    story.join()
    submitted = story.now
    shown = format_instant(submitted)
    assert shown != format_instant(Instant(submitted + 1_000)), "answers show milliseconds"
    assert run(travel(story).look(moment_in(shown), lambda state: state.sequence)) == story.head
    exact = f"{shown.removesuffix('Z')}{submitted % 1_000 - 1:03}Z"
    with pytest.raises(Refusal, match="before the beginning of the log"):
        run(travel(story).look(moment_in(exact), lambda state: state.sequence))


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
                return await traveller.look(moment_in(str(story.head)), lambda state: state)
            except Refusal as refused:
                refusals.append(refused)

    assert run(scenario()).sequence == story.head
    assert len(refusals) > 5
    assert all(each.status == 503 and "Retry-After" in each.headers for each in refusals)
    assert "try again, it goes on from there" in refusals[0].detail


def test_the_fold_does_not_run_on_the_event_loop(story: Any, run: Any) -> None:
    busy(story, 5)
    threads: list[str] = []
    run(travel(story).look(moment_in("3"), lambda _: threads.append(threading.current_thread().name)))
    assert threads and threads[0] != threading.main_thread().name


def test_kept_states_are_bounded_and_every_moment_is_a_bounded_fold_away(story: Any, run: Any) -> None:
    busy(story, 2_000)

    async def scenario() -> None:
        snapshots = MemorySnapshots()
        await keep(story, snapshots)
        await keep(story, snapshots)  # a second round finds nothing to do
        fresh = kept(story, snapshots)
        found = sorted((await fresh._known()).values(), key=lambda each: each.ordinal)
        assert 3 <= len(found) <= 6
        assert len({each.place for each in found}) == len(found)
        gaps = {later.ordinal - earlier.ordinal for earlier, later in pairwise(found)}
        assert gaps == {found[0].ordinal}, "they stand at equal distances from the beginning on"
        for each in found:
            state = await fresh.before(parse_moment(str(each.sequence + 3)))
            assert state is not None and state.sequence == each.sequence
        assert await fresh.before(parse_moment("3")) is None

    run(scenario())


def test_a_damaged_kept_state_is_passed_over(story: Any, run: Any) -> None:
    task = busy(story, 300)

    async def scenario() -> None:
        snapshots = MemorySnapshots()
        await keep(story, snapshots)
        for place in range(7):
            if f"past_{place:02}" in snapshots._kept:
                snapshots.damage(f"past_{place:02}")
        progress = await travel(story, snapshots).look(moment_in("250"), lambda state: state.tasks.live[task].progress)
        assert progress == await travel(story).look(moment_in("250"), lambda state: state.tasks.live[task].progress)

    run(scenario())


def test_all_pages_of_a_list_of_the_past_show_one_moment(story: Any, run: Any) -> None:
    async def scenario() -> None:
        for queue in ("a", "b", "c"):
            story.submit(queue=queue)
        now = format_instant(story.now)
        past = Past(travel(story), None)  # type: ignore[arg-type] (settings are not in the read model)
        _, as_of, items, cursor = await past.queues(now, read_wanted(QUEUES, 2, None))
        assert [queue.queue for queue in items] == ["a", "b"]
        story.submit(queue="bb")
        story.submit(queue="d")
        _, later, items, cursor = await past.queues(now, read_wanted(QUEUES, 2, cursor))
        assert ([queue.queue for queue in items], cursor, later) == (["c"], None, as_of)
        _, _, _, cursor = await past.queues("1.0", read_wanted(QUEUES, 1, None))
        assert cursor is None
        _, _, _, cursor = await past.queues("3.0", read_wanted(QUEUES, 1, None))
        with pytest.raises(Refusal, match="another moment"):
            await past.queues("2.0", read_wanted(QUEUES, 1, cursor))

    run(scenario())
