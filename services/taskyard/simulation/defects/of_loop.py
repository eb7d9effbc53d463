"""Defects of the loop around a machine: folding, leading, time, snapshots."""

# pyright: reportPrivateUsage=none

from typing import Any

import msgspec

from taskyard.contracts.values import Instant, make_position, seconds
from taskyard.machine.core import LoopCore, Role
from taskyard.scheduler.known import KnownIds
from taskyard.simulation.defects.patching import Replace
from taskyard.simulation.following import Following


def _decides_before_folding(replace: Replace) -> None:
    """The next decision is made before the own last commit is folded, behind the fence that it moved."""

    def appended(self: Any, sequence: int) -> None:
        self._in_flight = False
        if self.role is Role.TAKING_OVER:
            self._own_last = sequence
            return
        self._writer_sequence = sequence

    until_folded = Following.until_folded

    def at_once(self: Any, sequence: int, then: Any) -> None:
        if self.core.role is Role.LEADER:
            then()
        else:
            until_folded(self, sequence, then)

    replace(LoopCore, "appended", appended)
    replace(Following, "until_folded", at_once)


def _acts_before_append(replace: Replace) -> None:
    """What was decided is folded and acted on before it is stored."""
    append, fold_own = LoopCore._append, LoopCore.fold

    def append_and_fold(self: Any, events: list[Any], epoch: int, cursors: Any, monotonic: float) -> Any:
        result = append(self, events, epoch, cursors, monotonic)
        if self.role is Role.LEADER:
            for index, event in enumerate(events):
                self.machine.apply(event, self.now(monotonic), make_position(self.folded + 1, index))
        return result

    def fold(self: Any, stored: Any, monotonic: float) -> None:
        if stored.commit.writer == self.machine.writer and stored.commit.instance == self.instance:
            stored = msgspec.structs.replace(stored, commit=msgspec.structs.replace(stored.commit, events=()))
        fold_own(self, stored, monotonic)

    def effects(self: Any, monotonic: float) -> Any:
        return self.machine.effects(self.now(monotonic)) if self.role is Role.LEADER else ()

    replace(LoopCore, "_append", append_and_fold)
    replace(LoopCore, "fold", fold)
    replace(LoopCore, "effects", effects)


def _stale_leader_goes_on(replace: Replace) -> None:
    """A leader that folds another's epoch goes on with its own."""

    def fold_own(self: Any, stored: Any) -> None:
        self._writer_sequence, self._writer_hash = stored.sequence, stored.hash
        if self.role is Role.STANDBY or stored.commit.instance == self.instance:
            self.epoch = max(self.epoch, stored.commit.epoch)
        self.cursors.update(stored.commit.cursors)

    replace(LoopCore, "_fold_own", fold_own)


def _forgets_cursors(replace: Replace) -> None:
    """Commits do not say which inputs they account for."""
    replace(LoopCore, "_cursors_ahead", lambda self, taken: {})


def _time_goes_back(replace: Replace) -> None:
    """A leader's now follows the log back, where its own clock was ahead."""

    def now(self: Any, monotonic: float) -> Instant:
        return Instant(self.log_time + seconds(max(0.0, monotonic - self._log_time_read_at)))

    replace(LoopCore, "now", now)


def _uptime_is_passed_time(replace: Replace) -> None:
    """A leader that began with a snapshot takes its machine's uptime for time that has passed since, and never lets go of it."""
    restore = LoopCore.restore

    def careless(self: Any, saved: Any, monotonic: float) -> None:
        restore(self, saved, monotonic)
        self._log_time_read_at = 0.0

    def now(self: Any, monotonic: float) -> Instant:
        self.highest = max(getattr(self, "highest", Instant(0)), self._reached(monotonic))
        return self.highest

    replace(LoopCore, "restore", careless)
    replace(LoopCore, "now", now)


def _snapshots_forget_ids(replace: Replace) -> None:
    """A snapshot brings no known ids back."""
    replace(KnownIds, "restored", lambda saved: KnownIds())


DEFECTS = {
    "decides-before-folding": _decides_before_folding,
    "acts-before-append": _acts_before_append,
    "stale-leader-goes-on": _stale_leader_goes_on,
    "forgets-cursors": _forgets_cursors,
    "time-goes-back": _time_goes_back,
    "uptime-is-passed-time": _uptime_is_passed_time,
    "snapshots-forget-ids": _snapshots_forget_ids,
}
