"""Replay: with the settings of then it comes to what came then; with others it tells the difference, and what it rests on."""

from pathlib import Path
from typing import Any

import pytest
from recorded_log import START, a_task, a_worker, before, busy_day, failed, planned, ran, record

from taskyard.api.past.state import PastState
from taskyard.contracts.events import (
    ApplyConfirmed,
    PoolConfigured,
    QueuePaused,
    QueueResumed,
    TaskScheduled,
    TaskStopRequested,
    TaskSubmitted,
    WorkerLost,
)
from taskyard.contracts.values import SECOND, Instant, TaskId
from taskyard.eventlog.commit import Commit, StoredCommit
from taskyard.replay.comparing import Move, compare_orders
from taskyard.replay.errors import NothingToReplay
from taskyard.replay.measuring import percentile
from taskyard.replay.reading import read_slice
from taskyard.replay.recorded import Asked, Setting
from taskyard.replay.recording import Recorder
from taskyard.replay.running import Report, WhatIf, replay

RECORDED = Path(__file__).with_name("recorded.taskyard.jsonl")


def replayed(commits: list[StoredCommit[Any]], **what_if: Any) -> Report:
    return replay(PastState(), commits, WhatIf(**what_if))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_settings_of_then_come_to_what_came_then(seed: int) -> None:
    report = replayed(busy_day(seed))
    assert report.order.moved == 0 and report.order.compared == 60
    assert report.replayed == report.recorded
    assert report.estimated == 0


def test_a_log_of_a_real_system_is_reproduced_closely() -> None:
    state, commits, header = read_slice(RECORDED)
    report = replay(state, commits, WhatIf())
    recorded, again = report.recorded, report.replayed
    assert header.anonymised and report.order.compared == 49
    assert again.by_status == recorded.by_status == {"completed": 47, "failed": 2}
    assert report.order.swapped < 0.02
    assert again.waiting.p50 == pytest.approx(recorded.waiting.p50, rel=0.15)
    assert again.waiting.p95 == pytest.approx(recorded.waiting.p95, rel=0.1)
    assert again.makespan_seconds == pytest.approx(recorded.makespan_seconds, rel=0.01)
    assert again.use == pytest.approx(recorded.use, rel=0.1)


def test_a_replay_is_the_same_every_time() -> None:
    commits = busy_day(4)
    assert replayed(commits, policy="keep-slot-0") == replayed(commits, policy="keep-slot-0")


def test_keeping_slot_0_lets_a_command_run_beside_plans_that_came_before_it() -> None:
    commits = record([
        a_task(0, kind="plan", runs=[ran(60.0)]),
        a_task(1, at=1.0, kind="command", runs=[ran(5.0)]),
    ])  # fmt: skip
    then = replayed(commits)
    assert then.replayed.waiting_by_kind["command"].max == pytest.approx(59.02, abs=0.1)
    kept = replayed(commits, policy="keep-slot-0")
    assert kept.replayed.waiting_by_kind["command"].max == pytest.approx(0.01)
    assert kept.recorded.waiting_by_kind["command"].max == pytest.approx(59.02, abs=0.1)


def test_other_slots_and_more_workers_change_waiting_use_and_makespan() -> None:
    commits = record([a_task(number, kind="command", runs=[ran(10.0)]) for number in range(8)])
    for what_if, makespan in (
        ({"slots": (("any",), ("any",))}, 40.0),
        ({"workers": 4}, 20.0),
        ({"workers": 2, "slots": (("command",), ("plan+noop",))}, 40.0),
        ({"slots": (("any",), ("any",), ("any",), ("any",)), "workers": 2}, 10.0),
    ):
        report = replayed(commits, **what_if)
        assert report.recorded.makespan_seconds == pytest.approx(80.0, abs=0.2)
        assert report.replayed.makespan_seconds == pytest.approx(makespan, abs=0.2), what_if
    four = replayed(commits, slots=(("any",),) * 4).replayed
    assert [(use.accepts, use.slots) for use in four.slots] == [("any", 4)]
    assert four.use == pytest.approx(1.0, abs=0.02)


