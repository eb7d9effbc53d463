"""A lease chooses which instance of a writer runs. Safety never rests on it: that is the fence of the log.

The bucket is a stream in the layout of a NATS key-value bucket, whose messages expire after the lease time. A key
holds the name of the instance that has it, or nothing once it was released. The stream is kept on disk: a single
server forgets a stream in memory, with its settings, when it restarts, and then nobody could take a lease again.
"""

from collections.abc import Callable
from typing import Protocol

from nats.aio.client import Client

from taskyard.contracts.values import Instant, seconds
from taskyard.eventlog.append import Patience
from taskyard.eventlog.errors import ApiRefused, EventLogError, Unanswered
from taskyard.eventlog.jetstream_api import (
    EXPECTED_LAST_SUBJECT_SEQUENCE,
    WRONG_LAST_SEQUENCE,
    WRONG_LAST_SEQUENCE_IN_FLIGHT,
    api_request,
    last_message,
    nanoseconds,
    publish,
    stream_info,
)

LEASE_SECONDS_DEFAULT = 5.0
"""How long a lease lives without renewal; the server may let it live a quarter of a second longer."""
CALL_SECONDS_MAX = 0.4
"""One request; a lease operation makes at most three and answers within 1.2 s, mostly within a millisecond."""
ENSURE_SECONDS_MAX = 30.0
_STREAM_NAME_IN_USE = 10058


class Lease(Protocol):
    """One instance's hold on one writer's lease. Every method answers soon; `False` means "not confirmed"."""

    async def try_acquire(self, instance: str) -> bool:
        """Take the lease for `instance` (a name that no other process ever bears) if it is free or already its own."""
        ...

    async def renew(self) -> bool:
        """Prolong the lease that was acquired. False: it is lost, or the server did not answer in time."""
        ...

    async def release(self) -> None:
        """Give the lease up at once, if it is held; else it expires by itself."""
        ...


async def ensure_leases(nc: Client, bucket: str, *, lease_seconds: float, replicas: int = 1) -> None:
    """Make the bucket, or give the existing one this lease time.

    Raises:
        LogUnavailable: JetStream did not answer for ENSURE_SECONDS_MAX.
        ApiRefused: JetStream refuses the bucket.
    """
    stream = _stream(bucket)
    age = nanoseconds(lease_seconds)
    config: dict[str, object] = {
        "name": stream,
        "subjects": [f"$KV.{bucket}.>"],
        "storage": "file",
        "retention": "limits",
        "num_replicas": replicas,
        "discard": "new",
        "max_age": age,
        "max_msgs_per_subject": 1,
        "max_msg_size": 1_024,
        "duplicate_window": min(age, nanoseconds(1)),
        "allow_rollup_hdrs": True,  # What clients expect of a key-value bucket.
    }
    patience = Patience(ENSURE_SECONDS_MAX)
    while True:
        try:
            await api_request(nc, f"STREAM.CREATE.{stream}", config)
            return
        except Unanswered as error:
            await patience.pause(error)
        except ApiRefused as refused:
            if refused.error_code != _STREAM_NAME_IN_USE:
                raise
            break
    found = (await stream_info(nc, stream)).config
    if found.get("max_age") != age:
        changes = {"max_age": age, "duplicate_window": config["duplicate_window"]}
        await api_request(nc, f"STREAM.UPDATE.{stream}", {**found, **changes})


async def read_holder(nc: Client, bucket: str, key: str) -> str | None:
    """Who holds the lease `key` of a bucket now; None for nobody.

    Raises:
        EventLogError: the bucket gave no answer, or is not there.
    """
    found = await last_message(nc, _stream(bucket), f"$KV.{bucket}.{key}", timeout=CALL_SECONDS_MAX)
    return found.data.decode(errors="replace") or None if found is not None else None


class JetStreamLease:
    """The lease `key` of a bucket made by `ensure_leases`."""

    def __init__(self, nc: Client, bucket: str, key: str) -> None:
        self._nc = nc
        self._stream = _stream(bucket)
        self._subject = f"$KV.{bucket}.{key}"
        self._value = b""
        self._revision = 0

    async def try_acquire(self, instance: str) -> bool:
        """Take the lease if it is free or its own: see `Lease`."""
        self._value = instance.encode()
        self._revision = 0
        return await self._claim()

    async def renew(self) -> bool:
        """Prolong the lease: see `Lease`."""
        # Without a revision the claim would create the key, that is acquire, which is not what a renewal is.
        return self._revision > 0 and await self._claim()

    async def release(self) -> None:
        """Give the lease up: see `Lease`."""
        revision, self._revision = self._revision, 0
        if revision:
            try:
                await self._put(b"", revision)
            except EventLogError:
                return  # It is another's by now, or it expires.

    async def _claim(self) -> bool:
        """Put the name at the known revision; where the key moved, only if it is free or bears the name already."""
        try:
            try:
                self._revision = await self._put(self._value, self._revision)
                return True
            except ApiRefused as refused:
                if refused.error_code not in {WRONG_LAST_SEQUENCE, WRONG_LAST_SEQUENCE_IN_FLIGHT}:
                    return False
            found = await last_message(self._nc, self._stream, self._subject, timeout=CALL_SECONDS_MAX)
            # An own put that was stored without an answer moves the key as well, hence the look at the name.
            if found is None or (found.data and found.data != self._value) or (self._revision and not found.data):
                self._revision = 0
                return False
            self._revision = await self._put(self._value, found.sequence)
            return True
        except EventLogError:
            return False

    async def _put(self, value: bytes, revision: int) -> int:
        headers = {EXPECTED_LAST_SUBJECT_SEQUENCE: str(revision)}
        return (await publish(self._nc, self._subject, value, headers=headers, timeout=CALL_SECONDS_MAX)).seq


class MemoryLeases:
    """A bucket in memory, shared by the `MemoryLease` of all instances; `clock` decides what has expired."""

    def __init__(self, clock: Callable[[], Instant], *, lease_seconds: float = LEASE_SECONDS_DEFAULT) -> None:
        self._clock = clock
        self._lease = seconds(lease_seconds)
        self._holders: dict[str, tuple[str, Instant]] = {}

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
        if not self._instance or self._leases.holder(self._key) != self._instance:
            return False
        self._leases.hold(self._key, self._instance)
        return True

    async def release(self) -> None:
        """Give the lease up: see `Lease`."""
        if self._instance and self._leases.holder(self._key) == self._instance:
            self._leases.free(self._key)
        self._instance = ""


def _stream(bucket: str) -> str:
    return f"KV_{bucket}"
