"""Why a measurement has no result."""


class BenchError(Exception):
    """The measurement could not be made; the message is for the person at the terminal."""


class SystemNotStarted(BenchError):
    """The system ended before it was ready. Remedy: read its logs in the folder (`--keep`)."""
