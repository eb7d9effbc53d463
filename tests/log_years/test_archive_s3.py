"""An archive in an S3-compatible store, spoken to as the command line does: `s3://bucket/path` and the environment."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from log_servers import COMMITS, SPEC, STREAM, Server, folded, make_log, no_progress

from taskyard.cli import log_files
from taskyard.cli.errors import Unreachable, WrongUsage
from taskyard.embedded.processes import free_port
from taskyard.eventlog import archiving
from taskyard.eventlog.archive import Archive
from taskyard.eventlog.archive_stores import open_store
from taskyard.eventlog.archiving import archive_log, restore_log
from taskyard.eventlog.copying import LogCopy
from taskyard.eventlog.errors import ArchiveUnreachable

pytestmark = pytest.mark.anyio

START_SECONDS_MAX = 60.0


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of S3 on this host with an empty bucket; its address."""
    port = free_port()
    log = (tmp_path_factory.mktemp("s3") / "moto.log").open("wb")
    process = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            assert httpx.put(f"{address}/archives", trust_env=False).status_code == 200
            break
        except httpx.TransportError:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
    yield address
    process.kill()
    process.wait()
    log.close()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A path of its own in the bucket, with the environment by which it is reached."""
    for name, value in (
        ("ENDPOINT_URL", s3),
        ("ACCESS_KEY_ID", "key"),
        ("SECRET_ACCESS_KEY", "secret"),
        ("REGION", "us-east-1"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    return f"s3://archives/{request.node.name}"


async def test_a_log_is_archived_to_a_bucket_and_restored_from_it(
    server: Server, other: Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiving, "SEGMENT_COMMITS_MAX", 20)
    async with server.connected() as nc, other.connected() as nc2:
        await make_log(nc)
        done = await archive_log(nc, STREAM, await Archive.open(open_store(bucket), "0"), no_progress)
        assert (done.commits, done.segments) == (COMMITS, -(-COMMITS // 20))
        again = await archive_log(nc, STREAM, await Archive.open(open_store(bucket), "0"), no_progress)
        assert again.commits == 0
        assert (await log_files.verify(bucket, no_progress)).found == 0
        await restore_log(await Archive.open(open_store(bucket)), LogCopy(nc2, SPEC), no_progress)
        assert await folded(nc2) == await folded(nc)


async def test_a_path_without_an_archive_and_a_bucket_that_is_not_there_are_told_apart(bucket: str) -> None:
    with pytest.raises(WrongUsage, match="is no archive"):
        await log_files.open_archive(bucket)
    with pytest.raises(ArchiveUnreachable, match="s3://nobodys/x"):
        await open_store("s3://nobodys/x").write("manifest.json", b"{}")


async def test_a_store_that_is_away_is_said_to_be(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("taskyard.eventlog.archive_stores.S3_SECONDS_MAX", 2.0)
    with pytest.raises(Unreachable, match="s3://archives/"):
        await log_files.open_archive(bucket)


async def test_without_the_library_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ArchiveUnreachable, match=r"needs the package obstore: pip install 'taskyard\[s3\]'"):
        open_store("s3://archives/x")
    # A folder needs nothing.
    assert open_store(str(Path("somewhere"))) is not None
