"""The report of a replay for people. Pure."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.text import Text

from taskyard.cli import texts
from taskyard.cli.tables import Column, layout

if TYPE_CHECKING:
    from taskyard.replay.measuring import Measures, Waiting
    from taskyard.replay.running import Report

QUEUES_TOLD_MAX = 20
_NUMBERS = ("THEN", "NOW", "CHANGE")


def report_lines(report: "Report", width: int | None) -> Iterator[Text]:
    """What was replayed, what it came to then and now, and what that rests on."""
    recorded, replayed = report.recorded, report.replayed
    yield Text(
        f"commits {report.first} to {report.last}, {texts.moment(report.began)} to {texts.moment(report.ended)} UTC",
        style="bold",
    )
    yield from _folded(f"replayed {_settings(report)}", width)
    yield Text()
    columns = (Column(title=""), *(Column(title=title, align_right=True) for title in _NUMBERS))
    yield from layout(columns, _totals(recorded, replayed), width)
    yield Text()
    yield from layout(_waiting_columns(), list(_waiting_rows(recorded, replayed)), width)
    yield Text()
    yield from layout(_slot_columns(), list(_slot_rows(recorded, replayed)), width)
    yield Text()
    yield from _order(report, width)
    for note in report.notes:
        yield from _folded(f"note: {texts.one_line(note)}", width, len("note: "), style="bright_black")


def _folded(text: str, width: int | None, indent: int = 2, style: str = "") -> Iterator[Text]:
    return (Text(line, style=style, no_wrap=True) for line in texts.folded(text, width, indent))


def _settings(report: "Report") -> str:
    what_if = report.what_if
    told = [f"with the policy {what_if.policy}"] if what_if.policy is not None else []
    if what_if.slots is not None:
        told.append(f"with slots {', '.join(map('+'.join, what_if.slots))}")
    if what_if.workers is not None:
        told.append(f"on {what_if.workers} workers in each pool" if what_if.workers > 1 else "on 1 worker in each pool")
    return ", ".join(told) or "with the settings of then"


def _totals(recorded: "Measures", replayed: "Measures") -> Iterator[tuple[str, ...]]:
    yield "tasks started", str(recorded.started), str(replayed.started), _change(recorded.started, replayed.started)
    spans = recorded.makespan_seconds, replayed.makespan_seconds
    yield "first to last", *map(texts.duration, spans), _change(*spans)
    yield "slots in use", _share(recorded.use), _share(replayed.use), _change(recorded.use, replayed.use)
    for status in sorted({*recorded.by_status, *replayed.by_status}):
        then, now = recorded.by_status.get(status, 0), replayed.by_status.get(status, 0)
        yield status, str(then), str(now), _change(then, now)


def _waiting_columns() -> tuple[Column, ...]:
    titles = (title for what in ("P50", "P95", "MAX") for title in (f"{what} THEN", "NOW"))
    return (
        Column(title="WAITING", narrow=10),
        Column(title="TASKS", align_right=True, leaves=1),
        *(Column(title=title, align_right=True) for title in titles),
    )


def _waiting_rows(recorded: "Measures", replayed: "Measures") -> Iterator[tuple[str, ...]]:
    yield _waiting_row("all", recorded.waiting, replayed.waiting)
    for kind in sorted({*recorded.waiting_by_kind, *replayed.waiting_by_kind}):
        yield _waiting_row(kind, recorded.waiting_by_kind.get(kind), replayed.waiting_by_kind.get(kind))
    queues = {*recorded.waiting_by_queue, *replayed.waiting_by_queue}
    # Those in which most was waited; a queue for each task would tell nothing.
    told = sorted(queues, key=lambda queue: (-_worst(queue, recorded, replayed), queue))[:QUEUES_TOLD_MAX]
    for queue in sorted(told):
        then, now = recorded.waiting_by_queue.get(queue), replayed.waiting_by_queue.get(queue)
        yield _waiting_row(f"queue {queue}", then, now)
    if len(queues) > len(told):
        yield (f"{len(queues) - len(told)} queues more", *[""] * 7)


def _worst(queue: str, *measures: "Measures") -> float:
    return max(each.waiting_by_queue[queue].max for each in measures if queue in each.waiting_by_queue)


def _waiting_row(name: str, then: "Waiting | None", now: "Waiting | None") -> tuple[str, ...]:
    tasks = str((then or now).tasks) if (then or now) is not None else ""  # pyright: ignore[reportOptionalMemberAccess]
    values = ((w.p50, w.p95, w.max) if w is not None else (None,) * 3 for w in (then, now))
    pairs = zip(*values, strict=True)
    return (texts.one_line(name), tasks, *("" if s is None else texts.duration(s) for pair in pairs for s in pair))


def _slot_columns() -> tuple[Column, ...]:
    titles = ("SLOTS THEN", "NOW", "USE THEN", "NOW")
    return (Column(title="SLOTS THAT TAKE"), *(Column(title=title, align_right=True) for title in titles))


def _slot_rows(recorded: "Measures", replayed: "Measures") -> Iterator[tuple[str, ...]]:
    then, now = ({use.accepts: use for use in each.slots} for each in (recorded, replayed))
    for accepts in sorted({*then, *now}):
        one, other = then.get(accepts), now.get(accepts)
        yield (
            accepts,
            str(one.slots) if one else "",
            str(other.slots) if other else "",
            _share(one.use) if one else "",
            _share(other.use) if other else "",
        )


def _order(report: "Report", width: int | None) -> Iterator[Text]:
    order = report.order
    told = (
        f"{order.moved} of {order.compared} tasks got their first slot in another place, "
        f"{order.swapped:.1%} of all pairs the other way round"
        if order.moved
        else f"the same; {order.compared} tasks got their first slot in the order of then"
    )
    yield from _folded(f"order: {told}", width, len("order: "))
    for move in order.moves:
        yield Text(f"  {move.task}  {move.recorded}. → {move.replayed}.", style="bright_black")


def _share(use: float) -> str:
    return f"{use:.0%}"


def _change(then: float, now: float) -> str:
    if then == 0:
        return "=" if now == 0 else ""
    change = f"{(now - then) / then:+.0%}"
    return "=" if change in ("+0%", "-0%") else change
