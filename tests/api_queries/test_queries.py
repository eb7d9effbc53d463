"""Reading from a real read model: forms of the answers, filters, sorting, paging, waiting for a position."""

import asyncio
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from taskyard.api.errors import ReadModelUnavailable, Refusal
from taskyard.api.list_pages import HISTORY, POOLS, QUEUES, WORKERS, Listed, first_page, page_of, read_wanted
from taskyard.api.pages import FilterInvalid
from taskyard.api.postgres_read_model import PostgresReadModel
from taskyard.api.read_model import TaskFilter
from taskyard.contracts.events import (
    AttemptFailed,
    ForceStopped,
    QueueConfigured,
    QueueLocked,
    QueuePaused,
    TaskError,
    TaskScheduled,
    TaskStarted,
    TaskStopRequested,
    WorkerDrainRequested,
    WorkerLost,
    WorkerSuspected,
)
from taskyard.contracts.values import Status, format_instant, make_position

FIELDS = [
    "id", "kind", "pool", "queue", "priority", "status", "attempt", "worker", "slot", "progress", "error",
    "pending_reason", "submitted_by", "submitted_at", "scheduled_at", "started_at", "finished_at", "result", "labels",
    "retry_of", "parent", "position",
]  # fmt: skip


def plain(view: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(view))


def test_a_task_has_the_documented_form(story: Any, read: Any) -> None:
    task = story.submit(labels={"team": "net"}, priority=3, queue="prod")
    submitted_at = story.now
    story.start(task)
    story.succeed(task)

    view = plain(read(lambda model: model.task(task, sees_only="alice")))

    assert list(view) == FIELDS
    assert view == {
        "id": task,
        "kind": "noop",
        "pool": "default",
        "queue": "prod",
        "priority": 3,
        "status": "completed",
        "attempt": 1,
        "worker": "worker-1",
        "slot": 0,
        "progress": 100,
        "error": None,
        "pending_reason": None,
        "submitted_by": "alice",
        "submitted_at": format_instant(submitted_at),
        "scheduled_at": view["scheduled_at"],
        "started_at": view["started_at"],
        "finished_at": format_instant(story.now),
        "result": {"exit_code": 0},
        "labels": {"team": "net"},
        "retry_of": None,
        "parent": None,
        "position": "6.0",
    }
    assert view["submitted_at"].endswith("Z")
    assert view["submitted_at"] < view["scheduled_at"] < view["started_at"] < view["finished_at"]


def test_a_failed_task_tells_its_error(story: Any, read: Any) -> None:
    task = story.submit()
    story.start(task)
    error = TaskError(code="exit_status", message="ended with \x001", retryable=False)
    story.commit(AttemptFailed(task=task, attempt=1, error=error), writer="dispatcher")

    view = plain(read(lambda model: model.task(task, sees_only=None)))

    assert view["status"] == "failed"
    assert view["error"] == {"code": "exit_status", "message": "ended with \x001", "retryable": False}


def test_a_plan_that_waits_shows_its_changes(story: Any, read: Any) -> None:
    task = story.submit(kind="plan_and_apply", queue="prod")
    story.start(task)
    story.plan(task)

    view = plain(read(lambda model: model.task(task, sees_only=None)))

    assert view["result"] == {"changes": {"add": 1, "change": 0, "destroy": 0}}


@pytest.mark.parametrize("sees_only", ["bob", None])
def test_what_is_not_there_or_of_others_is_not_found(story: Any, read: Any, sees_only: str | None) -> None:
    task = story.submit()
    unknown = task if sees_only else "0199f3c2-0000-7000-8000-000000000000"

    with pytest.raises(Refusal) as refusal:
        read(lambda model: model.task(unknown, sees_only=sees_only))

    assert refusal.value.status == 404


def test_history_tells_every_event_in_order(story: Any, read: Any) -> None:
    task = story.submit()
    story.start(task)
    story.commit(TaskStarted(task=task, attempt=1), writer="dispatcher")
    story.commit(TaskStopRequested(task=task, cause="cancel", by="bob", reason="why"))

    items = plain(read(lambda model: model.history(task, first_page(HISTORY))))

    assert [(item["type"], item["by"], item["void"]) for item in items] == [
        ("TaskSubmitted", "alice", False),
        ("TaskScheduled", "scheduler", False),
        ("SlotAssigned", "slot_allocator", False),
        ("TaskDispatched", "dispatcher", False),
        ("TaskStarted", "dispatcher", False),
        ("TaskStarted", "dispatcher", True),
        ("TaskStopRequested", "bob", False),
    ]
    assert list(items[0]) == ["position", "at", "type", "by", "void", "data"]
    assert items[0]["data"]["input"] == {"secret": "input"}
    assert items[6]["data"] == {"cause": "cancel", "reason": "why"}
    assert [item["position"] for item in items] == [f"{sequence}.0" for sequence in range(1, 8)]
    assert all(first["at"] <= second["at"] for first, second in pairwise(items))


