"""Commands and reports, and the commits that account for them; sizes and versions of commits: each broken on purpose."""

from typing import Any

import msgspec
import pytest
from judged import BEGIN, COMMAND, Story, rules, task_id, whole

from taskyard.contracts.agent_protocol import AnyReport, ReportBatch, Started, Succeeded
from taskyard.contracts.events import (
    DISPATCHER,
    LOG_KEEPER,
    LOG_VERSION,
    SCHEDULER,
    AttemptSucceeded,
    LogVersionActivated,
    RefusalsCounted,
    TaskDispatched,
    TaskReprioritised,
    TaskScheduled,
    TaskStarted,
    TaskSubmitted,
)
from taskyard.contracts.subjects import COMMANDS, REPORTS
from taskyard.contracts.values import EVENTS_PER_COMMIT_MAX, make_uuid7
from taskyard.judge.commits import COMMIT_BYTES_MAX
from taskyard.judge.evidence import Asked, Reported
from taskyard.judge.faults import Rule

FORMER, ANEW = f"{COMMANDS}@1", f"{COMMANDS}@2"
REPORTED = f"{REPORTS}@1"


# -- commands ----------------------------------------------------------------------------------------------------------


def test_a_command_that_is_decided_twice_is_found() -> None:
    story = Story()
    task = story.submit(1)
    story.tell(TaskReprioritised(task=task, priority=1, by="eve", command=COMMAND))
    assert not story.judged().faults
    story.tell(TaskReprioritised(task=task, priority=2, by="eve", command=COMMAND))
    assert rules(story.judged()) == {Rule.DECIDED_ONCE}


def test_a_command_that_no_commit_accounts_for_is_found() -> None:
    story = Story()
    task = story.submit(1)
    asked = Asked(sequence=7, verb="reprioritise", data=msgspec.json.encode({"id": COMMAND}))
    event = TaskReprioritised(task=task, priority=1, by="eve", command=COMMAND)
    story.commit(SCHEDULER, event, cursors={COMMANDS: 6})
    assert rules(story.judged(asked=[asked])) == {Rule.DECIDED_ONCE}
    story.log.pop()
    story.commit(SCHEDULER, event, cursors={COMMANDS: 7}, previous=msgspec.json.decode(story.log[-1].data)["previous"])
    assert Rule.DECIDED_ONCE not in rules(story.judged(asked=[asked]))


def test_a_stored_command_that_nobody_decided_is_lost() -> None:
    asked = Asked(sequence=1, verb="cancel", data=msgspec.json.encode({"id": COMMAND}))
    assert rules(whole().judged(is_over=True, asked=[asked])) == {Rule.LOST}


def test_a_task_that_was_asked_for_in_a_batch_first_and_then_alone_is_accounted_for_by_the_batch() -> None:
    story = Story()
    batch = Asked(sequence=1, verb="submit", data=msgspec.json.encode({"id": COMMAND, "tasks": [{"id": task_id(1)}]}))
    alone = Asked(sequence=2, verb="submit", data=msgspec.json.encode({"id": task_id(1), "kind": "noop"}))
    story.commit(SCHEDULER, story.submission(1), cursors={COMMANDS: 1})
    assert not story.judged(asked=[batch, alone]).faults
    assert Rule.DECIDED_ONCE in rules(story.judged(asked=[alone]))


def test_a_batch_that_came_again_under_another_id_is_decided_by_its_tasks() -> None:
    again = Asked(sequence=2, verb="submit", data=msgspec.json.encode({"id": COMMAND, "tasks": [{"id": task_id(1)}]}))
    assert not whole().judged(is_over=True, asked=[again]).count(Rule.LOST)


def test_a_command_that_is_decided_in_two_commits_is_found() -> None:
    tasks = [{"id": task_id(number)} for number in (1, 2)]
    asked = Asked(sequence=3, verb="submit", data=msgspec.json.encode({"id": COMMAND, "tasks": tasks}))
    first, second = (Story.submission(number, command=COMMAND) for number in (1, 2))
    whole_one, split = Story(), Story()
    whole_one.commit(SCHEDULER, first, second, cursors={COMMANDS: 3})
    assert not whole_one.judged(asked=[asked]).faults
    split.commit(SCHEDULER, first, cursors={COMMANDS: 3})
    split.commit(SCHEDULER, second)
    assert rules(split.judged(asked=[asked])) == {Rule.DECIDED_ONCE}


