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


class LeaseLost(EventLogError):
    """This instance leads no longer, as far as the lease goes. Remedy: stop deciding, and stand by."""


class StreamReplaced(EventLogError):
    """A stream was deleted and made anew under its name while it was followed. Of a log that is a loss of everything:
    stop, and restore it. An input stream is read from its start: what the former one held and nobody had read is lost.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(f"stream {stream} was deleted and made anew")
        self.stream = stream


class StreamMissing(EventLogError):
    """A stream that is followed is not there (any more). Remedy: restore it; `taskyard.setup` makes it anew, empty."""

    def __init__(self, stream: str) -> None:
        super().__init__(f"stream {stream} is not there")
        self.stream = stream


class LogMissing(EventLogError):
    """There is no log, though commands were stored that it would tell of: it was deleted, or these are other servers.

    Remedy: restore the log (`taskyard log restore`). A log that begins anew would run every stored command again: who
    wants that deletes the stream of commands too.
    """

    def __init__(self, log: str, inputs: str) -> None:
        super().__init__(
            f"stream {log} is not there, and {inputs} holds what it has decided: restore it from an archive"
        )


class LogVersionUnknown(EventLogError):
    """From some commit on the log means what only a newer version of this program knows.

    Remedy: this instance stops, and is replaced by one of that version.
    """

    def __init__(self, *, version: int, known: int, sequence: int | None) -> None:
        has = (
            f"version {version} is"
            if sequence is None
            else f"the log has version {version} since commit {sequence}, which is"
        )
        super().__init__(f"{has} not known to this program: it knows {known} at most, install a newer one")
        self.version = version
        self.known = known


class LogBegins(EventLogError):
    """What is asked for lies before the beginning of the log, in its archive, and that is not known here.

    Remedy: set `log_archive` to the archive's address, with all segments from the first commit on.
    """

    def __init__(self, *, stream: str, first: int, wanted: int) -> None:
        super().__init__(
            f"{stream} begins with commit {first}, commit {wanted} is in an archive: set log_archive to where that is"
        )


class GenerationUnfinished(EventLogError):
    """The log is being exchanged for its next generation. Remedy: run `taskyard log new-generation` again: it goes on."""

    def __init__(self, stream: str) -> None:
        super().__init__(f"{stream} is being exchanged: run `taskyard log new-generation` again, which finishes it")


class LeaseHeld(EventLogError):
    """A service leads, where none may. Remedy: stop the services, and try again a few seconds later."""


class CopyRefused(EventLogError):
    """A log cannot be copied where it should go: something else stands there. Nothing there was changed.

    Remedy: copy into an empty server, or name the one that holds the beginning of this very log.
    """


class ArchiveDamaged(EventLogError):
    """A file of an archive is missing, was altered, or is of a later format; `name` is the file.

    Remedy: take it from another copy of the archive, or archive the log anew into an empty folder.
    """

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what}")
        self.name = name


class ArchiveUnreachable(EventLogError):
    """The place of an archive gives no answer, or refuses. Remedy: see the message, then try again: it goes on."""


class ArchiveMismatch(EventLogError):
    """An archive is of another log than the one that is to be archived. Remedy: name another folder."""


class SliceUnreadable(EventLogError):
    """A file is no slice of a log, was cut off, or is of a later format; `line` counts from 1. Remedy: export it again."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(f"line {line}: {what}")
        self.line = line
