"""What others keep of the log, against the log: the rows of the read model, and what workers note of their slots."""

from collections.abc import Iterable, Mapping, Sequence

from taskyard.judge.evidence import Noted, Shown
from taskyard.judge.faults import Faults, Rule
from taskyard.judge.life import Life, Stage
from taskyard.judge.runs import Assignments

ENDED_BY_REPORT = {"Succeeded": (Stage.COMPLETED,), "Planned": tuple(Stage)}
"""What a task is when the last attempt that its worker remembers ended so; other ends may be tried again, or were stops."""


def check_shown(
    faults: Faults, shown: Iterable[Shown], lives: Mapping[str, Life], types: Mapping[str, Sequence[str]]
) -> None:
    """Where the read model, once it has read everything, differs from the log. `types` are the events of each task."""
    rows = {row.id: row for row in shown}
    for id in sorted(lives.keys() - rows.keys()):
        faults.add(Rule.READ_MODEL, f"{id} is in the log only", task=id)
    for id, row in rows.items():
        life = lives.get(id)
        if life is None:
            faults.add(Rule.READ_MODEL, f"{id} is in the read model only", task=id)
            continue
        told = (row.status, row.attempt, row.worker, row.slot)
        folded = (life.status, life.attempt, life.worker, life.slot)
        text = f"{id} reads as {told} and is {folded} by the log"
        faults.require(told == folded, Rule.READ_MODEL, text, task=id)
        if row.types is not None:
            text = f"the history of {id} is {list(row.types)}, in the log {list(types[id])}"
            faults.require(list(row.types) == list(types[id]), Rule.READ_MODEL, text, task=id)


def check_noted(faults: Faults, noted: Iterable[Noted], assignments: Assignments, lives: Mapping[str, Life]) -> None:
    """What a worker remembers is what the log gave it, and ended as the log says."""
    for one in noted:
        what = f"slot {one.slot} of {one.worker} remembers attempt {one.attempt} of {one.task}"
        assigned = assignments.by_position.get(one.position)
        is_given = assigned is not None and (
            (assigned.task, assigned.attempt, assigned.worker, assigned.slot)
            == (one.task, one.attempt, one.worker, one.slot)
        )
        faults.require(is_given, Rule.JOURNAL, f"{what}, and the log gave it {assigned}", task=one.task)
        life = lives.get(one.task)
        if life is None or one.end is None or life.attempt != one.attempt:
            continue
        is_as_told = life.stage in ENDED_BY_REPORT.get(one.end, tuple(Stage))
        # A report may come too late: then the log had ended the attempt for another reason before.
        was_over = isinstance(life.ended_at, int) and life.stage in {Stage.CANCELLED, Stage.TIMEOUT, Stage.FAILED}
        text = f"{what} that ended as {one.end}, and the task is {life.stage.value}"
        faults.require(is_as_told or was_over, Rule.JOURNAL, text, task=one.task)
