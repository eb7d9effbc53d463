"""Nothing before its time: timeouts, expiries, delays."""

from taskyard.contracts.agent_protocol import START_SECONDS_MAX
from taskyard.contracts.events import (
    AnyEvent,
    ApprovalExpired,
    AttemptFailed,
    PoolConfigured,
    TaskScheduled,
    TaskStopRequested,
    UnknownEvent,
)
from taskyard.contracts.values import SECOND, Instant
from taskyard.judge.faults import Faults, Rule
from taskyard.judge.life import NEVER, Life
from taskyard.judge.lives import Step

APPROVAL_SECONDS_DEFAULT = 86_400.0
SLACK_SECONDS = 0.3
CLOCK_BACK_SECONDS = 2.0
"""Whoever decides may keep a time that is so much ahead of a log whose clock was set back."""
DRIFT_SHARE = 0.003
"""Clocks of two machines that run at slightly different rates may differ by so much of a duration."""


class Timing:
    """Looks at every event that needs time to have passed.

    Log time is a server's clock made never to go back: where that clock was set back it stands still for a while, and
    whoever decides counts on by a clock of their own. So it is at most as late as the log says and as long as it stood.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._approval_seconds: dict[str, float] = {}
        self._reached = (NEVER, 0.0)
        self._stands_for = 0.0
        self._ahead = float("-inf")
        self._back = 0.0
        self._really: dict[Instant, float] = {}
        self._delayed: dict[str, Instant] = {}

    def see(self, event: AnyEvent | UnknownEvent, at: Instant, now_seconds: float) -> None:
        """The next event: it may be a setting, and its log time was really `now_seconds`."""
        if at > self._reached[0]:
            self._reached = (at, now_seconds)
        self._stands_for = now_seconds - self._reached[1]
        ahead = at / SECOND - now_seconds
        self._ahead = max(self._ahead, ahead)
        self._back = max(self._back, self._ahead - ahead)
        self._really.setdefault(at, now_seconds)
        if isinstance(event, PoolConfigured) and event.approval_timeout_seconds is not None:
            self._approval_seconds[event.pool] = event.approval_timeout_seconds

    def check(self, event: AnyEvent | UnknownEvent, step: Step, at: Instant, where: str) -> None:
        """An event took effect: was it time?"""
        life = step.life
        match event:
            case TaskScheduled() if life.due:
                since = self._delayed.get(life.id, life.submitted_at)
                limit = (life.due - since) / SECOND
                self._require(since, limit, at, f"{where}: {life.id} is scheduled too early", life)
            case TaskStopRequested(cause="timeout"):
                since, limit = life.started_at, life.policy.timeout_seconds
                if since is None:  # what a worker has accepted it must begin
                    since, limit = life.assigned_at, START_SECONDS_MAX
                self._require(since, limit, at, f"{where}: {life.id} times out too early", life)
            case TaskStopRequested(cause="schedule_to_start"):
                limit = life.policy.schedule_to_start_timeout_seconds or 0.0
                self._require(life.submitted_at, limit, at, f"{where}: {life.id} had more time to start", life)
            case AttemptFailed() if event.error.code == "timeout":
                limit = life.policy.timeout_seconds
                text = f"{where}: {life.id} timed out too early on its worker"
                self._require(life.assigned_at, limit, at, text, life)
            case ApprovalExpired():
                limit = self._approval_seconds.get(life.policy.pool, APPROVAL_SECONDS_DEFAULT)
                self._require(life.planned_at, limit, at, f"{where}: {life.id} expires too early", life)
            case _:
                pass
        if life.due > at:
            self._delayed[life.id] = at
        elif life.is_over:
            self._delayed.pop(life.id, None)

    def _require(self, since: Instant | None, limit: float, at: Instant, text: str, life: Life) -> None:
        if since is None:
            self._faults.add(Rule.EARLY, f"{text}: it never began", task=life.id)
            return
        # A worker waits by its own clock, as whoever decides does while the log's stands still.
        passed = max((at - since) / SECOND + self._stands_for, self._really[at] - self._really[since])
        slack = SLACK_SECONDS + min(self._back, CLOCK_BACK_SECONDS)
        needed = limit - slack - DRIFT_SHARE * max(limit, passed)
        self._faults.require(passed >= needed, Rule.EARLY, f"{text}, after {passed:.3f} of {limit:g} s", task=life.id)
