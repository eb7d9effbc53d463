"""One attempt: it is delivered until it is answered, what its agent reports becomes events once, deadlines become stops."""

from typing import Any

import msgspec
import pytest
from machine_story import START, A, B, Like, Story, assigned, joined, run, submitted
from msgspec import Raw

from taskyard.contracts.agent_protocol import (
    START_SECONDS_MAX,
    AnyReport,
    AssignAnswer,
    Failed,
    LiveAttempt,
    Lost,
    Planned,
    Progressed,
    ReportBatch,
    Started,
    Succeeded,
)
from taskyard.contracts.events import (
    NO_RESPONDERS,
    ApplyConfirmed,
    AttemptFailed,
    AttemptLost,
    AttemptSucceeded,
    Changes,
    ForceStopped,
    NotDelivered,
    SlotCleared,
    TaskDispatched,
    TaskError,
    TaskPlanned,
    TaskProgressed,
    TaskScheduled,
    TaskStarted,
    TaskStopRequested,
    WorkerJoined,
    WorkerLost,
)
from taskyard.contracts.lifecycle import Phase
from taskyard.contracts.nesting import NESTING_MAX
from taskyard.contracts.values import Instant, Position, seconds
from taskyard.dispatcher.decide import Answered, HeartbeatHeard, NobodyListened
from taskyard.dispatcher.delivery import RESEND_SECONDS, RESEND_STOP_SECONDS, SendAssignments, SendCancels
from taskyard.dispatcher.machine import Dispatcher
from taskyard.dispatcher.reports import ReportsRead, read_reports
from taskyard.dispatcher.state import TIMEOUT_SLACK_SECONDS

ERROR = TaskError(code="exit", message="1")
CANCEL = TaskStopRequested(task=A, cause="cancel", by="alice")
LOST = WorkerLost(worker="w1", incarnation=run(1))
DISPATCHED = TaskDispatched(task=A, attempt=1)
STARTED = TaskStarted(task=A, attempt=1)
STARTED_HERE = Like(TaskStarted, task=A, attempt=1)
WHEN: dict[str, Any] = {"task": A, "attempt": 1, "at": START}


class Delivering(Story):
    """A dispatcher's story, in which agents answer and report."""

    def __init__(self) -> None:
        super().__init__(Dispatcher())

    def with_attempt(self, kind: str = "noop", **fields: Any) -> "Delivering":
        """Task A has slot 0 of w1."""
        self.given(joined(), submitted(A, kind, **fields), TaskScheduled(task=A), assigned())
        return self

    def sends(self) -> Any:
        """The one message that is due."""
        (effect,) = self.effects()
        return effect


def answered(send: SendAssignments | SendCancels, outcome: str, reason: str = "") -> Answered:
    sent = send.assignments if isinstance(send, SendAssignments) else send.cancels
    return Answered(
        request=send,
        answers=tuple(AssignAnswer(position=each.position, outcome=outcome, reason=reason) for each in sent),
    )


def reported(*reports: AnyReport, agent: str = "w1") -> ReportsRead:
    return read_reports(agent, msgspec.json.encode(ReportBatch(incarnation=1, number=1, reports=reports)))


# -- delivery ----------------------------------------------------------------------------------------------------------


def test_an_assignment_is_sent_to_its_agent_and_accepted() -> None:
    story = Delivering().with_attempt("command", timeout_seconds=7, input=Raw(b'{"argv":["a"]}'))

    send = story.sends()
    assert (send.agent, send.incarnation) == ("w1", run(1))
    (sent,) = send.assignments
    assert (sent.task, sent.attempt, sent.slot, sent.incarnation, sent.kind) == (A, 1, 0, run(1), "command")
    assert (sent.timeout_seconds, sent.apply, bytes(sent.input)) == (7, False, b'{"argv":["a"]}')
    assert sent.position == story.record().assigned

    story.when(answered(send, "accepted")).then(DISPATCHED)
    assert list(story.after(60).effects()) == []


def test_nothing_is_sent_twice_within_the_time_to_answer() -> None:
    story = Delivering().with_attempt()
    story.sends()

    assert list(story.after(RESEND_SECONDS - 0.1).effects()) == []
    assert story.after(0.1).sends().assignments[0].attempt == 1


def test_assignments_of_an_agent_go_together() -> None:
    story = Delivering().with_attempt().given(submitted(B, "plan"), TaskScheduled(task=B), assigned(B, slot=1))

    assert [each.task for each in story.sends().assignments] == [A, B]