def test_workers_show_what_their_slots_have(story: Any, read: Any) -> None:
    story.join("worker-1")
    story.join("worker-2")
    story.join("worker-3")
    story.join("worker-4")
    running, reserved, again = story.submit(), story.submit(kind="plan_and_apply"), story.submit()
    story.start(running, slot=0)
    story.start(reserved, slot=1)
    story.plan(reserved)
    story.start(again, slot=2)
    error = TaskError(code="exit_status", message="", retryable=True)
    story.commit(AttemptFailed(task=again, attempt=1, error=error), writer="dispatcher")
    story.commit(WorkerSuspected(worker="worker-2", incarnation=1), writer="slot_allocator")
    story.commit(WorkerDrainRequested(pool="default", worker="worker-3", by="bob"))
    story.commit(WorkerLost(worker="worker-4", incarnation=1), writer="slot_allocator")

    workers = plain(read(lambda model: model.workers(first_page(WORKERS), sees_only=None)))

    assert [(worker["id"], worker["status"]) for worker in workers] == [
        ("worker-1", "active"),
        ("worker-2", "suspect"),
        ("worker-3", "draining"),
        ("worker-4", "lost"),
    ]
    assert workers[0]["slots"] == [
        {"id": 0, "status": "running", "accepts": ["any"], "task": running},
        {"id": 1, "status": "reserved", "accepts": ["plan"], "task": reserved},
        {"id": 2, "status": "idle", "accepts": ["plan"], "task": None},
    ]
    assert workers[0]["labels"] == {}

    story.now += 2 * 24 * 3600 * 1_000_000
    assert len(plain(read(lambda model: model.workers(first_page(WORKERS), sees_only=None)))) == 3


def test_queues_and_pools_show_depth_limits_locks_and_pauses(story: Any, read: Any) -> None:
    story.join()
    tasks = [story.submit(queue="prod") for _ in range(3)]
    story.start(tasks[0])
    story.commit(TaskScheduled(task=tasks[1]))
    story.commit(
        QueueConfigured(pool="default", queue="prod", by="bob", max_running=2),
        QueueLocked(pool="default", queue="prod", by="bob", reason="mine"),
        QueuePaused(pool="default", by="bob", reason="night"),
    )

    async def question(model: PostgresReadModel) -> Any:
        return plain(await model.queues(first_page(QUEUES))), plain(await model.pools(first_page(POOLS)))

    (queue,), (pool,) = read(question)

    at = format_instant(story.now)
    assert queue == {
        "pool": "default", "queue": "prod", "depth": 2, "running": 1, "max_running": 2, "paused": True,
        "paused_scope": "pool", "paused_by": "bob", "paused_reason": "night", "paused_at": at, "locked": True, "locked_by": "bob",
        "locked_reason": "mine", "locked_at": at,
    }  # fmt: skip
    assert pool == {
        "pool": "default", "depth": 2, "running": 1, "workers": 1, "max_waiting": None,
        "approval_timeout_seconds": None, "placement": None, "paused": True, "paused_by": "bob",
        "paused_reason": "night", "paused_at": at,
    }  # fmt: skip


def test_stats_count_by_status_and_kind_and_measure_times(story: Any, read: Any) -> None:
    for _ in range(3):
        task = story.submit()
        story.start(task)
        story.commit(after_seconds=6)
        story.succeed(task)
    story.submit(kind="command")

    stats = plain(read(lambda model: model.stats(sees_only=None)))

    assert stats["tasks"] == 4
    assert stats["by_status"] == {status.value: 0 for status in Status} | {"completed": 3, "pending": 1}
    assert stats["by_kind"]["noop"]["completed"] == 3
    assert stats["by_kind"]["command"] == {"pending": 1}
    assert stats["measured"] == 3
    assert stats["waiting_seconds"] == {"mean": 4.0, "p50": 4.0, "p95": 4.0}
    assert stats["execution_seconds"] == {"mean": 7.0, "p50": 7.0, "p95": 7.0}


