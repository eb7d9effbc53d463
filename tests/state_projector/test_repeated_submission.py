"""A second `TaskSubmitted` of a task that has ended: shown in the history, without effect, and no end of the projector."""

from typing import Any

import pytest

from taskyard.state_projector.database import connected
from taskyard.state_projector.rebuild import rebuild

TO_RUNNING = ["TaskSubmitted", "TaskScheduled", "SlotAssigned", "TaskDispatched", "TaskStarted"]


@pytest.mark.parametrize("is_written_between", [True, False])
def test_it_is_void_and_the_projector_goes_on(
    story: Any, dsn: str, run: Any, project: Any, is_written_between: bool
) -> None:
    async def scenario() -> None:
        task = story.submit()
        story.start(task)
        story.succeed(task)
        if is_written_between:
            await project(story)
        story.submit_again(task, kind="command", by="mallory")
        story.start(task)
        story.submit()
        await project(story)

        async with connected(dsn) as connection:
            tasks = await connection.fetch("SELECT kind, status, submitted_by FROM tasks ORDER BY submitted")
            assert [tuple(row) for row in tasks] == [("noop", "completed", "alice"), ("noop", "pending", "alice")]
            history = await connection.fetch("SELECT type, void FROM history WHERE task = $1 ORDER BY position", task)
            assert [row["type"] for row in history if not row["void"]] == [*TO_RUNNING, "AttemptSucceeded"]
            assert [row["type"] for row in history if row["void"]] == TO_RUNNING
            counts = await connection.fetch("SELECT status, tasks FROM counts WHERE tasks > 0 ORDER BY status")
            assert [tuple(row) for row in counts] == [("completed", 1), ("pending", 1)]
        report = await rebuild(story.log, dsn, verify_only=True)
        assert report.differing == ()

    run(scenario())
