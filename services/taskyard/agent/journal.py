"""What the agent keeps on disk: the memory of its slots, its live attempts, its unsent reports, its incarnations.

SQLite in WAL mode with `synchronous=FULL`: a commit is one fsync, a torn write is discarded at the next opening. Writes
are gathered in memory; `sync` commits all of them in one transaction, and whoever waits meanwhile shares the next one.
"""

import asyncio
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from taskyard.agent.errors import DirectoryInUseError, JournalError
from taskyard.agent.logs import fields
from taskyard.agent.mark import Mark
from taskyard.agent.slots import Live, MemoryChanges, Remembered
from taskyard.contracts.agent_protocol import LINEAGE_MAX
from taskyard.contracts.values import Incarnation
from taskyard.private_files import close_files, make_file, open_to_append, own_folder

FORMAT = 2
FULL_RETRY_SECONDS = 0.5
FULL_SECONDS_MAX = 600.0
"""How long a commit is tried again while the disk is full. What runs goes on meanwhile; then the agent ends, and leaves it."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS slots (slot INTEGER PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS live (position INTEGER PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS lineage (run INTEGER PRIMARY KEY, incarnation TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS reports (entry INTEGER PRIMARY KEY, incarnation TEXT NOT NULL, number INTEGER NOT NULL,
                                    payload BLOB NOT NULL, UNIQUE (incarnation, number));
"""
_PUT_META = "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)"
_PUT_SLOT = "INSERT OR REPLACE INTO slots (slot, record) VALUES (?, ?)"
_PUT_LIVE = "INSERT OR REPLACE INTO live (position, record) VALUES (?, ?)"
_DELETE_LIVE = "DELETE FROM live WHERE position = ?"
_PUT_BATCH = "INSERT INTO reports (incarnation, number, payload) VALUES (?, ?, ?)"
_DELETE_BATCH = "DELETE FROM reports WHERE incarnation = ? AND number = ?"
_PUT_LINEAGE = "INSERT INTO lineage (incarnation) VALUES (?)"
_CUT_LINEAGE = "DELETE FROM lineage WHERE run <= (SELECT max(run) FROM lineage) - ?"
_COUNT_COMMIT = """
INSERT INTO meta (name, value) VALUES ('commits', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value
"""
_FROM_FORMAT_1 = """
INSERT INTO reports (incarnation, number, payload)
    SELECT CAST(incarnation AS TEXT), number, payload FROM outbox ORDER BY incarnation, number;
INSERT INTO lineage (incarnation) SELECT CAST(value AS TEXT) FROM meta WHERE name = 'incarnation';
DROP TABLE outbox;
DELETE FROM meta WHERE name IN ('incarnation', 'born');
UPDATE meta SET value = 2 WHERE name = 'format';
"""
_FORGET = ("DELETE FROM slots", "DELETE FROM live", "DELETE FROM lineage")
_STRANGERS = "strangers"
"""In `meta` from the beginning of a journal until what others before it began is known to have ended."""
_NO_STRANGERS = "DELETE FROM meta WHERE name = ?"

_encode = msgspec.json.Encoder().encode
_decode_remembered = msgspec.json.Decoder(Remembered).decode
_decode_live = msgspec.json.Decoder(Live).decode

_log = logging.getLogger(__name__)

Batch = tuple[str, int, bytes]
"""Incarnation, number and bytes of a batch of reports."""


@dataclass(frozen=True, kw_only=True)
class Left:
    """What an earlier run left: memory of slots, attempts that lived, and unsent batches in their order."""

    slots: dict[int, Remembered]
    live: list[Live]
    batches: list[Batch]


