"""What a run leaves for whoever judges it: stored bytes, what really ran, and what doors heard."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class Ran:
    """One process of one attempt that really ran on a host, from `began` to `ended` in simulated seconds.

    `position` is of the assignment that it ran for.
    """

    host: str
    slot: int
    position: int
    task: str
    attempt: int
    kind: str
    apply: bool
    began: float
    ended: float | None = None


@dataclass(frozen=True, kw_only=True)
class Logged:
    """One message of the log: `at` is the stream's timestamp, `seconds` when it was really stored."""

    sequence: int
    at: int
    seconds: float
    writer: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One stored command."""

    sequence: int
    verb: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Told:
    """One answer that a door heard."""

    command: str
    code: int
    task: str | None
    position: int | None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All of it."""

    log: list[Logged]
    asked: list[Asked]
    ran: list[Ran]
    told: list[Told]
