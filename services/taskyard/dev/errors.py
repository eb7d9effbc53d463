"""Why `taskyard dev` did not start, said to the person who started it."""


class DevError(Exception):
    """The system could not be started; the message is for the person at the terminal."""


class DirectoryInUse(DevError):
    """Another `taskyard dev` runs on the folder."""


class FormatTooNew(DevError):
    """A newer version of this program has made or changed the folder. Remedy: run that version, or name another folder."""


class FolderDamaged(DevError):
    """A file that an earlier run has kept cannot be read."""


class PortInUse(DevError):
    """Another program listens on a port that was asked for."""


class NotReady(DevError):
    """The system was not ready in time; the logs of its programs say why."""


def describe(error: OSError) -> str:
    """What the operating system refused, and for which file, in words for people."""
    return ": ".join(str(part) for part in (error.strerror or error, error.filename) if part)
