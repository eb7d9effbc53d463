"""Reports: what the log says of an attempt was reported by its worker, and is told by the commit that accounts for it."""

from collections.abc import Sequence

import msgspec

from taskyard.contracts.agent_protocol import Failed, Planned, Progressed, ReportBatch, Started, Succeeded
from taskyard.contracts.events import (
    AnyEvent,
    AttemptFailed,
    AttemptSucceeded,
    TaskPlanned,
    TaskProgressed,
    TaskStarted,
)
from taskyard.contracts.subjects import REPORTS
from taskyard.judge.accounts import Account
from taskyard.judge.commits import Commit
from taskyard.judge.evidence import Reported
from taskyard.judge.faults import Faults, Rule
from taskyard.judge.life import Life

PLAN_MISSING = "plan_missing"

_decode = msgspec.json.Decoder(ReportBatch).decode


class Reports:
    """All stored reports, by who says what of which attempt. A lost attempt may be told by an answer as well."""

    def __init__(self, faults: Faults, reported: Sequence[Reported] | None) -> None:
        self._faults = faults
        self._account = Account(REPORTS)
        self._is_known = reported is not None
        self._stored: dict[tuple[str, str, int, str], list[tuple[str | None, int]]] = {}
        for batch in reported or ():
            for report in _reports_of(batch.data):
                key = (batch.worker, report.task, report.attempt, type(report).__name__)
                self._stored.setdefault(key, []).append((batch.stream, batch.sequence))

    def see_commit(self, commit: Commit) -> None:
        """The next commit begins."""
        self._account.see_commit(commit)

    def check(self, event: AnyEvent, life: Life, where: str) -> None:
        """An event took effect on a task."""
        match event:
            case TaskStarted():
                report = Started
            case TaskProgressed():
                report = Progressed
            case TaskPlanned():
                report = Planned
            case AttemptSucceeded():
                report = Succeeded
            case AttemptFailed() if event.error.code != PLAN_MISSING:  # an answer tells that too
                report = Failed
            case _:
                return
        stored = self._stored.get((life.worker or "", life.id, event.attempt, report.__name__), [])
        is_told = any(self._account.passes(*one) for one in stored)
        text = f"{where}: {life.worker} reported so of {life.id} in {stored}, which this commit does not account for"
        self._faults.require(is_told or not self._is_known, Rule.REPORTED, text, task=life.id)


def _reports_of(data: bytes) -> Sequence[Started | Progressed | Planned | Succeeded | Failed]:
    try:
        reports = _decode(data).reports
    except (msgspec.DecodeError, RecursionError):
        return ()
    return [report for report in reports if isinstance(report, Started | Progressed | Planned | Succeeded | Failed)]
