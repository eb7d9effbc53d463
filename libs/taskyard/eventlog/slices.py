"""Slices: a stretch of a log in a file of JSON Lines (`*.taskyard.jsonl`), to be looked at or replayed elsewhere.

The first line is a header; then follows one line for each stored commit, in log order and without gaps:

    {"format":1,"from":101,"to":250,"partition":"default"}
    {"sequence":101,"at":1795000000000000,"data":{"writer":"scheduler",…}}

`from` and `to` are sequences of commits, both included; `at` is the stream's timestamp in microseconds; `data` is the
commit with exactly the bytes that the log stores (so that hashes still hold), unless the header says `anonymised`.
`snapshot` in the header, where it is given, is a JSON object: the state before `from`, in the form of whoever reads it, and
anonymised where the commits are.

Wire format: read by later versions. Fields may be added with a default, never renamed, removed or given another meaning.
"""

from collections.abc import Iterator
from typing import BinaryIO, TypeVar

import msgspec
from msgspec import Raw, Struct, field

from taskyard.contracts.values import Instant
from taskyard.eventlog.commit import COMMIT_BYTES_MAX, CommitCodec, StoredCommit, hash_commit
from taskyard.eventlog.errors import CommitUnreadable, SliceUnreadable
from taskyard.eventlog.log import START

SLICE_SUFFIX = ".taskyard.jsonl"
SLICE_FORMAT = 1
SNAPSHOT_BYTES_MAX = 255 * 1024 * 1024
"""The longest state before a slice: it holds every live task."""
HEADER_BYTES_MAX = SNAPSHOT_BYTES_MAX + 1024 * 1024
"""The longest first line."""
LINE_BYTES_MAX = 2 * COMMIT_BYTES_MAX
"""The longest other line: names that are made up for real ones may be longer than these."""

E = TypeVar("E")


NO_SNAPSHOT = Raw(b"null")


class SliceHeader(Struct, frozen=True, kw_only=True):
    """What a slice holds: the commits from `first` to `last` of a partition's log. An empty slice ends before `first`."""

    first: int = field(name="from")
    last: int = field(name="to")
    partition: str
    anonymised: bool = False
    snapshot: Raw = NO_SNAPSHOT

    @property
    def has_snapshot(self) -> bool:
        """Whether the state before the slice is there."""
        return self.snapshot != NO_SNAPSHOT


class SliceLine(Struct, frozen=True, kw_only=True):
    """One stored commit: `data` is the JSON object of the commit."""

    sequence: int
    at: Instant
    data: Raw


class _Format(Struct, frozen=True):
    format: int


_decode_format = msgspec.json.Decoder(_Format).decode
_decode_header = msgspec.json.Decoder(SliceHeader).decode
_decode_line = msgspec.json.Decoder(SliceLine).decode
_encode = msgspec.json.Encoder().encode


class SliceWriter:
    """Writes a slice to a binary file that the caller opened and closes. Call `finish` at the end."""

    def __init__(self, file: BinaryIO, header: SliceHeader) -> None:
        self._file = file
        self._last = header.last
        self._next = header.first
        fields: dict[str, object] = {
            "format": SLICE_FORMAT,
            "from": header.first,
            "to": header.last,
            "partition": header.partition,
        }
        if header.anonymised:
            fields["anonymised"] = True
        if header.has_snapshot:
            fields["snapshot"] = header.snapshot
        self._write(_encode(fields))

    def add(self, *, sequence: int, at: Instant, data: bytes) -> None:
        """Write the next commit, whose stored bytes are `data`.

        Raises:
            ValueError: it is not the next one of the slice: a bug of the caller.
        """
        if sequence != self._next or sequence > self._last:
            raise ValueError(f"commit {sequence} is not the next one of the slice, {self._next} of {self._last} is")
        self._write(_encode(SliceLine(sequence=sequence, at=at, data=Raw(data))))
        self._next += 1

    def finish(self) -> None:
        """Say that all was added.

        Raises:
            ValueError: commits are missing: a bug of the caller.
        """
        if self._next != self._last + 1:
            raise ValueError(f"the slice ends before commit {self._next} instead of with {self._last}")

    def _write(self, line: bytes) -> None:
        if b"\n" in line:  # JSON may be stored with line breaks; only a forged commit is, since services write none.
            line = msgspec.json.format(line, indent=-1)
        self._file.write(line + b"\n")


class SliceReader:
    """Reads a slice from a binary file that the caller opened and closes.

    Raises:
        SliceUnreadable: the file does not begin as a slice does, or is of a later format.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        line = file.readline(HEADER_BYTES_MAX + 1)
        if len(line) > HEADER_BYTES_MAX:
            raise SliceUnreadable(1, f"longer than {HEADER_BYTES_MAX} bytes")
        try:
            found = _decode_format(line).format
            if found != SLICE_FORMAT:
                raise SliceUnreadable(1, f"format {found} is not known here, only {SLICE_FORMAT}")
            header = _decode_header(line)
        except msgspec.DecodeError as error:
            raise SliceUnreadable(1, f"not the header of a slice: {error}") from error
        if header.first < 1 or header.last < header.first - 1:
            raise SliceUnreadable(1, f"the slice claims to go from {header.first} to {header.last}")
        self.header: SliceHeader = header

    def lines(self) -> Iterator[SliceLine]:
        """The stored commits as they stand in the file, once.

        Raises:
            SliceUnreadable: a line is no stored commit, one is missing, or there are more than the header says.
        """
        expected = self.header.first
        number = 1
        while line := self._file.readline(LINE_BYTES_MAX + 1):
            number += 1
            yield self._parse(line, number, expected)
            expected += 1
        if expected <= self.header.last:
            raise SliceUnreadable(number, f"the file ends before commit {expected} of {self.header.last}")

    def commits(self, codec: CommitCodec[E]) -> Iterator[StoredCommit[E]]:
        """The stored commits, decoded; their times never go back.

        Raises:
            SliceUnreadable: see `lines`; also a commit that cannot be understood.
        """
        reached = START
        for number, line in enumerate(self.lines(), start=2):
            data = bytes(line.data)
            try:
                commit = codec.decode(data)
            except CommitUnreadable as error:
                raise SliceUnreadable(number, str(error)) from error
            reached = max(reached, line.at)
            yield StoredCommit(sequence=line.sequence, at=reached, commit=commit, hash=hash_commit(data))

    def _parse(self, line: bytes, number: int, expected: int) -> SliceLine:
        if len(line) > LINE_BYTES_MAX:
            raise SliceUnreadable(number, f"longer than {LINE_BYTES_MAX} bytes")
        try:
            parsed = _decode_line(line)
        except msgspec.DecodeError as error:
            raise SliceUnreadable(number, f"not a stored commit: {error}") from error
        if parsed.sequence != expected:
            raise SliceUnreadable(number, f"commit {parsed.sequence} stands where {expected} is expected")
        if parsed.sequence > self.header.last:
            raise SliceUnreadable(number, f"the slice should end with commit {self.header.last}")
        return parsed
