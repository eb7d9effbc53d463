"""A rebuild beside the live read model: who reads does not notice, who kills it harms nothing, and there is only one."""

import asyncio
import json
import random
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest
from live_rows import live_digest, rows
from real_log import append

from taskyard.api.app import run as run_api
from taskyard.contracts.events import TaskScheduled, TaskStopRequested
from taskyard.contracts.tasks import TaskTable
from taskyard.eventlog.errors import LogUnavailable
from taskyard.service import linked
from taskyard.settings import Settings
from taskyard.state_projector.app import run as run_projector
from taskyard.state_projector.database import SCHEMA, connected
from taskyard.state_projector.differences import DIFFERENCES_MAX, RowDifference
from taskyard.state_projector.errors import LeftOverInUse, LogMismatch, RebuildRunning
from taskyard.state_projector.generations import REBUILD_SCHEMA, RETIRED_SCHEMA, claim_rebuild
from taskyard.state_projector.rebuild import SWITCH_COMMITS_MAX, Progress, rebuild

SECONDS_MAX = 50.0
READERS = 4
READS_BETWEEN_REBUILDS = 20
PATHS = ("/tasks?limit=20", "/tasks?status=pending", "/stats", "/queues", "/pools", "/workers", "/tasks/{task}")
REBUILDS = 3
KILLS = 4
CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
DRIVER = Path(__file__).with_name("rebuilding.py")
TOKEN = "admin-token"


