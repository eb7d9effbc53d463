"""The embedded PostgreSQL starts, survives, and keeps what lies beside it secret; against the real server."""

import asyncio
import os
import signal
import stat
from pathlib import Path

import asyncpg
import pytest

from taskyard.embedded import processes
from taskyard.embedded.errors import NotOurs, StartFailed
from taskyard.embedded.postgres import Postgres


def ask(server: Postgres, *statements: str) -> list[object]:
    """Run the statements and return the first value of each."""

    async def run() -> list[object]:
        connection = await asyncpg.connect(server.dsn, timeout=10)
        try:
            return [await connection.fetchval(statement, timeout=10) for statement in statements]
        finally:
            await connection.close(timeout=10)

    return asyncio.run(run())


def test_data_outlives_a_restart(postgres: Postgres) -> None:
    ask(postgres, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
    postgres.stop()
    assert postgres.pid is None
    postgres.start()
    assert ask(postgres, "SELECT n FROM kept", "SHOW timezone", "SHOW listen_addresses") == [7, "UTC", ""]


def test_a_start_stops_what_an_earlier_run_left(postgres: Postgres, tmp_path: Path) -> None:
    ask(postgres, "CREATE TABLE kept (n int)")
    assert postgres.pid
    left = processes.identify(postgres.pid)
    assert left
    second = Postgres(tmp_path / "postgres")
    second.start()
    try:
        assert not processes.is_alive(left)
        assert second.pid not in (None, left.pid)
        assert ask(second, "SELECT count(*) FROM kept") == [0]
    finally:
        second.stop()


def test_a_killed_server_starts_again(postgres: Postgres) -> None:
    ask(postgres, "CREATE TABLE kept (n int)")
    assert postgres.pid
    os.kill(postgres.pid, signal.SIGKILL)
    postgres.stop()
    postgres.start()
    assert ask(postgres, "SELECT count(*) FROM kept") == [0]


def test_a_cluster_that_was_never_finished_is_made_anew(tmp_path: Path) -> None:
    half = tmp_path / "postgres" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    server = Postgres(tmp_path / "postgres")
    server.start()
    try:
        assert ask(server, "SELECT 1") == [1]
        assert not half.exists()
    finally:
        server.stop()


def test_two_servers_run_beside_each_other(postgres: Postgres, tmp_path: Path) -> None:
    other = Postgres(tmp_path / "other")
    other.start()
    try:
        ask(other, "CREATE TABLE other (n int)")
        assert ask(postgres, "SELECT to_regclass('other')") == [None]
    finally:
        other.stop()


def test_a_long_path_gets_a_short_private_socket_folder(tmp_path: Path) -> None:
    server = Postgres(tmp_path / ("long" * 20) / "postgres")
    server.start()
    folder = Path(server.dsn.rpartition("host=")[2].replace("%2F", "/"))
    try:
        assert ask(server, "SELECT 1") == [1]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        server.stop()
        folder.rmdir()


def test_a_socket_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    server = Postgres(tmp_path / ("long" * 20) / "postgres")
    folder = Path(server.dsn.rpartition("host=")[2].replace("%2F", "/"))
    folder.mkdir()
    folder.chmod(0o755)
    try:
        with pytest.raises(NotOurs):
            server.prepare()
    finally:
        folder.rmdir()


def test_no_folder_above_is_opened_and_the_server_runs_all_the_same(tmp_path: Path) -> None:
    above = tmp_path / "above"
    above.mkdir(mode=0o700)
    folders = [above / "postgres", *(above / "postgres").parents]
    server = Postgres(above / "postgres")
    modes = [stat.S_IMODE(one.stat().st_mode) for one in folders[1:]]
    server.start()
    try:
        assert ask(server, "CREATE TABLE kept (n int)", "SELECT count(*) FROM kept")[1] == 0
        assert server.pid
        left = processes.identify(server.pid)
        assert left
        Postgres(above / "postgres").stop_left_over()
        assert not processes.is_alive(left)
    finally:
        server.stop()
    assert [stat.S_IMODE(one.stat().st_mode) for one in folders[1:]] == modes
    assert stat.S_IMODE((above / "postgres" / "data").stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only as root PostgreSQL runs as another user")
def test_closed_folders_above_its_programs_are_told_before_they_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "closed" / "programs"
    programs.mkdir(parents=True)
    (programs / "postgres").touch(mode=0o755)
    tmp_path.joinpath("closed").chmod(0o700)
    monkeypatch.setattr("taskyard.embedded.postgres._programs", lambda: programs)
    server = Postgres(tmp_path / "postgres")
    assert tmp_path / "closed" in server.closed_folders()
    server._let_reach_programs()
    assert server.closed_folders() == []
    assert stat.S_IMODE((tmp_path / "closed").stat().st_mode) == 0o701


def test_an_initdb_that_takes_too_long_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskyard.embedded.postgres.INIT_SECONDS_MAX", 0.001)
    server = Postgres(tmp_path / "postgres")
    with pytest.raises(StartFailed, match=r"initdb was not done after 0\.001 s"):
        server.prepare()
    assert not (tmp_path / "postgres" / "data").exists()