def test_nobody_listens_to_the_first_and_only_copy_is_proof() -> None:
    story = Delivering().with_attempt()

    story.when(NobodyListened(request=story.sends())).then(NotDelivered(task=A, attempt=1, reason=NO_RESPONDERS))

    assert list(story.after(60).effects()) == []
    assert story.record().phase is Phase.PENDING


def test_nobody_listens_to_a_second_copy_is_silence() -> None:
    """The first copy may have arrived before the agent went away."""
    story = Delivering().with_attempt()
    first = story.sends()
    second = story.after(RESEND_SECONDS).sends()

    story.when(NobodyListened(request=second), NobodyListened(request=first)).then_nothing()

    assert story.after(RESEND_SECONDS).sends().assignments[0].task == A


@pytest.mark.parametrize("take_over", [Story.successor, Story.refolded], ids=["snapshot", "whole log"])
def test_nobody_listens_is_silence_for_what_was_assigned_before_this_leader_began(take_over: Any) -> None:
    """The leader before may have sent a copy."""
    story = take_over(Delivering().with_attempt())
    (send,) = story.effects()

    story.when(NobodyListened(request=send)).then_nothing()


def test_nobody_listens_is_proof_for_what_was_assigned_to_this_leader_itself() -> None:
    story = Delivering().given(joined(), submitted(), TaskScheduled(task=A)).successor().given(assigned())
    (send,) = story.effects()

    story.when(NobodyListened(request=send)).then(Like(NotDelivered))


def test_nobody_listens_means_nothing_for_an_attempt_that_is_over_or_accepted() -> None:
    story = Delivering().with_attempt()
    send = story.sends()
    story.when(answered(send, "accepted"))

    story.when(NobodyListened(request=send)).then_nothing()
    story.given(AttemptSucceeded(task=A, attempt=1)).when(NobodyListened(request=send)).then_nothing()


def test_no_copy_is_sent_after_non_delivery_was_decided_and_before_it_is_folded() -> None:
    story = Delivering().with_attempt()
    send = story.sends()

    story.decide(NobodyListened(request=send))

    assert list(story.after(60).effects()) == []


# -- answers -----------------------------------------------------------------------------------------------------------


def test_a_declined_assignment_was_not_delivered() -> None:
    story = Delivering().with_attempt()

    story.when(answered(story.sends(), "declined", "leaving")).then(
        NotDelivered(task=A, attempt=1, reason="leaving", declined=True)
    )


def test_an_attempt_that_was_accepted_and_is_then_declined_is_lost() -> None:
    story = Delivering().with_attempt()
    send = story.sends()
    story.when(answered(send, "accepted"))

    story.when(answered(send, "declined", "who?")).then(AttemptLost(task=A, attempt=1, message="who?"))


def test_an_agent_that_lost_its_memory_has_lost_the_attempt() -> None:
    story = Delivering().with_attempt()

    story.when(answered(story.sends(), "lost", "no journal")).then(AttemptLost(task=A, attempt=1, message="no journal"))


@pytest.mark.parametrize("outcome", ["accepted", "declined", "lost", "of another version"])
def test_an_answer_again_changes_nothing(outcome: str) -> None:
    story = Delivering().with_attempt()
    answer = answered(story.sends(), outcome)
    story.when(answer, answer)
    assert len(story.chosen) == (outcome != "of another version")

    story.when(answer).then_nothing()


def test_an_answer_about_an_earlier_attempt_means_nothing() -> None:
    story = Delivering().with_attempt()
    send = story.sends()
    story.given(NotDelivered(task=A, attempt=1, reason="x"), TaskScheduled(task=A), assigned(attempt=2))

    for outcome in ("accepted", "declined", "lost"):
        story.when(answered(send, outcome)).then_nothing()


def test_an_answer_about_what_was_not_asked_means_nothing() -> None:
    story = Delivering().with_attempt()
    strange = AssignAnswer(position=Position(story.record().assigned + 1), outcome="lost")

    story.when(Answered(request=story.sends(), answers=(strange,))).then_nothing()


# -- reports -----------------------------------------------------------------------------------------------------------


def test_the_reports_of_an_attempt_become_its_events_in_order() -> None:
    story = Delivering().with_attempt()

    story.when(
        reported(Started(**WHEN), Progressed(**WHEN, progress=40, message="m"), Succeeded(**WHEN, result=Raw(b"1")))
    )

    story.then(
        DISPATCHED,
        STARTED_HERE,
        TaskProgressed(task=A, attempt=1, progress=40, message="m"),
        Like(AttemptSucceeded, task=A, attempt=1),
    )


