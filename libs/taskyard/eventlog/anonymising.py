"""Anonymises commits, and the state before them: names and what somebody wrote become pseudonyms; what happened stays.

Kept: kinds of events, ids of tasks and commands, times, numbers of attempts and slots, policies, sizes and structure of
what was written. Replaced, the same by the same: names of queues, pools, workers and principals, labels, inputs,
results, messages, reasons, names of instances, digests of contents. Whatever is not known to be harmless is replaced.

A pseudonym is a keyed hash. The key is random, made for one export and then forgotten, so that nobody can try names.
"""

from collections.abc import Callable
from hashlib import blake2b
from string import ascii_lowercase, digits
from typing import Any

import msgspec

from taskyard.contracts.events import NO_RESPONDERS
from taskyard.contracts.kinds import KINDS, input_fields
from taskyard.contracts.values import POOL_DEFAULT, QUEUE_DEFAULT, is_uuid7
from taskyard.contracts.verbs import VERBS
from taskyard.eventlog.commit import HASH_BYTES, hash_commit
from taskyard.eventlog.errors import CommitUnreadable

KEY_BYTES = 32

_HARMLESS = frozenset(
    (
        "type", "attempt", "status", "cause", "timeout_seconds", "priority", "max_attempts", "retry_delays_seconds",
        "exclusive", "on_lost", "auto_confirm", "not_before", "schedule_to_start_timeout_seconds", "incarnation", "slots",
        "kinds", "kind", "slot", "at", "progress", "max_waiting", "approval_timeout_seconds", "placement", "max_running",
        "changes", "commands_before", "retryable", "version", "items", "continues", "follows", "place",
        "lock", "approval",
    )
)  # fmt: skip
"""Fields of events that say nothing of whose they are."""
_HARMLESS_IN_STATE = _HARMLESS | frozenset(
    (
        "submitted", "submitted_at", "phase", "due", "tries", "deliveries_failed", "assigned_incarnation",
        "accepted", "assigned", "replaced", "joined_at", "plan_attempt", "planned_at", "confirmed", "stop",
        "locks_queue", "asks_approval", "scheduled_at", "dispatched_at", "started_at", "finished_at",
        "schedule_to_start_timeout_seconds", "changed_at", "is_suspect", "is_draining", "is_lost",
    )
)  # fmt: skip
"""Fields of what stands in a state that say nothing of whose it is."""
_AS_IN_EVENTS = {"id": "task", "submitted_by": "by"}
"""Fields of what stands in a state that events call otherwise."""
_NAMED_IN_STATE = {"pools": "pool", "queues": "queue", "workers": "worker"}
"""Lists of a state whose elements bear a `name`, and what that is called in events."""
_COUNTED_IN_STATE = frozenset(("reached", "at", "last_event", "events", "positions"))
_OF_INPUT = frozenset(field for kind in KINDS for field in input_fields(kind))
"""Keys of inputs that the kinds name, not people."""
_NAMES = {"queue": "queue", "pool": "pool", "worker": "worker", "by": "principal"}
_NOBODYS = frozenset((("pool", POOL_DEFAULT), ("queue", QUEUE_DEFAULT), ("by", "auto")))
"""Names that every system has."""
_IDS = frozenset(("task", "command", "retry_of"))
_CODE_CHARACTERS = frozenset(ascii_lowercase + digits + "_")
_LETTERS = ascii_lowercase