def test_slots_that_take_a_kind_no_more_leave_its_tasks_waiting_and_say_so() -> None:
    commits = record([a_task(0, kind="command"), a_task(1, kind="plan")])
    report = replayed(commits, slots=(("plan",),))
    assert report.replayed.by_status == {"completed": 1, "live": 1}
    assert "1 tasks that started then do not start in the replay" in report.notes


def test_failures_are_repeated_and_tried_again() -> None:
    report = replayed(record([a_task(0, runs=[failed(3.0), failed(4.0), ran(5.0)])]), workers=1)
    assert report.replayed.by_status == {"completed": 1}
    assert report.replayed.makespan_seconds == pytest.approx(3 + 2 + 4 + 4 + 5, abs=0.1)
    assert report.estimated == 0


def with_events(commits: list[StoredCommit[Any]], at: float, *events: Any) -> list[StoredCommit[Any]]:
    """The log with a commit of the scheduler at its end."""
    last = commits[-1]
    commit = Commit(writer="scheduler", instance="x", epoch=1, at=last.at, events=events)
    stored = StoredCommit(sequence=last.sequence + 1, at=Instant(START + round(at * SECOND)), commit=commit, hash="")
    return [*commits, stored]


def test_an_answer_to_a_plan_comes_as_long_after_it_as_then() -> None:
    answer = Asked(verb="confirm", by="carol", since="plan", seconds=30.0, at=START)
    task = a_task(0, kind="plan_and_apply", runs=[planned(10.0), ran(20.0)], asked=[answer])
    report = replayed(record([task]), workers=3)
    assert report.replayed.by_status == {"completed": 1}
    assert report.replayed.makespan_seconds == pytest.approx(10 + 30 + 20, abs=0.1)


def test_a_cancel_of_a_running_task_comes_as_long_after_its_start_as_then() -> None:
    stop = Asked(verb="cancel", by="bob", since="start", seconds=7.0, at=START)
    running = a_task(1, kind="command", runs=[ran(100.0)], asked=[stop])
    commits = record([a_task(0, kind="command", runs=[ran(50.0)]), running])
    assert commits[-1].at - START == pytest.approx(57 * SECOND, abs=SECOND)
    report = replayed(commits, slots=(("any",), ("any",)))
    assert report.replayed.by_status == {"cancelled": 1, "completed": 1}
    assert report.replayed.makespan_seconds == pytest.approx(50.0, abs=0.1)


def test_pauses_and_priorities_come_at_their_times() -> None:
    settings = [
        Setting(at=START, event=QueuePaused(pool="default", queue="prod", by="bob")),
        Setting(at=Instant(START + 40 * SECOND), event=QueueResumed(pool="default", queue="prod", by="bob")),
    ]
    first = Asked(verb="reprioritise", by="bob", since="", seconds=0.0, at=Instant(START + 20 * SECOND), priority=1)
    late = a_task(1, at=2.0, kind="command", asked=[first])
    commits = record([a_task(0, at=1.0, kind="command"), late], settings=settings)
    report = replayed(commits)
    assert report.replayed == report.recorded
    submitted = [e.task for stored in commits for e in stored.commit.events if isinstance(e, TaskSubmitted)]
    assert report.replayed.order == report.recorded.order == submitted[::-1]
    assert report.replayed.waiting.max == pytest.approx(39 + 10, abs=0.5)


def test_a_recorded_policy_is_kept_unless_another_is_asked_for() -> None:
    policy = Setting(at=START, event=PoolConfigured(pool="default", by="admin", placement="keep-slot-0"))
    commits = record([a_task(0), a_task(1, at=1.0, kind="command")], settings=[policy])
    assert replayed(commits).replayed.waiting_by_kind["command"].max < 1
    assert replayed(commits, policy="first-fit").replayed.waiting_by_kind["command"].max > 5


