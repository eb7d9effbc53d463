"""Reading what is submitted: one task or many, each accepted or refused by itself, each with an id afterwards."""

import asyncio
from collections.abc import Callable
from functools import partial

import msgspec
from msgspec import Raw, Struct

from taskyard.api.errors import Refusal, invalid, too_large
from taskyard.contracts.commands import COMMAND_BYTES_MAX, TASKS_PER_COMMAND_MAX, TaskSpec
from taskyard.contracts.elements import NotReadOn, elements_of
from taskyard.contracts.events import FieldError
from taskyard.contracts.faults import form_of
from taskyard.contracts.validation import UNREADABLE, InvalidCommand, decode_spec, fields_of
from taskyard.contracts.values import (
    NAME_PATTERN,
    POOL_DEFAULT,
    UUID7_PATTERN,
    CommandId,
    TaskId,
    derive_uuid7,
    is_name,
    is_uuid7,
)

HTTP_BODY_BYTES_MAX = 1 << 20
ENVELOPE_BYTES = 128
"""Room that `{"id":…,"tasks":[]}` takes around the tasks of a stored command."""
REFUSALS_MAX = 100
"""A batch of which more tasks are refused is refused as a whole: to read and answer each costs far more than to send it."""
POOLS_MAX = 100
"""So many pools one batch may name: each is a command of its own."""
TASKS_PER_TURN = 50
"""So many tasks are read before others have their turn."""
ITEM_BYTES_MAX = COMMAND_BYTES_MAX - ENVELOPE_BYTES


class Limits(Struct, frozen=True):
    """What one message of a door may hold; `None` tasks: as many as fit the bytes."""

    bytes_max: int
    tasks_max: int | None


HTTP_LIMITS = Limits(HTTP_BODY_BYTES_MAX, None)
NATS_LIMITS = Limits(COMMAND_BYTES_MAX, TASKS_PER_COMMAND_MAX)


class Item(Struct, frozen=True, kw_only=True, gc=False):
    """One task that may be stored: its id, its pool, and its JSON with the id."""

    id: TaskId
    pool: str
    data: bytes


class Entry(Struct, frozen=True, kw_only=True):
    """One task of a submission: an item, or why it was refused with the id that it bore."""

    item: Item | None = None
    id: str | None = None
    refusal: Refusal | None = None


class Submission(Struct, frozen=True, kw_only=True):
    """What was submitted. `command` is the id that a batch bore itself."""

    entries: tuple[Entry, ...]
    is_batch: bool
    command: CommandId | None = None

    @property
    def items(self) -> list[Item]:
        """The tasks that were not refused, in order."""
        return [entry.item for entry in self.entries if entry.item is not None]


class _Head(Struct):
    """What must be known of a task before it is read: which pool it names, and its id for the answer."""

    id: str | None = None
    pool: str | None = None


_head = msgspec.json.Decoder(_Head)
_texts = msgspec.json.Decoder(str | None)
_BATCH_FIELDS = frozenset(("id", "pool", "tasks"))


async def read_submission(data: bytes, *, pool: str | None, limits: Limits, make_id: Callable[[], str]) -> Submission:
    """Read a body. `pool` is what the way in has fixed, if it has; otherwise tasks name theirs.

    Raises:
        Refusal: the body as a whole is too large or cannot be read, or its one task is refused.
    """
    if len(data) > limits.bytes_max:
        raise too_large(limits.bytes_max)
    try:
        fields = fields_of(data)
    except InvalidCommand as error:
        raise invalid(*error.errors) from error
    if "tasks" in fields:
        return await _read_batch(fields, pool=pool, limits=limits, make_id=make_id)
    entry = _read_task(data, pool=pool, make_id=make_id)
    if entry.refusal is not None:
        raise entry.refusal
    return Submission(entries=(entry,), is_batch=False)


