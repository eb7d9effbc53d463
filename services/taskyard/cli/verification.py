"""Whether a log is whole: nothing missing, nothing altered, no leader overtaken by a former one. Pure."""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from taskyard.contracts.events import LOG_VERSION, OWNERS, AnyEvent, UnknownEvent, decode_event, event_name
from taskyard.eventlog.commit import Commit, CommitCodec, hash_commit
from taskyard.eventlog.errors import CommitUnreadable
from taskyard.eventlog.log import StreamMessage
from taskyard.eventlog.versions import FIRST_VERSION, active_version

BREAKS_SHOWN_MAX = 100

MISSING = "commits were lost: what was folded behind them may be wrong; restore the log from an archive or a mirror"
UNREADABLE = "this is no commit: the disk damaged it, or something else than a service wrote there"
UNCHAINED = "the writer's commit before was altered, lost, or put in by somebody else"
OVERTAKEN = "a leader that was already replaced wrote on: the fence did not hold"
REWOUND = "an input stream lost its end and was read again: its server lost what it had acknowledged"
FOREIGN = "a writer appended what only another one may: that program is not ours, or has a bug"


class Break(Struct, frozen=True, kw_only=True):
    """Something that is not as it should be, at a commit. `what` was found there, and `meaning` is what that means."""

    sequence: int
    writer: str
    what: str
    meaning: str


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
    """Looks at the messages of a log in their order. `found` counts breaks, `breaks` keeps the first of them.

    `after` is the sequence before the first message. What lies there is not known, so a writer's first commit behind it
    may name any commit before.
    """

    def __init__(self, after: int = 0) -> None:
        self.chains: dict[str, Chain] = {}
        self.breaks: list[Break] = []
        self.found = 0
        self.unknown_events = 0
        self.version = FIRST_VERSION
        self.first = after + 1
        self.last = after
        self._cursors: dict[str, int] = {}
        self._codec: CommitCodec[Any] = CommitCodec(AnyEvent, decode_event)

    def see(self, messages: Iterable[StreamMessage]) -> None:
        """Look at the next messages."""
        for message in messages:
            self._see(message)

    def end(self, head: int) -> None:
        """The log says that it ends at the sequence `head`."""
        if self.last < head:
            self._report(head, "", f"commits {self.last + 1} to {head} are missing at the end", MISSING)

    @property
    def commits(self) -> int:
        """How many commits were seen."""
        return sum(chain.commits for chain in self.chains.values())

    @property
    def events(self) -> int:
        """How many events they held."""
        return sum(chain.events for chain in self.chains.values())

    @property
    def is_version_known(self) -> bool:
        """Whether this program knows what the log means at its end."""
        return self.version <= LOG_VERSION

    def _see(self, message: StreamMessage) -> None:
        if message.sequence != self.last + 1:
            what = f"commits {self.last + 1} to {message.sequence - 1} are missing"
            self._report(message.sequence, "", what, MISSING)
        self.last = message.sequence
        writer = message.subject.rpartition(".")[2]
        chain = self.chains.setdefault(writer, Chain(writer=writer, first=message.sequence))
        try:
            stored = self._codec.decode_stored(
                sequence=message.sequence, at=message.at, data=message.data, writer=writer
            )
        except CommitUnreadable as error:
            self._report(message.sequence, writer, f"not readable: {error}", UNREADABLE)
        else:
            self._see_commit(message.sequence, stored.commit, chain)
        chain.commits += 1
        chain.last = message.sequence
        chain.hash = hash_commit(message.data)

    def _see_commit(self, sequence: int, commit: Commit[Any], chain: Chain) -> None:
        if commit.previous != chain.hash and not (self.first > 1 and not chain.commits):
            self._report(sequence, chain.writer, _unchained(commit.previous, chain), UNCHAINED)
        if commit.epoch < chain.epoch:
            self._report(sequence, chain.writer, f"epoch {commit.epoch} after epoch {chain.epoch}", OVERTAKEN)
        for stream, reached in commit.cursors.items():
            if reached < self._cursors.get(stream, 0):
                what = f"cursor of {stream} goes back from {self._cursors[stream]} to {reached}"
                self._report(sequence, chain.writer, what, REWOUND)
            self._cursors[stream] = reached
        chain.epoch = max(chain.epoch, commit.epoch)
        chain.events += len(commit.events)
        self._see_events(sequence, commit)

    def _see_events(self, sequence: int, commit: Commit[Any]) -> None:
        # A writer that this version does not know may append what it likes.
        own = OWNERS.get(commit.writer)
        for event in commit.events:
            if isinstance(event, UnknownEvent):
                self.unknown_events += 1
            elif own is not None and not isinstance(event, own):
                self._report(sequence, commit.writer, f"holds a {event_name(event)}, which is another's", FOREIGN)
        self.version = max(self.version, active_version(commit.events) or 0)

    def _report(self, sequence: int, writer: str, what: str, meaning: str) -> None:
        self.found += 1
        if len(self.breaks) < BREAKS_SHOWN_MAX:
            self.breaks.append(Break(sequence=sequence, writer=writer, what=what, meaning=meaning))


def _unchained(previous: str, chain: Chain) -> str:
    if not chain.hash:
        return f"names {previous} as the commit before, but is the writer's first"
    named = previous or "none"
    return f"names {named} as the commit before, which at {chain.last} is {chain.hash}"