def test_an_operator_is_told_the_statistics_of_own_tasks_only(story: Any, read: Any) -> None:
    for by, kind, waits in (("alice", "noop", 6), ("bob", "command", 60)):
        task = story.submit(by=by, kind=kind)
        story.start(task)
        story.commit(after_seconds=waits)
        story.succeed(task)
    story.submit(by="bob", kind="plan")

    async def question(model: PostgresReadModel) -> list[Any]:
        return [plain(await model.stats(sees_only=who)) for who in ("alice", "bob", "nobody", None)]

    of_alice, of_bob, of_nobody, of_all = read(question)
    assert (of_alice["tasks"], of_alice["by_kind"], of_alice["measured"]) == (1, {"noop": {"completed": 1}}, 1)
    assert of_alice["execution_seconds"] == {"mean": 7.0, "p50": 7.0, "p95": 7.0}
    assert of_bob["by_kind"] == {"command": {"completed": 1}, "plan": {"pending": 1}}
    assert (of_bob["measured"], of_bob["execution_seconds"]["mean"]) == (1, 61.0)
    assert (of_nobody["tasks"], of_nobody["by_kind"], of_nobody["measured"]) == (0, {}, 0)
    assert (of_all["tasks"], of_all["measured"]) == (3, 2)


def test_an_empty_read_model_answers_everything(story: Any, read: Any) -> None:
    story.commit()

    async def question(model: PostgresReadModel) -> None:
        assert (await model.tasks(TaskFilter())).items == []
        assert await model.workers(first_page(WORKERS), sees_only=None) == []
        assert await model.queues(first_page(QUEUES)) == await model.pools(first_page(POOLS)) == []
        assert plain(await model.stats(sees_only=None))["waiting_seconds"] == {"mean": None, "p50": None, "p95": None}
        assert await model.history("x", first_page(HISTORY)) == []
        assert await model.place("x") is None
        assert await model.pool_of_worker("x") is None

    read(question)


def test_a_queue_tells_its_own_pause_before_that_of_its_pool(story: Any, read: Any) -> None:
    story.submit(queue="prod")
    story.commit(
        QueuePaused(pool="default", by="bob", reason="night"),
        QueuePaused(pool="default", queue="prod", by="eve", reason="mine"),
    )

    (queue,) = plain(read(lambda model: model.queues(first_page(QUEUES))))

    assert (queue["paused_scope"], queue["paused_by"], queue["paused_reason"]) == ("queue", "eve", "mine")


def test_an_operator_is_not_told_whose_tasks_of_others_are_on_a_worker(story: Any, read: Any) -> None:
    story.join("worker-1")
    own, other, stopping = story.submit(by="oscar"), story.submit(), story.submit()
    story.start(own, slot=0)
    story.start(other, slot=1)
    story.start(stopping, slot=2)
    story.commit(ForceStopped(task=stopping, by="root", reason="stuck"))

    def slots_seen_by(sees_only: str | None) -> Any:
        (worker,) = plain(read(lambda model: model.workers(first_page(WORKERS), sees_only=sees_only)))
        return [(slot["status"], slot["task"]) for slot in worker["slots"]]

    assert slots_seen_by(None) == [("running", own), ("running", other), ("running", stopping)]
    assert slots_seen_by("oscar") == [("running", own), ("running", None), ("running", None)]
    assert slots_seen_by("alice") == [("running", None), ("running", other), ("running", stopping)]


# -- lists -------------------------------------------------------------------------------------------------------------


def ids(page: Any) -> list[str]:
    return [view.id for view in page.items]


