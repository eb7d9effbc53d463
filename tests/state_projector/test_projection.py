"""Events in, rows out: nothing here touches a database."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from taskyard.contracts.events import (
    AttemptFailed,
    AttemptSucceeded,
    CommandRejected,
    ForceStopped,
    NotDelivered,
    QueueConfigured,
    QueueLocked,
    QueuePaused,
    RefusedTasks,
    SlotAssigned,
    TaskError,
    TaskProgressed,
    TaskScheduled,
    TaskStarted,
    TaskStopRequested,
    WorkerDrainRequested,
    WorkerJoined,
    WorkerLost,
    WorkerRecovered,
    WorkerSuspected,
)
from taskyard.contracts.lifecycle import TaskRecord
from taskyard.contracts.tasks import TaskTable
from taskyard.contracts.values import Instant, TaskId, derive_uuid7, make_position, make_uuid7
from taskyard.state_projector import projection as projection_module
from taskyard.state_projector.projection import Projection, RowChanges
from taskyard.state_projector.rows import (
    ATTEMPT_COLUMNS,
    HISTORY_COLUMNS,
    POOL_COLUMNS,
    QUEUE_COLUMNS,
    TASK_CHANGING_COLUMNS,
    TASK_COLUMNS,
    WORKER_COLUMNS,
    restore_record,
)


def fold(story: Any, projection: Projection | None = None, after: int = 0) -> RowChanges:
    projection = projection or Projection()
    for message in story.stream.after(after):
        commit = story.codec.decode(message.data)
        projection.fold(message.sequence, message.at, commit.writer, commit.events)
    return projection.take()


def named(columns: tuple[str, ...], rows: list[Any]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in rows]


def test_a_task_that_came_and_went_between_two_writes_is_one_new_row(story: Any) -> None:
    task = story.submit()
    story.start(task)
    story.succeed(task)

    changes = fold(story)

    (row,) = named(TASK_COLUMNS, changes.new_tasks)
    assert changes.changed_tasks == []
    assert (row["id"], row["status"], row["attempt"], row["worker"], row["slot"]) == (
        task,
        "completed",
        1,
        "worker-1",
        0,
    )
    assert row["result"] == '{"exit_code":0}'
    assert row["record"] is None
    assert row["position"] == make_position(6, 0)
    assert row["finished_at"] == story.now
    assert len(changes.history) == 6
    (attempt,) = named(ATTEMPT_COLUMNS, changes.new_attempts)
    assert changes.changed_attempts == []
    assert attempt["outcome"] == "succeeded"
    assert attempt["assigned_at"] < attempt["started_at"] < attempt["finished_at"]


def test_an_event_that_cannot_be_folded_is_kept_in_history_counted_and_the_rest_goes_on(
    story: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = story.submit(), story.submit()
    story.commit(TaskScheduled(task=bad), TaskScheduled(task=good))
    apply = TaskTable.apply

    def touchy(self: Any, event: Any, at: Any, position: Any) -> Any:
        if isinstance(event, TaskScheduled) and event.task == bad:
            raise ZeroDivisionError("a bug")
        return apply(self, event, at, position)

    monkeypatch.setattr(TaskTable, "apply", touchy)
    projection = Projection()

    changes = fold(story, projection)

    rows = {row["id"]: row["status"] for row in named(TASK_COLUMNS, changes.new_tasks)}
    assert rows == {bad: "pending", good: "scheduled"}
    (kept,) = [
        row for row in named(HISTORY_COLUMNS, changes.history) if (row["task"], row["type"]) == (bad, "TaskScheduled")
    ]
    assert kept["void"] and kept["event"] == msgspec.json.encode(TaskScheduled(task=bad)).decode()
    assert projection.unreadable == 1


def test_an_event_that_fails_when_it_is_in_the_history_already_is_there_once(
    story: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = story.submit()
    story.commit(TaskScheduled(task=task))

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Projection, "_follow_change", broken)

    changes = fold(story)

    assert [row["type"] for row in named(HISTORY_COLUMNS, changes.history)] == ["TaskSubmitted", "TaskScheduled"]


def test_a_row_that_cannot_be_made_is_counted_and_made_with_the_next_event_of_its_task(
    story: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = story.submit(), story.submit()
    task_row = projection_module.task_row
    monkeypatch.setattr(
        projection_module, "task_row", lambda record, at: 1 // 0 if record.id == bad else task_row(record, at)
    )
    projection = Projection()
    first = fold(story, projection)
    monkeypatch.undo()
    story.commit(TaskScheduled(task=bad), TaskScheduled(task=good))

    second = fold(story, projection)

    assert [row["id"] for row in named(TASK_COLUMNS, first.new_tasks)] == [good]
    assert projection.unreadable == 1
    assert [(row["id"], row["status"]) for row in named(TASK_COLUMNS, second.new_tasks)] == [(bad, "scheduled")]
    assert [row[0] for row in second.changed_tasks] == [good]
    (queue,) = named(QUEUE_COLUMNS, second.queues)
    assert (queue["pending"], queue["scheduled"]) == (0, 2)


def test_a_row_that_was_made_late_is_changed_from_then_on(story: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second new row would break every write."""
    task = story.submit()
    monkeypatch.setattr(projection_module, "task_row", lambda *_: 1 // 0)
    projection = Projection()
    assert fold(story, projection).new_tasks == []
    monkeypatch.undo()
    made = story.commit(TaskScheduled(task=task))
    assert [row[0] for row in fold(story, projection, made - 1).new_tasks] == [task]
    assigned = story.head
    story.assign(task)

    changes = fold(story, projection, assigned)

    assert (changes.new_tasks, [row[0] for row in changes.changed_tasks]) == ([], [task])


def test_a_count_of_tasks_that_cannot_be_told_is_counted_as_unreadable_and_all_rows_are_made(story: Any) -> None:
    task = story.submit()
    projection = Projection()
    fold(story, projection)
    projection._counts.clear()  # pyright: ignore[reportPrivateUsage]
    story.commit(TaskScheduled(task=task))

    changes = fold(story, projection, 1)

    assert ([row[0] for row in changes.changed_tasks], projection.unreadable) == ([task], 1)


def test_an_event_that_cannot_be_shown_has_its_effect_all_the_same(story: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task = story.submit()
    story.start(task)
    story.succeed(task)
    monkeypatch.setattr(projection_module, "shown_event", lambda _: 1 // 0)
    projection = Projection()

    (row,) = named(TASK_COLUMNS, fold(story, projection).new_tasks)

    assert row["status"] == "completed"
    assert projection.unreadable == 1


def test_a_task_that_was_written_before_is_a_changed_row(story: Any) -> None:
    task = story.submit()
    projection = Projection()
    fold(story, projection)
    story.commit(TaskScheduled(task=task))

    changes = fold(story, projection, after=1)

    assert changes.new_tasks == []
    ((id, *values),) = changes.changed_tasks
    (row,) = named(TASK_CHANGING_COLUMNS, [tuple(values)])
    assert (id, row["status"]) == (task, "scheduled")


def test_a_live_task_keeps_its_whole_record_but_for_the_input(story: Any) -> None:
    task = story.submit(kind="plan_and_apply", labels={"a": "b"})
    story.start(task)
    error = TaskError(code="exit_status", message="no", retryable=True)
    story.commit(AttemptFailed(task=task, attempt=1, error=error, result=msgspec.Raw(b"[1]")), writer="dispatcher")
    projection = Projection()

    (row,) = named(TASK_COLUMNS, fold(story, projection).new_tasks)

    restored = restore_record(row["record"])
    (live,) = projection._table.live.values()
    for field in TaskRecord.__struct_fields__:
        assert getattr(restored, field) == getattr(live, field), field
    assert bytes(restored.input) == b"null"
    assert restored.error == error


def test_history_shows_each_event_with_its_author_and_whether_it_was_void(story: Any) -> None:
    task = story.submit()
    story.commit(TaskStarted(task=task, attempt=1), writer="dispatcher")
    story.commit(TaskStopRequested(task=task, cause="cancel", by="bob", reason="why"))
    story.commit(TaskStopRequested(task=task, cause="cancel", by="bob"))

    rows = named(HISTORY_COLUMNS, fold(story).history)

    assert [(row["type"], row["by"], row["writer"], row["void"]) for row in rows] == [
        ("TaskSubmitted", "alice", "scheduler", False),
        ("TaskStarted", None, "dispatcher", True),
        ("TaskStopRequested", "bob", "scheduler", False),
        ("TaskStopRequested", "bob", "scheduler", True),
    ]
    assert [row["position"] for row in rows] == [make_position(sequence, 0) for sequence in (1, 2, 3, 4)]
    assert '"secret"' in rows[0]["event"]


def test_a_task_that_has_ended_never_changes_again(story: Any) -> None:
    task = story.submit()
    story.start(task)
    story.succeed(task)
    projection = Projection()
    fold(story, projection)
    story.commit(TaskStopRequested(task=task, cause="cancel", by="bob"))

    changes = fold(story, projection, after=6)

    assert changes.new_tasks == changes.changed_tasks == []
    assert len(changes.history) == 1


def test_a_lost_worker_is_in_the_history_of_each_task_that_it_changed(story: Any) -> None:
    story.join()
    first, second, third = story.submit(), story.submit(kind="plan_and_apply"), story.submit()
    story.start(first, slot=0)
    story.start(second, slot=1)
    story.commit(WorkerLost(worker="worker-1", incarnation=1), writer="slot_allocator")

    changes = fold(story)

    lost = [row for row in named(HISTORY_COLUMNS, changes.history) if row["type"] == "WorkerLost"]
    assert [row["task"] for row in lost] == [first, second]
    status = {row["id"]: (row["status"], row["phase"]) for row in named(TASK_COLUMNS, changes.new_tasks)}
    assert status == {first: ("pending", "pending"), second: ("running", "held"), third: ("pending", "pending")}
    outcomes = {row["task"]: row["outcome"] for row in named(ATTEMPT_COLUMNS, changes.new_attempts)}
    assert outcomes == {first: "lost", second: None}


@pytest.mark.parametrize(
    ("event", "outcome"),
    [
        (AttemptFailed(task="", attempt=1, error=TaskError(code="exit_status", message="")), "failed"),
        (ForceStopped(task="", by="admin", reason="stuck"), "force_stopped"),
        (AttemptSucceeded(task="", attempt=1), "succeeded"),
    ],
)
def test_an_attempt_tells_how_it_ended(story: Any, event: Any, outcome: str) -> None:
    task = story.submit()
    story.start(task)
    story.commit(msgspec.structs.replace(event, task=task), writer="dispatcher")

    (attempt,) = named(ATTEMPT_COLUMNS, fold(story).new_attempts)

    assert attempt["outcome"] == outcome
    assert attempt["finished_at"] == story.now


def test_an_attempt_that_was_stopped_tells_what_stopped_it(story: Any) -> None:
    task = story.submit()
    story.start(task)
    story.commit(TaskStopRequested(task=task, cause="timeout", by="dispatcher", attempt=1), writer="dispatcher")
    error = TaskError(code="signal", message="")
    story.commit(AttemptFailed(task=task, attempt=1, error=error), writer="dispatcher")

    (attempt,) = named(ATTEMPT_COLUMNS, fold(story).new_attempts)

    assert attempt["outcome"] == "timeout"


def test_an_attempt_that_succeeded_though_it_was_stopped_tells_that_it_succeeded(story: Any) -> None:
    task = story.submit()
    story.start(task)
    story.commit(TaskStopRequested(task=task, cause="cancel", by="alice"))
    story.succeed(task)

    changes = fold(story)

    assert [row["status"] for row in named(TASK_COLUMNS, changes.new_tasks)] == ["completed"]
    assert [row["outcome"] for row in named(ATTEMPT_COLUMNS, changes.new_attempts)] == ["succeeded"]


def test_a_plan_ends_its_attempt_and_the_apply_is_another(story: Any) -> None:
    task = story.submit(kind="plan_and_apply")
    story.start(task)
    story.plan(task)

    changes = fold(story)

    assert [row["outcome"] for row in named(ATTEMPT_COLUMNS, changes.new_attempts)] == ["planned"]
    (row,) = named(TASK_COLUMNS, changes.new_tasks)
    assert (row["status"], row["changes"]) == ("apply_pending", '{"add":1,"change":0,"destroy":0}')


def test_a_delivery_that_failed_ends_the_attempt(story: Any) -> None:
    task = story.submit()
    story.commit(TaskScheduled(task=task))
    story.assign(task)
    story.commit(NotDelivered(task=task, attempt=1, reason="no responders"), writer="dispatcher")

    changes = fold(story)

    assert [row["outcome"] for row in named(ATTEMPT_COLUMNS, changes.new_attempts)] == ["not_delivered"]


def test_queues_count_what_waits_and_what_runs(story: Any) -> None:
    tasks = [story.submit(queue="prod") for _ in range(4)]
    story.start(tasks[0])
    story.commit(TaskScheduled(task=tasks[1]))
    story.start(tasks[2], slot=1)
    story.succeed(tasks[2])
    story.commit(QueueConfigured(pool="default", queue="prod", by="admin", max_running=3))
    story.commit(QueuePaused(pool="default", by="admin", reason="night"))
    story.commit(QueueLocked(pool="default", queue="prod", by="bob", reason="hands off"))

    changes = fold(story)

    (queue,) = named(QUEUE_COLUMNS, changes.queues)
    assert (queue["pending"], queue["scheduled"], queue["active"]) == (1, 1, 1)
    assert (queue["max_running"], queue["locked_by"], queue["locked_reason"]) == (3, "bob", "hands off")
    (pool,) = named(POOL_COLUMNS, changes.pools)
    assert (pool["paused_by"], pool["paused_reason"]) == ("admin", "night")
    counts = {row[:3]: row[3] for row in changes.counts}
    assert {key: value for key, value in counts.items() if value} == {
        ("alice", "noop", "pending"): 1,
        ("alice", "noop", "scheduled"): 1,
        ("alice", "noop", "running"): 1,
        ("alice", "noop", "completed"): 1,
    }


def test_a_worker_is_what_its_last_incarnation_is(story: Any) -> None:
    def last() -> dict[str, Any]:
        return named(WORKER_COLUMNS, fold(story).workers)[-1]

    story.join(incarnation=1)
    story.commit(WorkerSuspected(worker="worker-1", incarnation=1), writer="slot_allocator")
    assert last()["suspect"]
    story.commit(WorkerRecovered(worker="worker-1", incarnation=1), writer="slot_allocator")
    assert not last()["suspect"]
    story.commit(WorkerDrainRequested(pool="default", worker="worker-1", by="admin"))
    assert last()["draining"]
    story.commit(WorkerLost(worker="worker-1", incarnation=1), writer="slot_allocator")
    assert last()["lost"]
    story.join(incarnation=2)
    story.commit(WorkerLost(worker="worker-1", incarnation=1), writer="slot_allocator")
    row = last()
    assert (row["incarnation"], row["lost"], row["draining"]) == ("2", False, False)


def test_what_postgresql_cannot_keep_does_not_stop_the_projection(story: Any) -> None:
    story.submit(labels={"a\x00": "b"})
    story.commit(
        CommandRejected(command="c", verb="x", by="bob", pool="default", status=422, code="invalid", message="a\x00b"),
        TaskProgressed(task="\x00", attempt=1, progress=1),
    )

    changes = fold(story)

    for rows in (changes.new_tasks, changes.history, changes.rejections):
        assert not any("\x00" in value for row in rows for value in row if isinstance(value, str))


def task_id(number: int) -> TaskId:
    return TaskId(make_uuid7(Instant(1_790_000_000_000_000), number))


def test_each_refused_task_of_a_batch_is_a_row_also_where_its_id_comes_twice(story: Any) -> None:
    command = "0199f3c1-0000-7000-8000-000000000001"
    refused = (
        RefusedTasks(status=422, code="invalid", message="too long\x00", tasks=(task_id(1), task_id(1)), items=(3,)),
        RefusedTasks(status=429, code="pool_full", message="no room", tasks=(task_id(2),)),
    )
    story.commit(
        CommandRejected(
            command=command, verb="submit", by="bob", pool="default", status=422, code="invalid", message="",
            refused=refused,
        ),
        CommandRejected(
            command="no id", verb="submit", by="bob", pool="default", status=422, code="invalid", message="",
            refused=(RefusedTasks(status=422, code="invalid", message="", items=(1,)),),
        ),
    )  # fmt: skip

    rows = fold(story).refused_tasks

    assert [(row[0], *row[2:]) for row in rows] == [
        (task_id(1), 422, "invalid", "too long\ufffd"),
        (derive_uuid7(command, "3"), 422, "invalid", "too long\ufffd"),
        (task_id(2), 429, "pool_full", "no room"),
    ]


def test_an_event_of_a_newer_version_is_passed_over(story: Any) -> None:
    data = b'{"writer":"scheduler","instance":"new","epoch":2,"at":1,"events":[{"type":"TaskTeleported","task":"x"}]}'
    story.stream.store("taskyard.log.0.scheduler", data)
    task = story.submit()

    assert [row[0] for row in fold(story).new_tasks] == [task]


NO_TEXT = Raw(b'"\xff\xfe"')


def test_a_result_that_is_no_text_is_shown_as_unreadable_and_the_projection_goes_on(story: Any) -> None:
    first, second, third = story.submit(), story.submit(), story.submit(max_attempts=3)
    for slot, task in enumerate((first, second, third)):
        story.start(task, slot=slot)
    error = TaskError(code="e", message="m", retryable=True)
    story.commit(
        AttemptSucceeded(task=first, attempt=1, result=NO_TEXT),
        AttemptSucceeded(task=second, attempt=1, result=Raw(b"1")),
        AttemptFailed(task=third, attempt=1, error=error, result=NO_TEXT),
        writer="dispatcher",
    )
    projection = Projection()

    changes = fold(story, projection)

    tasks = {row["id"]: row for row in named(TASK_COLUMNS, changes.new_tasks)}
    assert (tasks[first]["status"], tasks[first]["result"]) == ("completed", '{"unreadable":true}')
    assert (tasks[second]["status"], tasks[second]["result"]) == ("completed", "1")
    assert restore_record(tasks[third]["record"]).error == error
    shown = [msgspec.json.decode(row["event"]) for row in named(HISTORY_COLUMNS, changes.history)]
    assert [event.get("result") for event in shown[-3:]] == [{"unreadable": True}, 1, {"unreadable": True}]
    assert projection.unreadable == 2


@pytest.mark.parametrize("rest", [b'"x":"\xff\xfe"', b'"\xff":1', b'"x":' + b"[" * 300 + b"]" * 300, b'"x":1e999'])
def test_an_event_of_a_newer_version_that_nobody_can_read_is_a_row_that_says_so(story: Any, rest: bytes) -> None:
    task = story.submit()
    event = b'{"type":"TaskTeleported","task":"%s",%s}' % (task.encode(), rest)
    story.stream.store(
        "taskyard.log.0.scheduler", b'{"writer":"scheduler","instance":"new","epoch":2,"at":1,"events":[%s]}' % event
    )
    projection = Projection()

    row = named(HISTORY_COLUMNS, fold(story, projection).history)[-1]

    assert (row["task"], row["type"]) == (task, "TaskTeleported")
    assert msgspec.json.decode(row["event"]) == {"type": "TaskTeleported", "task": task, "unreadable": True}
    assert projection.unreadable == 1


def test_an_event_of_a_newer_version_whose_name_is_no_text_is_passed_over(story: Any) -> None:
    commit = b'{"writer":"scheduler","instance":"new","epoch":2,"at":1,"events":[{"type":"\xff","task":"\xfe"}]}'
    story.stream.store("taskyard.log.0.scheduler", commit)
    task = story.submit()

    assert [row[0] for row in fold(story).new_tasks] == [task]


@pytest.mark.parametrize("seed", range(20))
def test_how_commits_are_gathered_makes_no_difference(story: Any, seed: int) -> None:
    story.tell_anything(seed, commits=40)
    at_once, one_by_one = Tables(), Tables()
    at_once.take_in(fold(story))
    projection = Projection()
    for message in story.stream.after(0):
        commit = story.codec.decode(message.data)
        projection.fold(message.sequence, message.at, commit.writer, commit.events)
        one_by_one.take_in(projection.take())

    assert at_once.rows == one_by_one.rows
    assert projection.live_tasks == sum(1 for row in one_by_one.rows["tasks"].values() if row[-1] is not None)


class Tables:
    """What the database does with the changes."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[Any, Any]] = {}

    def take_in(self, changes: RowChanges) -> None:
        fixed = len(TASK_COLUMNS) - len(TASK_CHANGING_COLUMNS)
        tasks = self.rows.setdefault("tasks", {})
        for row in changes.new_tasks:
            assert row[0] not in tasks
            tasks[row[0]] = row
        for row in changes.changed_tasks:
            tasks[row[0]] = tasks[row[0]][:fixed] + row[1:]
        attempts = self.rows.setdefault("attempts", {})
        for row in changes.new_attempts:
            assert row[:2] not in attempts
            attempts[row[:2]] = row
        for row in changes.changed_attempts:
            assert row[:2] in attempts
            attempts[row[:2]] = row
        history = self.rows.setdefault("history", {})
        for row in changes.history:
            assert row[:2] not in history
            history[row[:2]] = row
        for table, key in (("queues", 2), ("pools", 1), ("workers", 1), ("counts", 3)):
            self.rows.setdefault(table, {}).update({row[:key]: row for row in getattr(changes, table)})


def test_the_slot_of_a_task_follows_its_last_attempt(story: Any) -> None:
    task = story.submit()
    story.start(task, slot=0)
    error = TaskError(code="exit_status", message="", retryable=True)
    story.commit(AttemptFailed(task=task, attempt=1, error=error), writer="dispatcher")
    story.commit(TaskScheduled(task=task))
    event = SlotAssigned(task=task, attempt=2, worker="worker-2", incarnation=1, slot=2)
    story.commit(event, writer="slot_allocator")

    changes = fold(story)

    (row,) = named(TASK_COLUMNS, changes.new_tasks)
    assert (row["attempt"], row["worker"], row["slot"], row["started_at"]) == (2, "worker-2", 2, None)
    assert [attempt["attempt"] for attempt in named(ATTEMPT_COLUMNS, changes.new_attempts)] == [1, 2]
    assert isinstance(row["due"], int)
    assert row["due"] > Instant(0)


def test_joining_again_is_in_the_history_of_what_the_worker_held(story: Any) -> None:
    story.join()
    task = story.submit(kind="plan_and_apply")
    story.start(task)
    story.commit(WorkerLost(worker="worker-1", incarnation=1), writer="slot_allocator")
    slots, kinds = (("any",),), ("plan_and_apply",)
    event = WorkerJoined(worker="worker-1", incarnation=2, pool="default", slots=slots, kinds=kinds)
    story.commit(event, writer="slot_allocator")

    changes = fold(story)

    assert [row["type"] for row in named(HISTORY_COLUMNS, changes.history)][-2:] == ["WorkerLost", "WorkerJoined"]
    assert [row["status"] for row in named(TASK_COLUMNS, changes.new_tasks)] == ["assigned"]