@pytest.mark.parametrize(
    ("report", "event"),
    [
        (Succeeded(**WHEN), AttemptSucceeded(task=A, attempt=1)),
        (Failed(**WHEN, error=ERROR), AttemptFailed(task=A, attempt=1, error=ERROR)),
        (Lost(**WHEN, message="restarted"), AttemptLost(task=A, attempt=1, message="restarted")),
    ],
    ids=["succeeded", "failed", "lost"],
)
@pytest.mark.parametrize("before", [(), (DISPATCHED,), (DISPATCHED, STARTED), (CANCEL,)], ids=len)
def test_an_end_is_an_end_though_earlier_reports_are_missing(report: Any, event: Any, before: tuple[Any, ...]) -> None:
    story = Delivering().with_attempt().given(*before)

    story.when(reported(report), reported(report)).then(event)
    story.when(reported(report)).then_nothing()


def test_a_result_that_not_everybody_could_read_is_left_out_of_the_log() -> None:
    """An agent that nests without end must not stop all who read the log."""
    deep = Raw(b"[" * (NESTING_MAX + 1) + b"]" * (NESTING_MAX + 1))
    just = Raw(b"[" * NESTING_MAX + b"]" * NESTING_MAX)

    Delivering().with_attempt().when(reported(Succeeded(**WHEN, result=deep))).then(
        AttemptSucceeded(task=A, attempt=1, result=Raw(b"null"))
    )
    Delivering().with_attempt().when(reported(Failed(**WHEN, error=ERROR, result=deep))).then(
        AttemptFailed(task=A, attempt=1, error=ERROR, result=Raw(b"null"))
    )
    Delivering().with_attempt().when(reported(Succeeded(**WHEN, result=just))).then(
        AttemptSucceeded(task=A, attempt=1, result=just)
    )


def test_repeated_reports_say_nothing_new() -> None:
    story = Delivering().with_attempt()
    batch = reported(Started(**WHEN), Progressed(**WHEN, progress=40))
    story.when(batch, batch).then(DISPATCHED, STARTED_HERE, Like(TaskProgressed, progress=40))

    story.when(batch).then_nothing()
    story.when(reported(Progressed(**WHEN, progress=39), Progressed(**WHEN, progress=41))).then(
        Like(TaskProgressed, progress=41)
    )


def test_what_comes_after_the_end_in_the_same_decision_says_nothing() -> None:
    story = Delivering().with_attempt()

    story.when(reported(Succeeded(**WHEN), Failed(**WHEN, error=ERROR), Started(**WHEN))).then(
        AttemptSucceeded(task=A, attempt=1)
    )


def test_reports_of_another_agent_are_not_believed() -> None:
    story = Delivering().with_attempt()

    story.when(reported(Started(**WHEN), Succeeded(**WHEN), agent="w2")).then_nothing()


def test_the_end_of_an_earlier_attempt_is_shown_and_void() -> None:
    story = Delivering().with_attempt().given(LOST, TaskScheduled(task=A), assigned(attempt=2, worker="w2"))

    story.when(reported(Started(**WHEN), Succeeded(**WHEN), Lost(**WHEN), Succeeded(**WHEN))).then(
        AttemptSucceeded(task=A, attempt=1, worker="w1")
    )
    assert story.record().phase is Phase.ASSIGNED
    story.when(reported(Succeeded(**WHEN), Lost(**WHEN))).then_nothing()


def test_the_end_of_an_earlier_attempt_is_taken_only_from_the_worker_that_had_it_and_only_of_one_that_there_was() -> (
    None
):
    story = Delivering().with_attempt().given(LOST, TaskScheduled(task=A), assigned(attempt=2, worker="w2"))
    story.given(WorkerLost(worker="w2", incarnation=run(1)), TaskScheduled(task=A), assigned(attempt=3, worker="w3"))

    for leader in (story.refolded(), story.successor(), story):
        for agent in ("w2", "w3", "w9"):
            forged = [Succeeded(task=A, attempt=number, at=START) for number in (-1, 0, 1)]
            leader.when(reported(*forged, agent=agent)).then_nothing()
    story.when(reported(Lost(task=A, attempt=2, at=START), agent="w2")).then(Like(AttemptLost, attempt=2, worker="w2"))


