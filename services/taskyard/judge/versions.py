"""Versions of what the log means: who does not know the one that was activated stops there."""

from collections import Counter
from collections.abc import Mapping, Sequence

from taskyard.contracts.events import AnyEvent, LogVersionActivated, UnknownEvent
from taskyard.judge.commits import Commit
from taskyard.judge.faults import Faults, Rule

COMMITS_ON_THEIR_WAY_MAX = 1
"""An instance folds its own last commit before it decides again, so this much of it may stand behind what it has not read."""


class Versions:
    """The version that is active, and who appended behind it without knowing it. `knows` has what an instance knows."""

    def __init__(self, faults: Faults, knows: Mapping[str, int]) -> None:
        self._faults = faults
        self._knows = knows
        self._active = 0
        self._behind: Counter[str] = Counter()

    def see_commit(self, commit: Commit, events: Sequence[AnyEvent | UnknownEvent], sequence: int) -> None:
        """The next commit and its events."""
        known = self._knows.get(commit.instance, self._active)
        if known < self._active:
            self._behind[commit.instance] += 1
            text = f"commit {sequence} of {commit.instance}: it knows version {known}, and {self._active} is active"
            is_late = self._behind[commit.instance] <= COMMITS_ON_THEIR_WAY_MAX
            self._faults.require(is_late, Rule.VERSION, text)
        activated = [event.version for event in events if isinstance(event, LogVersionActivated)]
        self._active = max([self._active, *activated])
