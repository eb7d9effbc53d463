"""What can go wrong with the servers and tools that Taskyard brings along."""


class EmbeddedError(Exception):
    """A server or tool that runs on this machine could not be used."""


class ProgramMissing(EmbeddedError):
    """A program is neither on PATH nor installed as a Python package; the message names the package to install."""


class StartFailed(EmbeddedError):
    """A server ended, or was not ready in time, after its start; the message names its log file."""


class NotOurs(EmbeddedError):
    """A folder that must be private belongs to someone else; remove it, or choose another place."""