def test_an_end_that_its_worker_has_told_is_not_told_again_as_one_of_an_earlier_attempt() -> None:
    again = AttemptFailed(task=A, attempt=1, error=TaskError(code="exit", message="", retryable=True))
    story = Delivering().with_attempt().given(again, TaskScheduled(task=A), assigned(attempt=2))

    story.when(reported(Failed(**WHEN, error=again.error))).then_nothing()


def test_reports_of_attempts_to_come_are_not_believed() -> None:
    story = Delivering().with_attempt()

    story.when(reported(Succeeded(task=A, attempt=2, at=START))).then_nothing()


def test_reports_of_tasks_that_nobody_knows_say_nothing() -> None:
    story = Delivering().with_attempt()

    story.when(reported(Succeeded(task=B, attempt=1, at=START))).then_nothing()


def test_a_batch_that_could_not_be_read_is_passed_over() -> None:
    story = Delivering().with_attempt()

    story.when(
        read_reports("w1", b"[]"), read_reports("w1", b"\xff"), reported(Lost(**WHEN, message="x" * 10**6))
    ).then_nothing()


def test_a_plan_is_reported_once() -> None:
    story = Delivering().with_attempt("plan_and_apply")
    planned = reported(Started(**WHEN), Planned(**WHEN, changes=Changes(add=1)))

    story.when(planned, planned).then(DISPATCHED, STARTED_HERE, TaskPlanned(task=A, attempt=1, changes=Changes(add=1)))
    story.when(planned).then_nothing()


# -- stops -------------------------------------------------------------------------------------------------------------


def running(timeout_seconds: float = 60) -> Delivering:
    return Delivering().with_attempt(timeout_seconds=timeout_seconds).given(DISPATCHED, STARTED)


def test_an_attempt_that_runs_too_long_is_stopped_a_little_after_its_agent_should_have() -> None:
    story = running()

    story.after(60 + TIMEOUT_SLACK_SECONDS - 0.1).when().then_nothing()
    story.after(0.1).when().then(Like(TaskStopRequested, task=A, cause="timeout", attempt=1, by="dispatcher"))
    story.after(60).when().then_nothing()


def test_the_time_counts_from_the_start_also_for_a_new_leader() -> None:
    story = running().after(60).successor()

    story.when().then_nothing()
    story.after(TIMEOUT_SLACK_SECONDS).when().then(Like(TaskStopRequested, cause="timeout"))


def test_an_end_that_is_reported_in_time_beats_the_deadline() -> None:
    story = running().after(100)

    assert [type(event) for event in story.decide(reported(Succeeded(**WHEN))).events] == [AttemptSucceeded]


def test_an_end_that_is_decided_on_together_with_its_deadline_is_not_followed_by_a_stop() -> None:
    story = running().after(100)
    story.machine.deadlines.read(story.now)  # nothing older is on its way: the deadline may be judged at once

    assert [type(event) for event in story.decide(reported(Succeeded(**WHEN))).events] == [AttemptSucceeded]


def test_a_plan_that_was_made_in_time_is_kept_though_nobody_read_it_before_the_deadline() -> None:
    story = Delivering().with_attempt("plan_and_apply", timeout_seconds=60).given(DISPATCHED, STARTED)
    story.is_read = False  # as after a standstill: what was stored meanwhile is not read yet

    story.after(3600).when().then_nothing()
    assert story.machine.deadlines.waits
    story.when(reported(Planned(changes=Changes(add=1), **WHEN))).then(Like(TaskPlanned, task=A, attempt=1))

    story.is_read = True
    story.when().then_nothing()


def test_an_attempt_that_failed_in_time_is_tried_again_though_nobody_read_it_before_the_deadline() -> None:
    story = running()
    story.is_read = False

    story.after(3600).when().then_nothing()
    story.when(reported(Failed(error=TaskError(code="exit", message="1", retryable=True), **WHEN))).then(
        Like(AttemptFailed, task=A, attempt=1)
    )

    story.is_read = True
    story.when().then_nothing()
    assert story.record().phase is Phase.PENDING


def test_a_deadline_that_waits_for_reports_wakes_nobody_until_they_are_read() -> None:
    story = running()
    story.is_read = False
    story.after(3600).when()
    waking = story.machine.next_deadline()

    assert waking is None or waking > story.now
    story.is_read = True
    story.when().then(Like(TaskStopRequested, task=A, cause="timeout"))


def test_what_was_read_before_a_deadline_does_not_judge_it() -> None:
    story = running()
    story.machine.deadlines.read(Instant(story.now + seconds(60)))
    story.is_read = False

    story.after(3600).when().then_nothing()