def test_filters_choose_tasks(story: Any, read: Any) -> None:
    a = story.submit(kind="command", queue="x", labels={"team": "net", "env": "prod"})
    b = story.submit(kind="noop", queue="y", by="bob", labels={"team": "net"})
    c = story.submit(kind="plan", queue="y", pool="other", labels={"team": "db:main"})
    story.start(b)
    story.commit(TaskStopRequested(task=c, cause="cancel", by="bob"))

    async def question(model: PostgresReadModel) -> None:
        for wanted, expected in (
            (TaskFilter(), [c, b, a]),
            (TaskFilter(statuses=(Status.PENDING,)), [a]),
            (TaskFilter(statuses=(Status.CANCELLED, Status.RUNNING)), [c, b]),
            (TaskFilter(kinds=("command",)), [a]),
            (TaskFilter(queues=("y",)), [c, b]),
            (TaskFilter(pools=("other",)), [c]),
            (TaskFilter(submitters=("bob",)), [b]),
            (TaskFilter(workers=("worker-1",)), [b]),
            (TaskFilter(labels=(("team", "net"),)), [b, a]),
            (TaskFilter(labels=(("team", "net"), ("env", "prod"))), [a]),
            (TaskFilter(labels=(("team", "net"), ("team", "db"))), []),
            (TaskFilter(labels=(("team", "db:main"),)), [c]),
            (TaskFilter(sees_only="alice"), [c, a]),
            (TaskFilter(sees_only="alice", submitters=("bob",)), []),
            (TaskFilter(queues=("x", "y"), kinds=("plan", "noop"), pools=("default",)), [b]),
        ):
            assert ids(await model.tasks(wanted)) == expected, wanted

    read(question)


@pytest.mark.parametrize(
    "sort", ["submitted_at", "-submitted_at", "priority", "-priority", "finished_at", "-finished_at", None]
)
def test_pages_show_every_task_once_in_order(story: Any, read: Any, sort: str | None) -> None:
    for number in range(23):
        task = story.submit(priority=1 + number % 3)
        if number % 2:
            story.commit(TaskStopRequested(task=task, cause="cancel", by="bob"))

    async def question(model: PostgresReadModel) -> list[Any]:
        found: list[Any] = []
        cursor = None
        while True:
            page = await model.tasks(TaskFilter(sort=sort, limit=4, cursor=cursor))
            found += page.items
            if page.next_cursor is None:
                return found
            assert len(page.items) == 4
            cursor = page.next_cursor

    found = read(question)

    assert len({view.id for view in found}) == len(found) == 23
    keys = {
        "submitted_at": lambda view: view.submitted_at,
        "priority": lambda view: (view.priority, view.submitted_at),
        "finished_at": lambda view: (view.finished_at or "9999", view.submitted_at),
    }
    name = (sort or "-submitted_at").removeprefix("-")
    assert found == sorted(found, key=keys[name], reverse=not sort or sort.startswith("-"))


def test_a_list_goes_on_behind_its_cursor_though_tasks_come(story: Any, read: Any) -> None:
    for _ in range(6):
        story.submit()

    first = read(lambda model: model.tasks(TaskFilter(limit=3)))
    story.submit()
    second = read(lambda model: model.tasks(TaskFilter(limit=3, cursor=first.next_cursor)))

    assert len(set(ids(first) + ids(second))) == 6
    assert second.next_cursor is None


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (TaskFilter(sort="colour"), "sort"),
        (TaskFilter(sort=""), "sort"),
        (TaskFilter(cursor="?"), "cursor"),
        (TaskFilter(cursor="aGVsbG8"), "cursor"),
        (TaskFilter(cursor="é"), "cursor"),
        (TaskFilter(cursor="WyItc3VibWl0dGVkX2F0IiwtMSwtMV0"), "cursor"),
        (TaskFilter(cursor=""), "cursor"),
    ],
)
def test_what_is_not_possible_is_refused_with_its_field(story: Any, read: Any, wanted: TaskFilter, field: str) -> None:
    story.commit()

    with pytest.raises(Refusal) as refusal:
        read(lambda model: model.tasks(wanted))

    assert refusal.value.status == 422
    assert [error.path for error in refusal.value.errors] == [field]


def test_a_cursor_of_another_sort_is_refused(story: Any, read: Any) -> None:
    story.submit()
    story.submit()
    page = read(lambda model: model.tasks(TaskFilter(limit=1)))

    with pytest.raises(Refusal):
        read(lambda model: model.tasks(TaskFilter(limit=1, sort="priority", cursor=page.next_cursor)))


# -- positions ---------------------------------------------------------------------------------------------------------


def test_who_waits_for_a_position_goes_on_as_soon_as_it_is_there(story: Any, dsn: str, run: Any, project: Any) -> None:
    story.submit()

    async def scenario() -> None:
        await project(story)
        async with PostgresReadModel.connect(dsn, lambda: story.now) as model:
            assert await model.wait_for(make_position(1, 0), 10)
            assert not await model.wait_for(make_position(2, 0), 0.05)
            waiting = [asyncio.create_task(model.wait_for(make_position(2, 0), 20)) for _ in range(50)]
            await asyncio.sleep(0)
            story.submit()
            await project(story)
            assert all(await asyncio.gather(*waiting))
            assert await model.position() == model.last_position == make_position(2, 999)

    run(scenario())


