"""What a supervisor has: attempts, their programs, and the streams of those."""

import os

from taskyard.agent.supervisor.keepers import Keeper
from taskyard.agent.supervisor.protocol import AttemptState, Open, ProgramState
from taskyard.agent.supervisor.spool import Spool


class Stream:
    """One pipe of a program and its spool."""

    def __init__(self, reader: int, spool: Spool) -> None:
        self.reader = reader
        self.spool = spool
        self.is_open = True


class Program:
    """A program from the making of its process until the attempt is forgotten."""

    def __init__(self, attempt: int, step: str, streams: list[Stream], gate: int, stop_signal: int) -> None:
        self.attempt = attempt
        self.step = step
        self.streams = streams
        self.gate: int | None = gate
        self.stop_signal = stop_signal
        self.keeper: Keeper | None = None
        self.pid = 0
        self.start_ticks = 0
        self.has_begun = False
        self.exit_status: int | None = None
        self.ended_at: float | None = None
        self.is_over = False

    @property
    def state(self) -> ProgramState:
        """What is told of it."""
        first, second = (one.spool.kept for one in self.streams)
        return ProgramState(
            step=self.step,
            pid=self.pid,
            start_ticks=self.start_ticks,
            has_begun=self.has_begun,
            status=self.exit_status if self.is_over else None,
            kept=(first, second),
        )

    def close_gate(self) -> None:
        """Not opened, nothing of it will ever run."""
        if self.gate is not None:
            os.close(self.gate)
            self.gate = None


class Attempt:
    """An attempt from its beginning until it is forgotten. `now` is the supervisor's clock."""

    def __init__(self, asked: Open, now: float) -> None:
        self.asked = asked
        self.ends_at = now + asked.seconds_left
        self.sent = b""
        self.stopped: bytes | None = None
        self.timed_out = False
        self.is_forgotten = False
        self.programs: dict[str, Program] = {}

    @property
    def may_begin(self) -> bool:
        """Whether a program of it may run."""
        return self.stopped is None and not self.timed_out and not self.is_forgotten

    @property
    def running(self) -> list[Program]:
        """Those of its programs of which something lives, or is not read yet."""
        return [one for one in self.programs.values() if not one.is_over]

    def state(self, now: float) -> AttemptState:
        """What is told of it."""
        return AttemptState(
            attempt=self.asked.attempt,
            note=self.asked.note,
            seconds_left=self.ends_at - now,
            sent=self.sent,
            stopped=self.stopped,
            timed_out=self.timed_out,
            programs=tuple(one.state for one in self.programs.values()),
        )
