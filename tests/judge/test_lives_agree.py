"""The judge tells the life of a task apart from the fold of the contracts: over whole simulated logs both say the same."""

from typing import Any

import msgspec
import pytest

from taskyard.contracts.events import WorkerJoined, WorkerLost, decode_event
from taskyard.contracts.lifecycle import Verdict
from taskyard.contracts.tasks import TaskTable
from taskyard.contracts.values import Instant, make_position
from taskyard.judge.commits import Commit
from taskyard.judge.life import Life
from taskyard.judge.lives import Lives
from taskyard.simulation.run import run_seed


def of_fold(record: Any) -> tuple[Any, ...]:
    return (
        record.phase.value,
        record.status.value,
        record.attempt,
        record.tries,
        record.worker,
        record.slot,
        record.held_slot,
        record.due,
        record.priority,
        record.progress,
        record.confirmed,
        record.plan_attempt,
        record.incarnation,
    )


def of_life(life: Life) -> tuple[Any, ...]:
    return (
        life.stage.value,
        life.status,
        life.attempt,
        life.tries,
        life.worker,
        life.slot,
        life.held,
        life.due,
        life.priority,
        life.progress,
        life.is_confirmed,
        life.plan,
        life.incarnation,
    )


@pytest.mark.parametrize("first", [0, 1_000, 5_000])
def test_every_event_means_the_same_to_both(first: int) -> None:
    told = effective = 0
    for seed in range(first, first + 8):
        lives, table, at = Lives(), TaskTable(), Instant(0)
        for logged in run_seed(seed).log:
            at = Instant(max(at, logged.at))
            for index, raw in enumerate(msgspec.json.decode(logged.data, type=Commit).events):
                event, position = decode_event(raw), make_position(logged.sequence, index)
                folded = table.apply(event, at, position)
                steps = list(lives.tell(event, at, position))
                told += 1
                for change in folded:
                    if change.record is not None and change.verdict is Verdict.EFFECTIVE:
                        effective += 1
                        assert of_life(lives.by_id[change.record.id]) == of_fold(change.record), (seed, event)
                meant = {change.record.id for change in folded if change.record and change.verdict is Verdict.EFFECTIVE}
                assert {step.life.id for step in steps if step.counts} == meant, (seed, event)
                is_of_worker = isinstance(event, WorkerJoined | WorkerLost)
                assert is_of_worker or all(step.counts or step.life.id not in meant for step in steps)
    assert told > 500
    assert effective > 300
