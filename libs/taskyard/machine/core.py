"""The rules of the loop, without I/O and without a clock.

They are the protocol's safety:
- State changes only by folding stored commits in log order, gap-free.
- An instance decides only as leader: after it has folded the epoch that it appended itself, and after it has folded its
  own last commit. One append is in flight at a time.
- Every append is fenced by the sequence of the writer's last commit as folded here. Whoever takes over appends an epoch
  first and so moves the fence: a stale leader's append is refused, and it steps down.
- An instance that folds another's epoch of its writer stops deciding at that position.
- Cursors in commits name the last input accounted for; a new leader goes on behind them.
- No input ends a service (`deciding.py`).
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

from taskyard.contracts.values import Instant, Position, positions_of, seconds
from taskyard.eventlog.commit import Commit, CommitCodec, StoredCommit
from taskyard.eventlog.log import CURSOR_SEPARATOR
from taskyard.machine.deciding import Append, Deciding
from taskyard.machine.inputs import INPUTS_WAITING_MAX, Inputs, Offered
from taskyard.machine.machine import Decision, Fault, Machine

InputT = TypeVar("InputT")
EffectT = TypeVar("EffectT")

CLOCK_BACK_SECONDS = 2.0
"""A log whose time is found to be so much behind this leader's own has a clock that was set back. It may also be that much
late to be followed, and then looking at everything anew is the right thing too, but must not happen often."""
CLOCK_STEP_SECONDS = 2.0
"""A commit that the log stored so much later than its author's time has a clock that was set forward."""


EFFECTS_AGAIN_SECONDS = 60.0
"""A machine that raises where it is asked for effects as a whole is asked for them again after this."""
LOOKS_AGAIN_SECONDS = 1.0
"""A leader whose machine cannot say when to be asked again asks it so often."""

Apply = Callable[[Any, Instant, Position], None]
"""Folds one event."""


class ProtocolViolation(Exception):
    """The log or a machine broke a rule that the loop stands on. The program must stop; its successor folds again."""


class Role(Enum):
    """What this instance is to its writer."""

    STANDBY = "standby"
    TAKING_OVER = "taking over"
    LEADER = "leader"


class SavedLoop(Struct, frozen=True, kw_only=True):
    """The loop's own part of a snapshot."""

    sequence: int
    log_time: Instant
    writer_sequence: int
    writer_hash: str
    epoch: int
    cursors: dict[str, int]
    steps: tuple[tuple[Instant, int], ...] = ()


class Observer(Protocol):
    """Watches what a leader folds, to tell of it. It changes nothing; what it raises is told, and costs no event its fold."""

    def lead(self) -> None:
        """This instance leads from now on."""
        ...

    def applying(self, apply: Apply, *, is_own: bool) -> Apply:
        """What to fold the events of the next commit with: it calls `apply` once for each event, and looks before and
        after. `is_own` says whether the commit is this machine's writer's.
        """
        ...


