"""What the agent keeps on disk: the memory of its slots, its live attempts, its unsent reports, its incarnation.

SQLite in WAL mode with `synchronous=FULL`: a commit is one fsync, a torn write is discarded at the next opening. Writes
are gathered in memory; `sync` commits all of them in one transaction, and whoever waits meanwhile shares the next one.
"""

import asyncio
import fcntl
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
from taskyard.agent.slots import Live, MemoryChanges, Remembered

FORMAT = 1
FULL_RETRY_SECONDS = 0.5
FULL_SECONDS_MAX = 600.0
"""How long a commit is tried again while the disk is full. What runs goes on meanwhile; then the agent ends, and leaves it."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS slots (slot INTEGER PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS live (position INTEGER PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (incarnation INTEGER, number INTEGER, payload BLOB NOT NULL,
                                   PRIMARY KEY (incarnation, number)) WITHOUT ROWID;
"""
_PUT_META = "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)"
_PUT_SLOT = "INSERT OR REPLACE INTO slots (slot, record) VALUES (?, ?)"
_PUT_LIVE = "INSERT OR REPLACE INTO live (position, record) VALUES (?, ?)"
_DELETE_LIVE = "DELETE FROM live WHERE position = ?"
_PUT_BATCH = "INSERT INTO outbox (incarnation, number, payload) VALUES (?, ?, ?)"
_DELETE_BATCH = "DELETE FROM outbox WHERE incarnation = ? AND number = ?"

_encode = msgspec.json.Encoder().encode
_decode_remembered = msgspec.json.Decoder(Remembered).decode
_decode_live = msgspec.json.Decoder(Live).decode

Batch = tuple[int, int, bytes]
"""Incarnation, number and bytes of a batch of reports."""


@dataclass(frozen=True, kw_only=True)
class Left:
    """What an earlier run left: memory of slots, attempts that lived, and unsent batches in their order."""

    slots: dict[int, Remembered]
    live: list[Live]
    batches: list[Batch]


class Journal:
    """The one file. `born` is the incarnation that began it, `incarnation` this run's: higher than any before."""

    def __init__(self, directory: Path, *, unix_milliseconds: int) -> None:
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
        try:
            self._database = sqlite3.connect(
                directory / "journal.sqlite", isolation_level=None, check_same_thread=False
            )
            self._open(unix_milliseconds)
        except (sqlite3.Error, JournalError) as error:
            self._lock_file.close()
            raise JournalError(f"{directory}/journal.sqlite: {error}") from error

    def load(self) -> Left:
        """What an earlier run left.

        Raises:
            JournalError: it cannot be read.
        """
        try:
            slots = {slot: _decode_remembered(record) for slot, record in self._rows("SELECT slot, record FROM slots")}
            live = [_decode_live(record) for (record,) in self._rows("SELECT record FROM live ORDER BY position")]
            batches = list(self._rows("SELECT incarnation, number, payload FROM outbox ORDER BY incarnation, number"))
        except (sqlite3.Error, msgspec.DecodeError) as error:
            raise JournalError(f"the journal cannot be read: {error}") from error
        return Left(slots=slots, live=live, batches=batches)

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

    def write_batches(self, batches: Sequence[Batch]) -> None:
        """Keep batches of reports until they are deleted."""
        self._write(_PUT_BATCH, list(batches))

    def delete_batch(self, incarnation: int, number: int) -> None:
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
        self._lock_file.close()

    def _open(self, unix_milliseconds: int) -> None:
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.executescript(_SCHEMA)
        meta = dict(self._rows("SELECT name, value FROM meta"))
        if meta.get("format", FORMAT) != FORMAT:
            raise JournalError(f"the journal has format {meta['format']}, this agent reads {FORMAT}")
        self.incarnation: int = max(unix_milliseconds, meta.get("incarnation", 0) + 1)
        self.born: int = meta.get("born", self.incarnation)
        entries = [("format", FORMAT), ("incarnation", self.incarnation), ("born", self.born)]
        self._commit([(_PUT_META, entries)])

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
            self._database.execute("COMMIT")
        except sqlite3.Error:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise


def _is_full(error: Exception) -> bool:
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _lock(directory: Path) -> Any:
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (directory / "lock").open("a")
    except OSError as error:
        raise JournalError(f"{directory} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise DirectoryInUseError(f"{directory} is used by another agent process") from error
    file.truncate(0)
    file.write(str(os.getpid()))  # for who wants it to hand over
    file.flush()
    return file
