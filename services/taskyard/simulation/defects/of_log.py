"""Defects of the log: its fence, and how the outcome of an append is learnt."""

# pyright: reportPrivateUsage=none

from typing import Any

import taskyard.simulation.appending as appending
from taskyard.eventlog.append import AppendRejected
from taskyard.eventlog.errors import FenceMoved, Unanswered
from taskyard.eventlog.memory import MemoryStream
from taskyard.machine.core import Role
from taskyard.simulation.defects.patching import Replace
from taskyard.simulation.instance import Instance


def _no_fence(replace: Replace) -> None:
    """The log stores whatever a stale leader appends."""
    store = MemoryStream.store

    def unfenced(self: MemoryStream, subject: str, data: bytes, *, headers: Any = None, **_: Any) -> int:
        return store(self, subject, data, headers=headers)

    replace(MemoryStream, "store", unfenced)


def _fence_moved_is_stored(replace: Replace) -> None:
    """A refusal after silence is taken for the answer to an own earlier try, without a look at what stands there."""
    resolve = appending.append_resolved

    async def careless(appender: Any, data: bytes, **more: Any) -> int:
        try:
            return await resolve(appender, data, **more)
        except FenceMoved as error:
            return error.actual

    replace(appending, "append_resolved", careless)


def _refusal_is_loss(replace: Replace) -> None:
    """A refusal by the fence is believed at once, though an own earlier try may be what moved it."""

    async def careless(appender: Any, data: bytes, *, writer: str, expected: int, **_: Any) -> int:
        while True:
            try:
                return await appender.try_append(data, writer=writer, expected=expected)
            except AppendRejected as error:
                raise FenceMoved(writer=writer, expected=expected, actual=0) from error
            except Unanswered:
                continue

    replace(appending, "append_resolved", careless)


def _silence_is_no(replace: Replace) -> None:
    """An append without an answer counts as not stored: it is forgotten, and the next decision is made."""
    append_failed = Instance._append_failed

    async def careless(appender: Any, data: bytes, *, writer: str, expected: int, **_: Any) -> int:
        return await appender.try_append(data, writer=writer, expected=expected)

    def goes_on(self: Any, error: Exception) -> None:
        if self.core.role is not Role.LEADER or isinstance(error, FenceMoved | AppendRejected):
            append_failed(self, FenceMoved(writer="", expected=0, actual=0))
            return
        self._append, self.core._in_flight = None, False
        self._wake()

    replace(appending, "append_resolved", careless)
    replace(Instance, "_append_failed", goes_on)


DEFECTS = {
    "no-fence": _no_fence,
    "fence-moved-is-stored": _fence_moved_is_stored,
    "refusal-is-loss": _refusal_is_loss,
    "silence-is-no": _silence_is_no,
}
