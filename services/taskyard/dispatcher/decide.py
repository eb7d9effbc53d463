"""The dispatcher's choices: what agents report and answer becomes events, once; deadlines become stops."""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from taskyard.contracts.agent_protocol import (
    DECLINED,
    REASON_NO_KIND,
    REASON_NO_SLOT,
    AnyReport,
    AssignAnswer,
    Assignment,
    Cancel,
    Failed,
    LiveAttempt,
    Lost,
    Planned,
    Progressed,
    Started,
    Succeeded,
)
from taskyard.contracts.events import (
    NO_RESPONDERS,
    AttemptFailed,
    AttemptLost,
    AttemptSucceeded,
    Event,
    NotDelivered,
    SlotCleared,
    StreamMark,
    TaskDispatched,
    TaskError,
    TaskPlanned,
    TaskProgressed,
    TaskStarted,
    TaskStopRequested,
)
from taskyard.contracts.lifecycle import ATTEMPT_OPEN, CAUSE_TIMEOUT, PLAN_MISSING, Phase, TaskRecord
from taskyard.contracts.readable import plain_text
from taskyard.contracts.values import Incarnation, Instant, TaskId
from taskyard.dispatcher.delivery import SendAssignments, SendCancels
from taskyard.dispatcher.reports import ReportsRead
from taskyard.dispatcher.state import DispatcherState
from taskyard.machine.deadlines import Deadlines
from taskyard.machine.machine import Decision, Fault

EVENTS_PER_DECISION_MAX = 400
BYTES_PER_DECISION_MAX = 128 * 1024
REASON_CHARACTERS_MAX = 200
TIMEOUTS_PER_DECISION_MAX = 100

SYSTEM = "dispatcher"
_ENDS = (Succeeded, Failed, Lost)
_FOR_GOOD = frozenset((REASON_NO_SLOT, REASON_NO_KIND))


class Answered(Struct, frozen=True, kw_only=True):
    """An agent answered a request."""

    request: SendAssignments | SendCancels
    answers: tuple[AssignAnswer, ...]


class NobodyListened(Struct, frozen=True, kw_only=True):
    """The server knows of nobody who listens on the agent's subject."""

    request: SendAssignments | SendCancels


class HeartbeatHeard(Struct, frozen=True, kw_only=True):
    """An agent told which attempts it has."""

    agent: str
    incarnation: Incarnation
    live: tuple[LiveAttempt, ...]


Input = ReportsRead | Answered | NobodyListened | HeartbeatHeard


def decide(state: DispatcherState, deadlines: Deadlines, now: Instant, inputs: Sequence[Input]) -> Decision:
    """What should be appended now."""
    attempts = _Attempts(state, now)
    taken = size = 0
    for each in inputs:
        size += _bytes_made(each)
        is_full = len(attempts.events) >= EVENTS_PER_DECISION_MAX or size > BYTES_PER_DECISION_MAX
        if taken and is_full:
            break
        attempts.take(each)
        taken += 1
    attempts.time_out(deadlines)
    return Decision(events=attempts.events, taken=taken, faults=tuple(attempts.faults))


def _bytes_made(each: Input) -> int:
    """About how long the events of an input are at most, as stored."""
    match each:
        case ReportsRead(size=size):
            return size
        case Answered(answers=answers):
            return sum(len(answer.reason[:REASON_CHARACTERS_MAX].encode()) for answer in answers)
        case _:
            return 0


