"""The door for commands, the same for HTTP and for NATS requests: check cheaply, store, answer the scheduler's verdict.

What the role, the names and the body already refuse is refused here and not stored. Everything else is stored first
and then decided by the scheduler alone; a repeated command is decided once, by its id.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec

from taskyard.api import replies
from taskyard.api.errors import Refusal, StoreFull, StoreUnavailable, invalid, too_large, unavailable
from taskyard.api.outcomes import Outcome, Outcomes
from taskyard.api.packing import Packer, answer_at, chunks
from taskyard.api.places import COMMANDS, Places
from taskyard.api.principals import Caller
from taskyard.api.replies import BatchEntry, Reply
from taskyard.api.submission import Entry, Item, Limits, Submission, envelope, read_submission
from taskyard.api.tracing import DoorSpans
from taskyard.contracts.commands import COMMAND_BYTES_MAX, Answer
from taskyard.contracts.events import FieldError
from taskyard.contracts.faults import form_of
from taskyard.contracts.subjects import command_subject
from taskyard.contracts.validation import InvalidCommand, decode_body
from taskyard.contracts.values import NAME_PATTERN, derive_uuid7, is_name
from taskyard.contracts.verbs import SUBMIT
from taskyard.telemetry.context import valid_traceparent

RETRY = "retry"


class CommandStore(Protocol):
    """Where commands are stored."""

    async def store(self, subject: str, data: bytes, *, traceparent: str | None = None) -> int:
        """Store a command for ever-once processing, with its trace context; the sequence by which it is stored.

        Raises:
            StoreUnavailable: it was not acknowledged.
        """
        ...


class Door:
    """Takes commands of recognised callers. `make_id` makes a fresh UUIDv7; `spans` tells traces, if anybody does.

    The `traceparent` of a command is the W3C trace context of who asks; what is no such thing is passed over.
    """

    def __init__(
        self, store: CommandStore, outcomes: Outcomes, *, make_id: Callable[[], str], spans: DoorSpans | None = None
    ) -> None:
        self._store = store
        self._spans = spans
        self._outcomes = outcomes
        self._make_id = make_id
        self._packer = Packer(self._post_tasks)
        self._places = Places("commands", COMMANDS)

    async def submit(
        self, caller: Caller, data: bytes, *, pool: str | None, limits: Limits, traceparent: str | None = None
    ) -> Reply:
        """Submit one task or many. `pool` is what the way in has fixed, `None` where tasks name theirs.

        Raises:
            Refusal: nothing was stored, or (503) storing was not acknowledged.
        """
        caller.require(SUBMIT)
        with self._places.held(caller):
            submission = await read_submission(data, pool=pool, limits=limits, make_id=self._make_id)
            try:
                answers = await self._submit_all(caller, submission, valid_traceparent(traceparent))
            except StoreUnavailable as error:
                raise _not_stored(error) from error
        if submission.is_batch:
            return _batch_reply(submission, answers)
        return replies.of_submission(submission.items[0].id, answers[0])

    async def command(
        self, caller: Caller, verb: str, data: bytes, *, pool: str, traceparent: str | None = None
    ) -> Reply:
        """Any verb but `submit`.

        Raises:
            Refusal: nothing was stored, or (503) storing was not acknowledged.
        """
        if len(data) > COMMAND_BYTES_MAX:
            raise too_large(COMMAND_BYTES_MAX)
        caller.require(verb)
        try:
            body = decode_body(verb, data, pool)
        except InvalidCommand as error:
            raise invalid(*error.errors) from error
        command = body.id or self._make_id()
        encoded = msgspec.json.encode(msgspec.structs.replace(body, id=command, pool=None))
        task = getattr(body, "task", None)
        with self._places.held(caller):
            try:
                outcome = await self._post(
                    caller.name,
                    pool,
                    verb,
                    command,
                    encoded,
                    tasks=() if task is None else (task,),
                    traceparent=valid_traceparent(traceparent),
                )
            except StoreUnavailable as error:
                raise _not_stored(error) from error
            answers = await outcome
        return replies.of_command(answer_at(answers, 0), makes_task=verb == RETRY)

    async def _submit_all(self, caller: Caller, submission: Submission, traceparent: str | None) -> list[Answer | None]:
        """The answers to the submission's items, in their order."""
        items = submission.items
        answers: list[Answer | None] = [None] * len(items)
        for number, pool in enumerate(sorted({item.pool for item in items})):
            chosen = [index for index, item in enumerate(items) if item.pool == pool]
            part = [items[index] for index in chosen]
            if submission.command is not None:
                first = submission.command if number == 0 else derive_uuid7(submission.command, pool)
                found = await self._submit_as(caller, first, pool, part, traceparent)
            elif traceparent is not None:  # a stored command has one trace context, so this is not packed with others
                found = await self._submit_traced(caller, pool, part, traceparent)
            else:
                found = await self._packer.submit(caller.name, pool, part)
            for index, answer in zip(chosen, found, strict=True):
                answers[index] = answer
        return answers

    async def _submit_traced(
        self, caller: Caller, pool: str, items: list[Item], traceparent: str
    ) -> list[Answer | None]:
        if len(items) > 1:
            return await self._submit_as(caller, self._make_id(), pool, items, traceparent)
        outcome = await self._post_tasks(caller.name, pool, items, traceparent)
        return [answer_at(await outcome, 0)]

    async def _submit_as(
        self, caller: Caller, command: str, pool: str, items: list[Item], traceparent: str | None
    ) -> list[Answer | None]:
        """Store a batch that bears an id of its own; parts after the first get ids that follow from it."""
        parts = chunks(items)
        outcomes: list[Outcome] = []
        for number, part in enumerate(parts):
            id_of_part = command if number == 0 else derive_uuid7(command, f"part {number}")
            data, tasks = envelope(id_of_part, part), [item.id for item in part]
            outcomes.append(
                await self._post(caller.name, pool, SUBMIT, id_of_part, data, tasks=tasks, traceparent=traceparent)
            )
        answers: list[Answer | None] = []
        for part, outcome in zip(parts, outcomes, strict=True):
            given = await outcome
            answers += [answer_at(given, index) for index in range(len(part))]
        return answers

    async def _post_tasks(
        self, principal: str, pool: str, items: list[Item], traceparent: str | None = None
    ) -> Outcome:
        alone = len(items) == 1
        command = items[0].id if alone else self._make_id()
        data = items[0].data if alone else envelope(command, items)
        tasks = [item.id for item in items]
        return await self._post(principal, pool, SUBMIT, command, data, tasks=tasks, traceparent=traceparent)

    async def _post(
        self,
        principal: str,
        pool: str,
        verb: str,
        command: str,
        data: bytes,
        *,
        tasks: Sequence[str],
        traceparent: str | None,
    ) -> Outcome:
        """Store one command about these tasks and return its outcome, for which the clock runs."""
        if not is_name(pool):
            raise invalid(FieldError(path="pool", message=form_of(NAME_PATTERN)))
        subject = command_subject(principal, pool, verb)
        outcome = self._outcomes.expect(command)
        if self._spans is not None:
            traceparent = self._spans.begin(
                outcome,
                verb=verb,
                principal=principal,
                pool=pool,
                command=command,
                tasks=tasks,
                traceparent=traceparent,
            )
        try:
            sequence = await self._store.store(subject, data, traceparent=traceparent)
        except BaseException:
            outcome.cancel()
            raise
        self._outcomes.stored(command, outcome, sequence)
        return outcome


def _batch_reply(submission: Submission, answers: list[Answer | None]) -> Reply:
    remaining = iter(answers)
    entries = tuple(_entry(entry, remaining) for entry in submission.entries)
    positions = [answer.position for answer in answers if answer is not None and answer.position is not None]
    return replies.of_batch(entries, max(positions, default=None))


def _entry(entry: Entry, answers: Iterator[Answer | None]) -> BatchEntry:
    if entry.item is None:
        return replies.batch_entry(entry.id, entry.refusal)
    return replies.batch_entry(entry.item.id, next(answers))


def _not_stored(error: StoreUnavailable) -> Refusal:
    if isinstance(error, StoreFull):
        return Refusal(
            503, "no_room", "the stream of commands is full: nothing was stored; whoever runs this must give it room"
        )
    return unavailable("the command was not acknowledged as stored; send it again with the same id")
