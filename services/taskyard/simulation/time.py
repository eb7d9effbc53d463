"""The world's time and chance: an agenda of steps, random sources from one seed, and processes whose steps die and freeze
with them.

Every part draws from a source of its own: what one of them draws more or less does not change the chances of the others,
so a run stays much like itself when something is left out of it.
"""

from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from random import Random

from taskyard.contracts.values import Instant, seconds

Step = Callable[[], None]

EPOCH = Instant(1_800_000_000 * 1_000_000)
"""When every simulated run begins."""


UPTIMES_SECONDS = (0.0, 10_000.0, 5_000_000.0)
"""How long a machine may have been up when the world begins: its monotonic clock says nothing of what passed here."""


class World:
    """Simulated seconds since the beginning, the steps to come, and what is remembered of faults for whoever reads it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = self.source("world")
        self.now = 0.0
        self.steps = 0
        self.is_healed = False
        self.faults: list[tuple[float, str]] = []
        self.failures: list[str] = []
        self._agenda: list[tuple[float, int, Step]] = []
        self._number = 0

    def source(self, name: str) -> Random:
        """The random source of one part of the world."""
        return Random(f"{self.seed}/{name}")

    def later(self, delay_seconds: float, step: Step) -> None:
        """Do `step` after so many simulated seconds."""
        self._number += 1
        heappush(self._agenda, (self.now + delay_seconds, self._number, step))

    def run_until(self, end_seconds: float, is_over: Callable[[], bool] = lambda: False) -> None:
        """Do all steps until `end_seconds`, or until it is over."""
        agenda = self._agenda
        while agenda and agenda[0][0] <= end_seconds and not is_over():
            self.now, _, step = heappop(agenda)
            self.steps += 1
            step()
        if not is_over():
            self.now = max(self.now, end_seconds)

    def chance(self, probability: float, random: Random | None = None) -> bool:
        """Whether something happens; nothing bad does once all is healed."""
        return probability > 0.0 and not self.is_healed and (random or self.random).random() < probability

    def note(self, fault: str) -> None:
        """Remember that something went wrong on purpose."""
        self.faults.append((self.now, fault))

    @property
    def instant(self) -> Instant:
        """The true time."""
        return Instant(EPOCH + seconds(self.now))


class Process:
    """Something that runs on a machine. Its steps are dropped when it crashes, and late while it is frozen."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.random = world.source(name)
        self.life = 0
        self.is_up = False
        self._frozen_until = 0.0
        self._held: list[Step] = []
        self._clock_offset = self.random.uniform(-3600, 3600)
        self._clock_rate = self.random.uniform(0.999, 1.001)
        self._uptime = self.random.choice(UPTIMES_SECONDS)

    def later(self, delay_seconds: float, step: Step) -> None:
        """Do a step of this life of the process."""
        self.world.later(delay_seconds, partial(self._in_life, self.life, step))

    def _in_life(self, life: int, step: Step) -> None:
        # No closure: one that puts itself aside refers to itself, and each of them would wait for the garbage collector.
        if self.life != life:
            return
        if self.is_frozen:
            self._held.append(partial(self._in_life, life, step))
        else:
            step()

    def freeze(self, duration_seconds: float) -> None:
        """Let nothing of it happen for a while; then it goes on where it was."""
        self._frozen_until = max(self._frozen_until, self.world.now + duration_seconds)
        self.world.later(duration_seconds, self._release)

    @property
    def is_frozen(self) -> bool:
        """Whether it stands still now."""
        return self._frozen_until > self.world.now

    def thaw(self) -> None:
        """Let everything go on from now."""
        self._frozen_until = self.world.now
        self._release()

    def went_on(self) -> None:
        """Called when it does not stand still any more."""

    def _release(self) -> None:
        if self._frozen_until <= self.world.now:
            self.went_on()
            held, self._held = self._held, []
            for step in held:
                self.world.later(0.0, step)

    @property
    def monotonic(self) -> float:
        """Its own monotonic clock, which runs a little fast or slow."""
        return self._uptime + self.world.now * self._clock_rate

    @property
    def wall(self) -> Instant:
        """Its own idea of the time of day, up to an hour wrong."""
        return Instant(self.world.instant + seconds(self._clock_offset))
