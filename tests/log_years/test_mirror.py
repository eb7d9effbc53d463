"""A mirror in another server: the same positions and times, going on while the log grows, and after anything stops."""

import asyncio
import signal
from pathlib import Path

import log_servers as logs
import pytest
from log_servers import COMMITS, HISTORY, SPEC, STREAM, Server, append, folded, make_log, no_progress

from taskyard.contracts.subjects import log_subject
from taskyard.eventlog.archiving import mirror_log
from taskyard.eventlog.copying import LogCopy
from taskyard.eventlog.errors import CopyRefused
from taskyard.eventlog.jetstream_api import publish, stream_info

pytestmark = pytest.mark.anyio

RETRIES = HISTORY.with_name("retries.taskyard.jsonl")
DEADLINE_SECONDS = 30.0


async def mirrored(server: Server, other: Server) -> int:
    async with server.connected() as nc, other.connected() as nc2:
        head = (await stream_info(nc, STREAM)).state.last_seq
        return await mirror_log(nc, STREAM, LogCopy(nc2, SPEC), no_progress, last=head)


async def reaches(other: Server, sequence: int) -> None:
    """Wait until the mirror has a commit."""
    async with asyncio.timeout(DEADLINE_SECONDS), other.connected() as nc:
        while True:
            try:
                if (await stream_info(nc, STREAM)).state.last_seq >= sequence:
                    return
            except Exception:  # noqa: BLE001 - there is no stream yet
                pass
            await asyncio.sleep(0.02)


async def test_a_mirror_means_what_the_log_means_and_goes_on_where_it_ended(server: Server, other: Server) -> None:
    async with server.connected() as nc, other.connected() as nc2:
        await make_log(nc)
        assert await mirrored(server, other) == COMMITS
        assert await folded(nc2) == await folded(nc)
        await append(nc, RETRIES)
        assert await mirrored(server, other) == COMMITS + len(logs.raw_commits(RETRIES))
        assert (await folded(nc2))["times"] == (await folded(nc))["times"]
        assert await mirrored(server, other) == COMMITS + len(logs.raw_commits(RETRIES))


async def test_the_mirror_of_a_mirror_bears_the_times_of_the_first_log(
    server: Server, other: Server, tmp_path: Path
) -> None:
    third = Server(tmp_path / "third")
    third.nats.start()
    try:
        async with server.connected() as nc:
            await make_log(nc)
            await mirrored(server, other)
            await mirrored(other, third)
            async with third.connected() as nc3:
                assert await folded(nc3) == await folded(nc)
    finally:
        third.nats.stop()


async def test_the_command_follows_the_log_and_goes_on_after_kill_9(
    server: Server, other: Server, tmp_path: Path
) -> None:
    settings = server.settings_file(tmp_path)
    password = tmp_path / "password"
    password.write_text(f"{other.password}\n")
    arguments = (
        "-c",
        "from taskyard.cli.app import main; main()",
        "log",
        "mirror",
        "--to",
        other.address,
        "--password-file",
        str(password),
        "--config",
        str(settings),
    )
    async with server.connected() as nc, other.connected() as nc2:
        await make_log(nc)
        first = logs.start_program(*arguments)
        try:
            await reaches(other, COMMITS)
            await publish(nc, log_subject("0", "dispatcher"), logs.next_commit("dispatcher"))
            await reaches(other, COMMITS + 1)
        finally:
            first.kill()
            first.wait()
        await append(nc, RETRIES)
        second = logs.start_program(*arguments)
        try:
            await reaches(other, COMMITS + 1 + len(logs.raw_commits(RETRIES)))
        finally:
            second.send_signal(signal.SIGINT)
        assert second.wait(DEADLINE_SECONDS) == 0
        log, copy = logs.open_log(nc), logs.open_log(nc2)
        assert [c async for c in copy.read(1, await copy.head())] == [c async for c in log.read(1, await log.head())]


async def test_a_mirror_that_is_another_log_or_was_written_to_is_refused(server: Server, other: Server) -> None:
    async with server.connected() as nc, other.connected() as nc2:
        await make_log(nc)
        await make_log(nc2, RETRIES)
        with pytest.raises(CopyRefused, match=f"its commit {len(logs.raw_commits(RETRIES))} is another one"):
            await mirrored(server, other)
        # And one that holds the same, but not as a copy: services may live on it.
        with pytest.raises(CopyRefused, match="it is no copy"):
            await mirrored(server, server)


async def test_a_mirror_is_refused_once_services_live_on_it(server: Server, other: Server) -> None:
    async with server.connected() as nc, other.connected() as nc2:
        await make_log(nc)
        await mirrored(server, other)
        await publish(nc2, log_subject("0", "dispatcher"), logs.next_commit("dispatcher"))
        await append(nc, RETRIES)
        with pytest.raises(CopyRefused, match=f"its commit {COMMITS + 1} is another one"):
            await mirrored(server, other)
