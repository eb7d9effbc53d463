"""A report that comes late changes nothing: the task waits to be tried again, and the attempt is not its own any more."""

import pytest
from msgspec import Raw

from taskyard.contracts.events import (
    AttemptFailed,
    AttemptLost,
    AttemptSucceeded,
    SlotAssigned,
    TaskError,
    TaskProgressed,
    TaskScheduled,
    TaskStarted,
    TaskSubmitted,
)
from taskyard.contracts.lifecycle import Phase, TaskRecord, Verdict, fold, new_record
from taskyard.contracts.values import SECOND, Instant, Position, TaskId, make_position

T = TaskId("01900000-0000-7000-8000-000000000001")
AT = Instant(1_000 * SECOND)
AGAIN = TaskError(code="exit", message="not now", retryable=True)


def tried_once() -> TaskRecord:
    """Its first attempt has failed, and it waits for the second."""
    submitted = TaskSubmitted(
        task=T,
        kind="command",
        pool="default",
        queue="q",
        by="alice",
        input=Raw(b"{}"),
        digest="",
        timeout_seconds=60.0,
        max_attempts=3,
    )
    record = new_record(submitted, AT, make_position(1, 0))
    for number, event in enumerate(
        (
            TaskScheduled(task=T),
            SlotAssigned(task=T, attempt=1, worker="w", incarnation=1, slot=0),
            TaskStarted(task=T, attempt=1),
            AttemptFailed(task=T, attempt=1, error=AGAIN),
        )
    ):
        fold(record, event, AT, Position(10 + number))
    assert (record.phase, record.attempt) == (Phase.PENDING, 1)
    return record


@pytest.mark.parametrize(
    "late",
    [
        AttemptSucceeded(task=T, attempt=1),
        AttemptFailed(task=T, attempt=1, error=AGAIN),
        AttemptLost(task=T, attempt=1),
        TaskStarted(task=T, attempt=1),
        TaskProgressed(task=T, attempt=1, progress=50),
    ],
    ids=lambda event: type(event).__name__,
)
def test_a_late_report_changes_nothing_of_a_task_that_is_pending_again(late: object) -> None:
    record = tried_once()
    assert fold(record, late, AT, Position(20)) is Verdict.VOID  # type: ignore[arg-type]
    assert (record.phase, record.tries, record.result, record.progress) == (Phase.PENDING, 1, Raw(b"null"), 0)
