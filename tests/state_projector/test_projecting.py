"""The projector on a real PostgreSQL: it resumes, survives crashes between any two steps, and never writes twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from live_rows import live_digest, rows
from msgspec import Raw

from taskyard.contracts.events import (
    AttemptFailed,
    AttemptSucceeded,
    TaskError,
    TaskScheduled,
    WorkerDrainRequested,
    WorkerRecovered,
    WorkerSuspected,
)
from taskyard.contracts.values import Instant
from taskyard.eventlog.leases import MemoryLeases
from taskyard.state_projector import projector as projector_module
from taskyard.state_projector.database import SCHEMA, _migrations, connect, connected, migrate  # pyright: ignore[reportPrivateUsage]
from taskyard.state_projector.errors import LogMismatch, PositionMoved, SchemaTooNew
from taskyard.state_projector.projection import Projection
from taskyard.state_projector.rebuild import rebuild
from taskyard.state_projector.store import Store


def test_rows_and_position_are_where_the_log_is(story: Any, dsn: str, run: Any, project: Any) -> None:
    task = story.submit(labels={"team": "net"})
    story.start(task)

    async def scenario() -> None:
        await project(story)
        assert await rows(dsn, "SELECT id, status, labels->>'team' FROM tasks") == [(task, "running", "net")]
        assert await rows(dsn, "SELECT sequence FROM log_position") == [(story.head,)]
        assert await rows(dsn, "SELECT count(*) FROM history WHERE task = (SELECT id FROM tasks)") == [(5,)]
        assert await rows(dsn, "SELECT outcome, started_at IS NOT NULL FROM attempts") == [(None, True)]

    run(scenario())


@pytest.mark.parametrize("seed", range(4))
def test_it_goes_on_from_the_database_alone(story: Any, dsn: str, run: Any, project: Any, seed: int) -> None:
    async def scenario() -> None:
        for part in range(6):
            story.tell_anything(seed * 100 + part, commits=12)
            await project(story)
        report = await rebuild(story.log, dsn, verify_only=True)
        assert report.is_equal, report.differing

    run(scenario())


def test_what_nobody_can_read_stops_neither_the_projector_nor_a_rebuild(
    story: Any, dsn: str, run: Any, project: Any
) -> None:
    lost, task = story.submit(max_attempts=2), story.submit()
    story.start(lost, slot=1)
    story.start(task)
    no_text = Raw(b'"\xff\xfe"')
    error = TaskError(code="\x00", message="\x00", retryable=True)
    story.commit(AttemptFailed(task=lost, attempt=1, error=error, result=no_text), writer="dispatcher")
    story.commit(AttemptSucceeded(task=task, attempt=1, result=no_text), writer="dispatcher")
    story.stream.store(
        "taskyard.log.0.scheduler",
        b'{"writer":"scheduler","instance":"new","epoch":2,"at":1,"events":[{"type":"New","task":"%s","x":"\xff"}]}'
        % task.encode(),
    )
    last = story.submit()

    async def scenario() -> None:
        await project(story)
        assert await rows(dsn, f"SELECT result FROM tasks WHERE id = '{task}'") == [('{"unreadable":true}',)]
        assert await rows(dsn, f"SELECT status FROM tasks WHERE id = '{last}'") == [("pending",)]
        await project(story)  # the state is read again
        report = await rebuild(story.log, dsn, verify_only=True)
        assert report.is_equal, report.differing

    run(scenario())


def test_why_a_worker_is_drained_is_told_again_when_it_recovers_also_by_another_projector(
    story: Any, dsn: str, run: Any, project: Any
) -> None:
    async def scenario() -> None:
        story.join()
        story.commit(WorkerDrainRequested(pool="default", worker="worker-1", by="admin", reason="new disks"))
        story.commit(WorkerSuspected(worker="worker-1", incarnation=1, reason="silent for 12 s"))
        await project(story)
        assert await rows(dsn, "SELECT suspect, reason FROM workers") == [(True, "silent for 12 s")]
        story.commit(WorkerRecovered(worker="worker-1", incarnation=1))
        await project(story)
        assert await rows(dsn, "SELECT draining, suspect, reason FROM workers") == [(True, False, "new disks")]
        assert (await rebuild(story.log, dsn, verify_only=True)).is_equal

    run(scenario())


def test_who_waits_for_the_position_is_told(story: Any, dsn: str, run: Any, start_projector: Any) -> None:
    async def scenario() -> None:
        heard: asyncio.Queue[str] = asyncio.Queue()
        async with connected(dsn) as connection, start_projector(story) as projector:
            await connection.add_listener("taskyard_position", lambda *message: heard.put_nowait(message[3]))
            story.submit()
            async with asyncio.timeout(10):
                while await heard.get() != str(story.head):
                    pass
            assert projector.is_ready

    run(scenario())


class Killed(Exception):
    """The process would have died here."""


def _die_before(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Cut the connection before the given step of a write; each write begins to count anew after the death."""
    calls = 0

    async def count(store: Store) -> None:
        nonlocal calls
        calls += 1
        if calls == step:
            store._connection.terminate()

    def dying(real: Any) -> Any:
        async def wrapper(store: Store, *arguments: Any) -> None:
            await count(store)
            await real(store, *arguments)

        return wrapper

    for name in ("_copy", "_update", "_upsert"):
        monkeypatch.setattr(Store, name, dying(getattr(Store, name)))


