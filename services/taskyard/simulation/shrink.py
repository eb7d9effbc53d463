"""Makes a failing run smaller: acts are left out as long as it still fails in the same way.

What is drawn while a run goes on depends on what happened before, so leaving something out may end in another failure, or
in none: then it stays. The search is bounded by a number of runs.
"""

import re

from taskyard.simulation.run import Outcome, run_seed

RUNS_MAX = 150

_DETAILS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+|'[^']*'|\([^)]*\)")


def shrink(outcome: Outcome, *, runs_max: int = RUNS_MAX) -> Outcome:
    """A run of the same seed that fails in the same way with fewer acts."""
    kind, smallest, runs = _kind(outcome), outcome, 0
    kept = [number for number in range(len(outcome.acts)) if number not in outcome.without]
    size = len(kept)
    while size and runs < runs_max:
        first = 0
        while first < len(kept) and runs < runs_max:
            part = kept[first : first + size]
            tried = run_seed(outcome.seed, smallest.without | set(part))
            runs += 1
            if tried.failures and _kind(tried) == kind:
                smallest = tried
                del kept[first : first + size]
            else:
                first += size
        size = min(size // 2, len(kept))
    return smallest


def _kind(outcome: Outcome) -> str:
    """What went wrong first, without which task and when."""
    return _DETAILS.sub("", outcome.failures[0])
