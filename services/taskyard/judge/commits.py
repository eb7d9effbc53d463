"""Commits as stored: one after the other, each writer's in a chain of hashes under one leader at a time."""

from hashlib import blake2b

import msgspec
from msgspec import Raw, Struct

from taskyard.contracts.events import OWNERS, AnyEvent, UnknownEvent, decode_event, event_name
from taskyard.contracts.values import EVENTS_PER_COMMIT_MAX, Instant
from taskyard.judge.evidence import Logged
from taskyard.judge.faults import Faults, Rule

HASH_BYTES = 16
COMMIT_BYTES_MAX = 512 * 1024


class Commit(Struct, frozen=True):
    """A stored commit, read without the code that writes it."""

    writer: str
    instance: str
    epoch: int
    at: int
    previous: str = ""
    cursors: dict[str, int] = {}
    events: tuple[Raw, ...] = ()


class Takeover(Struct, frozen=True, kw_only=True):
    """An instance began to lead a writer, at this log time."""

    writer: str
    instance: str
    epoch: int
    at: Instant


_decode = msgspec.json.Decoder(Commit).decode


class Commits:
    """Follows the log. `head` is the last sequence, `at` the log time, which never goes back."""

    def __init__(self, faults: Faults) -> None:
        self.head = 0
        self.at = Instant(0)
        self.takeovers: list[Takeover] = []
        self._faults = faults
        self._digest = blake2b(digest_size=HASH_BYTES)
        self._chains: dict[str, tuple[int, str]] = {}
        self._leaders: dict[tuple[str, int], str] = {}

    @property
    def digest(self) -> str:
        """A digest of all bytes and times so far."""
        return self._digest.hexdigest()

    def see(self, logged: Logged) -> tuple[Commit, list[AnyEvent | UnknownEvent]] | None:
        """The next commit and its events; None for bytes that are no commit."""
        where = f"commit {logged.sequence} of {logged.writer}"
        self._require(logged.sequence == self.head + 1, f"{where} follows {self.head}")
        self.head = logged.sequence
        self.at = self._faults.at = Instant(max(self.at, logged.at))
        self._digest.update(logged.data + str(logged.at).encode())
        try:
            commit = _decode(logged.data)
        except msgspec.DecodeError as error:
            self._faults.add(Rule.LOG, f"{where} cannot be read: {error}")
            return None
        self._link(commit, logged, where)
        count, size = len(commit.events), len(logged.data)
        is_fit = count <= EVENTS_PER_COMMIT_MAX and size <= COMMIT_BYTES_MAX
        self._faults.require(is_fit, Rule.SIZE, f"{where} has {count} events in {size} bytes")
        events = [decode_event(raw) for raw in commit.events]
        owned = OWNERS.get(commit.writer, ())
        for event in events:
            is_owned = not isinstance(event, UnknownEvent) and isinstance(event, owned)
            self._require(is_owned, f"{where} holds a {event_name(event)}")
        return commit, events

    def _link(self, commit: Commit, logged: Logged, where: str) -> None:
        self._require(commit.writer == logged.writer, f"{where} bears the name {commit.writer}")
        epoch, hash_before = self._chains.get(commit.writer, (0, ""))
        self._require(commit.previous == hash_before, f"{where} names {commit.previous!r} and follows {hash_before!r}")
        self._require(commit.epoch >= epoch, f"{where} has epoch {commit.epoch} after {epoch}")
        if commit.epoch != epoch:
            self._require(not commit.events, f"{where} takes over and decides at once")
            self.takeovers.append(
                Takeover(writer=commit.writer, instance=commit.instance, epoch=commit.epoch, at=self.at)
            )
        leader = self._leaders.setdefault((commit.writer, commit.epoch), commit.instance)
        self._require(leader == commit.instance, f"{where} is {commit.instance}'s in the epoch of {leader}")
        hashed = blake2b(logged.data, digest_size=HASH_BYTES).hexdigest()
        self._chains[commit.writer] = (commit.epoch, hashed)

    def _require(self, holds: bool, text: str) -> None:
        self._faults.require(holds, Rule.LOG, text)