def test_a_step_of_the_clock_forward_ends_no_running_attempt_early() -> None:
    story = running().after(3600 + 10)
    story.machine.deadlines.step(story.now, seconds(3600))  # of which 10 s passed

    story.when().then_nothing()
    story.after(50 + TIMEOUT_SLACK_SECONDS - 0.1).when().then_nothing()
    story.after(0.1).when().then(Like(TaskStopRequested, task=A, cause="timeout"))


def test_an_attempt_that_began_after_a_step_of_the_clock_gets_no_time_for_it() -> None:
    story = Delivering().after(3600)
    story.machine.deadlines.step(story.now, seconds(3600))
    story.with_attempt(timeout_seconds=60).given(DISPATCHED, STARTED)

    story.after(60 + TIMEOUT_SLACK_SECONDS).when().then(Like(TaskStopRequested, task=A, cause="timeout"))


def test_waiting_is_no_running() -> None:
    story = Delivering().with_attempt(timeout_seconds=1).given(DISPATCHED)

    story.after(START_SECONDS_MAX - 1).when().then_nothing()


def test_an_attempt_that_is_dispatched_and_never_starts_is_stopped_at_its_deadline() -> None:
    story = Delivering().with_attempt(timeout_seconds=9_000).given(DISPATCHED)

    for leader in (story.refolded(), story.successor(), story):
        leader.after(START_SECONDS_MAX).when()
        leader.then(Like(TaskStopRequested, task=A, attempt=1, cause="timeout"))
    assert story.record().stop_error == TaskError(code="timeout", message="its worker never started it")


def test_an_attempt_that_started_late_has_all_its_time() -> None:
    story = (
        Delivering().with_attempt(timeout_seconds=1_000).given(DISPATCHED).after(START_SECONDS_MAX - 1).given(STARTED)
    )

    story.after(1_000).when().then_nothing()
    story.after(TIMEOUT_SLACK_SECONDS).when().then(Like(TaskStopRequested, task=A, cause="timeout"))


def test_a_stop_is_repeated_until_it_is_acknowledged_and_then_until_the_end() -> None:
    story = running().given(CANCEL)

    send = story.sends()
    assert [(each.task, each.attempt, each.slot, each.cause) for each in send.cancels] == [(A, 1, 0, "cancel")]
    assert send.cancels[0].position == story.record().assigned
    send = story.after(RESEND_SECONDS).sends()
    story.when(answered(send, "accepted")).then_nothing()
    assert list(story.after(RESEND_STOP_SECONDS - 0.1).effects()) == []
    assert isinstance(story.after(0.1).sends(), SendCancels)

    story.when(reported(Failed(**WHEN, error=ERROR)))

    assert list(story.after(3600).effects()) == []
    assert A not in story.machine.state.tasks.live


def test_a_stop_for_a_timeout_says_so() -> None:
    story = running().after(62)
    story.when()

    assert story.sends().cancels[0].cause == "timeout"


def test_a_stop_takes_the_place_of_an_assignment_and_its_late_answer_does_not_settle_it() -> None:
    story = Delivering().with_attempt()
    assignment = story.sends()
    story.given(CANCEL)

    assert isinstance(story.sends(), SendCancels)
    story.when(answered(assignment, "accepted")).then_nothing()

    assert isinstance(story.after(RESEND_SECONDS).sends(), SendCancels)


def test_an_assignment_that_is_declined_while_its_stop_is_owed_ends_nothing() -> None:
    story = Delivering().with_attempt()
    assignment = story.sends()
    story.given(CANCEL)

    story.when(answered(assignment, "declined", "who?")).then_nothing()


def test_nobody_listens_to_a_stop_is_silence() -> None:
    story = running().given(CANCEL)

    story.when(NobodyListened(request=story.sends())).then_nothing()
    assert isinstance(story.after(RESEND_SECONDS).sends(), SendCancels)


def test_a_new_leader_sends_the_stop_again() -> None:
    story = running().given(CANCEL)
    story.sends()

    assert [type(effect) for effect in story.successor().effects()] == [SendCancels]


FORCED = ForceStopped(task=A, by="root", reason="x")


def test_a_forced_stop_is_told_to_the_worker_until_it_says_that_nothing_lives() -> None:
    story = running().given(FORCED)

    assert [(each.task, each.attempt) for each in story.sends().cancels] == [(A, 1)]
    assert [(each.task, each.attempt) for each in story.after(RESEND_STOP_SECONDS).sends().cancels] == [(A, 1)]
    story.when(reported(Failed(**WHEN, error=ERROR))).then(SlotCleared(task=A, attempt=1, worker="w1", slot=0))
    assert list(story.after(60).effects()) == []