def envelope(command: str, items: list[Item]) -> bytes:
    """The stored form of several tasks as one command."""
    return b'{"id":"%s","tasks":[%s]}' % (command.encode(), b",".join(item.data for item in items))


async def _read_batch(
    fields: dict[str, Raw], *, pool: str | None, limits: Limits, make_id: Callable[[], str]
) -> Submission:
    faults = [FieldError(path=name, message="unknown field") for name in fields if name not in _BATCH_FIELDS]
    command = _text(fields, "id")
    if command is not None and not is_uuid7(command):
        faults.append(FieldError(path="id", message=form_of(UUID7_PATTERN)))
    named = _text(fields, "pool")
    if named is not None and not is_name(named):
        faults.append(FieldError(path="pool", message=form_of(NAME_PATTERN)))
    elif named is not None and pool is not None and named != pool:
        faults.append(FieldError(path="pool", message=f"must be the subject's: {pool}"))
    if faults:
        raise invalid(*faults)
    entries = await _read_tasks(
        fields["tasks"],
        lambda index, raw: _read_task(
            raw,
            pool=pool or named,
            make_id=partial(derive_uuid7, command, str(index)) if command else make_id,
        ),
        limits.tasks_max,
    )
    if not entries:
        raise invalid(FieldError(path="tasks", message="must be a list of at least one task"))
    if len({entry.item.pool for entry in entries if entry.item is not None}) > POOLS_MAX:
        raise invalid(FieldError(path="pool", message=f"at most {POOLS_MAX} pools fit one batch"))
    return Submission(entries=tuple(entries), is_batch=True, command=None if command is None else CommandId(command))


async def _read_tasks(raw: Raw, read: Callable[[int, bytes | Raw], Entry], tasks_max: int | None) -> list[Entry]:
    """What becomes of each task of a batch. Raises `Refusal` once too much of it is refused, and reads no further."""
    entries: list[Entry] = []
    refused: list[FieldError] = []
    try:
        for index, element in enumerate(elements_of(raw)):
            if index == tasks_max:
                raise invalid(FieldError(path="tasks", message=f"at most {tasks_max} tasks fit one message"))
            if index % TASKS_PER_TURN == TASKS_PER_TURN - 1:
                await asyncio.sleep(0)
            entries.append(read(index, element))
            refusal = entries[-1].refusal
            if refusal is not None:
                refused.append(FieldError(path=f"tasks[{index}]", message=refusal.detail))
            if len(refused) > REFUSALS_MAX:
                message = f"more than {REFUSALS_MAX} tasks were refused, so none was accepted"
                raise invalid(FieldError(path="tasks", message=message), *refused)
    except NotReadOn as error:
        raise invalid(FieldError(path=f"tasks[{len(entries)}]", message="cannot be read")) from error
    return entries


def _read_task(data: bytes | Raw, *, pool: str | None, make_id: Callable[[], str]) -> Entry:
    try:
        head = _head.decode(data)
    except UNREADABLE:
        head = _Head()
    pool = pool or head.pool or POOL_DEFAULT
    try:
        spec = decode_spec(data, pool)
    except InvalidCommand as error:
        return Entry(id=head.id, refusal=invalid(*error.errors))
    return _entry(spec, pool, make_id)


def _entry(spec: TaskSpec, pool: str, make_id: Callable[[], str]) -> Entry:
    id = TaskId(spec.id or make_id())
    data = msgspec.json.encode(msgspec.structs.replace(spec, id=id, pool=None))
    if len(data) > ITEM_BYTES_MAX:
        return Entry(id=id, refusal=too_large(ITEM_BYTES_MAX))
    return Entry(id=id, item=Item(id=id, pool=pool, data=data))


def _text(fields: dict[str, Raw], name: str) -> str | None:
    """A field as text; whatever else it is becomes a text that is no name and no id."""
    if name not in fields:
        return None
    try:
        return _texts.decode(fields[name])
    except UNREADABLE:
        return ""
