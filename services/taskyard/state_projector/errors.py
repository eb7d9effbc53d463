"""What can go wrong between the log and the read model."""


class ProjectorError(Exception):
    """The root of the errors of this package."""


class PositionMoved(ProjectorError):
    """Another instance, or a rebuild, has moved the position of the read model; nothing of this batch was written.

    Remedy: read the state again and go on behind it.
    """


class NotLeading(ProjectorError):
    """Another instance holds the lock of the read model. Remedy: wait for it."""


class RebuildRunning(ProjectorError):
    """Another rebuild is at work; this one has touched nothing. Remedy: wait for it, or end it."""


class LeftOverInUse(ProjectorError):
    """What an earlier rebuild has left behind is still read, and cannot be dropped. Remedy: wait for who reads it, or end it."""


class LogMismatch(ProjectorError):
    """The read model was folded from another log than the one that is followed now.

    Cause: a stream that was restored or made again, or a database that belongs to another system.
    Remedy: correct the connection, or replace the read model with `taskyard rebuild --other-log`.
    """


class SchemaTooNew(ProjectorError):
    """A newer version of this program has migrated the tables. Remedy: run that version."""
