"""What a simulated agent keeps: its memory of slots and its unsent reports, durable together, and the sending of those."""

from collections.abc import Callable, Iterable

import msgspec

from taskyard.agent.journal import FULL_RETRY_SECONDS
from taskyard.agent.slots import MemoryChanges
from taskyard.contracts.agent_protocol import AnyReport, ReportBatch
from taskyard.contracts.subjects import report_subject
from taskyard.simulation.host import Disk, Folder
from taskyard.simulation.network import Network
from taskyard.simulation.streams import Servers
from taskyard.simulation.time import Process, Step

STORE_SECONDS_MAX = 2.0
UNSENT_BATCHES_MAX = 12
"""With more unsent reports than that an agent takes nothing new."""

_encode = msgspec.json.Encoder().encode


class Journal:
    """The journal and outbox of one life of an agent on its disk. `is_reachable` says whether the network is there; `on_full`
    is called when there is no room, and what is to be written then is tried again.
    """

    def __init__(
        self,
        agent: Process,
        disk: Disk,
        folder: Folder,
        servers: Servers,
        network: Network,
        *,
        is_reachable: Callable[[], bool],
        on_full: Step,
    ) -> None:
        self._agent = agent
        self._disk = disk
        self._folder = folder
        self._on_full = on_full
        self._servers = servers
        self._network = network
        self._is_reachable = is_reachable
        self._open: list[AnyReport] = []
        self._number = 0
        self._pending: list[Step] = []
        self._after_sync: list[Step] = []
        self._is_sync_due = False
        self._is_sending = False

    @property
    def is_full(self) -> bool:
        """Whether reports cannot be stored, for so long that nothing new may begin."""
        return len(self._disk.batches) >= UNSENT_BATCHES_MAX

    def report(self, reports: Iterable[AnyReport]) -> None:
        """Have something reported, once it is durable."""
        self._open += reports

    def write(self, changes: MemoryChanges) -> None:
        """Have what changed in the memory of slots written with the next commit."""
        disk = self._disk
        slots = [(slot, _encode(record)) for slot, record in changes.slots]
        live = [(position, None if one is None else _encode(one)) for position, one in changes.live]

        def write() -> None:
            disk.slots.update(slots)
            for position, record in live:
                if record is None:
                    disk.live.pop(position, None)
                else:
                    disk.live[position] = record

        self._pending.append(write)

    def sync(self, then: Step | None = None) -> None:
        """Make everything durable that was written until the commit, and go on after it."""
        if then is not None:
            self._after_sync.append(then)
        if not self._is_sync_due:
            self._is_sync_due = True
            self._agent.later(self._agent.random.uniform(0.0005, 0.01), self._commit)

    def _commit(self) -> None:
        """One transaction: everything that was written until now, and the batch of what is to be reported."""
        if self._folder.has_no_room:
            self._on_full()
            self._agent.later(FULL_RETRY_SECONDS, self._commit)
            return
        self._is_sync_due = False
        for write in self._pending:
            write()
        self._disk.commits += 1
        self._folder.mark = self._disk.commits
        self._pending = []
        if self._open:
            self._number += 1
            incarnation = self._disk.lineage[0]
            batch = ReportBatch(incarnation=incarnation, number=self._number, reports=tuple(self._open))
            self._disk.batches[incarnation, self._number] = _encode(batch)
            self._open = []
        after, self._after_sync = self._after_sync, []
        for then in after:
            self._agent.later(0.0, then)  # a crash may come between any two of them
        self.send()

    def send(self) -> None:
        """Send what is unsent: one batch at a time, again and again until it is stored."""
        disk, network, agent = self._disk, self._network, self._agent
        if self._is_sending or not disk.batches or not agent.is_up or not self._is_reachable():
            return
        self._is_sending = True
        key = next(iter(disk.batches))
        data = disk.batches[key]
        is_over = False

        def store() -> None:
            id = f"{agent.name}-{key[0]}-{key[1]}"
            subject = report_subject(agent.name)
            if not network.is_log_away and self._servers.store(self._servers.reports, subject, data, id=id):
                network.carry(lambda: agent.later(0.0, stored))

        def stored() -> None:
            disk.batches.pop(key, None)
            again()

        def again() -> None:
            nonlocal is_over
            if not is_over:
                is_over, self._is_sending = True, False
                self.send()

        network.carry(store, may_repeat=True)
        agent.later(STORE_SECONDS_MAX, again)
