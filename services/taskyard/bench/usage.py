"""What programs and the machine used: processor time and memory, from `/proc` (Linux only)."""

import os
import platform
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec import Struct

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
MEBIBYTE = 1 << 20
KIBIBYTE = 1 << 10

BUSY_SHARE = 0.9
"""From here on a processor, or all of them, count as used up."""


class Sample(Struct, frozen=True, kw_only=True):
    """Processor seconds used so far: by each program with its children, and by everything on all processors."""

    programs: dict[str, float]
    machine_busy: float
    machine_total: float


class ProgramUsage(Struct, frozen=True, kw_only=True):
    """What one program used. `cores` is its part of one processor; memory in MiB, at its highest."""

    cpu_seconds: float
    cores: float
    cpu_us_per_task: float
    peak_memory_mib: float


class Usage(Struct, frozen=True, kw_only=True):
    """What was used between two samples. `busy_share` is of all processors, whoever used them."""

    programs: dict[str, ProgramUsage]
    busy_share: float
    others_share: float
    limit: str


class Machine(Struct, frozen=True, kw_only=True):
    """What was measured on."""

    processor: str
    cores: int
    memory_gib: float
    system: str
    python: str


def sample(programs: Mapping[str, int], own_name: str) -> Sample:
    """Read what the programs (pids by name) have used so far, and this process, without its children, as `own_name`."""
    children = _children()
    used = {name: sum(map(_cpu_seconds, _family(pid, children))) for name, pid in programs.items()}
    used[own_name] = sum(os.times()[:2])
    # user, nice, system, idle, iowait, irq, softirq, steal: what follows is counted among the first two.
    ticks = [int(field) for field in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    total = sum(ticks) / TICKS_PER_SECOND
    return Sample(programs=used, machine_busy=total - (ticks[3] + ticks[4]) / TICKS_PER_SECOND, machine_total=total)


def peak_memory(programs: Mapping[str, int], own_name: str) -> dict[str, float]:
    """The highest resident memory of each program in MiB. Memory that its processes share counts once."""
    children = _children()
    peaks = {name: _peak_of(_family(pid, children)) for name, pid in programs.items()}
    peaks[own_name] = _peak_of([os.getpid()])
    return peaks


def memory_now(programs: Mapping[str, int]) -> dict[str, float]:
    """The memory that each program with its children holds now, in MiB: of what it shares with others, its share."""
    children = _children()
    return {
        name: sum(_proportional_bytes(member) for member in _family(pid, children)) / MEBIBYTE
        for name, pid in programs.items()
    }


def compare(
    before: Sample, after: Sample, *, memory: Mapping[str, float], wall_seconds: float, tasks: int, cores: int
) -> Usage:
    """What was used from one sample to the other, and what that says about the limit."""
    programs: dict[str, ProgramUsage] = {}
    for name, used in after.programs.items():
        cpu_seconds = used - before.programs.get(name, 0.0)
        programs[name] = ProgramUsage(
            cpu_seconds=round(cpu_seconds, 2),
            cores=round(cpu_seconds / wall_seconds, 3),
            cpu_us_per_task=round(cpu_seconds * 1e6 / tasks, 1),
            peak_memory_mib=round(memory.get(name, 0.0), 1),
        )
    total = max(after.machine_total - before.machine_total, 1e-9)
    busy_share = (after.machine_busy - before.machine_busy) / total
    own_share = sum(used.cores for used in programs.values()) / cores
    return Usage(
        programs=programs,
        busy_share=round(busy_share, 3),
        others_share=round(max(busy_share - own_share, 0.0), 3),
        limit=_limit(programs, busy_share),
    )


def describe_machine() -> Machine:
    """What this process runs on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        processor=next(models, platform.machine()),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(memory / (MEBIBYTE * KIBIBYTE), 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def _limit(programs: Mapping[str, ProgramUsage], busy_share: float) -> str:
    name, most = max(programs.items(), key=lambda item: item[1].cpu_seconds)
    busiest = f"{name} used most, {most.cores:.2f} of a core"
    if busy_share >= BUSY_SHARE:
        return f"the processors of this machine ({busy_share:.0%} busy); {busiest}"
    if most.cores >= BUSY_SHARE:
        return f"{name}, which kept a core busy ({most.cores:.2f}), while others were free"
    return f"waiting, for the disk or for one another, since no processor was used up; {busiest}"


def _children() -> dict[int, list[int]]:
    """The children of every process, by its pid."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            children[int(fields[1])].append(int(folder.name))
    return children


def _family(pid: int, children: Mapping[int, Iterable[int]]) -> list[int]:
    return [pid, *(member for child in children.get(pid, ()) for member in _family(child, children))]


def _cpu_seconds(pid: int) -> float:
    """Of the process and of its children that have ended; zero if it has ended itself."""
    fields = _stat(pid)
    return sum(int(ticks) for ticks in fields[11:15]) / TICKS_PER_SECOND if fields else 0.0


def _peak_of(pids: Iterable[int]) -> float:
    peaks = [(_status_bytes(pid, "VmHWM"), _status_bytes(pid, "RssShmem")) for pid in pids]
    own = sum(peak - shared for peak, shared in peaks)
    return (own + max((shared for _, shared in peaks), default=0)) / MEBIBYTE


def _stat(pid: int) -> list[str]:
    """The fields of `/proc/PID/stat` after the program's name, which may itself hold spaces; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _proportional_bytes(pid: int) -> int:
    return _field_bytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss")


def _status_bytes(pid: int, field: str) -> int:
    return _field_bytes(Path(f"/proc/{pid}/status"), field)


def _field_bytes(file: Path, field: str) -> int:
    """A field that is told in KiB; zero if the process has ended."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * KIBIBYTE for line in lines if line.startswith(f"{field}:")), 0)
