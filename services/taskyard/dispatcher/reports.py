"""Reading what agents report: whatever an agent stores must become something that everybody can read, or nothing.

A batch is read as a whole where that is possible, else report by report: one that cannot be read costs no other one.
"""

from collections.abc import Callable, Sequence

import msgspec
from msgspec import Raw, Struct

from taskyard.contracts.agent_protocol import (
    MESSAGE_CHARACTERS_MAX,
    REPORT_BATCH_MAX,
    AnyReport,
    Failed,
    Lost,
    Planned,
    Progressed,
    ReportBatch,
    Started,
    Succeeded,
)
from taskyard.contracts.events import Changes, StreamMark, TaskError
from taskyard.contracts.readable import UNREADABLE, canonical, mended, plain_text
from taskyard.contracts.values import Instant

REPORT_BYTES_READ_MAX = 256 * 1024
"""What is longer is no batch of ours, which are four times shorter. It would fit no commit, and so stop every leader."""
CODE_CHARACTERS_MAX = 200
RESULT_BYTES_MAX = 128 * 1024
RESULTS_BYTES_MAX = REPORT_BYTES_READ_MAX
"""All results of a batch, as they are stored. Those of one that holds more are left out: its ends count."""
NUMBER_MAX = 1 << 53
"""Numbers up to this are the same for every reader of JSON."""

_NO_RESULT = Raw(b"null")


class _Apart(Struct):
    reports: list[Raw]


_decode = msgspec.json.Decoder(ReportBatch).decode
_decode_apart = msgspec.json.Decoder(_Apart).decode
_decode_one = msgspec.json.Decoder(AnyReport).decode


class ReportsRead(Struct, frozen=True, kw_only=True):
    """A stored batch of an agent's reports, `size` bytes long. None: it could not be read.

    `unreadable` counts what was passed over: reports, or the whole batch; results that were left out too. Of a batch that
    shows a plan, `commands` marks what was commanded before it was read.
    """

    agent: str
    batch: ReportBatch | None
    size: int
    unreadable: int = 0
    commands: StreamMark | None = None

    @property
    def shows_plan(self) -> bool:
        """Whether a plan is among them."""
        return self.batch is not None and any(isinstance(report, Planned) for report in self.batch.reports)


def read_reports(agent: str, data: bytes, may_mend: Callable[[], bool] = lambda: True) -> ReportsRead:
    """The reports of a stored message. One that cannot be read as a whole is read report by report where that is allowed."""
    if len(data) > REPORT_BYTES_READ_MAX:
        return ReportsRead(agent=agent, batch=None, size=len(data), unreadable=1)
    try:
        batch, unreadable = _decode(data), 0
    except UNREADABLE:
        batch, unreadable = _read_apart(data) if may_mend() else (None, 1)
    if batch is None:
        return ReportsRead(agent=agent, batch=None, size=len(data), unreadable=1)
    reports = tuple(map(_checked, batch.reports))
    results_bytes = _results_bytes(reports)
    if results_bytes > RESULTS_BYTES_MAX:
        reports = tuple(map(_without_result, reports))
        results_bytes = _results_bytes(reports)
    unreadable += sum(
        new is not old and _is_without_result(new, old) for new, old in zip(reports, batch.reports, strict=True)
    )
    batch = msgspec.structs.replace(batch, reports=reports)
    return ReportsRead(agent=agent, batch=batch, size=len(data) + results_bytes, unreadable=unreadable)


def _results_bytes(reports: Sequence[AnyReport]) -> int:
    return sum(len(bytes(each.result)) for each in reports if isinstance(each, Succeeded | Failed))


def _without_result(report: AnyReport) -> AnyReport:
    is_end = isinstance(report, Succeeded | Failed)
    return msgspec.structs.replace(report, result=_NO_RESULT) if is_end else report


def _read_apart(data: bytes) -> tuple[ReportBatch | None, int]:
    """The reports that can be read, some of them mended, and how many cannot."""
    apart = _split(data)
    if apart is None:
        return None, 1
    reports = [report for raw in apart[:REPORT_BATCH_MAX] if (report := _read_one(raw)) is not None]
    return ReportBatch(incarnation=0, number=0, reports=tuple(reports)), len(apart) - len(reports)


def _split(data: bytes) -> list[Raw] | None:
    for each in (lambda: data, lambda: mended(data)):  # half of a character hides where its text ends
        try:
            return _decode_apart(each()).reports
        except UNREADABLE:
            continue
    return None


def _read_one(raw: Raw) -> AnyReport | None:
    try:
        return _decode_one(raw)
    except msgspec.ValidationError:
        return None
    except UNREADABLE:
        pass
    try:  # the end of an attempt counts, whatever bytes its program printed into the text of it
        return _decode_one(mended(bytes(raw)))
    except UNREADABLE:
        return None


def _checked(report: AnyReport) -> AnyReport:
    """The report with nothing in it that somebody could not read or keep; the very same one, if there is none."""
    replace = msgspec.structs.replace
    match report:
        case Started(at=at):
            return report if 0 <= at <= NUMBER_MAX else replace(report, at=Instant(min(max(at, 0), NUMBER_MAX)))
        case Progressed(message=message) if "\x00" in message:
            return replace(report, message=plain_text(message))
        case Planned(changes=changes):
            numbers = (changes.add, changes.change, changes.destroy)
            if all(0 <= number <= NUMBER_MAX for number in numbers):
                return report
            add, change, destroy = (min(max(number, 0), NUMBER_MAX) for number in numbers)
            return replace(report, changes=Changes(add=add, change=change, destroy=destroy))
        case Succeeded(result=result):
            stored = _stored(result)
            return report if stored == result else replace(report, result=stored)
        case Failed(error=error, result=result):
            return replace(report, error=_plain_error(error), result=_stored(result))
        case Lost(message=message) if "\x00" in message or len(message) > MESSAGE_CHARACTERS_MAX:
            return replace(report, message=plain_text(message[:MESSAGE_CHARACTERS_MAX]))
        case _:
            return report


def _stored(result: Raw) -> Raw:
    """The result in canonical form, none where it cannot be read or is too long so: `1e15` is written with 18 characters."""
    found = canonical(result)
    return found if found is not None and len(found) <= RESULT_BYTES_MAX else _NO_RESULT


def _plain_error(error: TaskError) -> TaskError:
    code = plain_text(error.code[:CODE_CHARACTERS_MAX])
    message = plain_text(error.message[:MESSAGE_CHARACTERS_MAX])
    if (code, message) == (error.code, error.message):
        return error
    return TaskError(code=code, message=message, retryable=error.retryable)


def _is_without_result(new: AnyReport, old: AnyReport) -> bool:
    if not isinstance(new, Succeeded | Failed) or not isinstance(old, Succeeded | Failed):
        return False
    return new.result == _NO_RESULT != old.result
