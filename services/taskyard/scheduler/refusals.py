"""Which tasks of a batch were refused, as the event of their refusal names them, so that each is found by its id."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import msgspec
from msgspec import Raw, Struct

from taskyard.contracts.commands import COMMAND_BYTES_MAX, TASKS_PER_COMMAND_MAX
from taskyard.contracts.elements import NotReadOn, elements_of
from taskyard.contracts.events import RefusedTasks
from taskyard.contracts.validation import UNREADABLE
from taskyard.contracts.values import TaskId, is_uuid7
from taskyard.contracts.verbs import SUBMIT
from taskyard.scheduler.messages import CommandMessage, Refused

WORDINGS_MAX = 5
"""So many different reasons of a batch are stored in their words; tasks that were refused otherwise are told as `OTHERWISE`.
An id in a command takes as much room as in the event, so they need no other limit."""
OTHERWISE = "is one of many that were refused; send it by itself to learn why"

_Wording = tuple[int, str, str]


class Refusals:
    """Gathers the refused ones of a batch's `tasks`, those that were refused alike together. `has_id`: the batch has one."""

    def __init__(self, tasks: Sequence[bytes | Raw], *, has_id: bool) -> None:
        self._batch = tasks
        self._has_id = has_id
        self._by_wording: dict[_Wording, tuple[list[TaskId], list[int]]] = {}

    def add(self, index: int, refused: Refused) -> None:
        """The task at a place of the batch was refused."""
        wording = (refused.status, refused.code, refused.message)
        if wording not in self._by_wording and len(self._by_wording) >= WORDINGS_MAX:
            wording = (422, "invalid", OTHERWISE)
        tasks, items = self._by_wording.setdefault(wording, ([], []))
        id = _id_of(self._batch[index])
        if id is not None:
            tasks.append(id)
        elif self._has_id:  # otherwise nobody was told its id
            items.append(index)

    def gathered(self) -> tuple[RefusedTasks, ...]:
        """The refused tasks that anybody can name."""
        return tuple(
            RefusedTasks(status=wording[0], code=wording[1], message=wording[2], tasks=tuple(tasks), items=tuple(items))
            for wording, (tasks, items) in self._by_wording.items()
            if tasks or items
        )


def all_refused(message: CommandMessage, refused: Refused) -> tuple[RefusedTasks, ...]:
    """The tasks of a command that was refused as a whole; of one that is too long the first."""
    if message.verb != SUBMIT or len(message.data) > COMMAND_BYTES_MAX:
        return ()
    try:
        batch = msgspec.json.decode(message.data, type=_Batch)
        tasks = list(islice(elements_of(batch.tasks), TASKS_PER_COMMAND_MAX))
    except (*UNREADABLE, NotReadOn):
        return ()
    refusals = Refusals(tasks, has_id=isinstance(batch.id, str))
    for index in range(len(tasks)):
        refusals.add(index, refused)
    return refusals.gathered()


class _Batch(Struct):
    id: Any = None
    tasks: Raw = Raw(b"[]")


class _Head(Struct):
    id: Any = None


def _id_of(data: bytes | Raw) -> TaskId | None:
    try:
        id = msgspec.json.decode(data, type=_Head).id
    except UNREADABLE:
        return None
    return TaskId(id) if isinstance(id, str) and is_uuid7(id) else None
