"""What can go wrong in a replay."""


class ReplayError(Exception):
    """The root."""


class NothingToReplay(ReplayError):
    """The stretch of the log holds no tasks, or its workers are not known. Remedy: another stretch, or name slots and workers."""


class ReplayTooLong(ReplayError):
    """The replay made more steps than REPLAY_COMMITS_MAX. Remedy: a shorter stretch."""
