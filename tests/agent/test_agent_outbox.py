"""The outbox: order, batches, the same bytes under the same id, and what is kept."""

import asyncio
import sqlite3
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskyard.agent.errors import DirectoryInUseError, JournalError, NotStoredError
from taskyard.agent.journal import Journal
from taskyard.agent.outbox import ID_BYTES, Outbox
from taskyard.agent.slots import MemoryChanges, Remembered
from taskyard.contracts.agent_protocol import (
    LINEAGE_MAX,
    REPORT_BATCH_MAX,
    REPORT_BYTES_MAX,
    Progressed,
    ReportBatch,
    Started,
    Succeeded,
)
from taskyard.contracts.values import Instant, Position, TaskId


class Recorder:
    """JetStream, with failures to come."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.stored: list[tuple[str, bytes]] = []
        self.tried: list[tuple[str, bytes]] = []

    async def connected(self, *, timeout_seconds: float) -> None:
        pass

    async def store(self, subject: str, payload: bytes, *, headers: dict[str, str], timeout_seconds: float) -> None:
        message = (headers["Nats-Msg-Id"], payload)
        self.tried.append(message)
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise NotStoredError("no answer")
        self.stored.append(message)

    def batches(self) -> list[ReportBatch]:
        return [msgspec.json.decode(payload, type=ReportBatch) for _, payload in self.stored]


def reports(count: int, text: str = "") -> list[Any]:
    return [Started(task=TaskId(f"{number}{text}"), attempt=1, at=Instant(1)) for number in range(count)]


def outbox_of(journal: Journal, sender: Recorder) -> Outbox:
    outbox = Outbox(
        agent="w1", incarnation=journal.incarnation, store=journal, sender=sender, kept=journal.left.batches
    )
    journal.before_commit(outbox.seal)
    return outbox


async def flush(outbox: Outbox) -> None:
    sending = asyncio.create_task(outbox.run())
    assert await outbox.flushed(timeout_seconds=10)
    sending.cancel()


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_reports_go_in_order_in_bounded_batches(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal, sender = Journal(tmp_path, incarnation="r5"), Recorder()
        outbox = outbox_of(journal, sender)
        outbox.add(reports(450))
        await flush(outbox)
        batches = sender.batches()
        assert [len(batch.reports) for batch in batches] == [200, 200, 50]
        assert [batch.number for batch in batches] == [1, 2, 3]
        assert [report.task for batch in batches for report in batch.reports] == [str(n) for n in range(450)]
        assert len({one for one, _ in sender.stored}) == 3
        journal.close()

    run(scenario())


def test_nobody_can_guess_under_which_id_a_batch_is_stored(tmp_path: Path) -> None:
    """Two agents with the same name, run, number and reports: the one cannot take the other's id."""

    async def scenario() -> None:
        ids: set[str] = set()
        for number in range(2):
            folder = tmp_path / str(number)
            folder.mkdir()
            journal, sender = Journal(folder, incarnation="r5"), Recorder()
            outbox = outbox_of(journal, sender)
            outbox.add(reports(1))
            await flush(outbox)
            ids |= {one for one, _ in sender.stored}
            journal.close()
        assert len(ids) == 2 and all(len(bytes.fromhex(one)) == ID_BYTES for one in ids)

    run(scenario())


