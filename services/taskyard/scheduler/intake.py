"""Deciding on commands: what was asked becomes events, or a rejection that says why.

A command whose effect depends on the task's state is appended whenever the task is known: the fold judges it, so that a
race is settled by the order of the log and by nothing else.
"""

from collections.abc import Mapping

import msgspec

from taskyard.contracts.commands import Answer, TaskCommand
from taskyard.contracts.events import Event, FieldError
from taskyard.contracts.queues import INTERNAL_ERROR
from taskyard.contracts.validation import InvalidCommand, asked_digest, decode_body
from taskyard.contracts.values import CommandId, Role, TaskId, is_name
from taskyard.contracts.verbs import SUBMIT, VERBS, may_command
from taskyard.machine.machine import Fault
from taskyard.scheduler.messages import (
    ID_CONFLICT,
    CommandMessage,
    Refused,
    as_refused,
    derived_id,
    failed,
    given_id,
    id_conflict,
    reference_of,
    rejection,
)
from taskyard.scheduler.refusals import all_refused
from taskyard.scheduler.state import SchedulerState
from taskyard.scheduler.submissions import Submissions, check_age
from taskyard.scheduler.verbs import CONFIGURE_POOL, DECISIONS, RETRY, View


class Intake:
    """One decision's reading of commands."""

    def __init__(self, state: SchedulerState, roles: Mapping[str, Role]) -> None:
        self.events: list[Event] = []
        self.faults: list[Fault] = []
        self._state = state
        self._view = View(state, roles, self.events)
        self._submissions = Submissions(state, self.events)
        self._decided: dict[CommandId, tuple[str, Answer | CommandId | TaskId]] = {}
        self._refused_bytes = 0

    @property
    def bytes_beyond(self) -> int:
        """What the commands that were taken add to the commit beyond their own length."""
        return self._refused_bytes + self._submissions.bytes_beyond

    def take(self, message: CommandMessage) -> None:
        """Decide on one command. Whatever it makes raise, it alone is refused."""
        mark = self._submissions.mark()
        try:
            self._decide(message)
        except Exception as error:  # noqa: BLE001 - a bug that one command has found must not stop all others
            self._submissions.take_back(mark, message.pool)
            reference = reference_of(message)
            self.faults.append(Fault(reference, error))
            self._refuse(message, failed(reference))

    def _decide(self, message: CommandMessage) -> None:
        if message.could_not_be_read is not None:
            raise message.could_not_be_read
        try:
            # A subject may hold any text. What is no name here would become a pool, and some of it nobody could store.
            if not is_name(message.pool):
                raise Refused(422, "invalid", "pool: must be a name", FieldError(path="pool", message="must be a name"))
            if not may_command(self._view.role(message.principal), message.verb):
                raise Refused(403, "forbidden", f"{message.principal} may not {message.verb}")
            if message.verb != CONFIGURE_POOL:
                self._view.require_pool(message.pool)
            if message.verb == SUBMIT:
                self._submissions.submit(message)
            else:
                self._command(message)
        except (InvalidCommand, Refused) as error:
            self._refuse(message, as_refused(error))

    def _refuse(self, message: CommandMessage, refused: Refused) -> None:
        id, asked, is_remembered = given_id(message), None, False
        if message.verb != SUBMIT and refused.code != ID_CONFLICT:
            # What made deciding raise may make reading raise as well.
            is_read = refused.code != INTERNAL_ERROR
            asked = asked_digest(message.verb, message.data, message.pool) if is_read else ""
            try:
                if self._is_decided(message, id, asked):
                    return
                is_remembered = True
            except Refused as conflict:
                refused = conflict
        event = rejection(message, id, refused, all_refused(message, refused), asked=asked)
        is_written = self._state.counting.writes(event, message, self._state.refusal_shares)
        if is_written:
            self._refused_bytes += len(msgspec.json.encode(event))
            self.events.append(event)
            if is_remembered:
                self._decided[id] = (asked or "", refused.answer())
        self._state.answers.expect(message, id, [refused.answer()], is_counted=not is_written)

    def _command(self, message: CommandMessage) -> None:
        body = decode_body(message.verb, message.data, message.pool)
        id = CommandId(body.id or derived_id(message, 0))
        asked = asked_digest(message.verb, message.data, message.pool)
        if self._is_decided(message, id, asked):
            return
        check_age(self._state.known.commands.window, id, message)
        if VERBS[message.verb].needs_reason and not getattr(body, "reason", ""):
            error = FieldError(path="reason", message="is required")
            raise Refused(422, "invalid", f"a {message.verb} needs a reason", error)
        outcome: Answer | CommandId | TaskId = id
        if message.verb == RETRY:
            assert isinstance(body, TaskCommand)
            outcome = self._submissions.retry(message, self._view.touchable(message, body.task), id, asked)
        else:
            event = DECISIONS[message.verb](self._view, message, body, id)
            self.events.append(msgspec.structs.replace(event, asked=asked))
        self._decided[id] = (asked, outcome)
        self._state.answers.expect(message, id, [outcome])

    def _is_decided(self, message: CommandMessage, id: CommandId, asked: str) -> bool:
        """Whether the command was decided before, or by this decision: then its outcome is told again, and no more.

        Raises:
            Refused: the one that was decided had asked for something else.
        """
        known = self._state.known.commands.get(id)
        earlier, outcome = (known.asked, known.answer) if known is not None else self._decided.get(id, ("", None))
        if outcome is None:
            return False
        if earlier not in ("", asked):  # a log of the first version does not say what was asked for
            raise id_conflict("command")
        self._state.answers.expect(message, id, [outcome])
        return True