async def schemas(dsn: str) -> set[str]:
    return {name for (name,) in await rows(dsn, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'taskyard%'")}


async def damage(dsn: str, statement: str) -> None:
    async with connected(dsn) as connection:
        await connection.execute(statement)


async def project_it(settings: Settings, sequence: int) -> None:
    """Have the read model at a sequence of the real server's log."""

    async def is_there() -> bool:
        with suppress(asyncpg.PostgresError):
            return await rows(settings.postgres_dsn, "SELECT sequence FROM log_position") == [(sequence,)]
        return False

    async with services(msgspec.structs.replace(settings, health_port=None), run_projector):
        await until(is_there)


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        while not await check():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def services(settings: Settings, *programs: Any) -> AsyncIterator[None]:
    stop = asyncio.Event()
    running = [asyncio.create_task(program(settings, stop)) for program in programs]
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(SECONDS_MAX):
            await asyncio.gather(*running)


def reading(settings: Settings) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{settings.http_port}/api/v1",
        headers={"Authorization": f"Bearer {TOKEN}"},
        timeout=20,
        trust_env=False,
    )


async def shows(http: httpx.AsyncClient, sequence: int) -> bool:
    with suppress(httpx.TransportError):
        answer = await http.get("/stats")
        return answer.status_code == 200 and int(answer.headers["Taskyard-Position"].partition(".")[0]) >= sequence
    return False


def test_reading_over_http_goes_on_while_rebuilds_take_the_place_of_the_rows(
    story: Any, settings: Settings, run: Any
) -> None:
    task = story.submit()
    story.tell_anything(5, commits=150)
    settings = msgspec.structs.replace(settings, health_port=None)
    failed: list[tuple[str, int, str]] = []
    reads = 0
    is_over = asyncio.Event()

    async def read(http: httpx.AsyncClient, seed: int) -> None:
        nonlocal reads
        chance = random.Random(seed)
        seen = 0
        while not is_over.is_set():
            path = chance.choice(PATHS).format(task=task)
            answer = await http.get(path)
            reads += 1
            position = int(answer.headers["Taskyard-Position"].partition(".")[0])
            if answer.status_code != 200 or position < seen:
                failed.append((path, answer.status_code, answer.text))
            seen = position

    async def rebuild_again_and_again(dsn: str) -> None:
        async with linked("rebuild", settings) as links:
            for number in range(REBUILDS):
                before, written = reads, story.head
                story.tell_anything(10 + number, commits=10)
                _, report = await asyncio.gather(
                    append(story, settings, written), rebuild(links.log, dsn, verify_only=False)
                )
                assert report.switched
                assert report.is_equal, report.differences
                await until(lambda before=before: _is_so(reads > before + READS_BETWEEN_REBUILDS))

    async def scenario() -> None:
        await append(story, settings)
        async with services(settings, run_projector, run_api), reading(settings) as http:
            await until(lambda: shows(http, story.head))
            async with asyncio.TaskGroup() as group:
                for seed in range(READERS):
                    group.create_task(read(http, seed))
                try:
                    await rebuild_again_and_again(settings.postgres_dsn)
                    await until(lambda: shows(http, story.head))
                finally:
                    is_over.set()
        assert failed == []
        assert reads > REBUILDS * READS_BETWEEN_REBUILDS
        assert await schemas(settings.postgres_dsn) == {SCHEMA}

    run(scenario())


async def _is_so(value: bool) -> bool:
    return value


def test_a_rebuild_that_is_killed_at_any_moment_leaves_the_live_rows_and_the_next_one_ends_the_same(
    story: Any, settings: Settings, run: Any, tmp_path: Path
) -> None:
    story.tell_anything(6, commits=150)
    path = tmp_path / "settings.json"
    path.write_bytes(msgspec.json.encode(settings))
    chance = random.Random(8)

    def steps_until_killed(steps: int) -> int:
        """Kill the rebuild after so many steps and a moment; how many it told of."""
        told = 0
        with subprocess.Popen([sys.executable, str(DRIVER), str(path)], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                told += line not in ("equal\n", "differs\n")
                if told == steps:
                    with suppress(subprocess.TimeoutExpired):
                        child.wait(chance.uniform(0, 0.03))
                    child.kill()
            child.wait(SECONDS_MAX)
        return told

    async def scenario() -> None:
        await append(story, settings)
        await project_it(settings, story.head)
        before = await live_digest(settings.postgres_dsn)
        steps = await asyncio.to_thread(steps_until_killed, -1)
        assert steps > 8
        for _ in range(KILLS):
            await asyncio.to_thread(steps_until_killed, chance.randint(1, steps))
            assert await live_digest(settings.postgres_dsn) == before
        async with linked("rebuild", settings) as links:
            report = await rebuild(links.log, settings.postgres_dsn, verify_only=False)
        assert report.is_equal, report.differences
        assert report.old_digest == report.new_digest == before == await live_digest(settings.postgres_dsn)
        assert await schemas(settings.postgres_dsn) == {SCHEMA}

    run(scenario())


def test_what_a_killed_rebuild_left_is_dropped_by_the_next_start_of_a_projector(
    story: Any, dsn: str, run: Any, project: Any
) -> None:
    story.submit()

    async def scenario() -> None:
        await project(story)
        await damage(dsn, f"CREATE SCHEMA {REBUILD_SCHEMA} CREATE TABLE tasks (id text)")
        async with connected(dsn) as other:
            await claim_rebuild(other)
            await project(story)
            assert REBUILD_SCHEMA in await schemas(dsn)
        await project(story)
        assert await schemas(dsn) == {SCHEMA}

    run(scenario())


def test_who_reads_the_old_rows_for_long_keeps_neither_the_rebuild_nor_the_projector_waiting(
    story: Any, dsn: str, run: Any, *, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a backup does: it has looked at every table, and ends when it ends."""
    monkeypatch.setattr("taskyard.state_projector.generations.DROP_WAIT_SECONDS", 0.1)
    story.submit()

    async def scenario() -> None:
        await project(story)
        async with connected(dsn) as backup, backup.transaction():
            before = await backup.fetch("SELECT id FROM tasks")
            report = await rebuild(story.log, dsn, verify_only=False)
            assert (report.switched, report.is_equal) == (True, True)
            assert await schemas(dsn) == {SCHEMA, RETIRED_SCHEMA}
            with pytest.raises(LeftOverInUse):
                await rebuild(story.log, dsn, verify_only=False)
            story.submit()
            await project(story)
            assert await schemas(dsn) == {SCHEMA, RETIRED_SCHEMA}
            assert await backup.fetch(f"SELECT id FROM {RETIRED_SCHEMA}.tasks") == before
        await project(story)
        assert await schemas(dsn) == {SCHEMA}
        assert len(await rows(dsn, "SELECT id FROM tasks")) == 2

    run(scenario())


def test_a_rebuild_tells_its_own_failure_though_postgresql_is_gone_when_it_cleans_up(
    story: Any, dsn: str, run: Any, project: Any
) -> None:
    story.tell_anything(1, commits=SWITCH_COMMITS_MAX + 1)

    async def scenario() -> None:
        await project(story)

        class Gone:
            """A log that goes away, and PostgreSQL with it."""

            async def read(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
                await damage(dsn, CUT)
                raise LogUnavailable("no broker")
                yield

        log: Any = Gone()
        with pytest.raises(LogUnavailable):
            await rebuild(log, dsn, verify_only=False)
        await project(story)
        assert await schemas(dsn) == {SCHEMA}

    run(scenario())


def test_a_second_rebuild_at_the_same_time_is_refused_and_touches_nothing(
    story: Any, dsn: str, run: Any, project: Any
) -> None:
    story.submit()

    async def scenario() -> None:
        await project(story)
        refused: list[str] = []

        async def try_another() -> None:
            try:
                await rebuild(story.log, dsn, verify_only=False)
            except RebuildRunning as error:
                refused.append(str(error))

        trying: list[asyncio.Task[None]] = []

        def tell(_progress: Progress) -> None:
            if not trying:
                trying.append(asyncio.create_task(try_another()))

        async with connected(dsn) as holding, holding.transaction():
            # The first one waits here for its switch, until the other has been refused.
            await holding.execute("SELECT sequence FROM log_position FOR UPDATE")
            first = asyncio.create_task(rebuild(story.log, dsn, verify_only=False, tell=tell))
            await until(lambda: _is_so(bool(refused)))
            assert not first.done()
        assert (await first).is_equal
        assert refused[0].startswith("another rebuild of this read model is at work, begun at 20")

    run(scenario())


def test_rows_that_differ_are_named_with_what_differs_in_them(story: Any, dsn: str, run: Any, project: Any) -> None:
    tasks = [story.submit() for _ in range(DIFFERENCES_MAX + 5)]
    told: list[Progress] = []

    async def scenario() -> None:
        await project(story)
        await damage(dsn, f"UPDATE tasks SET status = 'lost', progress = 7 WHERE id = '{tasks[1]}'")
        await damage(dsn, f"DELETE FROM tasks WHERE id = '{tasks[3]}'")
        await damage(dsn, "INSERT INTO counts VALUES ('nobody', 'invented', 'pending', 1)")
        await damage(dsn, "UPDATE history SET type = 'Nothing'")
        report = await rebuild(story.log, dsn, verify_only=True, tell=told.append)
        assert report.differing == ("tasks", "history", "counts")
        assert not report.switched
        assert [each for each in report.differences if each.table != "history"] == [
            RowDifference(table="tasks", key=(tasks[1],), kind="changed", columns=("status", "progress")),
            RowDifference(table="tasks", key=(tasks[3],), kind="missing"),
            RowDifference(table="counts", key=("nobody", "invented", "pending"), kind="surplus"),
        ]
        assert len([each for each in report.differences if each.table == "history"]) == DIFFERENCES_MAX
        assert {each.phase for each in told} == {"folding", "comparing"}
        folded = [each for each in told if each.phase == "folding"][-1]
        assert (folded.percent, folded.sequence, folded.target) == (100.0, story.head, story.head)

    run(scenario())


def test_a_rebuild_passes_over_an_event_that_cannot_be_folded_and_that_of_a_mended_version_repairs_its_row(
    story: Any, dsn: str, run: Any, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = story.submit(), story.submit()
    story.commit(TaskScheduled(task=bad), TaskScheduled(task=good))
    apply = TaskTable.apply

    def touchy(self: Any, event: Any, at: Any, position: Any) -> Any:
        if isinstance(event, TaskScheduled) and event.task == bad:
            raise ZeroDivisionError("a bug")
        return apply(self, event, at, position)

    async def statuses() -> dict[str, str]:
        return dict(await rows(dsn, "SELECT id, status FROM tasks"))

    async def scenario() -> None:
        monkeypatch.setattr(TaskTable, "apply", touchy)
        await project(story)
        faulty = await rebuild(story.log, dsn, verify_only=False)
        assert (faulty.unreadable, faulty.is_equal, faulty.switched) == (1, True, True)
        assert await statuses() == {bad: "pending", good: "scheduled"}
        monkeypatch.setattr(TaskTable, "apply", apply)

        mended = await rebuild(story.log, dsn, verify_only=False)

        assert (mended.unreadable, mended.switched) == (0, True)
        assert ("tasks", (bad,)) in [(each.table, each.key) for each in mended.differences]
        assert await statuses() == {bad: "scheduled", good: "scheduled"}
        story.commit(TaskStopRequested(task=bad, cause="cancel", by="root"))
        await project(story)
        assert await statuses() == {bad: "cancelled", good: "scheduled"}

    run(scenario())


def test_rows_of_another_log_are_replaced_only_if_that_is_asked_for(
    story: Any, dsn: str, run: Any, project: Any
) -> None:
    for _ in range(5):
        story.submit()
    restored = type(story)()
    restored.tell_anything(1, commits=3)

    async def scenario() -> None:
        await project(story)
        before = await live_digest(dsn)
        with pytest.raises(LogMismatch):
            await rebuild(restored.log, dsn, verify_only=False)
        assert await live_digest(dsn) == before
        assert await schemas(dsn) == {SCHEMA}
        report = await rebuild(restored.log, dsn, verify_only=False, other_log=True)
        assert (report.compared, report.switched, report.sequence) == (False, True, restored.head)
        restored.tell_anything(2, commits=10)
        await project(restored)
        again = await rebuild(restored.log, dsn, verify_only=True)
        assert (again.compared, again.is_equal, again.sequence) == (True, True, restored.head)

    run(scenario())


def test_the_command_tells_progress_the_verdict_and_the_rows_that_differ(
    story: Any, settings: Settings, run: Any, tmp_path: Path
) -> None:
    task = story.submit()
    path = tmp_path / "settings.json"
    path.write_bytes(msgspec.json.encode(settings))
    taskyard = Path(sysconfig.get_path("scripts")) / "taskyard"

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [str(taskyard), "rebuild", "--config", str(path), *arguments]
        return subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)

    async def scenario() -> None:
        await append(story, settings)
        await project_it(settings, story.head)
        equal = await asyncio.to_thread(command, "--json", "--verify-only")
        assert (equal.returncode, json.loads(equal.stdout)["equal"]) == (0, True), equal.stderr
        assert {json.loads(line)["phase"] for line in equal.stderr.splitlines()} == {"folding", "comparing"}
        await damage(settings.postgres_dsn, "UPDATE tasks SET status = 'lost'")
        differing = await asyncio.to_thread(command)
        assert differing.returncode == 1
        assert f"{task}  differs in status" in differing.stdout
        assert "differing: tasks; the new rows are in use" in differing.stdout
        async with connected(settings.postgres_dsn) as other:
            await claim_rebuild(other)
            refused = await asyncio.to_thread(command)
        assert (refused.returncode, refused.stdout) == (3, "")
        assert "another rebuild of this read model is at work" in refused.stderr

    run(scenario())
