"""One command, one timer, one queue never stops the scheduler: each stands aside by itself, and people are told why."""

from typing import Any

import pytest
from machine_story import SUSPECT_SECONDS, A, B, C, Like, Story, assigned, joined, submitted, task_id
from msgspec import json
from msgspec.structs import replace
from scheduler_story import Commands
from slot_story import Slots
from test_commit_sizes import decide_all, stored_bytes

from taskyard.contracts.commands import COMMAND_BYTES_MAX, AnswerBatch, QueueCommand
from taskyard.contracts.events import (
    SCHEDULER,
    ApplyConfirmed,
    Changes,
    CommandRejected,
    NotDelivered,
    PlacingFailed,
    PlacingResumed,
    QueuePaused,
    QueueResumed,
    SlotAssigned,
    TaskPlanned,
    TaskScheduled,
    TaskStarted,
    TaskStopRequested,
    TaskSubmitted,
)
from taskyard.contracts.kind import INPUT_BYTES_MAX
from taskyard.contracts.queues import INTERNAL_ERROR
from taskyard.contracts.validation import FAULT_BYTES_MAX, FAULTS_MAX
from taskyard.contracts.values import seconds
from taskyard.contracts.verbs import VERBS, Verb
from taskyard.dispatcher.machine import Dispatcher
from taskyard.eventlog.errors import CommitTooLarge
from taskyard.machine import aside
from taskyard.machine.aside import ASIDE_SECONDS
from taskyard.machine.deadlines import Deadlines
from taskyard.machine.machine import Decision
from taskyard.scheduler import counting, decide, verbs
from taskyard.scheduler.admission import Admission
from taskyard.scheduler.answers import MESSAGE_BYTES_MAX, packed
from taskyard.scheduler.submissions import Submissions
from taskyard.slot_allocator import decide as allocating
from taskyard.slot_allocator.liveness import Liveness
from taskyard.slot_allocator.placement import IdleSlots

POSTPONE = Verb(name="postpone", bodies=(QueueCommand,), summary="", done="")


def broken(*_: Any) -> Any:
    raise ZeroDivisionError("a bug")


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "count"), [(json.encode({"tasks": [1] * 100}), 300), (b"{}", 421)], ids=["300 of 100 ones", "421 of {}"]
)
def test_a_flood_of_refused_messages_is_refused_in_commits_that_fit(
    monkeypatch: pytest.MonkeyPatch, body: bytes, count: int
) -> None:
    monkeypatch.setattr(counting, "_SHARE", seconds(86_400.0))  # else most of them would only be counted
    story = Commands()

    chosen = decide_all(story, *(story.said("submit", body) for _ in range(count)))

    assert len(chosen) == count
    assert all(isinstance(event, CommandRejected) for event in chosen)


def test_a_refusal_tells_the_first_faults_and_how_many_more_there_are() -> None:
    story = Commands()

    (refusal,) = decide_all(story, story.said("submit", {"tasks": [1] * 100}))

    assert isinstance(refusal, CommandRejected)
    assert refusal.message == "100 tasks were refused"
    assert [error.path for error in refusal.errors[:2]] == ["tasks[0]", "tasks[1]"]
    assert refusal.errors[FAULTS_MAX].message == f"and {100 - FAULTS_MAX} more"
    assert stored_bytes([refusal]) < FAULT_BYTES_MAX + 1_000


def test_a_refusal_of_long_faults_is_bounded_in_bytes() -> None:
    story = Commands()
    tasks = [{"kind": "noop", "input": {}, "\x01" * 200 + str(number): 1} for number in range(50)]

    (refusal,) = decide_all(story, story.said("submit", {"tasks": tasks}))

    assert stored_bytes([refusal]) < 2 * FAULT_BYTES_MAX + 1_000