class Journal:
    """The one file. `incarnation` is this run's; `lineage` those of the runs before it with this journal, the last first.

    A journal that was put back to what it was before, or is damaged, begins anew: its memory would not tell what ran.
    """

    def __init__(self, directory: Path, *, incarnation: str) -> None:
        """Open or begin the journal in `directory`.

        Raises:
            DirectoryInUseError: another agent process has it open.
            JournalError: it cannot be read or written.
        """
        self._lock_file = _lock(directory)
        self._before_commit: Callable[[], None] | None = None
        self._transactions: list[tuple[str, list[tuple[Any, ...]]]] = []
        self._announced = 0
        self._durable = 0
        self._is_committing = False
        self._waiters: list[asyncio.Future[None]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._failure: JournalError | None = None
        self.failed = asyncio.Event()
        self._is_closing = False
        self.on_full: Callable[[], None] = lambda: None
        """Called, in the thread of the journal, when the disk is full: what is written then is tried again."""
        self.incarnation = incarnation
        self.lineage: tuple[Incarnation, ...] = ()
        self.may_have_strangers = False
        """Whether something of an earlier journal may live in this folder."""
        self._file = directory / "journal.sqlite"
        self._mark = Mark(directory / "journal.mark")
        try:
            try:
                self.left = self._open()
            except (sqlite3.DatabaseError, msgspec.DecodeError) as error:
                if isinstance(error, sqlite3.OperationalError):  # the disk, not what is on it
                    raise
                self._set_aside(error)
                self.left = self._open()
        except (sqlite3.Error, OSError, JournalError) as error:
            self._lock_file.close()
            raise JournalError(f"{self._file}: {error}") from error

    def before_commit(self, callback: Callable[[], None]) -> None:
        """Call this just before each commit: what it writes is part of that commit."""
        self._before_commit = callback

    def announce(self) -> None:
        """Something is there that `before_commit` will write: the next `sync` is not to return without it."""
        self._announced += 1

    def write_memory(self, changes: MemoryChanges) -> None:
        """Keep what changed in the memory of the slots."""
        self._write(_PUT_SLOT, [(slot, _encode(record)) for slot, record in changes.slots])
        self._write(_PUT_LIVE, [(position, _encode(live)) for position, live in changes.live if live is not None])
        self._write(_DELETE_LIVE, [(position,) for position, live in changes.live if live is None])

    def has_no_strangers(self) -> None:
        """Nothing lives that an earlier journal of this folder knew."""
        self.may_have_strangers = False
        self._write(_NO_STRANGERS, [(_STRANGERS,)])

    def write_batches(self, batches: Sequence[Batch]) -> None:
        """Keep batches of reports until they are deleted."""
        self._write(_PUT_BATCH, list(batches))

    def delete_batch(self, incarnation: str, number: int) -> None:
        """A batch is stored in JetStream. Not announced: sending it again after a crash does no harm."""
        self._transactions.append((_DELETE_BATCH, [(incarnation, number)]))

    async def sync(self) -> None:
        """Wait until everything written so far is on disk.

        Raises:
            JournalError: it could not be written; nothing can be any more.
        """
        target = self._announced
        while self._durable < target:
            if self._failure is not None:
                raise self._failure
            if not self._is_committing:
                self._begin_commit()
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def close(self) -> None:
        """Write what is left, unless something before it could not be written, and let go of the directory."""
        self._is_closing = True
        self._thread.shutdown()
        if self._before_commit is not None:
            self._before_commit()
        with suppress(JournalError):
            self._commit_next(self._transactions)
        with suppress(sqlite3.Error):
            self._database.close()
        self._mark.close()
        self._lock_file.close()

    def _open(self) -> Left:
        make_file(self._file)
        close_files(self._file.parent.glob(f"{self._file.name}-*"))
        self._database = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        if (found := self._rows("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found)
        self._database.executescript(_SCHEMA)
        meta = dict(self._rows("SELECT name, value FROM meta"))
        format_found, commits = meta.get("format", FORMAT), meta.get("commits", 0)
        if format_found == 1:
            self._database.executescript(f"BEGIN;{_FROM_FORMAT_1}COMMIT;")
        elif format_found != FORMAT:
            raise JournalError(f"the journal has format {format_found}, this agent reads {FORMAT}")
        elif not self._mark.confirms(commits):
            _log.error("the journal was put back to what it was before and begins anew", extra=fields(commits=commits))
            self._commit([(statement, [()]) for statement in _FORGET])
        left = self._read()
        lineage = self._rows("SELECT incarnation FROM lineage ORDER BY run DESC")
        # The first format has numbers; a text of ours begins with a letter.
        self.lineage = tuple(int(text) if text.isdecimal() else text for (text,) in lineage)
        self.may_have_strangers = not self.lineage or _STRANGERS in meta
        self._commit(
            [
                (_PUT_META, [("format", FORMAT), *([(_STRANGERS, 1)] if self.may_have_strangers else [])]),
                (_PUT_LINEAGE, [(self.incarnation,)]),
                (_CUT_LINEAGE, [(LINEAGE_MAX,)]),
            ]
        )
        return left

    def _read(self) -> Left:
        slots = {slot: _decode_remembered(record) for slot, record in self._rows("SELECT slot, record FROM slots")}
        live = [_decode_live(record) for (record,) in self._rows("SELECT record FROM live ORDER BY position")]
        batches = list(self._rows("SELECT incarnation, number, payload FROM reports ORDER BY entry"))
        return Left(slots=slots, live=live, batches=batches)

    def _set_aside(self, error: Exception) -> None:
        """Keep a damaged journal for whoever wants to look, the last one, and begin anew."""
        with suppress(sqlite3.Error):
            self._database.close()
        _log.error("the journal is damaged and was set aside", extra=fields(journal=str(self._file), error=str(error)))
        for suffix in ("", "-wal", "-shm"):
            found = self._file.with_name(self._file.name + suffix)
            if found.exists():
                found.replace(found.with_name(f"{found.name}.damaged"))

    def _rows(self, statement: str) -> sqlite3.Cursor:
        return self._database.execute(statement)

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        if rows:
            self._transactions.append((statement, rows))
            self._announced += 1

    def _begin_commit(self) -> None:
        if self._before_commit is not None:
            self._before_commit()
        announced, transactions, self._transactions = self._announced, self._transactions, []
        loop = asyncio.get_running_loop()

        def commit() -> None:
            with suppress(JournalError):  # it is noted
                self._commit_next(transactions)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._committed, announced)

        self._is_committing = True
        self._thread.submit(commit)

    def _committed(self, announced: int) -> None:
        """A commit is over, whether or not somebody still waits: handlers are cancelled with their connection."""
        self._is_committing = False
        if self._failure is None:
            self._durable = announced
        else:
            self.failed.set()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _commit_next(self, transactions: list[tuple[str, list[tuple[Any, ...]]]]) -> None:
        """Commit in the thread of the journal. Once one has failed none is tried: what follows rests on it."""
        if self._failure is not None:
            raise self._failure
        give_up_at = time.monotonic() + FULL_SECONDS_MAX
        while True:
            try:
                self._commit(transactions)
                return
            except Exception as error:  # whatever it is, what was to be written is not there
                if _is_full(error) and not self._is_closing and time.monotonic() < give_up_at:
                    self.on_full()
                    time.sleep(FULL_RETRY_SECONDS)
                    continue
                self._failure = JournalError(f"the journal cannot be written: {error}")
                raise self._failure from error

    def _commit(self, transactions: list[tuple[str, list[tuple[Any, ...]]]]) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            for statement, rows in transactions:
                self._database.executemany(statement, rows)
            (commits,) = self._rows(_COUNT_COMMIT).fetchone()
            self._database.execute("COMMIT")
            self._mark.write(commits)
        except sqlite3.Error:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise


def _is_full(error: Exception) -> bool:
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _lock(directory: Path) -> Any:
    try:
        own_folder(directory)
        file = open_to_append(directory / "lock")
    except OSError as error:
        raise JournalError(f"{directory} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise DirectoryInUseError(f"{directory} is used by another agent process") from error
    file.truncate(0)
    file.write(str(os.getpid()).encode())  # for who wants it to hand over
    return file
