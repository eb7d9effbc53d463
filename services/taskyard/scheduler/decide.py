"""The scheduler's choices: on commands first, then timers, then which waiting tasks may run now.

Everything chosen within one decision is held in an overlay, since the state changes only by folding.
"""

from collections.abc import Mapping, Sequence

import msgspec

from taskyard.contracts.commands import COMMAND_BYTES_MAX, TASKS_PER_COMMAND_MAX
from taskyard.contracts.events import (
    ApplyConfirmed,
    ApprovalExpired,
    Event,
    TaskStopRequested,
)
from taskyard.contracts.lifecycle import CAUSE_SCHEDULE_TO_START, Phase, TaskRecord
from taskyard.contracts.values import Instant, Role, TaskId, seconds
from taskyard.contracts.verbs import SUBMIT
from taskyard.eventlog.errors import CommitTooLarge
from taskyard.machine.aside import ASIDE_SECONDS
from taskyard.machine.deadlines import Deadlines
from taskyard.machine.machine import Decision, Fault
from taskyard.scheduler.admission import Admission
from taskyard.scheduler.agenda import ANSWER_BY, CONFIRM, START_BY
from taskyard.scheduler.intake import Intake
from taskyard.scheduler.messages import CommandMessage, failed, given_id, reference_of, rejection, too_large
from taskyard.scheduler.refusals import all_refused
from taskyard.scheduler.state import SchedulerState

TIMERS_PER_DECISION_MAX = 100
TASK_BYTES_MIN = 24
"""No task is shorter: `{"kind":"noop","input":1}`."""

SYSTEM = "auto"


def decide(
    state: SchedulerState,
    deadlines: Deadlines,
    now: Instant,
    messages: Sequence[CommandMessage],
    roles: Mapping[str, Role],
) -> Decision:
    """What should be appended now."""
    state.answers.stand()
    state.counting.begin(now)
    intake = Intake(state, roles)
    taken = _take_commands(intake, messages)
    events, faults = intake.events, intake.faults
    events += _confirm_by_itself(state, now, faults)
    events += _fire_timers(state, deadlines, now, faults)
    admission = Admission(state, now, events)
    events += admission.choose()
    events += state.counting.told(has_events=bool(events))
    return Decision(events=events, taken=taken, faults=faults + admission.faults)


def refuse(state: SchedulerState, now: Instant, message: CommandMessage, error: Exception) -> Decision:
    """Refuse a command that makes every decision raise, or one too large."""
    state.answers.stand()
    state.counting.begin(now)
    reference = reference_of(message)
    refused = too_large() if isinstance(error, CommitTooLarge) else failed(reference)
    event = rejection(message, given_id(message), refused, all_refused(message, refused))
    is_written = state.counting.writes(event, message, state.refusal_shares)
    state.answers.expect(message, event.command, [refused.answer()], is_counted=not is_written)
    events: list[Event] = [event] if is_written else []
    events += state.counting.told(has_events=is_written)
    return Decision(events=events, taken=1, faults=(Fault(reference, error),))


def _take_commands(intake: Intake, messages: Sequence[CommandMessage]) -> int:
    """Commands until the commit is as full as one command may make it; at least one."""
    taken = size = 0
    for message in messages:
        size += _bytes(message)
        if taken and (
            size + intake.bytes_beyond > COMMAND_BYTES_MAX
            or len(intake.events) + _tasks_at_most(message) > TASKS_PER_COMMAND_MAX
        ):
            break
        intake.take(message)
        taken += 1
    return taken


def _bytes(message: CommandMessage) -> int:
    """A retry is short, and brings the whole of an old submission with it."""
    original = message.original
    return len(message.data) + (len(msgspec.json.encode(original)) if original is not None else 0)


def _tasks_at_most(message: CommandMessage) -> int:
    return min(TASKS_PER_COMMAND_MAX, 1 + len(message.data) // TASK_BYTES_MIN) if message.verb == SUBMIT else 1


def _confirm_by_itself(state: SchedulerState, now: Instant, faults: list[Fault]) -> list[Event]:
    agenda = state.agenda
    events: list[Event] = []
    while agenda.auto_confirm and len(events) < TIMERS_PER_DECISION_MAX:
        id = next(iter(agenda.auto_confirm))
        del agenda.auto_confirm[id]
        try:
            event = _own_answer(state.tasks.live.get(id))
        except Exception as error:  # noqa: BLE001 - one plan must not stop all others
            faults.append(Fault(f"answer to the plan of task {id}", error))
            agenda.set_timer(Instant(now + seconds(ASIDE_SECONDS)), CONFIRM, id)
        else:
            events += () if event is None else (event,)
    return events


def _own_answer(record: TaskRecord | None) -> Event | None:
    if record is None or record.phase is not Phase.APPLY_PENDING or record.confirmed or record.plan_attempt is None:
        return None
    return ApplyConfirmed(task=record.id, attempt=record.plan_attempt, by=SYSTEM)


def _fire_timers(state: SchedulerState, deadlines: Deadlines, now: Instant, faults: list[Fault]) -> list[Event]:
    if not deadlines.waits:
        state.agenda.answers_were_read(now)
    events: list[Event] = []
    said: set[TaskId] = set()  # one plan may have several timers, since its time to expire may change
    while len(events) < TIMERS_PER_DECISION_MAX and (fired := state.agenda.pop_due(now)) is not None:
        kind, id = fired
        record = state.tasks.live.get(id)
        if record is None or id in said:
            continue
        try:
            event = _timer_event(state, deadlines, record, kind, now)
        except Exception as error:  # noqa: BLE001 - one task's timer must not stop all others
            faults.append(Fault(f"timer {kind} of task {id}", error))
            state.agenda.set_timer(Instant(now + seconds(ASIDE_SECONDS)), kind, id)
            continue
        if event is not None:
            said.add(id)
            events.append(event)
    return events


def _timer_event(
    state: SchedulerState, deadlines: Deadlines, record: TaskRecord, kind: str, now: Instant
) -> Event | None:
    match kind:
        case "due" if record.phase is Phase.PENDING and record.due <= now:
            state.agenda.wait(record)
        case "due" if record.is_apply_waiting and record.due <= now:
            state.agenda.offer_apply(record)
        case "start_by" if record.attempt == 0 and record.phase in (Phase.PENDING, Phase.SCHEDULED):
            limit = record.schedule_to_start_timeout_seconds or 0.0
            expires = deadlines.after(record.submitted_at, limit)
            if expires <= now:
                return TaskStopRequested(task=record.id, cause=CAUSE_SCHEDULE_TO_START, by=SYSTEM)
            state.agenda.set_timer(expires, START_BY, record.id)
        case "answer_by" if record.phase is Phase.APPLY_PENDING and not record.confirmed:
            assert record.planned_at is not None and record.plan_attempt is not None
            expires = deadlines.after(record.planned_at, state.pool(record.pool).approval_seconds)
            if expires > now:
                state.agenda.set_timer(expires, ANSWER_BY, record.id)
            elif deadlines.is_read(expires):
                return ApprovalExpired(task=record.id, attempt=record.plan_attempt)
            else:
                state.agenda.wait_for_answers(record.id)
        case "confirm":
            state.agenda.confirm_by_itself(record.id)
        case _:
            pass
    return None
