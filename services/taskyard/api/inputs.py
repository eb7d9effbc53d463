"""What is shown of tasks' inputs, and to whom: all to their owner and admins, to others an outline. Pure.

Values of variables and of the environment may be secrets, and so may any argument or script. Who watches is told what was
asked for and where: the kind, the directory, and the names of variables. Digests of inputs are left out as well, since a
short secret could be guessed by them, and so are events of a newer version, of which nobody here knows what they hold.
"""

from typing import Any, get_args

import msgspec
from msgspec import Raw

from taskyard.api.views import HistoryItem
from taskyard.contracts.events import AnyEvent, TaskSubmitted, UnknownEvent, event_name, named_task, shown_event
from taskyard.contracts.kinds import KINDS, decode_input
from taskyard.contracts.readable import UNREADABLE

_KNOWN = frozenset(event.__name__ for event in get_args(AnyEvent))
_DIGESTS = {"digest": Raw(b'""'), "asked": Raw(b"null")}

_decode_text = msgspec.json.Decoder(str).decode


def outline(kind: str, asked: Raw) -> Raw:
    """The input with null in the place of each value that may be a secret."""
    try:
        told, row = decode_input(kind, asked), KINDS[kind]
    except (KeyError, *UNREADABLE):  # a kind, or a form of it, of another version
        return Raw(b"{}")
    shown: dict[str, Any] = {name: getattr(told, name) for name in row.shown_values}
    shown |= {name: dict.fromkeys(getattr(told, name)) for name in row.shown_names}
    return Raw(msgspec.json.encode(shown))


def shown_to(event: AnyEvent | UnknownEvent, reads_inputs_of: str | None) -> Any:
    """What to encode where an event of the log is shown; `reads_inputs_of` as of a `Caller`."""
    if reads_inputs_of in (None, getattr(event, "by", "")):
        return shown_event(event)[0]
    if isinstance(event, UnknownEvent):
        return {"type": event_name(event), "task": named_task(event)}
    if isinstance(event, TaskSubmitted):
        return msgspec.structs.replace(event, input=outline(event.kind, event.input), digest="", asked=None)
    shown = shown_event(event)[0]
    return msgspec.structs.replace(shown, asked=None) if getattr(shown, "asked", None) else shown


def outlined(item: HistoryItem) -> HistoryItem:
    """An event of a task's history as others than its owner and admins see it."""
    if item.type not in _KNOWN:
        return msgspec.structs.replace(item, data={})
    data = item.data | {name: value for name, value in _DIGESTS.items() if name in item.data}
    if "input" in data:
        data["input"] = outline(_decode_text(data["kind"]), data["input"])
    return msgspec.structs.replace(item, data=data)
