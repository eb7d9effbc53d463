"""Whether a log is whole: nothing missing, nothing altered, no leader overtaken by a former one. Pure."""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from taskyard.contracts.events import AnyEvent, UnknownEvent, decode_event
from taskyard.eventlog.commit import CommitCodec, hash_commit
from taskyard.eventlog.errors import CommitUnreadable
from taskyard.eventlog.log import StreamMessage

BREAKS_SHOWN_MAX = 100


class Break(Struct, frozen=True, kw_only=True):
    """Something that is not as it should be, at a commit."""

    sequence: int
    writer: str
    what: str


class Chain(Struct, kw_only=True):
    """What was seen of one writer: its commits, and the last one's sequence, epoch and hash."""

    writer: str
    commits: int = 0
    events: int = 0
    epoch: int = 0
    first: int = 0
    last: int = 0
    hash: str = ""


class Verification:
    """Looks at the messages of a log in their order. `found` counts breaks, `breaks` keeps the first of them."""

    def __init__(self) -> None:
        self.chains: dict[str, Chain] = {}
        self.breaks: list[Break] = []
        self.found = 0
        self.unknown_events = 0
        self.last = 0
        self._codec: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)

    def see(self, messages: Iterable[StreamMessage]) -> None:
        """Look at the next messages."""
        for message in messages:
            self._see(message)

    def end(self, head: int) -> None:
        """The log says that it ends at the sequence `head`."""
        if self.last < head:
            self._report(head, "", f"commits {self.last + 1} to {head} are missing at the end")

    @property
    def commits(self) -> int:
        """How many commits were seen."""
        return sum(chain.commits for chain in self.chains.values())

    @property
    def events(self) -> int:
        """How many events they held."""
        return sum(chain.events for chain in self.chains.values())

    def _see(self, message: StreamMessage) -> None:
        if message.sequence != self.last + 1:
            self._report(message.sequence, "", f"commits {self.last + 1} to {message.sequence - 1} are missing")
        self.last = message.sequence
        writer = message.subject.rpartition(".")[2]
        chain = self.chains.setdefault(writer, Chain(writer=writer, first=message.sequence))
        try:
            stored = self._codec.decode_stored(
                sequence=message.sequence, at=message.at, data=message.data, writer=writer
            )
        except CommitUnreadable as error:
            self._report(message.sequence, writer, f"not readable: {error}")
        else:
            commit = stored.commit
            if commit.previous != chain.hash:
                self._report(message.sequence, writer, _unchained(commit.previous, chain))
            if commit.epoch < chain.epoch:
                self._report(message.sequence, writer, f"epoch {commit.epoch} after epoch {chain.epoch}")
            chain.epoch = max(chain.epoch, commit.epoch)
            chain.events += len(commit.events)
            self.unknown_events += sum(isinstance(event, UnknownEvent) for event in commit.events)
        chain.commits += 1
        chain.last = message.sequence
        chain.hash = hash_commit(message.data)

    def _report(self, sequence: int, writer: str, what: str) -> None:
        self.found += 1
        if len(self.breaks) < BREAKS_SHOWN_MAX:
            self.breaks.append(Break(sequence=sequence, writer=writer, what=what))


def _unchained(previous: str, chain: Chain) -> str:
    if not chain.hash:
        return f"names {previous} as the commit before, but is the writer's first"
    named = previous or "none"
    return f"names {named} as the commit before, which at {chain.last} is {chain.hash}"
