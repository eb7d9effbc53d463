"""One row that cannot be made, kept by PostgreSQL or read back stands aside, is counted and told; all others go on."""

from typing import Any

import pytest
from live_rows import rows

from taskyard.contracts.events import QueuePaused, TaskScheduled
from taskyard.contracts.lifecycle import TaskRecord
from taskyard.contracts.values import Position
from taskyard.state_projector import projection as projection_module
from taskyard.state_projector.projector import Projector
from taskyard.state_projector.rebuild import rebuild
from taskyard.state_projector.rows import TASK_COLUMNS, AttemptRow, PoolRow, QueueRow, Row, WorkerRow
from taskyard.state_projector.store import STAGED_ROWS_MIN

LONG = "".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(4_000))
"""Longer than a page of an index, also when it is compressed."""


async def bring_to_head(story: Any, start_projector: Any, wait: Any) -> Projector:
    async with start_projector(story) as projector:
        await wait(lambda: projector.folded == story.head)
        return projector


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"queue": "a\x00b"}, "a NUL character"),
        ({"priority": 1 << 40}, "a number out of range"),
        ({"queue": LONG}, "a key that no index can hold"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_task_that_postgresql_cannot_keep_stands_aside_and_all_others_go_on(
    story: Any, dsn: str, run: Any, *, start_projector: Any, wait: Any, caplog: Any, fields: dict[str, Any], why: str
) -> None:
    first = story.submit()
    bad = story.submit(**fields)
    story.start(bad, slot=1)
    last = story.submit()

    async def scenario() -> None:
        projector = await bring_to_head(story, start_projector, wait)
        assert projector.unreadable > 0, why
        assert await rows(dsn, "SELECT id FROM tasks ORDER BY submitted") == [(first,), (last,)]
        kept = await rows(dsn, f"SELECT type FROM history WHERE task = '{bad}' ORDER BY position")
        assert [name for (name,) in kept] == [
            "TaskSubmitted", "TaskScheduled", "SlotAssigned", "TaskDispatched", "TaskStarted",
        ]  # fmt: skip
        report = await rebuild(story.log, dsn, verify_only=True)
        assert report.unreadable > 0
        assert report.is_equal, report.differing
        story.commit(TaskScheduled(task=last))
        await bring_to_head(story, start_projector, wait)
        assert await rows(dsn, f"SELECT status FROM tasks WHERE id = '{last}'") == [("scheduled",)]

    run(scenario())
    told = [
        one for one in caplog.records if one.getMessage() == "PostgreSQL cannot keep a row, which was left as it was"
    ]
    assert ("tasks", (bad,)) in [(one.table, one.key) for one in told]


def test_a_queue_a_pool_and_a_worker_that_postgresql_cannot_keep_stand_aside_and_all_others_go_on(
    story: Any, dsn: str, run: Any, start_projector: Any, wait: Any
) -> None:
    story.join("w\x00")
    story.join("worker-1", pool="p\x00")
    story.join("worker-2")
    story.commit(
        QueuePaused(pool="default", queue="q\x00", by="admin", reason="x"),
        QueuePaused(pool="default", queue="prod", by="admin", reason="x"),
    )
    task = story.submit()

    async def scenario() -> None:
        projector = await bring_to_head(story, start_projector, wait)
        assert projector.unreadable >= 4
        assert await rows(dsn, "SELECT worker FROM workers") == [("worker-2",)]
        assert await rows(dsn, "SELECT pool FROM pools") == [("default",)]
        assert await rows(dsn, "SELECT queue, paused_by FROM queues ORDER BY queue") == [
            ("default", None),
            ("prod", "admin"),
        ]
        assert await rows(dsn, "SELECT id FROM tasks") == [(task,)]
        assert (await rebuild(story.log, dsn, verify_only=True)).is_equal

    run(scenario())


def test_one_row_among_many_that_are_changed_at_once_stands_aside_alone(
    story: Any, dsn: str, run: Any, *, start_projector: Any, wait: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many go through a temporary table, which is gone with a transaction that is rolled back."""
    tasks = [story.submit() for _ in range(2 * STAGED_ROWS_MIN)]
    bad = tasks[70]

    async def scenario() -> None:
        await bring_to_head(story, start_projector, wait)
        story.commit(*(TaskScheduled(task=task) for task in tasks))
        values = projection_module.changing_values

        def touchy(record: TaskRecord, position: Position) -> Row:
            made = values(record, position)
            return (1 << 40, *made[1:]) if record.id == bad else made

        monkeypatch.setattr(projection_module, "changing_values", touchy)
        projector = await bring_to_head(story, start_projector, wait)
        assert projector.unreadable == 1
        assert await rows(dsn, "SELECT id FROM tasks WHERE status = 'pending'") == [(bad,)]
        assert await rows(dsn, "SELECT count(*) FROM tasks WHERE status = 'scheduled'") == [(len(tasks) - 1,)]

    run(scenario())


def test_a_task_whose_row_was_refused_has_one_as_soon_as_it_can_be_kept(
    story: Any, dsn: str, run: Any, *, start_projector: Any, wait: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = story.submit(priority=1 << 40)

    async def scenario() -> None:
        async with start_projector(story) as projector:
            await wait(lambda: projector.folded == story.head)
            assert await rows(dsn, "SELECT id FROM tasks") == []
            task_row, at = projection_module.task_row, TASK_COLUMNS.index("priority")

            def mended(record: TaskRecord, position: Position) -> Row:
                row = task_row(record, position)
                return (*row[:at], 5, *row[at + 1 :])

            monkeypatch.setattr(projection_module, "task_row", mended)
            story.commit(TaskScheduled(task=task))
            await wait(lambda: projector.folded == story.head)
            assert await rows(dsn, "SELECT id, status FROM tasks") == [(task, "scheduled")]

    run(scenario())


@pytest.mark.parametrize("table", ["tasks", "workers"])
def test_a_row_that_cannot_be_read_back_stands_aside_and_a_rebuild_makes_it_again(
    story: Any, dsn: str, run: Any, *, start_projector: Any, wait: Any, table: str
) -> None:
    story.join()
    bad, good = story.submit(queue="prod"), story.submit()
    damage = {
        "tasks": f"UPDATE tasks SET record = '{{}}' WHERE id = '{bad}'",
        "workers": "UPDATE workers SET slots = 'nothing'",
    }[table]

    async def scenario() -> None:
        await bring_to_head(story, start_projector, wait)
        await rows(dsn, damage)
        story.commit(TaskScheduled(task=good))
        projector = await bring_to_head(story, start_projector, wait)
        assert projector.unreadable == 1
        assert await rows(dsn, f"SELECT status FROM tasks WHERE id = '{good}'") == [("scheduled",)]
        report = await rebuild(story.log, dsn, verify_only=False)
        assert table in report.differing and report.switched
        assert (await rebuild(story.log, dsn, verify_only=True)).is_equal

    run(scenario())


@pytest.mark.parametrize("broken", [AttemptRow, QueueRow, PoolRow, WorkerRow])
def test_a_row_of_anything_that_cannot_be_made_stands_aside_and_all_others_go_on(
    story: Any, dsn: str, run: Any, *, start_projector: Any, wait: Any, broken: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Any) -> Row:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(broken, "row", fails)
    story.join()
    task = story.submit()
    story.start(task)

    async def scenario() -> None:
        projector = await bring_to_head(story, start_projector, wait)
        assert projector.unreadable > 0
        assert await rows(dsn, "SELECT id, status FROM tasks") == [(task, "running")]
        kept = {
            table: len(await rows(dsn, f"SELECT * FROM {table}"))
            for table in ("attempts", "queues", "pools", "workers")
        }
        missing = {AttemptRow: "attempts", QueueRow: "queues", PoolRow: "pools", WorkerRow: "workers"}[broken]
        assert [table for table, count in kept.items() if not count] == [missing]

    run(scenario())
