"""What `taskyard dev` is asked to run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from taskyard.dev.supervisor import PROGRAMS_MAX
from taskyard.settings import DEFAULT_SLOTS

SERVICES = ("scheduler", "slot_allocator", "dispatcher", "state_projector", "api")
WORKERS_MAX = PROGRAMS_MAX - len(SERVICES) - 2

# The module that each program runs: services that share a process are one program.
MODULES: Mapping[str, str] = {
    **{name: f"taskyard.{name}" for name in SERVICES},
    "services": "taskyard.dev.services",
    "worker": "taskyard.agent",
    "setup": "taskyard.setup",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run. Port 0 means the port of the last run if it is still free, else any free one.

    `slots` is what each slot of every worker accepts. Where services are `separate` there are so many `instances` of
    each: the second of the scheduler is the program `scheduler-2`, with the settings `services-2`. `guests` are agents that
    may connect, and that nobody starts here.
    """

    data: Path
    http_port: int = 0
    nats_port: int = 0
    workers: int = 1
    separate: bool = False
    instances: int = 1
    slots: Sequence[Sequence[str]] = DEFAULT_SLOTS
    guests: Sequence[str] = ()
    modules: Mapping[str, str] = field(default_factory=lambda: MODULES)

    @property
    def worker_names(self) -> tuple[str, ...]:
        """The workers: programs, NATS users and ids at once."""
        return tuple(f"worker-{number}" for number in range(1, self.workers + 1))

    @property
    def service_names(self) -> tuple[str, ...]:
        """The programs of services of which there are `instances`."""
        return SERVICES if self.separate else ("services",)

    @property
    def instance_numbers(self) -> range:
        """The numbers of the instances."""
        return range(1, self.instances + 1)


def numbered(name: str, number: int) -> str:
    """The name of the instance `number`: the first bears the bare name."""
    return name if number == 1 else f"{name}-{number}"