def test_a_forced_stop_is_told_by_the_next_leader_too() -> None:
    story = running().given(FORCED)
    story.sends()

    assert [type(effect) for effect in story.successor().effects()] == [SendCancels]


def test_a_worker_that_wakes_after_a_forced_stop_is_told_to_stop_what_it_held() -> None:
    story = held().given(FORCED)
    story.sends()

    story.given(joined(incarnation=2))

    send = story.sends()
    assert (send.incarnation, [each.task for each in send.cancels]) == (run(2), [A])


def test_the_end_of_another_attempt_clears_no_slot() -> None:
    story = running().given(FORCED)

    story.when(reported(Failed(**{**WHEN, "attempt": 2}, error=ERROR))).then_nothing()
    story.when(reported(Failed(**WHEN, error=ERROR), agent="w2")).then_nothing()


def test_what_a_worker_has_and_the_log_does_not_hold_is_stopped_each_time_that_it_is_told() -> None:
    story = running().given(AttemptSucceeded(task=A, attempt=1))
    stray = LiveAttempt(position=Position(1), task=A, attempt=1, slot=0)

    for _ in range(2):
        story.when(HeartbeatHeard(agent="w1", incarnation=run(1), live=(stray,))).then_nothing()
        assert [(each.position, each.task) for each in story.sends().cancels] == [(Position(1), A)]


def test_what_is_to_be_stopped_beside_the_log_is_due_at_once_until_it_is_sent() -> None:
    story = running().given(AttemptSucceeded(task=A, attempt=1))
    stray = LiveAttempt(position=Position(1), task=A, attempt=1, slot=0)
    story.when(HeartbeatHeard(agent="w1", incarnation=run(1), live=(stray,)))

    due = story.machine.next_deadline()
    assert due is not None and due <= story.now
    story.sends()
    assert story.machine.next_deadline() is None


def test_what_a_worker_has_as_the_log_holds_it_goes_on_and_so_does_what_the_log_has_not_come_to() -> None:
    story = running()
    record = story.record()
    current = LiveAttempt(position=record.assigned, task=A, attempt=1, slot=0)
    to_come = LiveAttempt(position=Position(record.assigned + (1 << 30)), task=B, attempt=1, slot=1)

    story.when(HeartbeatHeard(agent="w1", incarnation=run(1), live=(current, to_come))).then_nothing()

    assert list(story.effects()) == []


def test_an_incarnation_that_was_replaced_is_told_to_go_as_long_as_it_speaks() -> None:
    """It was lost before another host could join: that it had been there is remembered."""
    story = Delivering().given(joined(), LOST, joined(incarnation=2, continues=None))

    for each in (story, story, story.successor(), story.refolded()):
        each.when(HeartbeatHeard(agent="w1", incarnation=run(1), live=())).then_nothing()
        send: Any
        (send,) = each.effects()
        assert (send.incarnation, bool(send.retire), send.cancels) == (run(1), True, ())


def test_an_incarnation_that_was_replaced_and_has_joined_again_is_not_told_to_go() -> None:
    """Whoever joined last in the log is the one, whatever was told of it before."""
    story = Delivering().given(joined(), LOST, joined(incarnation=2, continues=None))
    story.given(WorkerLost(worker="w1", incarnation=run(2)), joined())

    story.when(HeartbeatHeard(agent="w1", incarnation=run(1), live=())).then_nothing()

    assert list(story.effects()) == []


def test_nobody_is_told_to_go_for_one_that_is_lost_itself() -> None:
    """The name is free again: whoever speaks first may have it."""
    story = Delivering().given(joined(), LOST, joined(incarnation=2, continues=None))
    story.given(WorkerLost(worker="w1", incarnation=run(2)))

    story.when(HeartbeatHeard(agent="w1", incarnation=run(1), live=())).then_nothing()

    assert list(story.effects()) == []


def test_who_was_replaced_is_told_to_go_once_for_each_time_that_it_speaks() -> None:
    story = Delivering().given(joined(), LOST, joined(incarnation=2, continues=None))
    story.when(HeartbeatHeard(agent="w1", incarnation=run(1), live=())).then_nothing()
    story.sends()

    assert list(story.after(60).effects()) == []


