"""What is known of time when a deadline is judged: how far a leader has read its inputs, which it knows beside the log, and by
how much the log's clock was set forward, which the loop folds from the log for every instance alike.
"""

from taskyard.contracts.values import Instant, seconds

STEPS_MAX = 100
"""Steps of the clock that are remembered; of more the first are forgotten."""


class Deadlines:
    """Deadlines of one leader. `waits` says that one is over for the clock, and that inputs must be read to judge it."""

    def __init__(self) -> None:
        self.waits = False
        self.steps: tuple[tuple[Instant, int], ...] = ()
        """To which time the clock was set forward, and by how much."""
        self._read_until = Instant(0)

    def look_anew(self) -> None:
        """Nothing is known to have been read. What the clock did stays."""
        self.waits = False
        self._read_until = Instant(0)

    def step(self, to: Instant, by: int) -> None:
        """The clock was set forward by `by`, to `to`: for what began before, this time has not passed."""
        self.steps = (*self.steps, (to, by))[-STEPS_MAX:]

    def read(self, until: Instant) -> None:
        """Everything that was stored until then was decided on."""
        self.waits = False
        self._read_until = max(self._read_until, until)

    def after(self, since: Instant, duration_seconds: float) -> Instant:
        """When so much time has passed since then."""
        return Instant(since + seconds(duration_seconds) + sum(by for to, by in self.steps if since < to))

    def is_read(self, deadline: Instant) -> bool:
        """Whether what was stored before the deadline was decided on; if not, it waits for that."""
        if deadline > self._read_until:
            self.waits = True
            return False
        return True