class LoopCore(Generic[InputT, EffectT]):
    """One instance of one machine. All times given to it are monotonic seconds of the caller.

    `observers` watch the fold while this instance leads.
    """

    def __init__(self, machine: Machine[InputT, EffectT], codec: CommitCodec[Any], instance: str) -> None:
        self.machine = machine
        self.instance = instance
        self.role = Role.STANDBY
        self.folded = 0
        self.epoch = 0
        self.cursors: dict[str, int] = {}
        self.log_time = Instant(0)
        self.commits_folded = 0
        self.events_folded = 0
        self.observers: Sequence[Observer] = ()
        self._codec = codec
        self._writer_sequence = 0
        self._writer_hash = ""
        self._log_time_read_at = 0.0
        self._now = Instant(0)
        self._inputs: Inputs[InputT] = Inputs()
        self._deciding = Deciding(machine, self._inputs)
        self._in_flight = False
        self._own_last = 0
        self._faults: list[Fault] = []
        self._effects_again = Instant(0)

    # -- folding -------------------------------------------------------------------------------------------------------

    def fold(self, stored: StoredCommit[Any], monotonic: float) -> None:
        """Fold the next commit of the log.

        Raises:
            ProtocolViolation: it is not the next one.
        """
        if self.folded and stored.sequence != self.folded + 1:
            raise ProtocolViolation(f"commit {stored.sequence} came after {self.folded}")
        self.folded = stored.sequence
        self._notice_step(stored)
        self.log_time = Instant(max(self.log_time, stored.at))
        self._log_time_read_at = monotonic
        commit = stored.commit
        if commit.writer == self.machine.writer:
            self._fold_own(stored)
        apply, at = self._apply(commit.writer), self.log_time
        for event, position in zip(commit.events, positions_of(stored.sequence), strict=False):
            apply(event, at, position)
        self.commits_folded += 1
        self.events_folded += len(commit.events)
        if self.role is Role.TAKING_OVER and stored.sequence == self._own_last:
            self._begin_to_lead(monotonic)

    def _apply(self, writer: str) -> Apply:
        apply: Apply = self.machine.apply
        if self.observers and self.role is Role.LEADER:
            for observer in self.observers:
                apply = self._watched(observer, apply, is_own=writer == self.machine.writer)
        return apply

    def _watched(self, observer: Observer, apply: Apply, *, is_own: bool) -> Apply:
        """Fold under the eyes of an observer. Whatever it does, each event is folded once; what folding raises goes on."""
        is_begun = is_folded = False

        def fold(event: Any, at: Instant, position: Position) -> None:
            nonlocal is_begun, is_folded
            is_begun = True
            apply(event, at, position)
            is_folded = True

        try:
            watch = observer.applying(fold, is_own=is_own)
        except Exception as error:  # noqa: BLE001 - who looks on must not stop what it looks at
            self._faults.append(_fault_of(observer, error))
            return apply

        def watched(event: Any, at: Instant, position: Position) -> None:
            nonlocal is_begun, is_folded
            is_begun = is_folded = False
            try:
                watch(event, at, position)
            except Exception as error:
                if is_begun and not is_folded:
                    raise  # a fold that failed halfway cannot be trusted any more
                self._faults.append(_fault_of(observer, error))
                if not is_begun:
                    apply(event, at, position)

        return watched

    def _fold_own(self, stored: StoredCommit[Any]) -> None:
        commit = stored.commit
        self._writer_sequence = stored.sequence
        self._writer_hash = stored.hash
        # Not the greatest: a cursor goes back where its stream lost messages and was read again.
        self.cursors.update(commit.cursors)
        if commit.epoch > self.epoch:
            self.epoch = commit.epoch
            if commit.instance != self.instance:
                self.step_down()

    # -- leadership ----------------------------------------------------------------------------------------------------

    def take_over(self, monotonic: float) -> Append:
        """The epoch that makes this instance the leader once it is stored and folded."""
        self.role = Role.TAKING_OVER
        self._in_flight = True
        return self._append([], self.epoch + 1, {}, monotonic)

    def step_down(self) -> None:
        """Stop deciding and acting; go on folding."""
        self.role = Role.STANDBY
        self._in_flight = False
        self._inputs.clear()
        self.machine.deadlines.look_anew()
        self.machine.stand_by()

    def _begin_to_lead(self, monotonic: float) -> None:
        self.role = Role.LEADER
        self._inputs.taken = dict(self.cursors)
        for observer in self.observers:
            try:
                observer.lead()
            except Exception as error:  # noqa: BLE001 - who looks on must not stop who leads
                self._faults.append(_fault_of(observer, error))
        self._effects_again = Instant(0)
        self._now = Instant(0)  # what this instance took for the time while it did not lead binds nobody
        self.machine.deadlines.look_anew()
        self.machine.lead(self.now(monotonic))

    # -- inputs --------------------------------------------------------------------------------------------------------

    def offer(self, offered: Offered[InputT]) -> None:
        """Let an input wait for the next decision. Only a leader takes inputs."""
        if self.role is Role.LEADER:
            self._inputs.offer(offered)

    def begin_to_read(self, stream: str, name: str) -> int:
        """The sequence in the stream `stream` behind which its next input stands; its cursor bears `name`.

        The name tells this very stream from another one that was there before under the same name, of which nothing
        counts. Logs of the first version name the stream alone; such a cursor is taken over once.
        """
        taken = self._inputs.taken
        plain = 0 if self.former_cursors(stream, name) else taken.get(stream, 0)
        return taken.setdefault(name, plain)

    def former_cursors(self, stream: str, name: str) -> list[str]:
        """The cursors of streams that bore the name `stream` and are gone: those that are not `name`."""
        return [other for other in self.cursors if other.startswith(stream + CURSOR_SEPARATOR) and other != name]

    def read_again(self, name: str) -> None:
        """The stream lost its end and is read again from its start: inputs are told apart by their own ids."""
        self._inputs.read_again(name)

    @property
    def waits_for_inputs(self) -> bool:
        """Whether a deadline is due that is judged once it is told with `inputs_read` what was stored before it."""
        return self.role is Role.LEADER and self.machine.deadlines.waits and not self._inputs.awaits_decisions

    def inputs_read(self, until: Instant) -> None:
        """All inputs that were stored until then were offered. `now` told the time before the streams were asked."""
        if self.role is Role.LEADER:
            self._inputs.read(until)

    @property
    def has_room(self) -> bool:
        """Whether more inputs may be offered."""
        return len(self._inputs) < INPUTS_WAITING_MAX

    @property
    def inputs_waiting(self) -> int:
        """How many inputs wait for a decision."""
        return len(self._inputs)

    # -- deciding and acting -------------------------------------------------------------------------------------------

    def decide(self, monotonic: float) -> Append | None:
        """The next commit to append; None when nothing is to be appended or it is not the time to decide."""
        self._follow_clock_back(monotonic)
        while self._is_settled:
            if (until := self._inputs.decided_until()) is not None:
                self.machine.deadlines.read(until)
            decision, append = self._deciding.decide(
                self.now(monotonic), lambda decision, offered: self._encoded(decision, offered, monotonic)
            )
            self._faults += decision.faults
            self._in_flight = append is not None
            if append is not None:
                return append
            if not decision.taken:
                return None
        return None

    @property
    def _is_settled(self) -> bool:
        """Whether this instance leads, and has folded whatever it has appended."""
        return self.role is Role.LEADER and not self._in_flight and self._own_last <= self.folded

    def take_faults(self) -> Sequence[Fault]:
        """What stood aside since the last time, to tell of it."""
        faults, self._faults = self._faults, []
        return faults

    def _encoded(self, decision: Decision, offered: Sequence[Offered[InputT]], monotonic: float) -> Append | None:
        if not decision.events:
            return None
        return self._append(decision.events, self.epoch, self._cursors_ahead(offered[: decision.taken]), monotonic)

    def _cursors_ahead(self, taken: Sequence[Offered[InputT]]) -> dict[str, int]:
        return self._inputs.cursors_ahead(taken, self.cursors)

    def _append(self, events: list[Any], epoch: int, cursors: dict[str, int], monotonic: float) -> Append:
        commit = Commit(
            writer=self.machine.writer,
            instance=self.instance,
            epoch=epoch,
            at=self.now(monotonic),
            previous=self._writer_hash,
            cursors=cursors,
            events=tuple(events),
        )
        return Append(self._codec.encode(commit), self._writer_sequence)

    def appended(self, sequence: int) -> None:
        """The append in flight is stored at `sequence`; deciding goes on once it is folded."""
        self._in_flight = False
        if self.role is not Role.STANDBY:
            self._own_last = sequence
            # The follower may have been faster than the acknowledgement.
            if self.role is Role.TAKING_OVER and self.folded >= sequence:
                self._begin_to_lead(self._log_time_read_at)

    def effects(self, monotonic: float) -> Sequence[EffectT]:
        """What the leader should do now. What could not be made is among the faults."""
        if not self._is_settled:
            return ()
        now = self.now(monotonic)
        if now < self._effects_again:
            return ()
        try:
            made = self.machine.effects(now)
        except Exception as error:  # noqa: BLE001 - deciding and folding go on without
            self._faults.append(Fault(f"effects of the {self.machine.writer}", error))
            self._effects_again = Instant(now + seconds(EFFECTS_AGAIN_SECONDS))
            self.machine.look_again(now)  # what was taken off a list and not sent is owed again
            return ()
        self._faults += [each for each in made if isinstance(each, Fault)]
        return [each for each in made if not isinstance(each, Fault)]

    # -- time ----------------------------------------------------------------------------------------------------------

    def now(self, monotonic: float) -> Instant:
        """The last log time plus the own time since it was read.

        It never goes back between two decisions, though the own clock may have been a little ahead of the log's: a timer
        that has fired stays due.
        """
        self._now = max(self._now, self._reached(monotonic))
        return self._now

    def _reached(self, monotonic: float) -> Instant:
        return Instant(self.log_time + seconds(max(0.0, monotonic - self._log_time_read_at)))

    def _notice_step(self, stored: StoredCommit[Any]) -> None:
        """An author tells the time to which the log had come for it, counted on by its own uptime. Where the log has stored
        that as a later one, its clock was set forward, by no more than lies between this commit and the one before.

        The first commit of a leader proves nothing, which may have begun long after the log's last one; nor does one
        without an epoch, whose author's time is another clock's. One that was stored late looks like a step: then what had
        begun has so much more time.
        """
        commit = stored.commit
        if self.log_time and commit.epoch and commit.events:
            ahead = stored.at - max(commit.at, self.log_time)
            if ahead > seconds(CLOCK_STEP_SECONDS):
                self.machine.deadlines.step(stored.at, ahead)

    def _follow_clock_back(self, monotonic: float) -> None:
        """Where the log's clock was set back, so is `now`: else all that has yet to begin would be over at once.

        What the machine remembers in times that are now to come is worth nothing: it looks at everything once more.
        """
        reached = self._reached(monotonic)
        if self._is_settled and self._now - reached > seconds(CLOCK_BACK_SECONDS):
            self._now = reached
            self._effects_again = Instant(0)
            self._inputs.forget_observations()
            self.machine.deadlines.look_anew()
            self.machine.lead(reached)

    def wait_seconds(self, monotonic: float) -> float | None:
        """How long a leader may sleep when nothing happens; None for as long as it likes."""
        if self.role is not Role.LEADER:
            return None
        try:
            deadline = self.machine.next_deadline()
        except Exception as error:  # noqa: BLE001 - one wrong deadline must not stop what can be done without it
            self._faults.append(Fault(f"next deadline of the {self.machine.writer}", error))
            return LOOKS_AGAIN_SECONDS
        now = self.now(monotonic)
        # An effect that is due and stands aside must not keep the leader awake.
        least = LOOKS_AGAIN_SECONDS if now < self._effects_again else 0.0
        return None if deadline is None else max(least, (deadline - now) / seconds(1))

    # -- snapshots -----------------------------------------------------------------------------------------------------

    def saved(self) -> SavedLoop:
        """The loop's own state as of what was folded last."""
        return SavedLoop(
            sequence=self.folded,
            log_time=self.log_time,
            writer_sequence=self._writer_sequence,
            writer_hash=self._writer_hash,
            epoch=self.epoch,
            cursors=dict(self.cursors),
            steps=self.machine.deadlines.steps,
        )

    def restore(self, saved: SavedLoop, monotonic: float) -> None:
        """Go on behind a snapshot; the machine's state is restored by the caller.

        No time has passed for the fold since the snapshot: how long nothing ran, only the next commit can tell.
        """
        self.folded = saved.sequence
        self.log_time = saved.log_time
        self._log_time_read_at = monotonic
        self._writer_sequence = saved.writer_sequence
        self._writer_hash = saved.writer_hash
        self.epoch = saved.epoch
        self.cursors = dict(saved.cursors)
        self.machine.deadlines.steps = saved.steps


def _fault_of(observer: Observer, error: Exception) -> Fault:
    return Fault(f"observer {type(observer).__name__}", error)