class Anonymiser:
    """Anonymises the commits of one export, in log order. `key` is KEY_BYTES random bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._before: dict[str, str] = {}
        self._by_field: dict[str, Callable[[Any], Any]] = {
            "labels": self._labels,
            "input": lambda value: self._written(value, _OF_INPUT),
            "asked": lambda value: self._hash(str(value), len(str(value)) // 2 or 1),
            "digest": lambda value: self._hash(str(value), len(str(value)) // 2 or 1),
            **dict.fromkeys(("error", "stop_error", "paused", "locked"), self._event),
            "errors": lambda value: self._written(value, frozenset(("path", "message"))),
            "refused": lambda value: [self._event(each) for each in value],
            "tasks": lambda value: [self._field("task", each) for each in value],
            "declined_by": lambda value: [self._field("worker", each) for each in value],
            "code": self._code,
            "verb": lambda value: value if value in VERBS else self._name("verb", value),
            "reason": lambda value: value if value == NO_RESPONDERS else self._written(value),
        }

    def commit(self, data: bytes) -> bytes:
        """The commit, anonymised, chained to the anonymised commit of its writer before.

        Raises:
            CommitUnreadable: the bytes are no commit.
        """
        try:
            commit = msgspec.json.decode(data, type=dict[str, Any])
            writer, events = str(commit["writer"]), list(commit["events"])
            anonymised = {name: self._of_commit(name, value) for name, value in commit.items()}
            anonymised["events"] = [self._event(event) for event in events]
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
            raise CommitUnreadable(f"no commit can be anonymised: {error}") from error
        if writer in self._before:
            anonymised["previous"] = self._before[writer]
        stored = msgspec.json.encode(anonymised)
        self._before[writer] = hash_commit(stored)
        return stored

    def state(self, data: bytes) -> bytes:
        """The state before the commits, anonymised with the names that they get.

        That is a JSON object of numbers, and of lists of objects: tasks, and pools, queues and workers with their names.

        Raises:
            msgspec.DecodeError: the bytes are no JSON object.
        """
        state = msgspec.json.decode(data, type=dict[str, Any])
        return msgspec.json.encode({name: self._of_state(name, value) for name, value in state.items()})

    def _of_state(self, name: str, value: Any) -> Any:
        if name in _COUNTED_IN_STATE:
            return value
        if name == "hash":  # of a commit that is not in the slice
            return self._hash_before(value)
        if not isinstance(value, list):
            return self._written(value)
        found: list[Any] = value
        return [self._standing(each, _NAMED_IN_STATE.get(name, "")) for each in found]

    def _standing(self, one: Any, named: str) -> Any:
        """One task, pool, queue or worker of a state; its `name` is what events call `named`."""
        if not isinstance(one, dict):
            return self._written(one)
        fields: dict[str, Any] = one
        replaced: dict[str, Any] = {}
        for name, value in fields.items():
            if name in _HARMLESS_IN_STATE:
                replaced[name] = value
            elif name != "traceparent":
                replaced[name] = self._field(named if name == "name" else _AS_IN_EVENTS.get(name, name), value)
        return replaced

    def _of_commit(self, name: str, value: Any) -> Any:
        match name:
            case "writer" | "epoch" | "at" | "cursors" | "events":
                return value
            case "previous":  # of a commit that is not in the slice
                return self._hash_before(value)
            case "instance":
                return self._name("instance", value)
            case _:
                return self._written(value)

    def _event(self, event: Any) -> Any:
        if not isinstance(event, dict):
            return self._written(event)
        return {name: self._field(name, value) for name, value in event.items() if name != "traceparent"}

    def _field(self, name: str, value: Any) -> Any:
        if name in _HARMLESS or value is None:
            return value
        if name in _NAMES:
            return value if (name, str(value)) in _NOBODYS else self._name(_NAMES[name], value)
        if name in _IDS:
            return value if isinstance(value, str) and is_uuid7(value) else self._written(value)
        replace = self._by_field.get(name)
        return self._written(value) if replace is None else replace(value)

    def _labels(self, labels: Any) -> Any:
        if not isinstance(labels, dict):
            return self._written(labels)
        return {self._name("label", name): self._name("value", value) for name, value in labels.items()}

    def _code(self, code: Any) -> Any:
        """Codes of errors are ours or an executor's, and decide what happens next; a text is neither."""
        return code if isinstance(code, str) and set(code) <= _CODE_CHARACTERS else self._written(code)

    def _name(self, sort: str, name: Any) -> str:
        return f"{sort}-{self._hash(f'{sort}/{name}', 6)}"

    def _written(self, value: Any, known: frozenset[str] = frozenset()) -> Any:
        """What somebody wrote: of the same structure and size. `known` are keys of its top level that are kept."""
        match value:
            case str():
                return self._text(value)
            case bool() | None:
                return value
            case int() | float():
                return self._number(value)
            case list():
                return [self._written(each, known) for each in value]
            case dict():
                return self._object(value, known)
            case _:
                return None

    def _object(self, value: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
        replaced: dict[str, Any] = {}
        for key, each in value.items():
            name = key if key in known else self._text(key)
            while name in replaced:  # short keys may meet
                name += "_"
            replaced[name] = self._written(each)
        return replaced

    def _text(self, text: str) -> str:
        """A text of the same length: letters and digits are others, what stands between them stays."""
        noise = self._noise(text, len(text))
        return "".join(
            digits[n % 10] if c.isdigit() else _LETTERS[n % 26] if c.isalnum() else c if c.isascii() else "?"
            for c, n in zip(text, noise, strict=True)
        )

    def _number(self, number: float) -> float:
        """A number of about the same size."""
        if isinstance(number, int):
            figures = str(abs(number))
            noise = self._noise(f"number/{number}", len(figures))
            first = str(1 + noise[0] % 9) if figures != "0" else "0"
            other = int(first + "".join(digits[n % 10] for n in noise[1:]))
            return -other if number < 0 else other
        return number * (0.5 + self._noise(f"number/{number}", 1)[0] / 256)

    def _noise(self, text: str, length: int) -> bytes:
        """As many bytes as are wanted, which follow from the text and the key."""
        noise = b""
        block = 0
        while len(noise) < length:
            noise += blake2b(f"{block}/{text}".encode("utf-8", "surrogatepass"), key=self._key).digest()
            block += 1
        return noise[:length]

    def _hash_before(self, value: Any) -> str:
        return self._hash(str(value), HASH_BYTES) if value else ""

    def _hash(self, text: str, size: int) -> str:
        return self._noise(f"name/{text}", size).hex()
