"""What the slot allocator shows of itself: workers and their slots, as folded."""

from collections import Counter
from collections.abc import Callable, Iterable

from taskyard.contracts.fleet import Worker
from taskyard.slot_allocator.state import AllocatorState
from taskyard.telemetry.metrics import MetricsScope, Sample

IDLE, RUNNING, RESERVED = "idle", "running", "reserved"


def show_slots(metrics: MetricsScope, state: Callable[[], AllocatorState]) -> None:
    """Show workers and slots. A job worker of other systems is a slot here: it does one task at a time."""
    metrics.gauge("taskyard_slots", "Slots of workers that are not lost, by status.", lambda: _slots(state()))
    metrics.gauge("taskyard_active_workers", "Slots that a task runs in.", lambda: _active(state()))
    metrics.gauge("taskyard_max_workers", "Slots of workers that are not lost.", lambda: _all(state()))
    metrics.gauge("taskyard_worker_hosts", "Workers by status.", lambda: _hosts(state()))


def _slots(state: AllocatorState) -> Iterable[Sample]:
    counts: Counter[tuple[str, str]] = Counter()
    for worker in _there(state):
        reserved = sum(_is_reserved(state, worker, slot) for slot in worker.busy)
        counts[worker.pool, RESERVED] += reserved
        counts[worker.pool, RUNNING] += len(worker.busy) - reserved
        counts[worker.pool, IDLE] += len(worker.slots) - len(worker.busy)
    return [({"pool": pool, "status": status}, float(count)) for (pool, status), count in counts.items()]


def _active(state: AllocatorState) -> Iterable[Sample]:
    return [({"pool": labels["pool"]}, count) for labels, count in _slots(state) if labels["status"] == RUNNING]


def _all(state: AllocatorState) -> Iterable[Sample]:
    counts: Counter[str] = Counter()
    for worker in _there(state):
        counts[worker.pool] += len(worker.slots)
    return [({"pool": pool}, float(count)) for pool, count in counts.items()]


def _hosts(state: AllocatorState) -> Iterable[Sample]:
    counts = Counter((worker.pool, _status(worker)) for worker in state.fleet.workers.values())
    return [({"pool": pool, "status": status}, float(count)) for (pool, status), count in counts.items()]


def _there(state: AllocatorState) -> list[Worker]:
    return [worker for worker in state.fleet.workers.values() if not worker.is_lost]


def _is_reserved(state: AllocatorState, worker: Worker, slot: int) -> bool:
    record = state.tasks.live.get(worker.busy[slot])
    return record is not None and record.is_reserved


def _status(worker: Worker) -> str:
    if worker.is_lost:
        return "lost"
    if worker.is_suspect:
        return "suspect"
    return "draining" if worker.is_draining else "active"
