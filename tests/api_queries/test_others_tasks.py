"""Which tasks of others an operator is told of: that they are there and in the way, and not which they are."""

from typing import Any

import msgspec
import pytest

from taskyard.api.list_pages import WORKERS, first_page
from taskyard.api.past.checkpoints import Checkpoints
from taskyard.api.past.explaining import Explaining
from taskyard.api.past.questions import Past
from taskyard.api.past.travel import TimeTravel
from taskyard.api.postgres_read_model import PostgresReadModel
from taskyard.api.read_model import TaskFilter
from taskyard.api.reasons import OTHERS_TASK
from taskyard.contracts.events import ForceStopped
from taskyard.eventlog.snapshots import MemorySnapshots


@pytest.fixture
def told(story: Any, dsn: str, run: Any, project: Any) -> Any:
    """All that somebody is told of a task and of the workers, from the read model and the past, as JSON texts by question."""

    def ask(task: str, sees_only: str | None) -> dict[str, str]:
        async def scenario() -> dict[str, Any]:
            await project(story)
            async with PostgresReadModel.connect(dsn, lambda: story.now) as model:
                travel = TimeTravel(story.log, Checkpoints(MemorySnapshots(), story.log), lambda: story.now)
                past, at = Past(travel, model), str(story.head)
                wanted = TaskFilter(sees_only=sees_only)
                return {
                    "task": await model.task(task, sees_only=sees_only),
                    "tasks": await model.tasks(wanted),
                    "why": await Explaining(travel, model, lambda: story.now).why(task, sees_only=sees_only),
                    "task then": (await past.task(task, at, sees_only=sees_only))[1],
                    "tasks then": (await past.tasks(wanted, at))[1],
                }

        return {question: msgspec.json.encode(answer).decode() for question, answer in run(scenario()).items()}

    return ask


def test_an_operator_waits_for_a_workspace_without_being_told_which_task_of_somebody_else_has_it(
    story: Any, told: Any
) -> None:
    story.join()
    holder = story.submit(kind="plan_and_apply", queue="prod", by="alice")
    story.start(holder)
    waiting = story.submit(kind="plan_and_apply", queue="prod", by="oscar")

    for question, answer in told(waiting, "oscar").items():
        assert holder not in answer, question
        assert OTHERS_TASK in answer and "workspace_busy" in answer, question
    for question, answer in told(waiting, None).items():
        assert holder in answer and OTHERS_TASK not in answer, question


def test_an_operator_is_told_which_own_task_is_in_the_way_and_not_which_of_somebody_else(story: Any, told: Any) -> None:
    story.join()
    first = story.submit(by="alice")
    own = story.submit(by="oscar")
    last = story.submit(by="oscar")

    assert all(
        f"{own} goes before it" in answer for question, answer in told(last, "oscar").items() if question != "why"
    )
    for question, answer in told(own, "oscar").items():
        assert first not in answer, question
        assert OTHERS_TASK in answer, question


def test_why_a_task_got_its_slot_names_no_task_of_somebody_else(story: Any, told: Any) -> None:
    story.join("worker-1")
    other, own = story.submit(by="alice"), story.submit(by="oscar")
    story.start(other, slot=0)
    story.start(own, slot=1)

    assert f"slot 0 had {OTHERS_TASK}" in told(own, "oscar")["why"]
    assert f"slot 0 had {other}" in told(own, None)["why"]


def test_workers_of_the_past_name_the_own_task_that_was_still_being_ended(
    story: Any, dsn: str, run: Any, project: Any
) -> None:
    story.join("worker-1")
    mine, theirs = story.submit(by="oscar"), story.submit(by="alice")
    story.start(mine, slot=0)
    story.start(theirs, slot=1)
    for task in (mine, theirs):
        story.commit(ForceStopped(task=task, by="root", reason="stuck"))

    async def slots_seen_by(sees_only: str | None) -> list[list[str | None]]:
        await project(story)
        async with PostgresReadModel.connect(dsn, lambda: story.now) as model:
            travel = TimeTravel(story.log, Checkpoints(MemorySnapshots(), story.log), lambda: story.now)
            found = (await Past(travel, model).workers(str(story.head), first_page(WORKERS), sees_only=sees_only))[2]
            now = await model.workers(first_page(WORKERS), sees_only=sees_only)
            return [[slot.task for slot in workers[0].slots[:2]] for workers in (found, now)]

    assert run(slots_seen_by("oscar")) == [[mine, None]] * 2
    assert run(slots_seen_by("alice")) == [[None, theirs]] * 2
    assert run(slots_seen_by(None)) == [[mine, theirs]] * 2
