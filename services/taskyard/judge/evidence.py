"""What a run leaves for whoever judges it: stored bytes, what really ran, what doors and readers heard."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from taskyard.contracts.values import SECOND, Instant


@dataclass(kw_only=True)
class Ran:
    """One process of one attempt that really ran on a host, from `began` to `ended` in seconds of one clock.

    `worker` is the name of the worker that ran it; None: that of the host.

    `ended` is when it was last seen to run; None means that it runs still. `position` is of the assignment that it ran
    for; None where the witness knows the attempt only, as it may know no `slot`.
    """

    host: str
    slot: int | None
    position: int | None
    task: str
    attempt: int
    kind: str
    apply: bool
    began: float
    ended: float | None = None
    worker: str | None = None


@dataclass(frozen=True, kw_only=True)
class Logged:
    """One message of the log: `at` is the stream's timestamp, `seconds` when it was really stored, by the witnesses' clock."""

    sequence: int
    at: int
    seconds: float
    writer: str
    data: bytes

    @classmethod
    def stored(cls, sequence: int, at: Instant, subject: str, data: bytes) -> Self:
        """A message as a server gives it that has the clock of the witnesses. The subject's last token is the writer."""
        return cls(sequence=sequence, at=at, seconds=at / SECOND, writer=subject.rpartition(".")[2], data=data)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One stored command of a `principal`.

    `stream` is the name of the cursor of its stream; None: there was only one. `is_gone` says that the stream was
    deleted, so that nobody need have decided it.
    """

    sequence: int
    verb: str
    data: bytes
    principal: str = ""
    stream: str | None = None
    is_gone: bool = False


@dataclass(frozen=True, kw_only=True)
class Reported:
    """One stored batch of a worker's reports. `stream` is as in `Asked`."""

    sequence: int
    worker: str
    data: bytes
    stream: str | None = None


@dataclass(kw_only=True)
class Cut:
    """The program of a worker ran without contact from `began` to `ended`, in the witnesses' seconds; None: it still does."""

    host: str
    began: float
    ended: float | None = None


@dataclass(kw_only=True)
class NoRoom:
    """The agent of a host knew from `began` to `ended`, in the witnesses' seconds, that its disk was full; None: it still is."""

    host: str
    began: float
    ended: float | None = None


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Something happened to a worker that may end what it runs, from `began` to `ended` in the witnesses' seconds."""

    worker: str
    began: float
    ended: float


@dataclass(frozen=True, kw_only=True)
class Told:
    """One answer that a door heard."""

    command: str
    code: int
    task: str | None
    position: int | None


@dataclass(frozen=True, kw_only=True)
class Noted:
    """What the journal of a worker notes of one slot: the highest assignment that it has seen, and what became of it.

    `end` names the type of the report that ended the attempt, None for one that was declined or has not ended.
    """

    worker: str
    slot: int
    position: int
    task: str
    attempt: int
    outcome: str
    end: str | None


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One task as the read model shows it. `types` are those of its history, without its worker's; None: not looked at."""

    id: str
    status: str
    attempt: int
    worker: str | None
    slot: int | None
    types: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All of it.

    `watched` are the tasks of which a witness would see every run in `ran`; None: all of the kinds that are in it.
    `accepted` are ids of tasks that a client was told were accepted. `shown` is the whole read model after it has read
    all of the log, None if nobody looked. `is_over` says that everything was given the time to end. `lied` has the tasks
    and attempts of which their own worker reported what was not so, which nobody could know: what ran of them proves
    nothing. `reported` are all stored reports, None if nobody looked. `knows` has the version of the log that an instance
    knows. `troubles` are all that happened to workers, None if nobody noted that: then nobody can tell which attempts were
    healthy. `cuts` are all times without contact, after `fenced_seconds` of which a worker has stopped what others may run.
    `no_room` are all times of full disks.
    """

    log: Iterable[Logged]
    asked: Sequence[Asked] = ()
    ran: Sequence[Ran] = ()
    watched: Collection[str] | None = None
    told: Sequence[Told] = ()
    accepted: Collection[str] = ()
    noted: Sequence[Noted] = ()
    shown: Sequence[Shown] | None = None
    is_over: bool = True
    lied: Collection[tuple[str, int]] = ()
    reported: Sequence[Reported] | None = None
    knows: Mapping[str, int] = field(default_factory=dict[str, int])
    troubles: Sequence[Trouble] | None = None
    cuts: Sequence[Cut] = ()
    fenced_seconds: float = 0.0
    no_room: Sequence[NoRoom] = ()
