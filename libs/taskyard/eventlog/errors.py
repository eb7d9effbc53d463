"""What can go wrong between a service and the streams. A class per thing that a caller handles differently."""


class EventLogError(Exception):
    """The root of the errors of this package."""


class FenceMoved(EventLogError):
    """Another instance has appended for this writer, so this one leads no longer.

    Remedy: drop the commit, stop deciding and sending, fold the log again. The commit was not stored and never will be.
    """

    def __init__(self, *, writer: str, expected: int, actual: int) -> None:
        super().__init__(f"the last commit of {writer} is {actual}, not {expected}")
        self.writer = writer
        self.expected = expected
        self.actual = actual


class LogUnavailable(EventLogError):
    """The stream gave no answer for longer than the limit. After an append its outcome is unknown: it may be stored.

    Remedy: stop deciding; start again from the log (fold everything, append a new epoch), never with another commit at
    the same place.
    """


class CommitTooLarge(EventLogError):
    """A commit exceeds the limits of bytes or events. A bug of the writer, which must split by task; nothing was
    sent.
    """


class CommitUnreadable(EventLogError):
    """A stored commit is not of the known form, or bears another writer's name than its subject.

    Remedy: this program is older than the log or the log was tampered with. The instance must stop.
    """


class LogGap(EventLogError):
    """The log lost commits: a sequence is missing inside it, or its end lies before what was already read.

    Remedy: stop, and restore the log from a replica or an archive; folding on would rebuild a wrong state.
    """

    def __init__(self, *, stream: str, expected: int, actual: int) -> None:
        super().__init__(f"stream {stream} went on at {actual} where {expected} was expected")
        self.stream = stream
        self.expected = expected
        self.actual = actual


class StreamMismatch(EventLogError):
    """A stream exists with a setting that could lose or forge messages. Remedy: an operator repairs the stream."""

    def __init__(self, *, stream: str, setting: str, wanted: object, found: object) -> None:
        super().__init__(f"stream {stream} has {setting} = {found!r}, which must be {wanted!r}")
        self.stream = stream
        self.setting = setting
        self.wanted = wanted
        self.found = found


class Unanswered(EventLogError):
    """The server gave no usable answer to one request, whose effect is therefore unknown. Remedy: look, then try
    again.
    """


class ApiRefused(EventLogError):
    """JetStream answered a request with an error; `error_code` is its number, such as 10071."""

    def __init__(self, *, subject: str, code: int, error_code: int, description: str) -> None:
        super().__init__(f"{subject}: {description} ({code}/{error_code})")
        self.code = code
        self.error_code = error_code
        self.description = description
