"""What values of queries mean, and which are refused. Pure.

Nothing unknown is ignored: a kind, a status, an event type that nobody has would fit nothing, and the answer would pass for
one to the question that was meant. A queue, a label or a submitter may come to be by being named, so these may be anything.
"""

from collections.abc import Collection, Iterable
from typing import get_args

from taskyard.api.errors import Refusal, invalid
from taskyard.contracts.events import AnyEvent, FieldError
from taskyard.contracts.kinds import KINDS
from taskyard.contracts.nearest import nearest
from taskyard.contracts.values import POOL_DEFAULT, Status, is_uuid7

FILTERS_MAX = 32
VALUE_CHARACTERS_MAX = 100
"""So much is told of a value that is unknown."""
EVENT_TYPES = frozenset(event.__name__ for event in get_args(AnyEvent))


def values_of(name: str, given: list[str] | None) -> tuple[str, ...]:
    """The values of a parameter that may be repeated, and hold several with commas between them. Raises `Refusal`."""
    values = tuple(value for text in given or () for value in text.split(",") if value)
    if len(values) > FILTERS_MAX:
        raise invalid(FieldError(path=name, message=f"at most {FILTERS_MAX} values"))
    return tuple(value for value in values if clean(name, value))


def clean(name: str, text: str | None) -> str | None:
    """The text, if PostgreSQL can hold it. Raises `Refusal`."""
    if text is not None and "\x00" in text:
        raise invalid(FieldError(path=name, message="must not hold a NUL character"))
    return text


def statuses_of(given: list[str] | None) -> tuple[Status, ...]:
    """Statuses. Raises `Refusal`: one is unknown."""
    values = ["cancelled" if text == "canceled" else text for text in values_of("status", given)]
    _require("status", "status", values, list(Status), tells_all=True)
    return tuple(map(Status, values))


def kinds_of(given: list[str] | None) -> tuple[str, ...]:
    """Kinds. Raises `Refusal`: one is unknown."""
    values = values_of("kind", given)
    _require("kind", "kind", values, KINDS, tells_all=True)
    return values


def event_types_of(given: list[str] | None) -> frozenset[str]:
    """Types of events. Raises `Refusal`: one is unknown."""
    values = [name for text in given or () for name in text.split(",") if name]
    _require("type", "event type", values, sorted(EVENT_TYPES))
    return frozenset(values)


def task_of(text: str | None) -> str | None:
    """The id of a task, which need not be there yet. Raises `Refusal`: it is no id."""
    if text is not None and not is_uuid7(text):
        raise invalid(FieldError(path="task", message="is not the id of a task"))
    return text


def unknown_pools(pools: Iterable[str], known: Collection[str]) -> list[str]:
    """Those that are not known. The default one always is."""
    return [pool for pool in pools if pool != POOL_DEFAULT and pool not in known]


def no_such_pools(pools: Iterable[str], known: Collection[str], then: str = "") -> Refusal:
    """422 for pools that are not, or were not `then`."""
    names, begins = [POOL_DEFAULT, *known], f"there {'was' if then else 'is'} no pool"
    return _refusal("pool", [f"{begins} {_shown(pool)}{then}{nearest(_shown(pool), names)}" for pool in pools])


def no_such_workers(workers: Iterable[str], known: Collection[str]) -> Refusal:
    """422 for workers that have never joined."""
    return _refusal("worker", [f"there is no worker {_shown(one)}{nearest(_shown(one), known)}" for one in workers])


def label_of(text: str) -> tuple[str, str]:
    """A label. Raises `Refusal`."""
    key, colon, value = text.partition(":")
    if not (key and colon):
        raise invalid(FieldError(path="label", message="must be key:value"))
    clean("label", text)
    return key, value


def _require(field: str, what: str, values: Iterable[str], known: Collection[str], *, tells_all: bool = False) -> None:
    unknown = dict.fromkeys(value for value in values if value not in known)
    if unknown:
        told = f"; known are {', '.join(known)}" if tells_all else ""
        raise _refusal(
            field, [f"there is no {what} {_shown(value)}{nearest(_shown(value), known)}{told}" for value in unknown]
        )


def _refusal(field: str, messages: Iterable[str]) -> Refusal:
    return invalid(*(FieldError(path=field, message=message) for message in messages))


def _shown(value: str) -> str:
    return value[:VALUE_CHARACTERS_MAX]
