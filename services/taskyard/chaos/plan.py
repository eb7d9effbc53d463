"""Which faults come in which order: drawn from a seed, before anything runs. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from taskyard.chaos.system import WORKERS, instances_of
from taskyard.dev.options import SERVICES

KILL, FREEZE, GONE, DISK_FULL, STOP_ALL, KILL_ALL = "kill", "freeze", "gone", "disk full", "stop all", "kill all"

NATS, POSTGRES, WORKER = "nats-server", "postgres", "worker"
DECIDING = ("scheduler", "slot_allocator", "dispatcher")
"""Services of which one instance leads."""
LEADER_SHARE = 0.75
"""How often the one that leads is hit rather than the other."""
OTHERS_SHARE = 3
"""Servers and workers are killed once for each so many kills of a service."""

FREEZE_SECONDS = 4.5
"""A lease and a half: another instance has taken over when it goes on."""
WORKER_FREEZE_SECONDS = 7.5
"""Longer than a worker may be silent: it is lost, and what it had is tried elsewhere, when it goes on."""
DISK_FULL_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """One fault: what is done to which part, for how long. `is_leader` says which of two instances is meant."""

    what: str
    part: str = ""
    seconds: float = 0.0
    is_leader: bool = True

    @property
    def name(self) -> str:
        """What the table calls it: all faults of a name make one row."""
        match self.what:
            case "kill":
                return f"kill -9 {self.part}"
            case "freeze":
                return f"SIGSTOP {self.part}"
            case "gone":
                return f"{self.part} gone for {self.seconds:g} s"
            case "disk full":
                return f"disk of {NATS} full"
            case "stop all":
                return "SIGTERM everything"
            case _:
                return "kill -9 everything"


def make_plan(random: Random, *, rounds: int, outage_seconds: float, has_own_disk: bool) -> list[Step]:
    """All faults in a drawn order. Each service is killed `rounds` times, everything else as often as it is worth."""
    steps = [*_kills(random, rounds), *_freezes(random)]
    steps.append(Step(what=GONE, part=POSTGRES, seconds=outage_seconds))
    if has_own_disk:
        steps.append(Step(what=DISK_FULL, part=NATS, seconds=DISK_FULL_SECONDS))
    steps += [Step(what=STOP_ALL), Step(what=KILL_ALL)]
    random.shuffle(steps)
    return steps


def choose_process(step: Step, random: Random, pids: dict[str, int], leaders: dict[str, str]) -> str:
    """Which process a step means now. An instance's name bears its pid as the last part but one."""
    if step.part == WORKER:
        return random.choice(WORKERS)
    if step.part not in SERVICES:
        return step.part
    instances = instances_of(step.part)
    if step.part not in DECIDING:
        return random.choice(instances)
    leads = [name for name in instances if leaders.get(step.part, "").split("-")[-2:-1] == [str(pids[name])]]
    others = [name for name in instances if name not in leads]
    return random.choice((leads if step.is_leader else others) or list(instances))


def _kills(random: Random, rounds: int) -> Iterator[Step]:
    for service in SERVICES:
        for _ in range(rounds):
            yield Step(what=KILL, part=service, is_leader=random.random() < LEADER_SHARE)
    for part in (WORKER, NATS, POSTGRES):
        for _ in range(max(1, rounds // OTHERS_SHARE)):
            yield Step(what=KILL, part=part)


def _freezes(random: Random) -> Iterator[Step]:
    for service in SERVICES:
        yield Step(what=FREEZE, part=service, seconds=FREEZE_SECONDS, is_leader=random.random() < LEADER_SHARE)
    yield Step(what=FREEZE, part=WORKER, seconds=WORKER_FREEZE_SECONDS)
