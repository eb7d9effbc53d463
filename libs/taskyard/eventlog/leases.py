"""A lease chooses which instance of a writer runs. Safety never rests on it: that is the fence of the log.

The bucket is a stream in the layout of a NATS key-value bucket, whose messages expire after the lease time. A key
holds the name of the instance that has it, or nothing once it was released. The stream is kept on disk: a single
server forgets a stream in memory, with its settings, when it restarts, and then nobody could take a lease again.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Protocol

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error

from taskyard.contracts.values import Instant, seconds
from taskyard.eventlog.errors import ApiRefused, EventLogError, LeaseLost
from taskyard.eventlog.jetstream_api import (
    EXPECTED_LAST_SUBJECT_SEQUENCE,
    WRONG_LAST_SEQUENCE,
    WRONG_LAST_SEQUENCE_IN_FLIGHT,
    StoredMessage,
    last_message,
    nanoseconds,
    publish,
)
from taskyard.eventlog.streams import ensure_made, more_replicas

LEASE_SECONDS_DEFAULT = 5.0
"""How long a lease lives without renewal; the server may let it live a quarter of a second longer."""
CALL_SECONDS_MAX = 0.4
"""One request; a lease operation makes at most three and answers within 1.2 s, mostly within a millisecond."""
RENEWALS_PER_LEASE = 3
SILENCE_SECONDS_MAX = 12.0
"""How long a holder goes on while nobody answers about its lease: longer than the 4 to 9 s of a leader election."""
FREED_RETRY_SECONDS = 0.02
FREED_SECONDS = 1.0
"""For so long after a release was heard of the lease is asked for in quick succession: it is told before it is stored."""


class Lease(Protocol):
    """One instance's hold on one writer's lease. Every method but `until_free` answers soon."""

    async def try_acquire(self, instance: str) -> bool:
        """Take the lease for `instance` (a name that no other process ever bears) if it is free or already its own.

        False: it is another's, or nobody answered.
        """
        ...

    async def renew(self) -> bool:
        """Prolong the lease that was acquired; also one that has expired, if nobody took it. False: it is lost.

        Raises:
            EventLogError: nobody answered in time. It may still be held.
        """
        ...

    async def release(self) -> None:
        """Give the lease up at once, if it is held; else it expires by itself."""
        ...

    async def until_free(self, seconds_max: float) -> None:
        """Wait before `try_acquire` again: until the lease was given up, and for `seconds_max` at most."""
        ...


async def work_with_lease(lease: Lease, lease_seconds: float, work: Coroutine[Any, Any, object]) -> None:
    """Do `work` for as long as the lease, which was acquired, is held; both have ended when this comes back.

    Raises:
        LeaseLost: another has it, or nobody answered for SILENCE_SECONDS_MAX.
        Exception: whatever the work raises.
    """
    working = asyncio.create_task(work)
    keeping = asyncio.create_task(_keep_lease(lease, lease_seconds))
    try:
        await asyncio.wait((working, keeping), return_when=asyncio.FIRST_COMPLETED)
        for task in (working, keeping):  # the work first: what went wrong in it must not pass for a lost lease
            if task.done():
                task.result()
    finally:
        for task in (working, keeping):
            task.cancel()
        await asyncio.gather(working, keeping, return_exceptions=True)


async def _keep_lease(lease: Lease, lease_seconds: float) -> None:
    """Renew the lease for as long as it is held. Silence is no loss: nobody else is answered either."""
    kept_at = time.monotonic()
    while True:
        await asyncio.sleep(lease_seconds / RENEWALS_PER_LEASE)
        asked_at = time.monotonic()
        try:
            if not await lease.renew():
                raise LeaseLost("another instance has the lease")
            kept_at = asked_at
        except LeaseLost:
            raise
        except EventLogError as error:
            if time.monotonic() - kept_at > max(SILENCE_SECONDS_MAX, lease_seconds):
                raise LeaseLost("nobody answers about the lease") from error


async def ensure_leases(nc: Client, bucket: str, *, lease_seconds: float, replicas: int = 1) -> None:
    """Make the bucket, or give the existing one this lease time, and as many replicas at least.

    Raises:
        LogUnavailable: JetStream did not answer, or has no room for so many replicas, for ENSURE_SECONDS_MAX.
        ApiRefused: JetStream refuses the bucket.
    """
    stream = leases_stream(bucket)
    age = nanoseconds(lease_seconds)
    times: dict[str, object] = {"max_age": age, "duplicate_window": min(age, nanoseconds(1))}
    config: dict[str, object] = {
        "name": stream,
        "subjects": [f"$KV.{bucket}.>"],
        "storage": "file",
        "retention": "limits",
        "num_replicas": replicas,
        "discard": "new",
        "max_msgs_per_subject": 1,
        "max_msg_size": 1_024,
        "allow_rollup_hdrs": True,  # What clients expect of a key-value bucket.
        **times,
    }

    def changes(found: Mapping[str, object]) -> dict[str, object]:
        return {**(times if found.get("max_age") != age else {}), **more_replicas(found, replicas)}

    await ensure_made(nc, config, changes)


async def read_holder(nc: Client, bucket: str, key: str) -> str | None:
    """Who holds the lease `key` of a bucket now; None for nobody.

    Raises:
        EventLogError: the bucket gave no answer, or is not there.
    """
    found = await last_message(nc, leases_stream(bucket), f"$KV.{bucket}.{key}", timeout=CALL_SECONDS_MAX)
    return found.data.decode(errors="replace") or None if found is not None else None


class JetStreamLease:
    """The lease `key` of a bucket made by `ensure_leases`."""

    def __init__(self, nc: Client, bucket: str, key: str) -> None:
        self._nc = nc
        self._stream = leases_stream(bucket)
        self._subject = f"$KV.{bucket}.{key}"
        self._value = b""
        self._revision = 0
        self._is_listening = False
        self._freed = asyncio.Event()
        self._freed_at = float("-inf")

    async def try_acquire(self, instance: str) -> bool:
        """Take the lease if it is free or its own: see `Lease`."""
        self._value = instance.encode()
        self._revision = 0
        try:
            return await self._claim()
        except EventLogError:
            return False

    async def renew(self) -> bool:
        """Prolong the lease: see `Lease`."""
        # Without a revision the claim would take a lease that was given up, which is not what a renewal is.
        return self._revision > 0 and await self._claim()

    async def release(self) -> None:
        """Give the lease up: see `Lease`."""
        revision, self._revision = self._revision, 0
        if not revision:
            return
        # It is another's by now, or it expires.
        with suppress(EventLogError):
            try:
                await self._put(b"", revision)
            except ApiRefused:
                # A renewal that was cut off before its answer came has moved the key.
                found = await self._last()
                if found is not None and found.data == self._value:
                    await self._put(b"", found.sequence)

    async def until_free(self, seconds_max: float) -> None:
        """Wait until the lease was given up: see `Lease`."""
        if time.monotonic() - self._freed_at < FREED_SECONDS:
            await asyncio.sleep(FREED_RETRY_SECONDS)
            return
        await self._listen()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds_max):
                await self._freed.wait()
        self._freed.clear()

    async def _listen(self) -> None:
        if self._is_listening:
            return
        # What is stored is an ordinary message too. It may be lost on the way: then the lease is asked for all the same.
        with suppress(Error, OSError):
            await self._nc.subscribe(self._subject, cb=self._hear)
            self._is_listening = True

    async def _hear(self, message: Msg) -> None:
        if message.data:
            self._freed_at = float("-inf")
        else:
            self._freed_at = time.monotonic()
            self._freed.set()

    async def _claim(self) -> bool:
        """Put the name at the known revision; where the key moved, only if it is free or bears the name already.

        Raises `EventLogError`: nobody answered, and the lease may be held.
        """
        try:
            self._revision = await self._put(self._value, self._revision)
            return True
        except ApiRefused as refused:
            if refused.error_code not in {WRONG_LAST_SEQUENCE, WRONG_LAST_SEQUENCE_IN_FLIGHT}:
                raise
        found = await self._last()
        # An own put that was stored without an answer moves the key as well, hence the look at the name.
        is_given_up = found is not None and not found.data
        if (found is not None and found.data and found.data != self._value) or (self._revision and is_given_up):
            self._revision = 0
            return False
        self._revision = await self._put(self._value, found.sequence if found is not None else 0)
        return True

    async def _last(self) -> StoredMessage | None:
        return await last_message(self._nc, self._stream, self._subject, timeout=CALL_SECONDS_MAX)

    async def _put(self, value: bytes, revision: int) -> int:
        headers = {EXPECTED_LAST_SUBJECT_SEQUENCE: str(revision)}
        return (await publish(self._nc, self._subject, value, headers=headers, timeout=CALL_SECONDS_MAX)).seq


class MemoryLeases:
    """A bucket in memory, shared by the `MemoryLease` of all instances; `clock` decides what has expired."""

    def __init__(self, clock: Callable[[], Instant], *, lease_seconds: float = LEASE_SECONDS_DEFAULT) -> None:
        self._clock = clock
        self._lease = seconds(lease_seconds)
        self._holders: dict[str, tuple[str, Instant]] = {}
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def holder(self, key: str) -> str | None:
        """The instance that holds a lease now."""
        name, until = self._holders.get(key, ("", Instant(0)))
        return name if self._clock() < until else None

    def hold(self, key: str, instance: str) -> None:
        """Let `instance` hold the lease for a lease time from now."""
        self._holders[key] = (instance, Instant(self._clock() + self._lease))

    def free(self, key: str) -> None:
        """End the lease at once."""
        self._holders.pop(key, None)
        for freed in self._waiting.pop(key, ()):
            freed.set()

    async def until_free(self, key: str, seconds_max: float) -> None:
        """Wait until somebody frees the lease, for `seconds_max` at most."""
        freed = asyncio.Event()
        self._waiting[key].add(freed)
        try:
            async with asyncio.timeout(seconds_max):
                await freed.wait()
        except TimeoutError:
            self._waiting[key].discard(freed)


class MemoryLease:
    """The twin of `JetStreamLease`."""

    def __init__(self, leases: MemoryLeases, key: str) -> None:
        self._leases = leases
        self._key = key
        self._instance = ""

    async def try_acquire(self, instance: str) -> bool:
        """Take the lease if it is free or its own: see `Lease`."""
        self._instance = instance
        if self._leases.holder(self._key) not in {None, instance}:
            return False
        self._leases.hold(self._key, instance)
        return True

    async def renew(self) -> bool:
        """Prolong the lease: see `Lease`."""
        if not self._instance or self._leases.holder(self._key) not in {None, self._instance}:
            self._instance = ""
            return False
        self._leases.hold(self._key, self._instance)
        return True

    async def release(self) -> None:
        """Give the lease up: see `Lease`."""
        if self._instance and self._leases.holder(self._key) == self._instance:
            self._leases.free(self._key)
        self._instance = ""

    async def until_free(self, seconds_max: float) -> None:
        """Wait until the lease was given up: see `Lease`."""
        await self._leases.until_free(self._key, seconds_max)


def leases_stream(bucket: str) -> str:
    """The stream that holds a bucket of leases."""
    return f"KV_{bucket}"
