"""Reading commands: bytes that somebody typed become typed bodies, or faults that name the field.

Both doors and the scheduler read commands with these functions, so that all refuse the same with the same words.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Raw, Struct

from taskyard.contracts.commands import COMMAND_BYTES_MAX, TASKS_PER_COMMAND_MAX, Command, TaskBatch, TaskSpec
from taskyard.contracts.doubled import DOUBLED, doubled_fault, doubled_key, may_be_doubled
from taskyard.contracts.elements import is_far_longer_than
from taskyard.contracts.events import FieldError
from taskyard.contracts.faults import SHOWN_CHARACTERS_MAX, TOO_DEEP, decoding_fault, shown
from taskyard.contracts.kind import Kind
from taskyard.contracts.kinds import KINDS, decode_input, input_fields
from taskyard.contracts.nearest import nearest
from taskyard.contracts.nesting import NESTING_MAX, nests_too_deeply
from taskyard.contracts.readable import UNREADABLE, held
from taskyard.contracts.values import QUEUE_DEFAULT
from taskyard.contracts.verbs import SUBMIT, VERBS

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOT_BEFORE_MAX = datetime(2999, 12, 31, tzinfo=UTC)
"""A time near the end of what a calendar holds would overflow in another zone, and stop who only wants to show it."""

TEXT_CHARACTERS_MAX = 200
FAULTS_MAX = 20
FAULT_BYTES_MAX = 2_048
"""What is told and stored of a refusal: so many characters of a text, so many faults, and as many as take so many bytes. What
came in is easily made to have a fault at every second character, and each is many times as long as that."""


class InvalidCommand(Exception):
    """A command cannot be read. `errors` name the fields; the cure is to send it again, corrected."""

    def __init__(self, *errors: FieldError) -> None:
        super().__init__(
            "; ".join(f"{error.path}: {error.message}" if error.path else error.message for error in errors)
        )
        self.errors = errors


class _KindOnly(Struct):
    """What a task that cannot be read says that it is."""

    kind: Any = None


_fields = msgspec.json.Decoder(dict[str, Raw])
_kind_only = msgspec.json.Decoder(_KindOnly)
_spec = msgspec.json.Decoder(TaskSpec)
_batch = msgspec.json.Decoder(TaskBatch)
_any = msgspec.json.Decoder(dict[str, Any])
_SPEC_FIELDS, _BATCH_FIELDS = TaskSpec.__struct_fields__, TaskBatch.__struct_fields__
_bodies = {verb.name: msgspec.json.Decoder(verb.body) for verb in VERBS.values() if verb.name != SUBMIT}


def decode_submission(data: bytes, pool: str) -> TaskSpec | TaskBatch:
    """The body of a `submit`. The tasks of a batch are read one by one with `decode_spec`, each accepted or refused by itself.

    Raises:
        InvalidCommand: the body as a whole, or its one task, cannot be read.
    """
    _check_size(data)
    fields = fields_of(data)
    tasks = fields.get("tasks")
    if tasks is None:
        return decode_spec(data, pool)
    if is_far_longer_than(tasks, TASKS_PER_COMMAND_MAX):
        told = f"must have at most {TASKS_PER_COMMAND_MAX} elements"
        raise InvalidCommand(FieldError(path="tasks", message=told))
    try:
        body = _batch.decode(data)
    except UNREADABLE as error:
        raise InvalidCommand(decoding_fault(error, "", _BATCH_FIELDS)) from error
    _check_pool(body, pool)
    return body


def fields_of(data: bytes) -> dict[str, Raw]:
    """The fields of a JSON object, each as it is written.

    Raises:
        InvalidCommand: it is something else, or a field stands there twice.
    """
    try:
        fields = _fields.decode(data)
    except UNREADABLE as error:
        raise InvalidCommand(decoding_fault(error, "")) from error
    if (fault := doubled_fault(data, fields)) is not None:
        raise InvalidCommand(fault)
    return fields


def decode_spec(data: bytes | Raw, pool: str) -> TaskSpec:
    """One task of a submission to `pool`, whole: kind, queue and input checked, the input in canonical form.

    Raises:
        InvalidCommand: with the path of each fault.
    """
    try:
        spec = _spec.decode(data)
    except UNREADABLE as error:
        _check_kind(data)
        raise InvalidCommand(decoding_fault(error, "", _SPEC_FIELDS)) from error
    _check_pool(spec, pool)
    kind = _kind_of(spec.kind)
    if kind.queue_required and spec.queue is None:
        raise InvalidCommand(FieldError(path="queue", message=f"a {spec.kind} needs a queue: its workspace"))
    if spec.not_before is not None and not EPOCH <= spec.not_before <= NOT_BEFORE_MAX:
        message = f"must be from {EPOCH.year} to {NOT_BEFORE_MAX.year}"
        raise InvalidCommand(FieldError(path="not_before", message=message))
    return msgspec.structs.replace(spec, input=_canonical_input(data, spec, kind))


def _canonical_input(data: bytes | Raw, spec: TaskSpec, kind: Kind) -> Raw:
    """The input of a task as it is stored. `data` is the whole task, in which no key may stand twice."""
    written = bytes(spec.input)
    if len(written) > kind.input_bytes_max:
        raise InvalidCommand(FieldError(path="input", message=f"larger than {kind.input_bytes_max} bytes"))
    if nests_too_deeply(written):
        raise InvalidCommand(FieldError(path="input", message=f"{TOO_DEEP}: at most {NESTING_MAX} levels"))
    try:
        decode_input(spec.kind, spec.input)
        task = _any.decode(data)
        canonical = msgspec.json.encode(held(task.pop("input")), order="sorted")
    except UNREADABLE as error:
        raise InvalidCommand(decoding_fault(error, "input", input_fields(spec.kind))) from error
    kept = canonical.count(b":") + msgspec.json.encode(task).count(b":") + 1
    data = bytes(data)
    if may_be_doubled(data, kept) and (path := doubled_key(data)) is not None:
        raise InvalidCommand(FieldError(path=path, message=DOUBLED))
    if len(canonical) > kind.input_bytes_max:  # `1e15` is written with 18 characters
        message = f"larger than {kind.input_bytes_max} bytes as it is stored"
        raise InvalidCommand(FieldError(path="input", message=message))
    return Raw(canonical)


def _check_kind(data: bytes | Raw) -> None:
    """Who names a kind that there is not is told so before anything else: what is missing depends on the kind."""
    try:
        kind = _kind_only.decode(data).kind
    except UNREADABLE:
        return
    if isinstance(kind, str):
        _kind_of(kind)


def _kind_of(name: str) -> Kind:
    kind = KINDS.get(name)
    if kind is None:
        raise InvalidCommand(FieldError(path="kind", message=no_such_kind(name)))
    return kind


def no_such_kind(name: str) -> str:
    """What somebody is told who names a kind that there is not."""
    return f"there is no kind {shown(name)}{nearest(name[:SHOWN_CHARACTERS_MAX], KINDS)} (kinds: {', '.join(KINDS)})"


def decode_body(verb: str, data: bytes, pool: str) -> Command:
    """The body of any verb but `submit`; an empty message is an empty object.

    Raises:
        InvalidCommand: the verb is unknown or the body does not fit it.
    """
    if verb == SUBMIT or verb not in VERBS:
        known = ", ".join(VERBS)
        message = f"there is no verb {shown(verb)}{nearest(verb[:SHOWN_CHARACTERS_MAX], VERBS)} (verbs: {known})"
        raise InvalidCommand(FieldError(path="", message=message))
    _check_size(data)
    data = data or b"{}"
    fields_of(data)
    try:
        body = _bodies[verb].decode(data)
    except UNREADABLE as error:
        raise InvalidCommand(decoding_fault(error, "", VERBS[verb].body.__struct_fields__)) from error
    _check_pool(body, pool)
    return body


def content_digest(spec: TaskSpec, pool: str) -> str:
    """A digest of what a submission to `pool` asks for, whatever its id: 8 bytes in hex."""
    queue = None if spec.queue == QUEUE_DEFAULT else spec.queue
    content = msgspec.json.encode(msgspec.structs.replace(spec, id=None, pool=pool, queue=queue), order="sorted")
    return blake2b(content, digest_size=8).hexdigest()


def asked_digest(verb: str, data: bytes, pool: str) -> str:
    """A digest of what any other command asks for, whatever its id: 8 bytes in hex. What cannot be read is itself."""
    try:
        body = decode_body(verb, data, pool)
        asked = msgspec.json.encode(msgspec.structs.replace(body, id=None, pool=None), order="sorted")
    except InvalidCommand:
        asked = data
    return blake2b(f"{verb}/{pool}/".encode() + asked, digest_size=8).hexdigest()


def told_faults(errors: Sequence[FieldError]) -> tuple[FieldError, ...]:
    """The first faults, as far as they fit, and how many more there are."""
    told: list[FieldError] = []
    room = FAULT_BYTES_MAX
    for error in errors[:FAULTS_MAX]:
        fault = FieldError(path=error.path[:TEXT_CHARACTERS_MAX], message=error.message[:TEXT_CHARACTERS_MAX])
        room -= len(msgspec.json.encode(fault))
        if told and room < 0:
            break
        told.append(fault)
    more = len(errors) - len(told)
    if more:
        told.append(FieldError(path="", message=f"and {more} more"))
    return tuple(told)


def _check_size(data: bytes) -> None:
    if len(data) > COMMAND_BYTES_MAX:
        raise InvalidCommand(FieldError(path="", message=f"larger than {COMMAND_BYTES_MAX} bytes"))


def _check_pool(body: Command, pool: str) -> None:
    if body.pool is not None and body.pool != pool:
        raise InvalidCommand(FieldError(path="pool", message=f"must be the subject's: {pool}"))