@pytest.mark.parametrize(("cursors", "found"), [({ANEW: 2}, set[Rule]()), ({FORMER: 9}, {Rule.DECIDED_ONCE})])
def test_a_stream_that_was_made_anew_is_accounted_for_from_its_start(cursors: Any, found: set[Rule]) -> None:
    story = Story()
    story.commit(SCHEDULER, story.submission(1), cursors={FORMER: 8})
    story.commit(SCHEDULER, story.submission(2), cursors=cursors)
    asked = [_submit(8, 1, stream=FORMER), _submit(2, 2, stream=ANEW)]
    assert rules(story.judged(asked=asked)) == found


@pytest.mark.parametrize(("is_gone", "found"), [(True, set[Rule]()), (False, {Rule.LOST})])
def test_only_what_went_with_its_stream_need_not_be_decided(is_gone: bool, found: set[Rule]) -> None:
    assert rules(whole().judged(is_over=True, asked=[_submit(8, 9, stream=FORMER, is_gone=is_gone)])) == found


def test_a_command_of_which_only_the_id_can_be_read_must_be_decided_all_the_same() -> None:
    asked = Asked(sequence=1, verb="submit", data=msgspec.json.encode({"id": COMMAND, "tasks": 7}))
    assert rules(whole().judged(is_over=True, asked=[asked])) == {Rule.LOST}


def test_commands_that_were_refused_and_only_counted_are_decided() -> None:
    assert not _counted(3).judged(is_over=True, asked=_dances("eve", 7, 8, 9)).faults


def test_more_commands_than_were_counted_are_lost() -> None:
    assert _counted(2).judged(is_over=True, asked=_dances("eve", 7, 8, 9)).count(Rule.LOST) == 1


def test_a_count_of_another_principal_s_refusals_decides_nothing() -> None:
    assert _counted(1).judged(is_over=True, asked=_dances("bob", 7, 8, 9)).count(Rule.LOST) == 3


def test_a_count_decides_nothing_beside_its_range() -> None:
    assert _counted(3).judged(is_over=True, asked=_dances("eve", 7, 8, 9, 10)).count(Rule.LOST) == 1


def test_a_count_of_more_than_was_stored_is_found() -> None:
    assert rules(_counted(4).judged(is_over=True, asked=_dances("eve", 7, 8, 9))) == {Rule.DECIDED_ONCE}


def test_a_count_in_a_commit_that_does_not_account_for_it_is_found() -> None:
    asked = _dances("eve", 7, 8, 9)
    assert rules(_counted(3, cursor=6).judged(is_over=True, asked=asked)) == {Rule.DECIDED_ONCE}


def _counted(count: int, *, cursor: int = 9) -> Story:
    """The whole story, and behind it a commit that counts so many refusals of eve's commands 7 to 9."""
    story = whole()
    counted = RefusalsCounted(
        by="eve", stream=FORMER, count=count, first=7, last=9, since=BEGIN, until=BEGIN, codes={"invalid": count}
    )
    story.commit(SCHEDULER, counted, cursors={FORMER: cursor})
    return story


def _dances(principal: str, *sequences: int) -> list[Asked]:
    ids = [make_uuid7(BEGIN, sequence) for sequence in sequences]
    return [
        Asked(
            sequence=sequence,
            verb="dance",
            data=msgspec.json.encode({"id": id}),
            principal=principal,
            stream=FORMER,
        )
        for sequence, id in zip(sequences, ids, strict=True)
    ]


def _submit(sequence: int, number: int, **fields: Any) -> Asked:
    data = msgspec.json.encode({"id": task_id(number), "kind": "command"})
    return Asked(sequence=sequence, verb="submit", data=data, **fields)


# -- reports -----------------------------------------------------------------------------------------------------------

