"""Reading commands: bytes that somebody typed become typed bodies, or faults that name the field.

Both doors and the scheduler read commands with these functions, so that all refuse the same with the same words.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import blake2b

import msgspec
from msgspec import Raw, Struct

from taskyard.contracts.commands import COMMAND_BYTES_MAX, TASKS_PER_COMMAND_MAX, Command, TaskBatch, TaskSpec
from taskyard.contracts.elements import is_far_longer_than
from taskyard.contracts.events import FieldError
from taskyard.contracts.kinds import KINDS, decode_input
from taskyard.contracts.nesting import NESTING_MAX, nests_too_deeply
from taskyard.contracts.readable import UNREADABLE, held
from taskyard.contracts.values import NAME_PATTERN, NO_NUL_PATTERN, QUEUE_DEFAULT, QUEUE_PATTERN, UUID7_PATTERN
from taskyard.contracts.verbs import SUBMIT, VERBS

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOT_BEFORE_MAX = datetime(2999, 12, 31, tzinfo=UTC)
"""A time near the end of what a calendar holds would overflow in another zone, and stop who only wants to show it."""

_PATH = re.compile(r"^(?P<message>.*?)(?: - at (?:`key` in )?`\$(?P<path>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<field>[^`]*)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<field>[^`]*)`$")
_PATTERN = re.compile(r"^Expected `str` matching regex '(?P<pattern>.*)'$")
_FORMS = {
    repr(UUID7_PATTERN)[1:-1]: "must be a UUIDv7 in lower case",
    repr(NAME_PATTERN)[1:-1]: "must match [a-z0-9][a-z0-9_-]{0,62}",
    repr(QUEUE_PATTERN)[1:-1]: "must match [a-z0-9][a-z0-9_./-]{0,127}",
    repr(NO_NUL_PATTERN)[1:-1]: "must not hold a NUL character",
}
"""What a pattern asks for, said for people."""
_TOO_DEEP = "nested too deeply"

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


class _Probe(Struct):
    """Tells whether a submission is a batch."""

    tasks: Raw | msgspec.UnsetType = msgspec.UNSET


_probe = msgspec.json.Decoder(_Probe)
_spec = msgspec.json.Decoder(TaskSpec)
_batch = msgspec.json.Decoder(TaskBatch)
_bodies = {verb.name: msgspec.json.Decoder(verb.body) for verb in VERBS.values() if verb.name != SUBMIT}


def decode_submission(data: bytes, pool: str) -> TaskSpec | TaskBatch:
    """The body of a `submit`. The tasks of a batch are read one by one with `decode_spec`, each accepted or refused by itself.

    Raises:
        InvalidCommand: the body as a whole, or its one task, cannot be read.
    """
    _check_size(data)
    body: TaskSpec | TaskBatch
    try:
        tasks = _probe.decode(data).tasks
        if isinstance(tasks, msgspec.UnsetType):
            return decode_spec(data, pool)
        if is_far_longer_than(tasks, TASKS_PER_COMMAND_MAX):
            told = f"Expected `array` of length <= {TASKS_PER_COMMAND_MAX}"
            raise InvalidCommand(FieldError(path="tasks", message=told))
        body = _batch.decode(data)
    except UNREADABLE as error:
        raise InvalidCommand(_fault(error, "")) from error
    _check_pool(body, pool)
    return body


def decode_spec(data: bytes | Raw, pool: str) -> TaskSpec:
    """One task of a submission to `pool`, whole: kind, queue and input checked, the input in canonical form.

    Raises:
        InvalidCommand: with the path of each fault.
    """
    try:
        spec = _spec.decode(data)
    except UNREADABLE as error:
        raise InvalidCommand(_fault(error, "")) from error
    _check_pool(spec, pool)
    kind = KINDS.get(spec.kind)
    if kind is None:
        raise InvalidCommand(FieldError(path="kind", message=f"unknown kind; known are {', '.join(KINDS)}"))
    if kind.queue_required and spec.queue is None:
        raise InvalidCommand(FieldError(path="queue", message=f"a {spec.kind} needs a queue: its workspace"))
    if spec.not_before is not None and not EPOCH <= spec.not_before <= NOT_BEFORE_MAX:
        message = f"must be from {EPOCH.year} to {NOT_BEFORE_MAX.year}"
        raise InvalidCommand(FieldError(path="not_before", message=message))
    written = bytes(spec.input)
    if len(written) > kind.input_bytes_max:
        raise InvalidCommand(FieldError(path="input", message=f"larger than {kind.input_bytes_max} bytes"))
    if nests_too_deeply(written):
        raise InvalidCommand(FieldError(path="input", message=f"{_TOO_DEEP}: at most {NESTING_MAX} levels"))
    try:
        decode_input(spec.kind, spec.input)
        canonical = msgspec.json.encode(held(msgspec.json.decode(spec.input)), order="sorted")
    except UNREADABLE as error:
        raise InvalidCommand(_fault(error, "input")) from error
    if len(canonical) > kind.input_bytes_max:  # `1e15` is written with 18 characters
        message = f"larger than {kind.input_bytes_max} bytes as it is stored"
        raise InvalidCommand(FieldError(path="input", message=message))
    return msgspec.structs.replace(spec, input=Raw(canonical))


def decode_body(verb: str, data: bytes, pool: str) -> Command:
    """The body of any verb but `submit`; an empty message is an empty object.

    Raises:
        InvalidCommand: the verb is unknown or the body does not fit it.
    """
    if verb == SUBMIT or verb not in VERBS:
        known = ", ".join(VERBS)
        raise InvalidCommand(FieldError(path="", message=f"unknown verb; known are {known}"))
    _check_size(data)
    try:
        body = _bodies[verb].decode(data or b"{}")
    except UNREADABLE as error:
        raise InvalidCommand(_fault(error, "")) from error
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


def _fault(error: Exception, prefix: str) -> FieldError:
    """The fault that a decoder's error tells, with the path of the field below `prefix`."""
    if isinstance(error, RecursionError):
        return FieldError(path=prefix, message=_TOO_DEEP)
    if not isinstance(error, msgspec.ValidationError):
        return FieldError(path=prefix, message=f"not valid JSON: {str(error)[:200]}")
    match = _PATH.match(str(error))
    message, path = (match["message"], match["path"] or "") if match else (str(error), "")
    path = path.lstrip(".")
    named = _MISSING.match(message) or _UNKNOWN.match(message)
    if named:
        path = f"{path}.{named['field']}" if path else named["field"]
        message = "is required" if _MISSING.match(message) else "unknown field"
    elif match and (said := _PATTERN.match(message)):
        message = _FORMS.get(said["pattern"], message)
    return FieldError(path=".".join(part for part in (prefix, path) if part), message=message)