def test_a_standby_tells_nobody_to_go() -> None:
    story = Delivering().given(joined(), LOST, joined(incarnation=2, continues=None))
    story.machine.stand_by()

    story.when(HeartbeatHeard(agent="w1", incarnation=run(1), live=()))

    assert list(story.effects()) == []


@pytest.mark.parametrize("other", [{"agent": "w2"}, {"position": 1}], ids=["another worker", "another assignment"])
def test_what_the_log_has_given_otherwise_is_stopped(other: dict[str, Any]) -> None:
    story = Delivering().with_attempt("plan").given(joined("w2"), DISPATCHED, STARTED)
    at = other.get("position", story.record().assigned)
    live = LiveAttempt(position=Position(at), task=A, attempt=1, slot=0)
    agent = other.get("agent", "w1")

    story.when(HeartbeatHeard(agent=agent, incarnation=run(1), live=(live,))).then_nothing()

    send = story.sends()
    assert (send.agent, [cancel.position for cancel in send.cancels]) == (agent, [at])


def test_what_a_run_accepted_that_is_gone_is_asked_of_the_one_after_it() -> None:
    """The answer comes late: what its successor has, only that one knows."""
    story = Delivering().with_attempt("plan_and_apply")
    first = story.sends()
    story.given(joined(incarnation=2, continues=run(1)))

    story.when(answered(first, "accepted"))

    assert story.sends().incarnation == run(2)


def test_what_a_lost_worker_has_and_another_may_run_by_now_is_stopped_before_it_joins_again() -> None:
    story = Delivering().with_attempt("plan").given(DISPATCHED, STARTED)
    live = LiveAttempt(position=story.record().assigned, task=A, attempt=1, slot=0)
    story.given(LOST)

    story.when(HeartbeatHeard(agent="w1", incarnation=run(1), live=(live,))).then_nothing()

    (cancel,) = story.sends().cancels
    assert (cancel.task, cancel.position) == (A, live.position)


def test_of_workers_that_are_lost_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskyard.dispatcher.state.GONE_KEPT_MAX", 2)
    story = Delivering()
    for number in range(5):
        story.given(joined(f"w{number}"), WorkerLost(worker=f"w{number}", incarnation=run(1)))

    for each in (story, story.successor()):
        state: Any = each.machine
        assert (list(state.state.workers), list(state.state.gone)) == ([], ["w3", "w4"])


def test_what_a_replaced_host_held_stays_held_and_nobody_else_is_asked_for_it() -> None:
    story = held().given(joined(incarnation=2, continues=None))

    assert story.record().phase is Phase.HELD
    assert list(story.after(60).effects()) == []
    story.when(reported(Failed(**{**WHEN, "attempt": 2}, error=ERROR))).then(Like(AttemptFailed, task=A, attempt=2))


def test_a_forced_stop_of_what_is_on_no_worker_is_told_to_nobody() -> None:
    story = Delivering().given(
        joined(), submitted(), TaskScheduled(task=A), ForceStopped(task=A, by="root", reason="x")
    )

    assert list(story.effects()) == []


def test_of_tasks_that_were_ended_by_force_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskyard.dispatcher.state.CLOSING_MAX", 1)
    story = running().given(submitted(B), TaskScheduled(task=B), assigned(B, slot=1))

    story.given(FORCED, ForceStopped(task=B, by="root", reason="x"))

    assert [each.task for each in story.sends().cancels] == [B]


# -- workers lost and found --------------------------------------------------------------------------------------------


def held() -> Delivering:
    """An apply whose worker is lost while it runs."""
    story = Delivering().with_attempt("plan_and_apply")
    story.given(TaskPlanned(task=A, attempt=1, changes=Changes()), ApplyConfirmed(task=A, attempt=1, by="bob"))
    story.given(assigned(attempt=2), TaskDispatched(task=A, attempt=2), TaskStarted(task=A, attempt=2), LOST)
    return story


def test_nothing_is_sent_for_what_is_held_until_its_worker_joins() -> None:
    story = held()
    assert list(story.after(600).effects()) == []

    story.given(joined(incarnation=2))

    send = story.sends()
    (sent,) = send.assignments
    assert (send.incarnation, sent.incarnation, sent.attempt, sent.apply, sent.plan_attempt) == (
        run(2),
        run(1),
        2,
        True,
        1,
    )


@pytest.mark.parametrize("begins", [held, lambda: held().successor()], ids=["leader", "new leader"])
def test_what_is_held_does_not_let_the_leader_look_again_and_again(begins: Any) -> None:
    """Nobody is there to send to: a deadline that has passed would be met at once, and again at once."""
    story = begins()
    for _ in range(5):
        list(story.after(RESEND_SECONDS).effects())
        deadline = story.machine.next_deadline()
        assert deadline is None or deadline > story.now
        story.when().then_nothing()


