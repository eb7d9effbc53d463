"""Runs a slice of a recorded log: its commands once more, on the real machines in simulated time, and judges what comes.

No faults are drawn here. What a slice shows is a case from a real system, such as one in which something went wrong.
"""

from pathlib import Path

from msgspec import Struct

from taskyard.judge.evidence import Evidence, Logged
from taskyard.judge.verdict import judge
from taskyard.replay.reading import read_slice
from taskyard.replay.running import rerun


class SliceOutcome(Struct, frozen=True, kw_only=True):
    """What came of a slice; `failures` are the rules that were broken, `is_over` says whether all its tasks have ended."""

    events: int
    tasks: int
    failures: list[str]
    is_over: bool


def run_slice(path: Path) -> SliceOutcome:
    """Run it, and judge the log that it makes.

    Raises:
        SliceUnreadable: the file is no slice.
        NothingToReplay: it holds no tasks, or tells nothing of workers, or is too long.
        ReplayTooLong: it comes to no end.
        OSError: the file cannot be read.
    """
    before, commits, _ = read_slice(path)
    again = rerun(before, commits)
    log = [Logged.stored(message.sequence, message.at, message.subject, message.data) for message in again.log]
    verdict = judge(Evidence(log=log, is_over=again.is_over))
    failures = [str(fault) for fault in verdict.faults]
    return SliceOutcome(events=verdict.events, tasks=len(verdict.lives), failures=failures, is_over=again.is_over)