STARTED = Started(task=task_id(1), attempt=1, at=BEGIN)
SUCCEEDED = Succeeded(task=task_id(1), attempt=1, at=BEGIN)


def test_what_a_worker_reported_is_told_by_the_commit_that_accounts_for_it() -> None:
    assert not _told_in_one().judged(reported=[_batch(4, STARTED, SUCCEEDED)]).faults


@pytest.mark.parametrize(
    "reported",
    [
        [],
        ["[]"],
        ["started"],
        ["another worker"],
        ["another attempt"],
        ["later"],
    ],
)
def test_what_nobody_reported_so_is_found(reported: list[str]) -> None:
    batches = {
        "[]": Reported(stream=REPORTED, sequence=4, worker="w", data=b"[]"),
        "started": _batch(4, STARTED),
        "another worker": _batch(4, STARTED, SUCCEEDED, worker="other"),
        "another attempt": _batch(4, STARTED, msgspec.structs.replace(SUCCEEDED, attempt=2)),
        "later": _batch(5, STARTED, SUCCEEDED),
    }
    verdict = _told_in_one().judged(reported=[batches[name] for name in reported])
    assert rules(verdict) == {Rule.REPORTED}


def test_what_was_reported_together_and_is_told_in_two_commits_is_found() -> None:
    story = _assigned()
    story.commit(DISPATCHER, *_began(), cursors={REPORTED: 4})
    story.commit(DISPATCHER, AttemptSucceeded(task=task_id(1), attempt=1))
    assert rules(story.judged(reported=[_batch(4, STARTED, SUCCEEDED)])) == {Rule.REPORTED}


def _assigned() -> Story:
    story = Story()
    story.join()
    story.tell(TaskScheduled(task=story.submit(1)))
    story.assign(task_id(1))
    return story


def _began() -> tuple[TaskDispatched, TaskStarted]:
    return TaskDispatched(task=task_id(1), attempt=1), TaskStarted(task=task_id(1), attempt=1)


def _told_in_one() -> Story:
    story = _assigned()
    story.commit(DISPATCHER, *_began(), AttemptSucceeded(task=task_id(1), attempt=1), cursors={REPORTED: 4})
    return story


def _batch(sequence: int, *reports: AnyReport, worker: str = "w") -> Reported:
    data = msgspec.json.encode(ReportBatch(incarnation=1, number=1, reports=reports))
    return Reported(stream=REPORTED, sequence=sequence, worker=worker, data=data)


# -- sizes and versions ------------------------------------------------------------------------------------------------


def _submissions(count: int, **fields: Any) -> list[TaskSubmitted]:
    return [Story.submission(number, **fields) for number in range(1, count + 1)]


@pytest.mark.parametrize(
    ("events", "found"),
    [
        (_submissions(EVENTS_PER_COMMIT_MAX), set[Rule]()),
        (_submissions(EVENTS_PER_COMMIT_MAX + 1), {Rule.SIZE}),
        (_submissions(1, by="b" * COMMIT_BYTES_MAX), {Rule.SIZE}),
    ],
    ids=["as many as fit", "one more", "too long"],
)
def test_a_commit_that_some_reader_would_not_take_is_found(events: list[TaskSubmitted], found: set[Rule]) -> None:
    story = Story()
    story.commit(SCHEDULER, *events)
    assert rules(story.judged()) == found


@pytest.mark.parametrize(
    ("known", "commits", "found"),
    [(LOG_VERSION, 1, set[Rule]()), (LOG_VERSION, 2, {Rule.VERSION}), (LOG_VERSION + 1, 2, set[Rule]())],
    ids=["on its way", "goes on", "knows it"],
)
def test_who_goes_on_behind_a_version_that_it_does_not_know_is_found(
    known: int, commits: int, found: set[Rule]
) -> None:
    story = Story()
    activated = LogVersionActivated(version=LOG_VERSION + 1, by="operator")
    story.commit(LOG_KEEPER, activated, epoch=0, instance="operator")
    for _ in range(commits):
        story.commit(SCHEDULER)
    assert rules(story.judged(knows={"scheduler-1": known})) == found