@pytest.mark.parametrize("step", range(1, 11))
def test_a_crash_in_the_middle_of_a_write_loses_and_doubles_nothing(
    story: Any, dsn: str, run: Any, *, project: Any, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    story.tell_anything(step, commits=15)

    async def scenario() -> None:
        await project(story)
        story.tell_anything(step + 1, commits=15)
        _die_before(monkeypatch, step)
        await project(story)
        report = await rebuild(story.log, dsn, verify_only=True)
        assert report.is_equal, report.differing

    run(scenario())


def test_a_commit_whose_answer_was_lost_is_not_written_again(
    story: Any, dsn: str, run: Any, *, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, losses = Store.write, iter([True])

    async def losing(store: Store, *arguments: Any, **named: Any) -> Any:
        refused = await write(store, *arguments, **named)
        if next(losses, False):
            raise asyncpg.ConnectionDoesNotExistError("the answer was lost")
        return refused

    monkeypatch.setattr(Store, "write", losing)
    story.tell_anything(1, commits=20)

    async def scenario() -> None:
        await project(story)
        report = await rebuild(story.log, dsn, verify_only=True)
        assert report.is_equal, report.differing

    run(scenario())


def test_it_waits_for_postgresql_for_as_long_as_it_is_away(
    story: Any, dsn: str, run: Any, *, start_projector: Any, wait: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector_module, "RETRY_SECONDS", (0.01,))
    is_away, tries = False, 0

    @asynccontextmanager
    async def maybe_connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
        nonlocal tries
        tries += 1
        if is_away:
            raise ConnectionRefusedError
        async with connected(dsn) as connection:
            yield connection

    monkeypatch.setattr(projector_module, "connected", maybe_connected)

    async def scenario() -> None:
        nonlocal is_away, tries
        async with start_projector(story) as projector:
            await wait(lambda: projector.is_ready)
            is_away, tries = True, 0
            await rows(dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                            "AND application_name = 'taskyard state_projector'")  # fmt: skip
            task = story.submit()
            await wait(lambda: tries > 3)
            assert not projector.is_ready
            is_away = False
            await wait(lambda: projector.folded == story.head)
            assert projector.is_ready
        assert await rows(dsn, "SELECT id FROM tasks") == [(task,)]

    run(scenario())


def test_one_of_two_instances_writes_and_the_other_takes_over(
    story: Any, dsn: str, run: Any, projector_of: Any, wait: Any
) -> None:
    async def scenario() -> None:
        leases = MemoryLeases(lambda: Instant(0))
        stops = {name: asyncio.Event() for name in ("one", "two")}
        projectors = {name: projector_of(story.log, dsn, leases, name) for name in stops}
        tasks = {name: asyncio.create_task(projectors[name].run(stops[name])) for name in stops}

        async def until_written_by(name: str) -> None:
            story.tell_anything(story.head, commits=10)
            await wait(lambda: projectors[name].folded == story.head)
            assert leases.holder("state_projector") == name

        await wait(lambda: leases.holder("state_projector") is not None)
        if leases.holder("state_projector") == "two":
            leases.hold("state_projector", "one")
        await until_written_by("one")
        leases.hold("state_projector", "two")  # as if the one had been cut off for longer than its lease
        await until_written_by("two")
        leases.hold("state_projector", "one")
        await until_written_by("one")
        stops["one"].set()
        await tasks["one"]
        await until_written_by("two")
        stops["two"].set()
        await tasks["two"]
        assert leases.holder("state_projector") is None
        report = await rebuild(story.log, dsn, verify_only=True)
        assert report.is_equal, report.differing

    run(scenario())


def test_two_instances_that_both_write_are_fenced_by_the_position(
    story: Any, dsn: str, run: Any, *, start_projector: Any, wait: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lead(store: Store) -> None:
        """Everyone may: as after a lock was lost without notice."""

    monkeypatch.setattr(Store, "lead", lead)

    async def scenario() -> None:
        async with start_projector(story) as first, start_projector(story) as second:
            for seed in range(5):
                story.tell_anything(seed, commits=20)
                await wait(lambda: story.head in (first.folded, second.folded))
            await wait(lambda: story.head == first.folded == second.folded)
        report = await rebuild(story.log, dsn, verify_only=True)
        assert report.is_equal, report.differing

    run(scenario())


def test_a_write_from_a_position_that_moved_writes_nothing(story: Any, dsn: str, run: Any, project: Any) -> None:
    story.submit()

    async def scenario() -> None:
        await project(story)
        async with connected(dsn) as connection:
            store = Store(connection)
            state, before = await store.load()
            task = story.submit()
            await project(story)
            projection = Projection(state)
            (message,) = story.stream.after(before.sequence)
            commit = story.codec.decode(message.data)
            projection.fold(message.sequence, message.at, commit.writer, commit.events)
            with pytest.raises(PositionMoved):
                await store.write(projection.take(), before=before, after=before)
        assert await rows(dsn, f"SELECT count(*) FROM tasks WHERE id = '{task}'") == [(1,)]

    run(scenario())


def test_who_takes_over_ends_the_session_of_an_instance_that_stands_still_in_a_transaction(
    story: Any, dsn: str, run: Any, *, project: Any, start_projector: Any, wait: Any
) -> None:
    story.submit()

    async def scenario() -> None:
        await project(story)
        stuck = await connect(dsn)
        await Store(stuck).lead()
        await stuck.execute("BEGIN")
        await stuck.execute("UPDATE log_position SET log_time = log_time")
        story.submit()
        async with start_projector(story) as projector:
            await wait(lambda: projector.folded == story.head)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await stuck.execute("COMMIT")
        stuck.terminate()
        assert await rows(dsn, "SELECT count(*) FROM tasks") == [(2,)]

    run(scenario())


def test_another_log_is_not_folded_onto_this_read_model(
    story: Any, dsn: str, run: Any, project: Any, projector_of: Any
) -> None:
    story.submit()
    story.submit()

    async def scenario() -> None:
        await project(story)
        before = await live_digest(dsn)
        other = type(story)()
        for _ in range(4):
            other.submit(by="mallory")
        with pytest.raises(LogMismatch):
            await projector_of(other.log, dsn).run_once(asyncio.Event())
        with pytest.raises(LogMismatch):
            await rebuild(other.log, dsn, verify_only=False)
        assert await live_digest(dsn) == before

    run(scenario())


def test_instances_that_start_together_migrate_once(dsn: str, run: Any) -> None:
    async def start() -> None:
        async with connected(dsn) as connection:
            await migrate(connection)

    async def scenario() -> None:
        await asyncio.gather(*(start() for _ in range(5)))
        applied = [number for (number,) in await rows(dsn, "SELECT number FROM migrations ORDER BY number")]
        assert applied == sorted(_migrations())

    run(scenario())


def test_the_tables_of_a_newer_version_are_refused(dsn: str, run: Any) -> None:
    async def scenario() -> None:
        async with connected(dsn) as connection:
            await migrate(connection)
            await connection.execute("INSERT INTO migrations VALUES (9999, '9999_later.sql')")
            with pytest.raises(SchemaTooNew):
                await migrate(connection)

    run(scenario())


def test_a_rebuild_takes_the_place_of_damaged_rows_while_the_projector_runs(
    story: Any, dsn: str, run: Any, start_projector: Any, wait: Any
) -> None:
    task = story.submit()
    story.tell_anything(3, commits=30)

    async def scenario() -> None:
        async with start_projector(story) as projector:
            await wait(lambda: projector.folded == story.head)
            await rows(dsn, f"UPDATE tasks SET status = 'lost', record = NULL WHERE id = '{task}' RETURNING id")
            report = await rebuild(story.log, dsn, verify_only=False)
            assert report.differing == ("tasks",)
            assert report.switched
            story.tell_anything(4, commits=30)
            story.commit(TaskScheduled(task=task))
            await wait(lambda: projector.folded == story.head)
        again = await rebuild(story.log, dsn, verify_only=True)
        assert again.is_equal, again.differing
        assert not again.switched
        schemas = await rows(dsn, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'taskyard%'")
        assert schemas == [(SCHEMA,)]

    run(scenario())


def test_a_rebuild_while_the_log_goes_on_compares_at_one_position(
    story: Any, dsn: str, run: Any, start_projector: Any, wait: Any
) -> None:
    async def scenario() -> None:
        async with start_projector(story) as projector:
            is_over = False

            async def go_on() -> None:
                seed = 0
                while not is_over:
                    seed += 1
                    story.tell_anything(seed, commits=3)
                    await asyncio.sleep(0.002)

            going_on = asyncio.create_task(go_on())
            await wait(lambda: projector.folded > 50)
            for _ in range(3):
                report = await rebuild(story.log, dsn, verify_only=False)
                assert report.is_equal, report.differing
                assert report.events > 0
            is_over = True
            await going_on
            await wait(lambda: projector.folded == story.head)
        report = await rebuild(story.log, dsn, verify_only=True)
        assert report.is_equal, report.differing

    run(scenario())