def test_batches_are_bounded_in_bytes(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal, sender = Journal(tmp_path, incarnation="r5"), Recorder()
        outbox = outbox_of(journal, sender)
        outbox.add(reports(REPORT_BATCH_MAX, text="x" * 2000))
        await flush(outbox)
        assert all(len(payload) < REPORT_BYTES_MAX + 4096 for _, payload in sender.stored)
        assert sum(len(batch.reports) for batch in sender.batches()) == REPORT_BATCH_MAX
        journal.close()

    run(scenario())


def test_a_batch_is_tried_again_with_the_same_id_and_bytes(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal, sender = Journal(tmp_path, incarnation="r5"), Recorder(failures=2)
        outbox = outbox_of(journal, sender)
        outbox.add(reports(3))
        await flush(outbox)
        assert len(sender.tried) == 3
        assert len(set(sender.tried)) == 1
        journal.close()

    run(scenario())


def test_a_batch_is_kept_until_it_is_stored(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal, sender = Journal(tmp_path, incarnation="r5"), Recorder(failures=1 << 30)
        outbox = outbox_of(journal, sender)
        outbox.add(reports(3))
        sending = asyncio.create_task(outbox.run())
        while not sender.tried:
            await asyncio.sleep(0)
        sending.cancel()
        journal.close()
        journal = Journal(tmp_path, incarnation="r5")
        assert len(journal.left.batches) == 1
        journal.close()

    run(scenario())


def test_unsent_batches_are_sent_first_after_a_restart_and_sent_ones_are_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal, sender = Journal(tmp_path, incarnation="r5"), Recorder()
        outbox = outbox_of(journal, sender)
        outbox.add(reports(2))
        await journal.sync()
        outbox.add(reports(1))
        await journal.sync()
        journal.close()

        journal = Journal(tmp_path, incarnation="r6")
        assert (journal.incarnation, journal.lineage) == ("r6", ("r5",))
        outbox = outbox_of(journal, sender)
        outbox.add([Succeeded(task=TaskId("new"), attempt=1, at=Instant(1))])
        await flush(outbox)
        assert [(batch.incarnation, batch.number) for batch in sender.batches()] == [("r5", 1), ("r5", 2), ("r6", 1)]
        journal.close()

        journal = Journal(tmp_path, incarnation="r7")
        assert journal.left.batches == []
        journal.close()

    run(scenario())


def test_the_journal_keeps_the_memory_of_slots_and_its_birth(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal = Journal(tmp_path, incarnation="r5")
        kept = Remembered(
            position=Position(9),
            task=TaskId("t"),
            attempt=1,
            outcome="accepted",
            end=Succeeded(task=TaskId("t"), attempt=1, at=Instant(3), result=msgspec.Raw(b'{"exit_code":0}')),
        )
        journal.write_memory(MemoryChanges(slots=[(3, kept)], live=[]))
        await journal.sync()
        journal.close()
        journal = Journal(tmp_path, incarnation="r99")
        left = journal.left
        assert msgspec.json.encode(left.slots[3]) == msgspec.json.encode(kept)
        assert (journal.incarnation, journal.lineage) == ("r99", ("r5",))
        with pytest.raises(DirectoryInUseError):
            Journal(tmp_path, incarnation="r100")
        journal.close()

    run(scenario())


def test_waiting_for_the_disk_together_costs_few_commits(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal, commits = Journal(tmp_path, incarnation="r5"), 0

        def count() -> None:
            nonlocal commits
            commits += 1

        journal.before_commit(count)

        async def one(slot: int) -> None:
            record = Remembered(position=Position(1), task=TaskId("t"), attempt=1, outcome="accepted")
            journal.write_memory(MemoryChanges(slots=[(slot, record)], live=[]))
            await journal.sync()

        await asyncio.gather(*(one(slot) for slot in range(100)))
        assert commits <= 3
        journal.close()
        journal = Journal(tmp_path, incarnation="r6")
        assert len(journal.left.slots) == 100
        journal.close()

    run(scenario())


def kept_slots(*slots: int) -> MemoryChanges:
    record = Remembered(position=Position(1), task=TaskId("t"), attempt=1, outcome="accepted")
    return MemoryChanges(slots=[(slot, record) for slot in slots], live=[])


def disk_full(*_: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


def test_a_journal_that_failed_writes_nothing_that_came_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        journal = Journal(tmp_path, incarnation="r5")
        journal.write_memory(kept_slots(1))
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "_commit", disk_full)
            with pytest.raises(JournalError):
                await journal.sync()
        journal.write_memory(kept_slots(2))  # there is room again; what came before is missing for ever
        journal.close()
        journal = Journal(tmp_path, incarnation="r6")
        assert journal.left.slots == {}, "it is as it was when the disk failed"
        journal.close()

    run(scenario())


def test_what_comes_while_a_commit_is_written_waits_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        journal = Journal(tmp_path, incarnation="r1")
        writes, go_on = threading.Event(), threading.Event()
        commit = Journal._commit

        def slow(self: Journal, transactions: Any) -> None:
            writes.set()
            assert go_on.wait(10)
            commit(self, transactions)

        monkeypatch.setattr(Journal, "_commit", slow)
        journal.write_memory(kept_slots(0))
        first = asyncio.create_task(journal.sync())
        await asyncio.to_thread(writes.wait, 10)
        journal.write_memory(kept_slots(1))
        second = asyncio.create_task(journal.sync())
        go_on.set()
        await first
        assert not second.done()
        await second
        journal.close()
        monkeypatch.undo()
        again = Journal(tmp_path, incarnation="r2")
        assert again.left.slots.keys() == {0, 1}
        again.close()

    run(scenario())


def test_of_the_runs_before_only_so_many_are_remembered(tmp_path: Path) -> None:
    for number in range(LINEAGE_MAX + 3):
        Journal(tmp_path, incarnation=f"r{number}").close()

    journal = Journal(tmp_path, incarnation="last")

    assert journal.lineage == tuple(f"r{number}" for number in range(LINEAGE_MAX + 2, 2, -1))[:LINEAGE_MAX]
    journal.close()


def test_a_failure_that_nobody_waited_for_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that goes takes the handler with it that waits for the disk."""
    is_writing, may_fail = threading.Event(), threading.Event()

    def fail_late(*_: object) -> None:
        is_writing.set()
        assert may_fail.wait(10)
        disk_full()

    async def scenario() -> None:
        journal = Journal(tmp_path, incarnation="r5")
        journal.write_memory(kept_slots(1))
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "_commit", fail_late)
            waiting = asyncio.create_task(journal.sync())
            assert await asyncio.to_thread(is_writing.wait, 10)
            waiting.cancel()
            may_fail.set()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            async with asyncio.timeout(10):
                await journal.failed.wait()
        journal.write_memory(kept_slots(2))
        with pytest.raises(JournalError):
            await journal.sync()
        journal.close()

    run(scenario())


def test_reports_that_an_earlier_run_could_not_send_count_against_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskyard.agent.outbox.OUTBOX_REPORTS_MAX", 450)

    async def scenario() -> None:
        journal = Journal(tmp_path, incarnation="r5")
        outbox = outbox_of(journal, Recorder())
        outbox.add(reports(449))
        await journal.sync()
        assert not outbox.full
        journal.close()

        journal, sender = Journal(tmp_path, incarnation="r6"), Recorder()
        outbox = outbox_of(journal, sender)
        assert not outbox.full
        outbox.add(reports(1))
        assert outbox.full
        await flush(outbox)
        assert not outbox.full
        assert sum(len(batch.reports) for batch in sender.batches()) == 450
        journal.close()

    run(scenario())


def test_progress_is_left_out_of_a_full_outbox_and_ends_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskyard.agent.outbox.OUTBOX_REPORTS_MAX", 2)

    async def scenario() -> None:
        journal, sender = Journal(tmp_path, incarnation="r5"), Recorder()
        outbox = outbox_of(journal, sender)
        outbox.add(reports(2))
        outbox.add([Progressed(task=TaskId("t"), attempt=1, at=Instant(1), progress=50)])
        outbox.add([Succeeded(task=TaskId("t"), attempt=1, at=Instant(1))])
        await flush(outbox)
        assert [type(report) for batch in sender.batches() for report in batch.reports] == [Started, Started, Succeeded]
        journal.close()

    run(scenario())


def test_a_report_that_cannot_be_written_is_passed_over_and_those_beside_it_are_sent(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal, sender = Journal(tmp_path, incarnation="r1"), Recorder()
        outbox = outbox_of(journal, sender)
        no_text = Progressed(task=TaskId("x"), attempt=1, at=Instant(1), progress=1, message="\udcff")
        first, last = reports(2)
        outbox.add([first, no_text, last])
        await flush(outbox)
        assert [report for batch in sender.batches() for report in batch.reports] == [first, last]
        journal.close()

    run(scenario())


def test_a_kept_batch_that_cannot_be_read_stops_nothing_and_is_sent_as_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal, sender = Journal(tmp_path, incarnation="r2"), Recorder()
        outbox = Outbox(agent="w1", incarnation="r2", store=journal, sender=sender, kept=[("r1", 1, b"\xff")])
        journal.before_commit(outbox.seal)
        outbox.add(reports(1))
        await flush(outbox)
        assert [payload == b"\xff" for _, payload in sender.stored] == [True, False]
        journal.close()

    run(scenario())


def test_a_journal_that_was_cut_off_anywhere_opens_with_what_was_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal = Journal(tmp_path / "whole", incarnation="r5")
        for slot in range(5):
            journal.write_memory(kept_slots(slot))
            await journal.sync()
        log = (tmp_path / "whole" / "journal.sqlite-wal").read_bytes()
        found: list[int] = []
        for kept in (*range(0, len(log), len(log) // 20), len(log)):
            copy = tmp_path / f"cut-{kept}"
            copy.mkdir()
            (copy / "journal.sqlite").write_bytes((tmp_path / "whole" / "journal.sqlite").read_bytes())
            (copy / "journal.sqlite-wal").write_bytes(log[:kept] + b"\x55" * 100)
            (copy / "journal.mark").write_text("1")  # a mark that the same loss of power left behind
            torn = Journal(copy, incarnation="r6")
            slots = torn.left.slots
            assert list(slots) == list(range(len(slots)))
            found.append(len(slots))
            torn.close()
        assert found == sorted(found)
        assert (found[0], found[-1]) == (0, 5)
        journal.close()

    run(scenario())


def test_a_journal_that_is_none_is_set_aside_and_a_new_one_begins(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"no database" * 100)
    journal = Journal(tmp_path, incarnation="r5")
    assert (journal.lineage, journal.left.slots) == ((), {})
    assert (tmp_path / "journal.sqlite.damaged").read_bytes().startswith(b"no database")
    journal.close()


def test_a_journal_that_is_cut_in_half_begins_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal = Journal(tmp_path, incarnation="r5")
        for slot in range(100):
            journal.write_memory(kept_slots(slot))
            await journal.sync()
        halves = {}
        for name in ("journal.sqlite", "journal.sqlite-wal"):
            data = (tmp_path / name).read_bytes()
            halves[name] = data[: len(data) // 2]
        journal.close()
        for name, data in halves.items():
            (tmp_path / name).write_bytes(data)
        journal = Journal(tmp_path, incarnation="r6")
        assert (journal.lineage, journal.left.slots) == ((), {})
        journal.close()

    run(scenario())


def test_a_journal_that_was_put_back_begins_anew_and_keeps_what_is_unsent(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal, sender = Journal(tmp_path, incarnation="r5"), Recorder(failures=1 << 30)
        outbox_of(journal, sender).add(reports(1))
        journal.write_memory(kept_slots(1))
        await journal.sync()
        journal.close()
        earlier = (tmp_path / "journal.sqlite").read_bytes()
        journal = Journal(tmp_path, incarnation="r6")
        journal.write_memory(kept_slots(2))
        await journal.sync()
        journal.close()
        (tmp_path / "journal.sqlite").write_bytes(earlier)
        journal = Journal(tmp_path, incarnation="r7")
        assert (journal.lineage, journal.left.slots, len(journal.left.batches)) == ((), {}, 1)
        journal.close()
        journal = Journal(tmp_path, incarnation="r8")
        assert journal.lineage == ("r7",), "from then on it is a journal as any other"
        journal.close()

    run(scenario())


def test_a_journal_of_the_first_format_is_taken_over(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
    database.executescript("""
        CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE slots (slot INTEGER PRIMARY KEY, record BLOB NOT NULL);
        CREATE TABLE live (position INTEGER PRIMARY KEY, record BLOB NOT NULL);
        CREATE TABLE outbox (incarnation INTEGER, number INTEGER, payload BLOB NOT NULL,
                             PRIMARY KEY (incarnation, number)) WITHOUT ROWID;
        INSERT INTO meta VALUES ('format', 1), ('incarnation', 1795272353582), ('born', 17);
    """)
    record = msgspec.json.encode(kept_slots(3).slots[0][1])
    database.execute("INSERT INTO slots VALUES (3, ?)", (record,))
    database.executemany("INSERT INTO outbox VALUES (?, ?, ?)", [(9, 1, b'{"reports":[]}'), (8, 2, b'{"reports":[]}')])
    database.close()

    journal = Journal(tmp_path, incarnation="r5")
    assert journal.lineage == (1795272353582,)
    assert [batch[:2] for batch in journal.left.batches] == [("8", 2), ("9", 1)]
    assert list(journal.left.slots) == [3]
    journal.close()
