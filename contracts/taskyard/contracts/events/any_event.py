"""All events as one type: who owns which, and how one is read, also one that this version does not know."""

from typing import Any, get_args

import msgspec
from msgspec import Raw, Struct

from taskyard.contracts.events.dispatcher import DISPATCHER, AttemptFailed, AttemptSucceeded, DispatcherEvent
from taskyard.contracts.events.event import Event
from taskyard.contracts.events.log_keeper import LOG_KEEPER, LogKeeperEvent
from taskyard.contracts.events.scheduler import SCHEDULER, SchedulerEvent
from taskyard.contracts.events.slot_allocator import SLOT_ALLOCATOR, SlotAllocatorEvent
from taskyard.contracts.readable import UNREADABLE, UNREADABLE_SHOWN, is_readable

DECIDERS = (SCHEDULER, SLOT_ALLOCATOR, DISPATCHER)
"""The writers that are services: each has a leader."""

AnyEvent = SchedulerEvent | SlotAllocatorEvent | DispatcherEvent | LogKeeperEvent

OWNERS: dict[str, tuple[type[Event], ...]] = {
    SCHEDULER: get_args(SchedulerEvent),
    SLOT_ALLOCATOR: get_args(SlotAllocatorEvent),
    DISPATCHER: get_args(DispatcherEvent),
    LOG_KEEPER: (LogKeeperEvent,),
}
"""Which events each writer appends. `TaskStopRequested` is written by two: the dispatcher's has the cause `timeout`."""


class UnknownEvent(Struct, frozen=True, kw_only=True, gc=False):
    """An event that a newer writer appended: kept as it is, without effect here."""

    raw: Raw


_one = msgspec.json.Decoder(AnyEvent)


def decode_event(raw: Raw) -> AnyEvent | UnknownEvent:
    """One event from its JSON; what this version does not know becomes `UnknownEvent`."""
    try:
        return _one.decode(raw)
    except UNREADABLE:
        return UnknownEvent(raw=raw.copy())


class UnreadableEvent(Struct, frozen=True, kw_only=True):
    """Is shown in place of an event that nobody could read."""

    type: str
    task: str
    unreadable: bool = True


def shown_event(event: AnyEvent | UnknownEvent) -> tuple[Any, bool]:
    """What to encode where the event is shown, and whether it is all there: what nobody could read is marked as such.

    An event holds what somebody said whom no decoder has looked at; a log may be older than what is checked today.
    """
    if isinstance(event, UnknownEvent):
        if is_readable(event.raw):
            return event.raw, True
        return UnreadableEvent(type=event_name(event), task=named_task(event)), False
    if isinstance(event, AttemptSucceeded | AttemptFailed) and not is_readable(event.result):
        return msgspec.structs.replace(event, result=UNREADABLE_SHOWN), False
    return event, True


def event_name(event: Any) -> str:
    """The stored name of an event's type."""
    if isinstance(event, UnknownEvent):
        return _told(event).type
    return type(event).__name__


def named_task(event: Any) -> str:
    """The id of the task that an event names, also one of a newer version; empty if it names none."""
    if isinstance(event, UnknownEvent):
        return _told(event).task
    return str(getattr(event, "task", None) or "")


class _Told(Struct, frozen=True):
    """What every event tells alike."""

    type: str = "unknown"
    task: str = ""


_told_by = msgspec.json.Decoder(_Told)


def _told(event: UnknownEvent) -> _Told:
    try:
        return _told_by.decode(event.raw)
    except UNREADABLE:
        return _Told()
