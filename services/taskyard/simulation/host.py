"""A host of an agent: its disk, and the processes that run on it, also while the agent does not.

Two hosts may have agents of one name, so hosts have names of their own.

`Witness` writes down what really ran, which is what checks compare the log with: nobody's report can change it.
"""

from dataclasses import dataclass, field

from taskyard.judge.evidence import Cut, NoRoom, Ran, Trouble
from taskyard.simulation.time import World


class Witness:
    """Everything that ran anywhere, and when agents ran without contact.

    `lied` has the tasks and attempts of which their own agent said what was not so.
    """

    def __init__(self, world: World) -> None:
        self.runs: list[Ran] = []
        self.lied: set[tuple[str, int]] = set()
        self.cuts: list[Cut] = []
        self.no_room: list[NoRoom] = []
        self._cut: dict[str, Cut] = {}
        self._full: dict[str, NoRoom] = {}
        self._troubles: dict[str, tuple[float, set[str]]] = {}
        self._workers: dict[str, str] = {}
        self.troubles: list[Trouble] = []
        self._world = world
        self._open: list[Ran] = []

    def knows(self, host: str, worker: str) -> None:
        """A host has an agent of that name."""
        self._workers[host] = worker

    def running_on(self, host: str) -> list[Ran]:
        """What runs on a host, also when its agent does not."""
        return [run for run in self._open if run.host == host]

    def begins(self, run: Ran) -> Ran:
        """A process begins its work."""
        self.runs.append(run)
        self._open.append(run)
        return run

    def ends(self, run: Ran) -> None:
        """A process is over."""
        if run.ended is None:
            run.ended = self._world.now
            self._open.remove(run)

    def trouble(self, host: str, what: str) -> None:
        """Something happens to the agent of a host that may end what it runs."""
        self._troubles.setdefault(host, (self._world.now, set()))[1].add(what)

    def trouble_over(self, host: str, *what: str) -> None:
        """That is over; perhaps not the only thing that is the matter."""
        began, left = self._troubles.get(host, (0.0, set[str]()))
        left.difference_update(what)
        if host in self._troubles and not left:
            del self._troubles[host]
            self.troubles.append(Trouble(worker=self._workers[host], began=began, ended=self._world.now))

    def all_troubles(self) -> list[Trouble]:
        """Those that are over, and those that are not."""
        now = self._world.now
        still = [
            Trouble(worker=self._workers[host], began=began, ended=now) for host, (began, _) in self._troubles.items()
        ]
        return [*self.troubles, *still]

    def cut_off(self, host: str) -> None:
        """The agent of a host runs, and has no contact from now on."""
        self._cut[host] = cut = Cut(host=host, began=self._world.now)
        self.cuts.append(cut)

    def no_longer_cut_off(self, host: str) -> None:
        """It has contact, or does not run."""
        cut = self._cut.pop(host, None)
        if cut is not None:
            cut.ended = self._world.now

    def is_full(self, host: str) -> None:
        """The disk of a host has been full for so long that whoever runs there knows it."""
        self._full[host] = one = NoRoom(host=host, began=self._world.now)
        self.no_room.append(one)

    def has_room(self, host: str) -> None:
        """It is not full any more, if it was."""
        one = self._full.pop(host, None)
        if one is not None:
            one.ended = self._world.now


@dataclass(kw_only=True)
class Folder:
    """What is beside the journal of an agent: its mark, and how much room there is.

    With little room nothing new begins; with none nothing is written either.
    """

    mark: int = 0
    has_little_room: bool = False
    has_no_room: bool = False


@dataclass(kw_only=True)
class Disk:
    """What an agent keeps, as bytes. `lineage` are the incarnations that had its journal, the last one first; `commits` is
    how often it was written.
    """

    commits: int = 0
    lineage: tuple[str, ...] = ()
    place: str = ""
    slots: dict[int, bytes] = field(default_factory=dict[int, bytes])
    live: dict[int, bytes] = field(default_factory=dict[int, bytes])
    batches: dict[tuple[str, int], bytes] = field(default_factory=dict[tuple[str, int], bytes])
    plans: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])

    def begin_anew(self) -> None:
        """Forget what cannot be trusted any more: all but what is to be sent."""
        self.lineage = ()
        self.slots.clear()
        self.live.clear()

    def forget_plans(self, task: str) -> None:
        """Remove the plans of a task."""
        self.plans = {plan for plan in self.plans if plan[0] != task}
