"""What a leader knows beside the log when it judges whether a deadline has passed: how far inputs were read, and by how much
the log's clock was set forward. It decides with it; nothing of it is folded.
"""

from taskyard.contracts.values import Instant, seconds

STEPS_MAX = 100
"""Steps of the clock that are remembered; of more the first are forgotten."""


class Deadlines:
    """Deadlines of one leader. `waits` says that one is over for the clock, and that inputs must be read to judge it."""

    def __init__(self) -> None:
        self.waits = False
        self._read_until = Instant(0)
        self._steps: list[tuple[Instant, int]] = []

    def look_anew(self) -> None:
        """Nothing is known to have been read. What the clock did stays."""
        self.waits = False
        self._read_until = Instant(0)

    def forget(self) -> None:
        """This instance does not lead."""
        self.look_anew()
        self._steps.clear()

    def step(self, to: Instant, by: int) -> None:
        """The clock was set forward by `by`, to `to`: for what began before, this time has not passed."""
        self._steps = [*self._steps, (to, by)][-STEPS_MAX:]

    def read(self, until: Instant) -> None:
        """Everything that was stored until then was decided on."""
        self.waits = False
        self._read_until = max(self._read_until, until)

    def after(self, since: Instant, duration_seconds: float) -> Instant:
        """When so much time has passed since then."""
        return Instant(since + seconds(duration_seconds) + sum(by for to, by in self._steps if since < to))

    def is_read(self, deadline: Instant) -> bool:
        """Whether what was stored before the deadline was decided on; if not, it waits for that."""
        if deadline > self._read_until:
            self.waits = True
            return False
        return True