def test_what_was_settled_before_its_turn_came_leaves_no_deadline() -> None:
    story = Delivering().with_attempt()
    story.when(answered(story.sends(), "accepted"), reported(Succeeded(**WHEN)))

    assert story.machine.next_deadline() is None


def test_a_held_attempt_that_its_worker_still_has_runs_on() -> None:
    story = held().given(joined(incarnation=2))

    story.when(answered(story.sends(), "accepted")).then(TaskDispatched(task=A, attempt=2))
    assert story.record().phase is Phase.RUNNING


def test_a_held_apply_that_its_worker_lost_has_failed() -> None:
    story = held().given(joined(incarnation=2))

    story.when(answered(story.sends(), "lost")).then(Like(AttemptLost, attempt=2))
    assert A not in story.machine.state.tasks.live


def test_a_held_apply_that_its_worker_declines_had_not_begun() -> None:
    story = held().given(joined(incarnation=2))

    story.when(answered(story.sends(), "declined", "never seen")).then(Like(NotDelivered, attempt=2))
    assert story.record().phase is Phase.APPLY_PENDING


def test_nobody_listens_is_no_proof_for_what_was_held() -> None:
    story = held().given(joined(incarnation=2))

    story.when(NobodyListened(request=story.sends())).then_nothing()


def test_the_end_of_a_held_apply_may_be_reported_before_its_worker_joins() -> None:
    story = held()

    story.when(reported(Succeeded(task=A, attempt=2, at=START))).then(AttemptSucceeded(task=A, attempt=2))


def test_a_held_apply_that_is_cancelled_is_stopped_when_its_worker_joins() -> None:
    story = held().given(CANCEL, joined(incarnation=2))

    assert isinstance(story.sends(), SendCancels)


def test_a_held_apply_that_ran_too_long_is_stopped() -> None:
    story = held()

    story.after(1800 + TIMEOUT_SLACK_SECONDS).when().then(Like(TaskStopRequested, cause="timeout", attempt=2))


@pytest.mark.parametrize("phase", [(), (DISPATCHED,), (DISPATCHED, STARTED)], ids=["assigned", "dispatched", "running"])
def test_a_worker_that_comes_as_another_incarnation_is_asked_what_it_still_has(phase: tuple[Any, ...]) -> None:
    story = Delivering().with_attempt().given(*phase)
    list(story.effects())

    send = story.given(joined(incarnation=2)).sends()

    assert (send.incarnation, send.assignments[0].incarnation, send.assignments[0].attempt) == (run(2), run(1), 1)
    story.when(NobodyListened(request=send)).then_nothing()


def test_nothing_is_sent_to_a_lost_worker() -> None:
    story = Delivering().with_attempt().given(LOST)

    assert list(story.effects()) == []
    assert story.record().phase is Phase.PENDING


# -- leaders -----------------------------------------------------------------------------------------------------------


def test_a_new_leader_asks_after_every_open_attempt() -> None:
    story = running().given(submitted(B, "plan"), TaskScheduled(task=B), assigned(B, slot=1))

    for successor in (story.successor(), story.refolded()):
        (send,) = successor.effects()
        assert [each.task for each in send.assignments] == [A, B]
        successor.when(answered(send, "accepted")).then(TaskDispatched(task=B, attempt=1))
        assert list(successor.after(60).effects()) == []


def test_a_standby_sends_and_stops_nothing() -> None:
    story = running()
    story.machine.stand_by()

    assert story.after(3600).decide().events == []
    assert list(story.effects()) == []
    assert story.machine.next_deadline() is None


def test_a_snapshot_of_a_snapshot_is_the_same() -> None:
    story = held()

    assert story.successor().machine.snapshot() == story.refolded().machine.snapshot() == story.machine.snapshot()


def test_deadlines_of_attempts_that_are_over_do_not_pile_up() -> None:
    story = Delivering().given(
        WorkerJoined(worker="w1", incarnation=run(1), pool="default", slots=(("any",),), kinds=("noop",))
    )
    for attempt in range(1, 3_000):
        story.given(submitted(), TaskScheduled(task=A), assigned(attempt=attempt))
        story.given(TaskStarted(task=A, attempt=attempt), AttemptSucceeded(task=A, attempt=attempt))

    assert len(story.machine.state.timeouts) < 1_100