class _Attempts:
    """One decision. `_said` is its overlay: what its own events already say of an attempt."""

    def __init__(self, state: DispatcherState, now: Instant) -> None:
        self.events: list[Event] = []
        self.faults: list[Fault] = []
        self._state = state
        self._now = now
        self._said: set[tuple[TaskId, int, type[Event]]] = set()
        self._over: set[tuple[TaskId, int]] = set()
        self._progress: dict[tuple[TaskId, int], int] = {}

    def take(self, each: Input) -> None:
        match each:
            case ReportsRead():
                for report in each.batch.reports if each.batch is not None else ():
                    self._report(each.agent, report, each.commands)
            case Answered():
                self._answers(each)
            case HeartbeatHeard():
                self._heartbeat(each)
            case NobodyListened(request=request):
                sent = request.assignments if isinstance(request, SendAssignments) else request.cancels
                for message in sent:
                    self._not_listened(message)

    def time_out(self, deadlines: Deadlines) -> None:
        for _ in range(TIMEOUTS_PER_DECISION_MAX):
            try:
                record = self._state.pop_timeout(self._now, deadlines)
            except Exception as error:  # noqa: BLE001 - one deadline must not stop all others
                self.faults.append(self._state.put_off_timeout(self._now, error))
                continue
            if record is None:
                return
            if (record.id, record.attempt) not in self._over:
                self.events.append(
                    TaskStopRequested(task=record.id, cause=CAUSE_TIMEOUT, by=SYSTEM, attempt=record.attempt)
                )

    # -- reports -------------------------------------------------------------------------------------------------------

    def _report(self, agent: str, report: AnyReport, commands: StreamMark | None) -> None:
        record = self._state.tasks.live.get(report.task)
        if record is None:  # ended: what comes later or again says nothing new
            self._clear(agent, report)
            return
        if report.attempt != record.attempt:
            self._late(agent, record, report)
            return
        if record.worker != agent or (record.id, record.attempt) in self._over or record.phase not in ATTEMPT_OPEN:
            return
        match report:
            case Started():
                self._started(record, report)
            case Progressed():
                if report.progress > max(record.progress, self._progress.get((record.id, record.attempt), 0)):
                    self._progress[record.id, record.attempt] = report.progress
                    event = TaskProgressed(
                        task=record.id, attempt=record.attempt, progress=report.progress, message=report.message
                    )
                    self._say(record, record.attempt, event)
            case Planned():
                if not record.confirmed:
                    event = TaskPlanned(
                        task=record.id,
                        attempt=record.attempt,
                        changes=report.changes,
                        commands_before=commands,
                    )
                    self._end(record, event)
            case Succeeded() | Failed() | Lost():
                self._end(record, _end_event(report))

    def _late(self, agent: str, record: TaskRecord, report: AnyReport) -> None:
        """The end of an earlier attempt is shown once in the history, without effect, if the worker tells it that had it."""
        late = (record.id, report.attempt)
        had = self._state.untold.get(record.id, {}).get(report.attempt)
        if isinstance(report, _ENDS) and report.attempt < record.attempt and had == agent and late not in self._over:
            self._over.add(late)
            self.events.append(msgspec.structs.replace(_end_event(report), worker=agent))

    def _clear(self, agent: str, report: AnyReport) -> None:
        """A task that was ended by force gives its slot back with the end of what its worker had of it."""
        record = self._state.closing.get(report.task)
        if record is None or record.worker != agent or record.slot is None or report.attempt != record.attempt:
            return
        if isinstance(report, (*_ENDS, Planned)):
            event = SlotCleared(task=record.id, attempt=record.attempt, worker=agent, slot=record.slot)
            self._say(record, record.attempt, event)

    def _heartbeat(self, each: HeartbeatHeard) -> None:
        """What the log does not hold as current is stopped, whatever may have become of the message that said so."""
        worker = self._state.worker(each.agent)
        if worker is None:
            return
        is_replaced = each.incarnation in worker.replaced
        if is_replaced and not worker.is_lost:
            self._state.deliveries.retire(each.agent, each.incarnation)
        elif is_replaced or each.incarnation == worker.incarnation:
            for live in each.live:
                if not self._is_current(each.agent, live):
                    self._state.deliveries.stop_stray(each.agent, each.incarnation, _stray(live))

    def _is_current(self, agent: str, live: LiveAttempt) -> bool:
        """Whether the log holds the attempt, or does not know of it yet."""
        if live.position > self._state.folded:
            return True
        record = self._state.record(live.task)
        if record is None or record.worker != agent or record.assigned != live.position:
            return False
        # A task that waits to be tried again still names the attempt that it lost.
        return record.holds_slot or record.id in self._state.closing

    def _started(self, record: TaskRecord, report: Started) -> None:
        self._dispatched(record)
        if record.phase in (Phase.ASSIGNED, Phase.DISPATCHED):
            self._say(record, record.attempt, TaskStarted(task=record.id, attempt=record.attempt, at=report.at))

    def _dispatched(self, record: TaskRecord) -> None:
        if record.phase is Phase.ASSIGNED:
            self._say(record, record.attempt, TaskDispatched(task=record.id, attempt=record.attempt))

    def _end(self, record: TaskRecord, event: Event) -> None:
        self._say(record, record.attempt, event)
        self._over.add((record.id, record.attempt))

    # -- answers -------------------------------------------------------------------------------------------------------

    def _answers(self, each: Answered) -> None:
        request = each.request
        sent = request.assignments if isinstance(request, SendAssignments) else request.cancels
        by_position = {message.position: message for message in sent}
        for answer in each.answers:
            self._answer(request, by_position.get(answer.position), answer)

    def _answer(
        self, request: SendAssignments | SendCancels, message: Assignment | Cancel | None, answer: AssignAnswer
    ) -> None:
        record = self._state.record(message.task) if message is not None else None
        if message is None or record is None or record.attempt != message.attempt:
            return
        if isinstance(request, SendCancels):
            self._state.deliveries.stop_acknowledged(record.id, self._now)
            return
        if (record.id, record.attempt) in self._over or record.phase not in ATTEMPT_OPEN:
            return
        match answer.outcome:
            case "accepted":
                if request.incarnation == record.incarnation:  # one that is gone cannot say what its successor has
                    self._state.deliveries.settle_assignment(record.id)
                self._dispatched(record)
            case "declined":
                self._declined(record, plain_text(answer.reason[:REASON_CHARACTERS_MAX]) or DECLINED)
            case "lost":
                reason = plain_text(answer.reason[:REASON_CHARACTERS_MAX])
                event = AttemptLost(task=record.id, attempt=record.attempt, message=reason)
                self._end(record, event)
            case _:
                pass  # no answer that we know: sent again until there is one

    def _declined(self, record: TaskRecord, reason: str) -> None:
        match record.phase:
            case Phase.ASSIGNED if record.confirmed and reason in _FOR_GOOD:
                # Its worker came back without the slot that was reserved: what can never be applied there is planned again.
                error = TaskError(code=PLAN_MISSING, message=reason, retryable=True)
                self._end(record, AttemptFailed(task=record.id, attempt=record.attempt, error=error))
            case Phase.ASSIGNED | Phase.HELD:
                self._not_delivered(record, reason, by_worker=True)
            case Phase.STOPPING:
                pass  # the stop will be answered
            case _:  # it was accepted once and is not known any more
                self._end(record, AttemptLost(task=record.id, attempt=record.attempt, message=reason))

    def _not_listened(self, message: Assignment | Cancel) -> None:
        """Nobody heard an assignment, or a stop: which is sent again, unless the assignment cannot have been heard either."""
        record = self._state.tasks.live.get(message.task)
        if record is None or record.attempt != message.attempt or (message.task, message.attempt) in self._over:
            return
        is_unheard = self._state.deliveries.proves_non_delivery(record, by_stop=isinstance(message, Cancel))
        if record.phase in (Phase.ASSIGNED, Phase.HELD, Phase.STOPPING) and is_unheard:
            self._not_delivered(record, NO_RESPONDERS, by_worker=False)

    def _not_delivered(self, record: TaskRecord, reason: str, *, by_worker: bool) -> None:
        self._state.deliveries.settle(record.id)
        self._end(record, NotDelivered(task=record.id, attempt=record.attempt, reason=reason, declined=by_worker))

    def _say(self, record: TaskRecord, attempt: int, event: Event) -> None:
        said = (record.id, attempt, type(event))
        if said not in self._said or isinstance(event, TaskProgressed):
            self._said.add(said)
            self.events.append(event)


def _stray(live: LiveAttempt) -> Cancel:
    return Cancel(
        position=live.position, task=live.task, attempt=live.attempt, slot=live.slot, cause="no longer current"
    )


def _end_event(report: Succeeded | Failed | Lost) -> AttemptSucceeded | AttemptFailed | AttemptLost:
    match report:
        case Succeeded():
            return AttemptSucceeded(task=report.task, attempt=report.attempt, result=report.result)
        case Failed():
            return AttemptFailed(task=report.task, attempt=report.attempt, error=report.error, result=report.result)
        case Lost():
            return AttemptLost(task=report.task, attempt=report.attempt, message=report.message)
