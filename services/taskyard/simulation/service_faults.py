"""What goes wrong with instances of services, and with the streams, leases and clocks that they stand on."""

from collections.abc import Callable, Sequence
from random import Random

from taskyard.simulation.instance import Instance
from taskyard.simulation.network import Network
from taskyard.simulation.streams import Servers
from taskyard.slot_allocator.liveness import Reconnected

CLOCK_STEPS_SECONDS = (-3600.0, -5.0, -5.0, -0.5, 0.5, 60.0, 3600.0)
DOWN_SECONDS = (0.2, 2.0, 10.0)
ROLLING_SECONDS = 1.5
"""Between the restarts of two instances, where all are restarted one by one."""


class ServiceFaults:
    """Faults of the control plane."""

    def __init__(self, servers: Servers, network: Network, instances: Sequence[Instance]) -> None:
        self._servers = servers
        self._network = network
        self._world = servers.world
        self._instances = instances
        self.was_deaf = False
        self._torn = servers.world.source("torn appends")

    def heal(self) -> None:
        """Everything of the control plane runs, and its servers answer."""
        self._servers.is_lease_broken = self._servers.is_archive_away = False
        self._servers.full.clear()
        self._network.is_log_away = False
        self._servers.clock_offset_seconds = max(0.0, self._servers.clock_offset_seconds)
        for instance in self._instances:
            instance.is_deaf = False
            instance.thaw()
            if instance.is_up:
                instance.following.resume()
            else:
                instance.start()

    # -- processes -----------------------------------------------------------------------------------------------------

    def crash(self, random: Random) -> None:
        """An instance is killed, and started again a while later."""
        self._crash(self._some(random), random)

    def crash_while_appending(self, instance: Instance) -> None:
        """An instance is killed when it does not know yet what became of an append."""
        if self._world.chance(self._network.faultiness.torn, self._torn):
            instance.later(self._torn.uniform(0.0, 0.03), lambda: self._crash(instance, self._torn))

    def freeze(self, random: Random) -> None:
        """An instance stands still, and goes on where it was."""
        if not self._world.is_healed:
            instance, seconds = self._some(random), random.choice((0.3, 4.0, 10.0)) * random.random()
            self._world.note(f"{instance.name} is frozen for {seconds:.1f} s")
            instance.freeze(seconds)

    def stop(self, random: Random) -> None:
        """An instance is stopped in order, and started again."""
        self._stop(self._some(random), random, down_seconds=random.choice(DOWN_SECONDS) * random.random())

    def stop_all(self, random: Random) -> None:
        """The whole control plane goes down, mostly in order, and comes up again: perhaps an hour later by the clock."""
        down_seconds = random.choice(DOWN_SECONDS) * random.random()
        for instance in self._instances:
            self._stop(instance, random, down_seconds=down_seconds + random.random())
        if random.random() < 0.3 and not self._world.is_healed:
            self._world.note("an hour passes")
            self._servers.step_clock(3600.0)

    def roll(self, random: Random) -> None:
        """Every instance is restarted, one after the other."""
        for number, instance in enumerate(self._instances):
            self._world.later(
                ROLLING_SECONDS * number, lambda instance=instance: self._stop(instance, random, down_seconds=0.5)
            )

    def _some(self, random: Random) -> Instance:
        leaders = [instance for instance in self._instances if instance.leads]
        return random.choice(leaders if leaders and random.random() < 0.7 else self._instances)

    def _crash(self, instance: Instance, random: Random) -> None:
        if self._world.is_healed or not instance.is_up:
            return
        self._world.note(f"{instance.name} crashes")
        instance.crash()
        self._world.later(random.uniform(0.05, 5.0), lambda: _start(instance))

    def _stop(self, instance: Instance, random: Random, *, down_seconds: float) -> None:
        if self._world.is_healed or not instance.is_up:
            return
        if random.random() < 0.2:
            self._crash(instance, random)
            return
        self._world.note(f"{instance.name} is stopped for {down_seconds:.1f} s")
        instance.stop()
        self._world.later(down_seconds, lambda: _start(instance))

    # -- what they stand on --------------------------------------------------------------------------------------------

    def break_leases(self, random: Random) -> None:
        """Whoever asks for a lease gets it."""

        def switch(on: bool) -> None:
            self._servers.is_lease_broken = on

        self._during("leases are given to everybody", 6.0, switch, random)

    def deafen(self, random: Random) -> None:
        """An allocator hears no heartbeat."""
        instance = self._some(random)

        def switch(on: bool) -> None:
            instance.is_deaf = on
            self.was_deaf = True
            if not on and instance.is_up and random.random() < 0.5:
                instance.post_now(Reconnected)

        if instance.service.writer == "slot_allocator":
            self._during(f"{instance.name} hears no heartbeat", 15.0, switch, random)

    def log_away(self, random: Random) -> None:
        """No stream answers."""

        def switch(on: bool) -> None:
            self._network.is_log_away = on

        self._during("the streams do not answer", 9.0, switch, random)

    def fill(self, random: Random) -> None:
        """A stream has no room: it refuses what is new."""
        servers = self._servers
        name = random.choice((servers.log.name, servers.commands.name, servers.reports.name))

        def switch(on: bool) -> None:
            if on:
                servers.full.add(name)
            else:
                servers.full.discard(name)

        self._during(f"{name} is full", 12.0, switch, random)

    def make_anew(self, random: Random) -> None:
        """Somebody deletes an input stream with all that is in it; another one of its name is there a while later."""
        servers = self._servers
        stream = random.choice((servers.commands, servers.reports))

        def switch(on: bool) -> None:
            if on:
                servers.make_anew(stream)
                servers.full.add(stream.name)
            else:
                servers.full.discard(stream.name)

        self._during(f"{stream.name} is deleted and made anew, and away", 6.0, switch, random)

    def stall(self, random: Random) -> None:
        """An instance does not hear of the log."""
        instance = self._some(random)

        def switch(on: bool) -> None:
            if not instance.is_up:
                return
            if on:
                instance.following.is_stalled = True
            else:
                instance.following.resume()

        self._during(f"{instance.name} does not hear of the log", 8.0, switch, random)

    def set_clock(self, random: Random) -> None:
        """The clock of the streams steps forward or back."""
        if not self._world.is_healed:
            step = random.choice(CLOCK_STEPS_SECONDS)
            self._world.note(f"the clock of the streams steps by {step} s")
            self._servers.step_clock(step)

    def read_again(self, random: Random) -> None:
        """The readers of an instance lose their place."""
        if not self._world.is_healed:
            instance = self._some(random)
            self._world.note(f"{instance.name} reads its inputs again")
            instance.read_again()

    def _during(self, what: str, seconds_max: float, switch: Callable[[bool], None], random: Random) -> None:
        if self._world.is_healed:
            return
        seconds = random.uniform(0.1, seconds_max)
        self._world.note(f"{what} for {seconds:.1f} s")
        switch(True)
        self._world.later(seconds, lambda: switch(False))


def _start(instance: Instance) -> None:
    if not instance.is_up:
        instance.start()