def test_an_answer_to_a_door_is_bounded_though_each_task_of_a_batch_is_refused() -> None:
    story = Commands()
    tasks = [{"kind": "noop", "input": {}, "\x01" * 100 + str(number): 1} for number in range(150)]
    story.when(story.said("submit", {"tasks": tasks}))

    (effect,) = story.effects()

    (message,) = packed(effect.batch)
    assert len(message) <= MESSAGE_BYTES_MAX
    answers = effect.batch.outcomes[0].answers
    assert len(answers) == 150 and {answer.code for answer in answers} == {422}
    assert answers[0].errors and not answers[-1].errors


def test_many_answers_to_one_door_go_in_several_messages() -> None:
    story = Commands()
    story.when(*(story.said("submit", {"tasks": [1] * 100}) for _ in range(300)))

    (effect,) = story.effects()
    messages = list(packed(effect.batch))

    assert len(messages) > 1 and max(map(len, messages)) <= MESSAGE_BYTES_MAX
    told = [outcome for each in messages for outcome in json.decode(each, type=AnswerBatch).outcomes]
    assert told == list(effect.batch.outcomes)


def test_an_input_is_measured_as_it_is_stored() -> None:
    story = Commands()
    numbers = ",".join(["1e15"] * (INPUT_BYTES_MAX // 10))
    data = f'{{"kind":"plan","queue":"q","input":{{"directory":"/d","variables":{{"n":[{numbers}]}}}}}}'.encode()
    assert len(data) < INPUT_BYTES_MAX

    (refusal,) = decide_all(story, story.said("submit", data))

    assert isinstance(refusal, CommandRejected)
    assert [(error.path, error.message) for error in refusal.errors] == [
        ("input", f"larger than {INPUT_BYTES_MAX} bytes as it is stored")
    ]


def test_a_batch_whose_inputs_grow_when_they_are_stored_fits_or_is_refused_in_part() -> None:
    story = Commands()
    numbers = ",".join(["1e15"] * 2_000)
    task = f'{{"kind":"plan","queue":"q","input":{{"directory":"/d","variables":{{"n":[{numbers}]}}}}}}'
    data = ('{"tasks":[' + ",".join([task] * 12) + "]}").encode()
    assert len(data) < COMMAND_BYTES_MAX

    chosen = decide_all(story, story.said("submit", data), *(story.said("submit", data) for _ in range(5)))

    made = [event for event in chosen if isinstance(event, TaskSubmitted)]
    refused = [event for event in chosen if isinstance(event, CommandRejected)]
    assert len(made) == 6 * 3 and len(refused) == 6
    assert {error.message for event in refused for error in event.errors} == {
        "as it is stored it is too large: send it in parts"
    }


def test_a_command_that_is_too_large_by_itself_is_refused() -> None:
    story = Commands()
    message = story.submit()

    decision = story.machine.refuse(story.now, message, CommitTooLarge("too many bytes"))
    story.given(*decision.events)

    (refusal,) = decision.events
    assert (refusal.status, refusal.code, decision.taken) == (413, "too_large", 1)
    assert story.codes() == [413]


# -- what raises -------------------------------------------------------------------------------------------------------


def test_a_command_on_which_deciding_raises_is_refused_alone_with_a_reference_to_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = Commands()
    story.given(joined())
    monkeypatch.setitem(verbs.DECISIONS, "pause", broken)
    pause = story.said("pause", {"queue": "q"}, "root")

    decision = story.decide(story.submit(1), pause, story.submit(2))
    story.given(*decision.events)

    assert decision.taken == 3
    refusals = [event for event in decision.events if isinstance(event, CommandRejected)]
    assert [(event.code, event.status, event.verb) for event in refusals] == [("internal_error", 500, "pause")]
    (fault,) = decision.faults
    assert fault.reference in refusals[0].message and isinstance(fault.error, ZeroDivisionError)
    assert sorted(story.codes()) == [202, 202, 500]


def test_a_submission_that_raises_halfway_submits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Commands()
    accept, count = Submissions._accept, iter(range(10))

    def touchy(self: Any, *arguments: Any) -> None:
        accept(self, *arguments)
        if next(count) == 2:
            raise ZeroDivisionError

    monkeypatch.setattr(Submissions, "_accept", touchy)
    tasks = [{"id": task_id(number), "kind": "noop", "input": {}} for number in range(5)]

    decision = story.decide(story.said("submit", {"tasks": tasks}), story.said("submit", {"tasks": tasks}))
    story.given(*decision.events)

    assert [type(event) for event in decision.events] == [CommandRejected, *[TaskSubmitted] * 5]
    assert sorted(story.codes()) == [202] * 5 + [500]


def test_a_new_verb_that_reuses_a_body_never_becomes_the_opposite_act(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Commands()
    monkeypatch.setitem(VERBS, "postpone", POSTPONE)

    (event,) = story.decide(story.said("postpone", {"queue": "q"}, "root")).events

    assert isinstance(event, CommandRejected) and event.code == "internal_error"


def test_one_task_whose_timer_raises_does_not_stop_the_timers_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Commands()
    story.given(*(submitted(task, schedule_to_start_timeout_seconds=5.0) for task in (A, B)))
    fire = decide._timer_event

    def touchy(state: Any, deadlines: Any, record: Any, *rest: Any) -> Any:
        return broken() if record.id == A else fire(state, deadlines, record, *rest)

    monkeypatch.setattr(decide, "_timer_event", touchy)

    decision = story.after(6).decide()

    assert [(type(event), event.task) for event in decision.events] == [(TaskStopRequested, B)]
    assert [fault.reference for fault in decision.faults] == [f"timer start_by of task {A}"]


# -- a queue that makes admission raise --------------------------------------------------------------------------------


def with_a_bad_queue(monkeypatch: pytest.MonkeyPatch) -> Commands:
    story = Commands()
    story.given(joined(slots=(("any",),) * 4))
    is_open = Admission._is_open

    def touchy(self: Any, queue: Any, locking: Any) -> bool:
        return broken() if queue.name == "bad" and not queue.is_paused else is_open(self, queue, locking)

    monkeypatch.setattr(Admission, "_is_open", touchy)
    return story


def paused(event: Any) -> bool:
    return isinstance(event, QueuePaused) and event.by == SCHEDULER and event.reason.startswith("internal_error: ")


def test_one_queue_whose_tasks_make_admission_raise_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    story = with_a_bad_queue(monkeypatch)
    story.given(submitted(A, queue="bad"), submitted(B, queue="good"), submitted(C, "command", queue="bad"))

    decision = story.decide()

    assert [event for event in decision.events if not paused(event)] == [TaskScheduled(task=B)]
    assert [event.queue for event in decision.events if isinstance(event, QueuePaused)] == ["bad"]
    assert [fault.reference for fault in decision.faults] == ["queue bad of pool default"]


def test_it_is_told_once_and_not_by_every_decision_or_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    story = with_a_bad_queue(monkeypatch)
    story.given(submitted(A, queue="bad"))
    story.when()
    assert [paused(event) for event in story.chosen] == [True]

    story.given(submitted(B, queue="bad")).when().then_nothing()
    assert story.successor().decide().events == []
    assert story.refolded().decide().events == []


def test_a_task_that_is_submitted_to_it_is_accepted_and_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    story = with_a_bad_queue(monkeypatch)

    story.when(story.submit(1, queue="bad"), story.submit(2, queue="good"))

    assert [type(event) for event in story.chosen if not paused(event)] == [
        TaskSubmitted, TaskSubmitted, TaskScheduled
    ]  # fmt: skip
    assert story.codes() == [202, 202]


def test_a_queue_that_is_mended_goes_on_when_it_is_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    story = with_a_bad_queue(monkeypatch)
    story.given(submitted(A, queue="bad")).when()
    monkeypatch.undo()

    story.given(QueueResumed(pool="default", queue="bad", by="root")).when()

    story.then(TaskScheduled(task=A))


def pool_paused() -> Any:
    return Like(QueuePaused, pool="default", queue=None, by=SCHEDULER)


def test_one_pool_that_makes_admission_raise_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Commands()
    story.given(joined("w1"), joined("w2", pool="other"))
    best = Admission._best

    def touchy(self: Any, pool: Any) -> Any:
        return broken() if pool.name == "default" else best(self, pool)

    monkeypatch.setattr(Admission, "_best", touchy)
    story.given(submitted(A), submitted(B, pool="other"))

    decision = story.decide()

    assert decision.events == [pool_paused(), TaskScheduled(task=B)]
    assert decision.events[0].reason.startswith(INTERNAL_ERROR)
    assert [fault.reference for fault in decision.faults] == ["pool default"]
    story.given(*decision.events).when().then_nothing()
    assert story.decide().faults == []  # told once
    monkeypatch.undo()
    story.given(QueueResumed(pool="default", by="root")).when().then(TaskScheduled(task=A))


def test_a_submission_to_a_pool_that_makes_admission_raise_is_accepted_and_says_why_it_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = Commands()
    story.given(joined())
    monkeypatch.setattr(Admission, "_room", broken)

    decision = story.decide(story.submit(1), story.submit(2))

    assert [type(event) for event in decision.events] == [TaskSubmitted, TaskSubmitted, QueuePaused]
    assert decision.taken == 2
    assert [fault.reference for fault in decision.faults] == ["pool default"]


def test_a_command_that_cannot_be_read_is_refused_and_its_client_gets_the_verdict() -> None:
    story = Commands()
    message = replace(story.submit(1), could_not_be_read=ZeroDivisionError("a bug"))

    decision = story.decide(message)

    (refusal,) = decision.events
    assert (refusal.status, refusal.code, decision.taken) == (500, INTERNAL_ERROR, 1)
    assert len(decision.faults) == 1


# -- what raises without an input in the other machines ----------------------------------------------------------------


PLANS_FAIL = PlacingFailed(
    pool="default", what="plan", reason="ZeroDivisionError, in the log as kind plan of pool default"
)


def test_a_kind_whose_placing_raises_stands_aside_and_what_is_behind_it_is_placed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = Slots().given(joined()).scheduled(A, "plan").scheduled(B).scheduled(C, "plan")
    take = IdleSlots.take

    def touchy(self: Any, pool: str, kind: str, *args: Any, **more: Any) -> Any:
        return broken() if kind == "plan" else take(self, pool, kind, *args, **more)

    monkeypatch.setattr(IdleSlots, "take", touchy)
    monkeypatch.setattr(aside, "ASIDE_SECONDS", SUSPECT_SECONDS / 2)

    decision = story.decide()

    assert decision.events == [assigned(B), PLANS_FAIL]
    assert [fault.reference for fault in decision.faults] == ["kind plan of pool default"]
    story.given(*decision.events)
    assert story.decide() == Decision(events=[])  # told once, not by every decision
    monkeypatch.undo()
    story.after(SUSPECT_SECONDS / 2).when()
    assert [task for task, _, _ in story.slots()] == [A, C]


def test_a_kind_that_stands_aside_is_looked_at_again_though_nothing_else_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = Slots().given(joined()).scheduled(A)
    monkeypatch.setattr(IdleSlots, "take", broken)
    story.decide()

    assert story.machine.next_deadline() == story.now + seconds(ASIDE_SECONDS)


def test_a_slot_that_was_looked_at_when_placing_raised_is_given_to_what_is_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = Slots().given(joined()).scheduled(A).when()
    story.given(NotDelivered(task=A, attempt=1, reason="x", declined=True)).given(TaskScheduled(task=A))
    story.scheduled(B, "command")
    first, looks = IdleSlots._first, iter((False, True))

    def touchy(self: Any, pool: str, kind: str, *rest: Any) -> Any:
        """Raises at the second look for one task: the slot of the worker that declined it is off the list by then."""
        return broken() if kind == "noop" and next(looks) else first(self, pool, kind, *rest)

    monkeypatch.setattr(IdleSlots, "_first", touchy)

    assert [event for event in story.decide().events if isinstance(event, SlotAssigned)] == [assigned(B)]


def finds_none(*_: Any, **__: Any) -> Any:
    broken()


def test_who_waits_for_what_stands_aside_is_told_so_once_and_then_that_it_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story, take = Slots().given(joined()).scheduled(A, "plan"), IdleSlots.take
    monkeypatch.setattr(IdleSlots, "take", finds_none)
    monkeypatch.setattr(aside, "ASIDE_SECONDS", 1.0)
    assert story.decide().events == [PLANS_FAIL]
    story.given(PLANS_FAIL)
    for _ in range(3):
        story.after(1.0)
        assert story.decide().events == [], "it still raises"
    monkeypatch.setattr(IdleSlots, "take", take)

    decision = story.after(1.0).decide()

    assert decision.events == [assigned(A), PlacingResumed(pool="default", what="plan")]
    assert story.given(*decision.events).decide() == Decision(events=[])


def test_that_it_is_over_is_told_though_nothing_waits_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Slots().given(joined()).scheduled(A, "plan")
    monkeypatch.setattr(IdleSlots, "take", finds_none)
    monkeypatch.setattr(aside, "ASIDE_SECONDS", 1.0)
    story.given(*story.decide().events, TaskStopRequested(task=A, cause="cancel", by="root"))
    assert story.decide().events == []

    assert story.after(1.0).decide().events == [PlacingResumed(pool="default", what="plan")]


def test_a_leader_that_finds_slots_where_the_one_before_it_could_not_tells_that_it_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = Slots().given(joined()).scheduled(A, "plan")
    monkeypatch.setattr(IdleSlots, "take", finds_none)
    monkeypatch.setattr(aside, "ASIDE_SECONDS", 1.0)
    story.given(*story.decide().events)
    monkeypatch.undo()
    leader = Slots()
    leader.now = story.now
    leader.machine.restore(story.machine.snapshot())
    leader.machine.lead(leader.now)

    assert leader.decide().events == [assigned(A), PlacingResumed(pool="default", what="plan")]


def test_a_worker_at_whom_looking_raises_stands_aside_and_others_are_lost_by_their_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = Slots().given(joined("w1"), joined("w2"))
    check = Liveness._check

    def touchy(self: Any, worker: Any) -> Any:
        return broken() if worker.name == "w1" else check(self, worker)

    monkeypatch.setattr(Liveness, "_check", touchy)
    story.after(SUSPECT_SECONDS)

    decision = story.decide()

    assert [event.worker for event in decision.events] == ["w2"]
    assert [fault.reference for fault in decision.faults] == ["worker w1"]


def test_a_deadline_at_which_looking_raises_stands_aside_and_those_behind_it_are_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Dispatcher()
    story: Story = Story(machine)
    for number, task in enumerate((A, B)):
        story.given(joined(f"w{number}"), submitted(task, timeout_seconds=10.0 + number), TaskScheduled(task=task))
        story.given(assigned(task, worker=f"w{number}"), TaskStarted(task=task, attempt=1))
    after = Deadlines.after
    monkeypatch.setattr(
        Deadlines, "after", lambda self, since, duration: broken() if duration == 12.0 else after(self, since, duration)
    )
    story.after(60)
    machine.deadlines.read(story.now)

    decision = story.decide()

    assert [event.task for event in decision.events] == [B]
    assert [fault.reference for fault in decision.faults] == [f"deadline of attempt 1 of task {A}"]
    monkeypatch.undo()
    story.given(*decision.events).after(ASIDE_SECONDS)
    machine.deadlines.read(story.now)
    assert [event.task for event in story.decide().events] == [A]


def test_an_apply_at_which_deciding_raises_stands_aside_and_others_are_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Slots().given(joined(slots=(("any",),) * 4))
    for task in (A, B):
        story.scheduled(task, "plan_and_apply")
    story.when()
    for task, _, _ in story.slots():
        plan = [
            TaskStarted(task=task, attempt=1),
            TaskPlanned(task=task, attempt=1, changes=Changes(add=1, change=0, destroy=0)),
        ]
        story.given(*plan, ApplyConfirmed(task=task, attempt=1, by="root"), TaskScheduled(task=task, attempt=1))
    on_its_slot = allocating._on_its_slot
    monkeypatch.setattr(aside, "ASIDE_SECONDS", SUSPECT_SECONDS / 2)
    monkeypatch.setattr(allocating, "_on_its_slot", lambda record: broken() if record.id == A else on_its_slot(record))

    decision = story.decide()

    given, told = decision.events
    assert (type(given), given.task, given.attempt) == (SlotAssigned, B, 2)
    assert told == PlacingFailed(pool="default", what=A, reason=f"ZeroDivisionError, in the log as apply of task {A}")
    assert [fault.reference for fault in decision.faults] == [f"apply of task {A}"]
    assert story.given(*decision.events).decide() == Decision(events=[])
    assert story.machine.next_deadline() == story.now + seconds(SUSPECT_SECONDS / 2)
    monkeypatch.undo()
    given, told = story.after(SUSPECT_SECONDS / 2).decide().events
    assert (given.task, told) == (A, PlacingResumed(pool="default", what=A))


def test_a_plan_whose_own_answer_raises_stands_aside_and_others_are_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Commands()
    story.given(joined(slots=(("any",),) * 4))
    for number, task in enumerate((A, B)):
        story.given(submitted(task, "plan_and_apply", queue=f"q{number}", auto_confirm=True), TaskScheduled(task=task))
        story.given(assigned(task, slot=number), TaskStarted(task=task, attempt=1))
        story.given(TaskPlanned(task=task, attempt=1, changes=Changes(add=1, change=0, destroy=0)))
    answer = decide._own_answer
    monkeypatch.setattr(decide, "_own_answer", lambda record: broken() if record.id == A else answer(record))

    decision = story.decide()

    assert [(type(event), event.task) for event in decision.events] == [(ApplyConfirmed, B)]
    assert [fault.reference for fault in decision.faults] == [f"answer to the plan of task {A}"]
    monkeypatch.undo()
    story.given(*decision.events).after(ASIDE_SECONDS).decide()
    assert [event.task for event in story.decide().events if isinstance(event, ApplyConfirmed)] == [A]


def test_a_timer_that_raised_fires_when_the_cause_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Commands()
    story.given(submitted(A, schedule_to_start_timeout_seconds=5.0))
    monkeypatch.setattr(decide, "_timer_event", broken)
    assert len(story.after(6).decide().faults) == 1
    monkeypatch.undo()

    decision = story.after(ASIDE_SECONDS).decide()

    assert [(type(event), event.task) for event in decision.events] == [(TaskStopRequested, A)]


# -- a decision that does not stand ------------------------------------------------------------------------------------


def test_a_decision_that_does_not_stand_tells_no_door_and_is_decided_again_as_it_was() -> None:
    story = Commands()
    story.given(joined(), submitted(B, schedule_to_start_timeout_seconds=5.0), submitted(C))
    story.after(6)
    commands = [story.submit(1), story.said("submit", b"{}"), story.said("cancel", {"task": C})]
    first = story.decide(*commands)

    story.machine.look_again(story.now)
    assert story.effects() == []
    again = story.decide(*commands)
    story.given(*again.events)

    assert again.events == first.events
    assert len(story.answers()) == 3


def test_who_waits_since_an_earlier_decision_is_still_told_after_one_that_does_not_stand() -> None:
    story = Commands()
    first = story.decide(story.submit(1))

    story.decide()
    story.machine.look_again(story.now)
    story.given(*first.events)

    assert story.codes() == [202]
