"""All events as one type: who owns which, and how one is read, also one that this version does not know."""

from typing import Any, get_args

import msgspec
from msgspec import Raw, Struct

from taskyard.contracts.events.dispatcher import DISPATCHER, DispatcherEvent
from taskyard.contracts.events.event import Event
from taskyard.contracts.events.log_keeper import LOG_KEEPER, LogKeeperEvent
from taskyard.contracts.events.scheduler import SCHEDULER, SchedulerEvent
from taskyard.contracts.events.slot_allocator import SLOT_ALLOCATOR, SlotAllocatorEvent

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
    except msgspec.ValidationError:
        return UnknownEvent(raw=raw.copy())


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
    except msgspec.ValidationError:
        return _Told()
