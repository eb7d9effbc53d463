"""What goes wrong at the edges with workers: journals that are put back or lost, disks that are full, two agents of one
name, and requests that are too large.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from random import Random

from taskyard.contracts.agent_protocol import HEARTBEAT_SECONDS
from taskyard.contracts.lifecycle import ATTEMPT_OPEN
from taskyard.simulation.agent import Agent
from taskyard.simulation.clients import Clients
from taskyard.simulation.edge_faults import Kind
from taskyard.simulation.host import Disk, Witness
from taskyard.simulation.instance import Instance
from taskyard.simulation.services import DispatcherService
from taskyard.simulation.time import Step, World

MANY_SLOTS = 24
BACK_SECONDS_MAX = 12.0
WHOLE_FOLDER_CHANCE, LOST_CHANCE = 0.3, 0.35
"""That a journal is put back with all that is beside it, as from a backup of its folder; and that it is deleted."""
AFTER_REQUEST_CHANCE = 0.5
AFTER_REQUEST_SECONDS = (0.005, 0.06)
UNHEARD_SECONDS = (2.0, 5.0)
"""How long nobody hears an answer: longer than one is waited for."""
FULL_SECONDS = (5.0, 25.0)
LAST_BYTE_CHANCE = 0.5
NOTICED_SECONDS = HEARTBEAT_SECONDS + 0.1
"""So long after a disk has become full its agent knows."""
AWAY_SECONDS = (9.0, 20.0)
"""How long the first of two agents is away: longer than a worker may be silent."""


class WorkerFaults:
    """Faults of workers. `kinds` are all that there are; `add_another` makes another agent of an agent's name."""

    def __init__(
        self,
        world: World,
        instances: Sequence[Instance],
        agents: Sequence[Agent],
        clients: Clients,
        *,
        witness: Witness,
        add_another: Callable[[Agent], Agent],
    ) -> None:
        self._world = world
        self._dispatchers = [one for one in instances if isinstance(one.service, DispatcherService)]
        self._agents = agents
        self._clients = clients
        self._witness = witness
        self._add_another = add_another
        self.kinds: Sequence[Kind] = (
            ("the journal of an agent is put back", self.put_journal_back),
            ("more is assigned to a worker than fits one request", self.assign_much),
            ("the disk of a worker is full", self.fill_disk),
            ("another agent takes the name of one", self.start_another),
        )

    def _one_that_is_there(self, random: Random) -> Agent | None:
        there = [agent for agent in self._agents if agent.is_up and not agent.is_gone]
        return random.choice(there) if there and not self._world.is_healed else None

    def put_journal_back(self, random: Random) -> None:
        """What an agent remembers is put back to what it was a while ago, or lost, while what it started runs on; it is
        killed so. Perhaps just after it was asked for something, when nobody hears its answer.
        """
        agent = self._one_that_is_there(random)
        if agent is None:
            return
        before, mark, life = deepcopy(agent.disk), agent.folder.mark, agent.life
        chance = random.random()

        def put_back() -> None:
            if self._world.is_healed or agent.life != life or not agent.is_up:
                return
            if chance < LOST_CHANCE:
                self._world.note(f"the journal of {agent.name} is deleted, and it is killed")
                agent.lose_journal()
            elif chance > 1.0 - WHOLE_FOLDER_CHANCE and not self._has_unseen(agent):
                self._world.note(f"the folder of {agent.name} is put back, and it is killed")
                self._put_back(agent, before)
                agent.folder.mark = mark
            else:
                self._world.note(f"the journal of {agent.name} is put back, and it is killed")
                self._put_back(agent, before)
            agent.start_as_told()

        if random.random() < AFTER_REQUEST_CHANCE:
            self._after_next_request(agent, put_back, random)
        else:
            self._world.later(random.uniform(0.5, BACK_SECONDS_MAX), put_back)

    def _after_next_request(self, agent: Agent, step: Step, random: Random) -> None:
        as_ever = agent.on_request

        def asked(asked: Agent) -> None:
            agent.on_request = as_ever
            as_ever(asked)
            if not self._world.is_healed:
                for dispatcher in self._dispatchers:
                    dispatcher.freeze(random.uniform(*UNHEARD_SECONDS))
                self._world.later(random.uniform(*AFTER_REQUEST_SECONDS), step)

        agent.on_request = asked

    @staticmethod
    def _put_back(agent: Agent, before: Disk) -> None:
        agent.crash()
        before.plans = agent.disk.plans  # these are files of their own
        agent.disk = before

    def _has_unseen(self, agent: Agent) -> bool:
        """Whether the log has no start of an attempt that it has given out. Where the mark of a journal was put back with it
        such a one cannot be told from one that is new.
        """
        self._clients.reader.catch_up()
        records = self._clients.reader.table.live.values()
        return any(one.worker == agent.name and one.phase in ATTEMPT_OPEN and one.started_at is None for one in records)

    def assign_much(self, random: Random) -> None:
        """A worker with many slots gets tasks whose inputs are together more than one message takes."""
        agent = self._one_that_is_there(random)
        if agent is None:
            return
        self._world.note(f"{agent.name} comes back with {MANY_SLOTS} slots, and much is submitted at once")
        agent.crash()
        agent.slots = (("any",),) * MANY_SLOTS
        agent.start_as_told()
        self._clients.submit_heavy(random, agent.pool, MANY_SLOTS)

    def fill_disk(self, random: Random) -> None:
        """There is little room on a host: nothing new begins, and what runs goes on. With none at all reports wait too."""
        agent = self._one_that_is_there(random)
        if agent is None or agent.folder.has_little_room:
            return
        seconds, is_to_the_last = random.uniform(*FULL_SECONDS), random.random() < LAST_BYTE_CHANCE
        folder = agent.folder
        self._world.note(f"the disk of {agent.host} is full for {seconds:.1f} s{' to the last byte' * is_to_the_last}")
        agent.fill_disk(to_the_last_byte=is_to_the_last)

        def noticed() -> None:
            if agent.folder is folder and folder.has_little_room:
                self._witness.is_full(agent.host)

        def over() -> None:
            if agent.folder is folder:
                agent.make_room()

        self._world.later(NOTICED_SECONDS, noticed)
        self._world.later(seconds, over)

    def start_another(self, random: Random) -> None:
        """Another host has an agent of the same name: it waits until the first is lost, and takes its place. When that one
        is back it has to go.
        """
        agent = self._one_that_is_there(random)
        if agent is None or sum(one.name == agent.name for one in self._agents) > 1:
            return
        self._world.note(f"another agent takes the name of {agent.name}")
        self._add_another(agent).start()
        away = random.choice((self._freeze, self._part, self._crash))
        self._world.later(random.uniform(0.0, 3.0), partial(away, agent, random.uniform(*AWAY_SECONDS)))

    def _freeze(self, agent: Agent, away_seconds: float) -> None:
        if not self._world.is_healed:
            agent.freeze(away_seconds)

    def _part(self, agent: Agent, away_seconds: float) -> None:
        if not self._world.is_healed and agent.is_up:
            agent.disconnect()
            agent.later(away_seconds, agent.connect)

    def _crash(self, agent: Agent, away_seconds: float) -> None:
        def start() -> None:
            if not agent.is_up and not agent.is_gone:
                agent.start()

        if not self._world.is_healed and agent.is_up:
            agent.crash()
            self._world.later(away_seconds, start)