def test_tasks_of_before_are_replayed_and_not_measured() -> None:
    commits = record([
        a_task(0, kind="command", runs=[ran(60.0)]),
        a_task(1, at=1.0, kind="command", runs=[ran(10.0)]),
        a_task(2, at=30.0, kind="command", runs=[ran(10.0)]),
    ])  # fmt: skip
    first = next(stored.sequence for stored in commits if stored.at >= START + 30 * SECOND)
    report = replay(before(commits, first), commits[first - 1 :], WhatIf())
    assert report.recorded.tasks == report.replayed.tasks == 1
    assert report.recorded.waiting.max == pytest.approx(40.0, abs=0.5)
    assert report.replayed.waiting.max == pytest.approx(40.0, abs=0.5)
    assert any(note.startswith("2 tasks were there before") for note in report.notes)


def test_what_was_not_recorded_is_estimated_and_counted() -> None:
    done = [a_task(number, kind="command", runs=[ran(seconds)]) for number, seconds in enumerate((2.0, 4.0, 90.0))]
    commits = record([*done, a_task(3, kind="command", runs=[ran(500.0)])])
    cut = [stored for stored in commits if stored.at < START + 97 * SECOND]
    report = replayed(cut)
    assert report.estimated == 1
    assert any("1 tasks ran longer than was recorded, or not at all" in note for note in report.notes)
    assert report.replayed.by_status == {"completed": 4}
    assert report.replayed.makespan_seconds == pytest.approx(2 + 4 + 90 + 4, abs=0.5)


def test_a_worker_that_was_lost_takes_nothing_after_that() -> None:
    commits = record([a_task(0, kind="command", runs=[ran(10.0)])], [a_worker(), a_worker("worker-2")])
    lost = with_events(commits, 20.0, WorkerLost(worker="worker-1", incarnation=1, reason="gone"))
    recorder = Recorder(PastState())
    for stored in lost:
        recorder.see(stored)
    left = {worker.name: worker.left for worker in recorder.recording().workers}
    assert left == {"worker-1": START + 20 * SECOND, "worker-2": None}
    assert any("worker that was lost" in note for note in replayed(lost).notes)


def test_events_without_effect_are_no_history() -> None:
    commits = record([a_task(0, kind="command")])
    id = TaskId(next(event.task for stored in commits for event in stored.commit.events if hasattr(event, "input")))
    late = with_events(
        commits,
        50.0,
        TaskScheduled(task=id),
        ApplyConfirmed(task=id, attempt=1, by="bob"),
        TaskStopRequested(task=id, cause="cancel", by="bob"),
    )
    report = replayed(late)
    assert report.replayed.by_status == {"completed": 1}


def test_a_stretch_without_tasks_or_without_workers_cannot_be_replayed() -> None:
    commits = record([a_task(0)])
    with pytest.raises(NothingToReplay, match="hold no tasks"):
        replayed(commits[:3])
    unmanned = [stored for stored in commits if not any("Worker" in type(e).__name__ for e in stored.commit.events)]
    with pytest.raises(NothingToReplay, match="name them with --workers"):
        replayed(unmanned)
    report = replayed(unmanned, workers=1)
    assert report.replayed.by_status == {"completed": 1} and report.recorded.slots == []
    assert any("how their slots were used is not known" in note for note in report.notes)


def test_orders_are_compared_by_place_and_by_pairs() -> None:
    a, b, c, d, e = (TaskId(name) for name in "abcde")
    same = compare_orders([a, b, c], [a, b, c])
    assert (same.moved, same.swapped, same.moves) == (0, 0.0, [])
    turned = compare_orders([a, b, c, d], [d, c, b, a])
    assert (turned.moved, turned.swapped) == (4, 1.0)
    one = compare_orders([a, b, c, e], [d, c, a, b])
    assert (one.compared, one.moved) == (3, 3) and one.swapped == pytest.approx(2 / 3)
    assert one.moves[0] == Move(task=c, recorded=3, replayed=1)


def test_percentiles_are_values_that_were_there() -> None:
    values = [float(number) for number in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.95), percentile([7.0], 0.95)) == (50.0, 95.0, 7.0)
    assert percentile([], 0.5) == 0.0
