"""Upgrades: programs that know the next version of the log take the place of those that do not, and an operator activates it.

The operator may be too early, and an instance may have been forgotten: it must stop where the version begins.
"""

from collections.abc import Sequence
from random import Random

from taskyard.contracts.events import LOG_KEEPER, LOG_VERSION, LogVersionActivated
from taskyard.eventlog.append import AppendRejected
from taskyard.eventlog.commit import Commit, hash_commit
from taskyard.eventlog.errors import Unanswered
from taskyard.eventlog.versions import KEEPER_INSTANCE
from taskyard.simulation.instance import Instance
from taskyard.simulation.network import Network
from taskyard.simulation.service_faults import ROLLING_SECONDS
from taskyard.simulation.streams import Servers, codec

NEXT_VERSION = LOG_VERSION + 1
FORGOTTEN_CHANCE = 0.2
ACTIVATED_CHANCE = 0.8
ACTIVATED_SECONDS_MAX = 15.0


class Upgrades:
    """Upgrades of one run."""

    def __init__(self, servers: Servers, network: Network, instances: Sequence[Instance]) -> None:
        self._servers = servers
        self._network = network
        self._world = servers.world
        self._instances = instances
        self._has_begun = False

    def roll(self, random: Random) -> None:
        """Instances are replaced one by one, but for those that are forgotten; then, or meanwhile, the version begins."""
        if self._world.is_healed:
            return
        self._has_begun = True
        for number, instance in enumerate(self._instances):
            if random.random() > FORGOTTEN_CHANCE:
                self._world.later(ROLLING_SECONDS * number, lambda instance=instance: self._replace(instance))
        if random.random() < ACTIVATED_CHANCE:
            self._world.later(random.uniform(0.0, ACTIVATED_SECONDS_MAX), self._activate)

    def heal(self) -> None:
        """Nobody is forgotten any more."""
        for instance in self._instances:
            if self._has_begun and instance.version < NEXT_VERSION:
                self._upgrade(instance)

    def _replace(self, instance: Instance) -> None:
        if not self._world.is_healed:
            self._world.note(f"{instance.name} is upgraded")
            self._upgrade(instance)

    @staticmethod
    def _upgrade(instance: Instance) -> None:
        if instance.is_up:
            instance.stop()
        instance.version = NEXT_VERSION
        instance.start()

    def _activate(self) -> None:
        """What `taskyard.eventlog.versions.activate_version` appends: an operator who hears nothing lets it be."""
        if self._world.is_healed or self._network.is_log_away:
            return
        sequence, data = self._servers.last(LOG_KEEPER) or (0, b"")
        commit = Commit(
            writer=LOG_KEEPER,
            instance=KEEPER_INSTANCE,
            epoch=0,
            at=self._world.instant,
            previous=hash_commit(data) if data else "",
            events=(LogVersionActivated(version=NEXT_VERSION, by="operator"),),
        )
        self._world.note(f"version {NEXT_VERSION} is activated")
        try:
            self._servers.append(codec.encode(commit), LOG_KEEPER, sequence)
        except (AppendRejected, Unanswered):
            self._world.note("it is not: the log is full")
