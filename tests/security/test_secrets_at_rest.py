"""The whole system under a umask that protects nothing: other users of the machine can read none of what it keeps."""

import json
import os
import stat
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from system import System

TASKYARD = Path(sysconfig.get_path("scripts")) / "taskyard"
PASS = stat.S_IXGRP | stat.S_IXOTH
READ_OR_WRITE = stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH


def open_to_others(path: Path) -> Iterator[tuple[str, str]]:
    """What of it and below it others can reach, and read, list or write."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return
    if found.st_mode & READ_OR_WRITE:
        yield str(path), f"{stat.S_IMODE(found.st_mode):04o}"
    if stat.S_ISDIR(found.st_mode) and found.st_mode & PASS:
        for below in path.iterdir():
            yield from open_to_others(below)


def test_the_look_for_open_files_sees_those_that_can_be_reached(tmp_path: Path) -> None:
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o700)
    for folder in (tmp_path, shut):
        (folder / "file").touch(mode=0o644)
    tmp_path.chmod(0o711)
    assert [Path(path).relative_to(tmp_path) for path, _ in open_to_others(tmp_path)] == [Path("file")]
    shut.chmod(0o711)
    assert len(list(open_to_others(tmp_path))) == 2


def secrets_of(data: Path) -> set[str]:
    """All passwords and tokens of a system."""
    tokens = json.loads((data / "credentials.json").read_text())["tokens"]
    return {*tokens.values(), *json.loads((data / "nats" / "passwords.json").read_text()).values()}


def arguments_with(secrets: set[str]) -> list[str]:
    """What processes of this machine were started with that holds one of these."""
    commands: list[str] = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            commands.append(process.read_text(errors="replace"))
    assert len(commands) > 5
    return [command for command in commands if any(secret in command for secret in secrets)]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_nothing_that_a_system_keeps_archives_or_exports_is_open_to_others(tmp_path: Path) -> None:
    system = System(tmp_path, umask=0, arguments=())
    system.data.mkdir(mode=0o700)  # and so PostgreSQL makes its cluster itself
    connection = ("--connection", str(system.data / "connection.json"))

    def run(*arguments: str) -> None:
        subprocess.run([TASKYARD, *arguments], check=True, umask=0, timeout=60, stdout=subprocess.DEVNULL)

    system.start()
    try:
        assert not arguments_with(secrets_of(system.data))
        gate = system.gate("open")
        running = system.command(f"echo said; {gate.wait}")
        assert system.written(running) == ["said"]  # its worker keeps the output
        assert not list(open_to_others(system.data))
        gate.open()
        system.wait(running, "completed")
        planned = system.terraform("plan_and_apply", system.configuration("open"), "open")
        system.wait(planned, "apply_pending")  # its worker keeps the plan
        assert not list(open_to_others(system.data))
        assert system.act(planned, "confirm").status_code == 202
        system.wait(planned, "completed")
        archive, head = str(tmp_path / "archives" / "first"), ("--head", str(tmp_path / "head"))
        for _ in range(2):  # the second one looks at the head of the first
            run("log", "archive", "--to", archive, *head, *connection)
        run("log", "verify", archive, *head)
        run("log", "export", "..", str(tmp_path / "slice.jsonl"), *connection)
        assert not list(open_to_others(system.data))
    finally:
        status = system.stop()
    assert status == 0
    run("log", "new-generation", "--data", str(system.data))
    written = [system.data, tmp_path / "archives", tmp_path / "slice.jsonl", tmp_path / "head"]
    assert [found for path in written for found in open_to_others(path)] == []
    assert any((system.data / "archive").iterdir())
    seen = {path.suffix or path.name for path in system.data.rglob("*") if path.is_file()}
    assert {".log", ".sqlite", "lock", ".json", "PG_VERSION", ".gz"} <= seen
    assert os.access(tmp_path / "slice.jsonl", os.R_OK)
