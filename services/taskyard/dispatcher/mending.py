"""How much of what an agent reports may be read with care: a batch that cannot be read as a whole costs a hundred times as much.

Report by report, and with its texts mended, is how such a batch is read, so that one wrong report costs no other one. An agent
that stores nothing but garbage would so keep the others waiting: beyond its share its garbage is set aside at once.
"""

BYTES_AT_ONCE_MAX = 512 * 1024
"""Two batches of the greatest length, or very many as they are."""
BYTES_PER_SECOND = 32 * 1024
AGENTS_MAX = 20_000
"""Agents that are remembered, twice as many as workers that may be there."""


class Mending:
    """The share of each agent. Time is given, in monotonic seconds."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, float]] = {}

    def allows(self, agent: str, size: int, now: float) -> bool:
        """Whether so many bytes of the agent may be read with care now; then they are taken off its share."""
        if agent not in self._left and len(self._left) >= AGENTS_MAX:
            return False
        left, at = self._left.get(agent, (float(BYTES_AT_ONCE_MAX), now))
        left = min(left + (now - at) * BYTES_PER_SECOND, BYTES_AT_ONCE_MAX)
        is_allowed = size <= left
        self._left[agent] = (left - size if is_allowed else left, now)
        return is_allowed
