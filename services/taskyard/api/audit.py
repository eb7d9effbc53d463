"""Has stored whom a door denied what: a trace that nobody changes, in a stream of its own that drops its oldest.

Doors never wait for it. What cannot be stored after some tries stands in the program's log alone.
"""

import asyncio
import logging

import msgspec
from nats.aio.client import Client

from taskyard.contracts.audit import AccessDenied
from taskyard.contracts.subjects import audit_subject
from taskyard.eventlog.errors import EventLogError
from taskyard.eventlog.jetstream_api import publish

WAITING_MAX = 200
"""So many wait to be stored at most: some minutes' worth, since doors tell of no more than some in a minute."""
TRIES_MAX = 5
AGAIN_SECONDS = 2.0

_log = logging.getLogger(__name__)


class Audit:
    """What was noted and is yet to be stored, over the connection `nc` in the account of the log."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._waiting: asyncio.Queue[AccessDenied] = asyncio.Queue(WAITING_MAX)

    def note(self, denied: AccessDenied) -> None:
        """Have it stored soon."""
        try:
            self._waiting.put_nowait(denied)
        except asyncio.QueueFull:
            _log.warning("a denial is in no trace: too many wait to be stored")

    async def run(self) -> None:
        """Store what is noted, for ever."""
        while True:
            await self._store(await self._waiting.get())

    async def _store(self, denied: AccessDenied) -> None:
        subject, data = audit_subject(denied.door), msgspec.json.encode(denied)
        reason = ""
        for _ in range(TRIES_MAX):
            try:
                await publish(self._nc, subject, data)
            except EventLogError as error:
                reason = str(error)
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                return
        _log.warning("a denial is in no trace: it could not be stored", extra={"reason": reason})
