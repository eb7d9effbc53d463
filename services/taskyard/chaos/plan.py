"""Which faults come in which order: drawn from a seed, before anything runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from taskyard.chaos.system import NATS, WORKER_WITH_DISK, WORKERS, instances_of
from taskyard.dev.options import SERVICES

KILL, FREEZE, GONE, DISK_FULL, STOP_ALL, KILL_ALL = "kill", "freeze", "gone", "disk full", "stop all", "kill all"
FREEZE_ALL, TWIN, JOURNAL_BACK, UNDER_APPLY, REFUSALS = "freeze all", "twin", "journal back", "under apply", "refusals"

POSTGRES, WORKER = "postgres", "worker"
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
NATS_FREEZE_SHARE = 0.65
"""Of the time that all services stand still: longer than a worker without contact lets run what others may run."""
TWIN_SECONDS = 10.0
MAY_END_ATTEMPTS = frozenset((STOP_ALL, KILL_ALL, JOURNAL_BACK))
"""After these an attempt may be lost that would have ended well; after a SIGSTOP of its worker too."""


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
                return f"disk of {self.part} full"
            case "stop all":
                return "SIGTERM everything"
            case "freeze all":
                return f"SIGSTOP all services, {self.seconds:g} s"
            case "twin":
                return "two agents of one name"
            case "journal back":
                return "a journal put back"
            case "under apply":
                return "kill -9 under an apply"
            case "refusals":
                return "refused commands"
            case _:
                return "kill -9 everything"

    @property
    def may_end_attempts(self) -> bool:
        """Whether attempts of the workers that it hits may be lost by it."""
        return self.what in MAY_END_ATTEMPTS or (self.what == FREEZE and self.part == WORKER)


def make_plan(
    random: Random,
    *,
    rounds: int,
    outage_seconds: float,
    freeze_seconds: float,
    has_own_disk: bool,
    has_terraform: bool = True,
) -> list[Step]:
    """All faults in a drawn order. Each service is killed `rounds` times, everything else as often as it is worth."""
    often = max(1, rounds // OTHERS_SHARE)
    steps = [*_kills(random, rounds), *_freezes(random, freeze_seconds)]
    steps.append(Step(what=GONE, part=POSTGRES, seconds=outage_seconds))
    steps += [Step(what=FREEZE_ALL, seconds=freeze_seconds) for _ in range(often)]
    steps += [Step(what=TWIN, part=WORKER, seconds=TWIN_SECONDS), Step(what=REFUSALS)] * often
    if has_terraform:
        steps += [Step(what=JOURNAL_BACK, part=WORKER), Step(what=UNDER_APPLY, part=WORKER)] * often
    if has_own_disk:
        steps += [Step(what=DISK_FULL, part=part, seconds=DISK_FULL_SECONDS) for part in (NATS, WORKER_WITH_DISK)]
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


def _freezes(random: Random, freeze_seconds: float) -> Iterator[Step]:
    for service in SERVICES:
        yield Step(what=FREEZE, part=service, seconds=FREEZE_SECONDS, is_leader=random.random() < LEADER_SHARE)
    yield Step(what=FREEZE, part=WORKER, seconds=WORKER_FREEZE_SECONDS)
    yield Step(what=FREEZE, part=NATS, seconds=round(freeze_seconds * NATS_FREEZE_SHARE, 1))
