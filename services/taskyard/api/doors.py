"""The door for commands, the same for HTTP and for NATS requests: check cheaply, store, answer the scheduler's verdict.

What the role, the names and the body already refuse is refused here and not stored. Everything else is stored first
and then decided by the scheduler alone; a repeated command is decided once, by its id.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec

from taskyard.api import replies
from taskyard.api.errors import Refusal, StoreUnavailable, invalid, too_large, unavailable
from taskyard.api.outcomes import Outcome, Outcomes
from taskyard.api.packing import Packer, answer_at, chunks
from taskyard.api.principals import Caller
from taskyard.api.replies import AcceptedBatch, BatchEntry, Reply
from taskyard.api.submission import Entry, Item, Limits, Submission, envelope, read_submission
from taskyard.contracts.commands import COMMAND_BYTES_MAX, SUBMIT, Answer
from taskyard.contracts.events import FieldError
from taskyard.contracts.subjects import command_subject
from taskyard.contracts.validation import InvalidCommand, decode_body
from taskyard.contracts.values import derive_uuid7, is_name

RETRY = "retry"


class CommandStore(Protocol):
    """Where commands are stored."""

    async def store(self, subject: str, data: bytes) -> None:
        """Store a command for ever-once processing. Raises `StoreUnavailable`."""
        ...


class Door:
    """Takes commands of recognised callers. `make_id` makes a fresh UUIDv7."""

    def __init__(self, store: CommandStore, outcomes: Outcomes, *, make_id: Callable[[], str]) -> None:
        self._store = store
        self._outcomes = outcomes
        self._make_id = make_id
        self._packer = Packer(self._post_tasks)

    async def submit(self, caller: Caller, data: bytes, *, pool: str | None, limits: Limits) -> Reply:
        """Submit one task or many. `pool` is what the way in has fixed, `None` where tasks name theirs.

        Raises:
            Refusal: nothing was stored, or (503) storing was not acknowledged.
        """
        caller.require(SUBMIT)
        submission = read_submission(data, pool=pool, limits=limits, make_id=self._make_id)
        try:
            answers = await self._submit_all(caller, submission)
        except StoreUnavailable as error:
            raise _not_stored() from error
        if submission.is_batch:
            return _batch_reply(submission, answers)
        return replies.of_submission(submission.items[0].id, answers[0])

    async def command(self, caller: Caller, verb: str, data: bytes, *, pool: str) -> Reply:
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
        try:
            outcome = await self._post(caller.name, pool, verb, command, encoded)
        except StoreUnavailable as error:
            raise _not_stored() from error
        return replies.of_command(answer_at(await outcome, 0), makes_task=verb == RETRY)

    async def _submit_all(self, caller: Caller, submission: Submission) -> list[Answer | None]:
        """The answers to the submission's items, in their order."""
        items = submission.items
        answers: list[Answer | None] = [None] * len(items)
        for number, pool in enumerate(sorted({item.pool for item in items})):
            chosen = [index for index, item in enumerate(items) if item.pool == pool]
            part = [items[index] for index in chosen]
            if submission.command is None:
                found = await self._packer.submit(caller.name, pool, part)
            else:
                first = submission.command if number == 0 else derive_uuid7(submission.command, pool)
                found = await self._submit_as(caller, first, pool, part)
            for index, answer in zip(chosen, found, strict=True):
                answers[index] = answer
        return answers

    async def _submit_as(self, caller: Caller, command: str, pool: str, items: list[Item]) -> list[Answer | None]:
        """Store a batch that bears an id of its own; parts after the first get ids that follow from it."""
        parts = chunks(items)
        outcomes: list[Outcome] = []
        for number, part in enumerate(parts):
            id_of_part = command if number == 0 else derive_uuid7(command, f"part {number}")
            outcomes.append(await self._post(caller.name, pool, SUBMIT, id_of_part, envelope(id_of_part, part)))
        answers: list[Answer | None] = []
        for part, outcome in zip(parts, outcomes, strict=True):
            given = await outcome
            answers += [answer_at(given, index) for index in range(len(part))]
        return answers

    async def _post_tasks(self, principal: str, pool: str, items: list[Item]) -> Outcome:
        if len(items) == 1:
            return await self._post(principal, pool, SUBMIT, items[0].id, items[0].data)
        command = self._make_id()
        return await self._post(principal, pool, SUBMIT, command, envelope(command, items))

    async def _post(self, principal: str, pool: str, verb: str, command: str, data: bytes) -> Outcome:
        """Store one command and return its outcome, for which the clock runs."""
        if not is_plain(pool):
            raise invalid(FieldError(path="pool", message="must be a name"))
        subject = command_subject(principal, pool, verb)
        outcome = self._outcomes.expect(command)
        try:
            await self._store.store(subject, data)
        except BaseException:
            outcome.cancel()
            raise
        self._outcomes.start_clock(outcome)
        return outcome


def is_plain(name: str) -> bool:
    """Whether a name may be a token of a subject. A line break in one would be a command of NATS's own protocol."""
    return is_name(name) and name.isprintable()


def _batch_reply(submission: Submission, answers: list[Answer | None]) -> Reply:
    remaining = iter(answers)
    entries = tuple(_entry(entry, remaining) for entry in submission.entries)
    positions = [answer.position for answer in answers if answer is not None and answer.position is not None]
    return Reply(code=replies.ACCEPTED, body=AcceptedBatch(tasks=entries), position=max(positions, default=None))


def _entry(entry: Entry, answers: Iterator[Answer | None]) -> BatchEntry:
    if entry.item is None:
        return replies.batch_entry(entry.id, entry.refusal)
    return replies.batch_entry(entry.item.id, next(answers))


def _not_stored() -> Refusal:
    return unavailable("the command was not acknowledged as stored; send it again with the same id")
