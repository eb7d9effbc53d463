"""When the program's log tells of what stands aside: when it begins, and seldom while it is tried again and again. Pure."""

TOLD_AGAIN_SECONDS = 900.0
"""What stands aside and still raises is told again after this."""
TOLD_MAX = 1_000
"""References that are remembered; of more the one that was told first is forgotten."""


class Telling:
    """What was told when, in monotonic seconds of the caller."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def is_news(self, reference: str, error: Exception, now: float) -> bool:
        """Whether to tell of it; then it counts as told. Another kind of error is news."""
        key = f"{reference}: {type(error).__name__}"
        told = self._told.get(key)
        if told is not None and now - told < TOLD_AGAIN_SECONDS:
            return False
        self._told.pop(key, None)
        self._told[key] = now
        if len(self._told) > TOLD_MAX:
            del self._told[next(iter(self._told))]
        return True
