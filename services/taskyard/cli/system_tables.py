"""Workers, queues, pools and statistics for people. Pure."""

from collections.abc import Iterable

from rich.text import Text

from taskyard.cli import texts
from taskyard.cli.tables import Column, layout
from taskyard.cli.views import Health, Pool, Queue, Readiness, Slot, Stats, Times, Worker

SLOT_COLUMNS = (
    Column(title="WORKER"),
    Column(title="STATUS", styled=True),
    Column(title="POOL", narrow=7, leaves=2),
    Column(title="SLOT", align_right=True),
    Column(title="IS", styled=True),
    Column(title="TASK"),
    Column(title="ACCEPTS", narrow=6, leaves=1),
    Column(title="LABELS", narrow=8, leaves=3, style="bright_black"),
)
QUEUE_COLUMNS = (
    Column(title="POOL", narrow=7, leaves=1),
    Column(title="QUEUE", narrow=12),
    Column(title="WAITING", align_right=True),
    Column(title="RUNNING", align_right=True),
    Column(title="MAX", align_right=True),
    Column(title="CLOSED", narrow=16, style="yellow"),
)
POOL_COLUMNS = (
    Column(title="POOL", narrow=12),
    Column(title="WAITING", align_right=True),
    Column(title="RUNNING", align_right=True),
    Column(title="WORKERS", align_right=True),
    Column(title="MAX WAITING", align_right=True, leaves=1),
    Column(title="APPROVAL", align_right=True, leaves=2),
    Column(title="PLACEMENT", leaves=3),
    Column(title="CLOSED", narrow=16, style="yellow"),
)
MINUTES_SHOWN = slice(len("2026-"), len("2026-11-21 10:00"))
"""What is told of the time of a pause or lock: room is scarce, and the JSON has all of it."""
STATUSES = (
    "pending", "scheduled", "assigned", "dispatched", "running", "apply_pending", "cancelling",
    "completed", "failed", "timeout", "cancelled",
)  # fmt: skip


def worker_table(workers: Iterable[Worker], width: int | None) -> list[Text]:
    """A line for each slot, and one for a worker without any; then why workers take nothing new."""
    shown = list(workers)
    rows = [row for worker in shown for row in _slot_rows(worker)]
    reasons = (texts.one_line(f"{worker.id} ({worker.status}): {worker.reason}") for worker in shown if worker.reason)
    told = [Text(line, style="yellow") for reason in reasons for line in texts.folded(reason, width, indent=2)]
    return [*layout(SLOT_COLUMNS, rows, width), *told]


def queue_table(queues: Iterable[Queue], width: int | None) -> list[Text]:
    """A line for each queue."""
    rows = [
        (
            texts.one_line(queue.pool),
            texts.one_line(queue.queue),
            str(queue.depth),
            str(queue.running),
            _number(queue.max_running),
            "; ".join(_closed(queue)),
        )
        for queue in queues
    ]
    return layout(QUEUE_COLUMNS, rows, width)


def pool_table(pools: Iterable[Pool], width: int | None) -> list[Text]:
    """A line for each pool; settings that nobody has set are empty."""
    rows = [
        (
            texts.one_line(pool.pool),
            str(pool.depth),
            str(pool.running),
            str(pool.workers),
            _number(pool.max_waiting),
            "" if pool.approval_timeout_seconds is None else texts.short(pool.approval_timeout_seconds),
            pool.placement or "",
            _held("paused", pool.paused_by, pool.paused_reason, pool.paused_at) if pool.paused else "",
        )
        for pool in pools
    ]
    return layout(POOL_COLUMNS, rows, width)


def stats_tables(stats: Stats, width: int | None) -> list[Text]:
    """Numbers by kind and status, then times."""
    statuses = [status for status in STATUSES if stats.by_status.get(status)]
    statuses += sorted(status for status in stats.by_status if status not in STATUSES)
    columns = (
        Column(title="KIND", narrow=8),
        *(Column(title=status.upper(), narrow=6, align_right=True) for status in statuses),
        Column(title="ALL", align_right=True),
    )
    kinds = [(kind, counts) for kind, counts in sorted(stats.by_kind.items()) if any(counts.values())]
    rows = [(texts.one_line(kind), *_counts(counts, statuses), str(sum(counts.values()))) for kind, counts in kinds]
    total = ("all", *_counts(stats.by_status, statuses), str(stats.tasks))
    times = (
        ("submit to start", *_times(stats.waiting_seconds)),
        ("start to end", *_times(stats.execution_seconds)),
    )
    head = (
        Column(title=f"TIMES OF {stats.measured}"),
        *(Column(title=title, align_right=True) for title in ("MEAN", "P50", "P95")),
    )
    return [*layout(columns, [*rows, total], width), Text(), *layout(head, times, width)]


def health_lines(health: Health) -> list[Text]:
    """Each service and who leads it; one that is not well stands out."""
    rows = [
        (service, "not learnt just now" if service in health.unknown else texts.one_line(leader or "-"))
        for service, leader in health.leaders.items()
    ]
    width = max((len(service) for service, _ in rows), default=0)
    lines = [Text(f"{name:<{width}}  {who}", style="bold red" if name in health.reasons else "") for name, who in rows]
    told = (f"{texts.one_line(name)}: {texts.one_line(warning)}" for name, warning in health.warnings.items())
    return lines + [Text(line, style="yellow") for line in told]


def lag_lines(readiness: Readiness | None) -> list[Text]:
    """How far what is shown is behind the log; nothing where it is up to date, or nobody can tell."""
    if readiness is None or not readiness.projection_lag_commits:
        return []
    age = readiness.projection_lag_seconds
    since = "" if age is None else f" {texts.duration(age)}"
    behind = f"the read model is{since} behind the log, commits it lacks: {readiness.projection_lag_commits}"
    return [Text(), Text(behind, style="" if readiness.ready else "bold red")]


def _slot_rows(worker: Worker) -> list[tuple[str, ...]]:
    slots = worker.slots or [Slot(id=-1)]
    return [
        (
            texts.one_line(worker.id),
            worker.status,
            texts.one_line(worker.pool),
            str(slot.id) if slot.id >= 0 else "",
            slot.status,
            slot.task or "",
            texts.one_line(",".join(slot.accepts)),
            texts.pairs(worker.labels or {}) if slot is slots[0] else "",
        )
        for slot in slots
    ]


def _closed(queue: Queue) -> list[str]:
    how = "pool paused" if queue.paused_scope == "pool" else "paused"
    paused = [_held(how, queue.paused_by, queue.paused_reason, queue.paused_at)] if queue.paused else []
    locked = [_held("locked", queue.locked_by, queue.locked_reason, queue.locked_at)] if queue.locked else []
    return paused + locked


def _held(how: str, by: str | None, reason: str | None, at: str | None) -> str:
    since = f" since {texts.moment(at)[MINUTES_SHOWN]}" if at else ""
    return texts.one_line(how + (f" by {by}" if by else "") + since + (f": {reason}" if reason else ""))


def _number(limit: int | None) -> str:
    return "" if limit is None else str(limit)


def _counts(counts: dict[str, int], statuses: list[str]) -> tuple[str, ...]:
    return tuple(str(counts.get(status) or "") for status in statuses)


def _times(times: Times) -> tuple[str, ...]:
    return tuple("" if value is None else texts.duration(value) for value in (times.mean, times.p50, times.p95))