def test_without_postgresql_reading_says_so_at_once(story: Any, run: Any) -> None:
    async def scenario() -> None:
        dsn = "postgresql://postgres@/postgres?host=%2Fnonexistent"
        async with PostgresReadModel.connect(dsn, lambda: story.now) as model:
            with pytest.raises(ReadModelUnavailable):
                await model.position()
            with pytest.raises(ReadModelUnavailable):
                await model.tasks(TaskFilter())
            with pytest.raises(ReadModelUnavailable):
                await model.wait_for(make_position(1, 0), 0.05)

    run(scenario())


def test_before_the_projector_has_made_its_tables_reading_says_so(story: Any, dsn: str, run: Any) -> None:
    async def scenario() -> None:
        async with PostgresReadModel.connect(dsn, lambda: story.now) as model:
            with pytest.raises(ReadModelUnavailable):
                await model.stats(sees_only=None)

    run(scenario())


async def all_pages(listed: Listed[Any], limit: int, ask: Any) -> list[list[Any]]:
    """The keys of every page of a list."""
    pages: list[list[Any]] = []
    cursor: str | None = None
    while cursor is not None or not pages:
        wanted = read_wanted(listed, limit, cursor)
        items, cursor = page_of(listed, await ask(wanted), wanted)
        pages.append([listed.key(item) for item in items])
    return pages


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 100])
def test_pages_of_workers_queues_pools_and_a_history_show_everything_once_in_order(
    story: Any, read: Any, limit: int
) -> None:
    names = ["a", "b-1", "b.1", "b_1"]
    for name in ("a", "b-1", "b_1"):
        story.join(name)
    first = story.submit(queue="a")
    for name in names[1:]:
        story.submit(queue=name)
    for pool in ("b-1", "b_1"):
        story.commit(QueuePaused(pool=pool, by="bob"), QueueConfigured(pool=pool, queue="a", by="bob", max_running=1))
    story.start(first)

    async def question(model: PostgresReadModel) -> Any:
        return [
            await all_pages(WORKERS, limit, lambda wanted: model.workers(wanted, sees_only=None)),
            await all_pages(QUEUES, limit, model.queues),
            await all_pages(POOLS, limit, model.pools),
            await all_pages(HISTORY, limit, lambda wanted: model.history(first, wanted)),
        ]

    found = read(question)
    expected = [
        {("a",), ("b-1",), ("b_1",)},
        {*(("default", name) for name in names), ("b-1", "a"), ("b_1", "a")},
        {("default",), ("b-1",), ("b_1",)},
    ]
    for pages, keys in zip(found, expected, strict=False):
        shown = [key for page in pages for key in page]
        assert len(shown) == len(keys) and set(shown) == keys
        assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    positions = [key for page in found[3] for key in page]
    assert len(positions) == 5 and positions == sorted(positions)


@pytest.mark.parametrize(
    "cursor",
    ["!", "", "bm8", "WyJxdWV1ZXMiLFsiYSJdXQ", "WyJxdWV1ZXMiLFsiYSIsMV1d", "WyJxdWV1ZXMiLFsiYSIsIlx1MDAwMCJdXQ"],
)
def test_a_cursor_that_is_none_or_of_another_list_is_refused(cursor: str) -> None:
    with pytest.raises(FilterInvalid):
        read_wanted(QUEUES, 1, cursor)
    with pytest.raises(FilterInvalid, match="another list"):
        read_wanted(WORKERS, 1, "WyJxdWV1ZXMiLFsiYSIsImIiXV0")
    assert read_wanted(QUEUES, 1, "WyJxdWV1ZXMiLFsiYSIsImIiXV0").behind == ("a", "b")


def test_workers_are_known_from_the_time_on_that_they_have_joined(story: Any, read: Any) -> None:
    story.join()
    story.commit(WorkerLost(worker="worker-1", incarnation=1, reason="left"), writer="slot_allocator")
    assert set(read(lambda model: model.known_workers(["worker-1", "nobody"]))) == {"worker-1"}


def test_pools_are_known_once_a_worker_has_joined_or_a_task_came(story: Any, read: Any) -> None:
    story.join()
    story.submit(pool="gpu")
    assert set(read(lambda model: model.known_pools(["gpu", "nowhere"]))) == {"default", "gpu"}
