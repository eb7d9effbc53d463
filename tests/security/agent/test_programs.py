"""What programs of tasks get and show: their environment, their script, where they may work, and what they see of the agent."""

import asyncio
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskyard.agent.supervised import Supervised
from taskyard.agent.supervisor.protocol import Open, Room
from taskyard.contracts.agent_protocol import Failed, Succeeded
from taskyard.contracts.values import Position

ROOT = Path(__file__).parents[3]
SECRET = "a-word-that-nobody-else-says"
ROOMS = (Room(1 << 20, 0), Room(1 << 20, 0))
SAME_USER = 54321
AS_SAME_USER = (
    *("setpriv", "--clear-groups", f"--reuid={SAME_USER}", f"--regid={SAME_USER}"),
    # Python may be installed where only root may go. It is no right to look into processes.
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)


def test_the_environment_of_a_command_acts_only_when_its_process_may_run(tmp_path: Path) -> None:
    library = "/lib/x86_64-linux-gnu/libutil.so.1"

    async def scenario() -> None:
        supervised = Supervised(tmp_path)
        await supervised.connect()
        hearing = asyncio.create_task(supervised.run())
        one = Position(1)
        await supervised.open(
            one, Open(attempt=one, note=b"", seconds_left=60.0, stop_signal=15, timeout_grace_seconds=1.0)
        )
        env = {"PATH": os.environ["PATH"], "LD_PRELOAD": library, "PYTHONSTARTUP": "/x", "ENV": "/x"}
        program = await supervised.start(one, "one", ["env"], cwd=Path("/"), env=env, rooms=ROOMS)
        pid = (await program.made()).pid
        for name in ("environ", "maps"):
            assert library.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
        supervised.go(program)
        while program.state.status is None:
            await program.changed()
        reader = program.reader("stdout")
        assert f"LD_PRELOAD={library}".encode() in bytes(reader.next(1 << 20))
        reader.close()
        await supervised.close(leave_running=False)
        await hearing

    asyncio.run(scenario())


@pytest.fixture
def terraform(tmp_path: Path) -> list[str]:
    """A `terraform` that leaves its environment and where it was, and fails."""
    program = tmp_path / "telling-terraform"
    program.write_text(f"#!/bin/sh\nenv > {tmp_path}/env\npwd -P > {tmp_path}/pwd\nexit 1\n")
    program.chmod(0o755)
    return [str(program)]


def test_terraform_sees_of_the_agents_environment_what_is_listed_and_nothing_else(
    harness: Any, tmp_path: Path, terraform: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = tmp_path / "configuration"
    configuration.mkdir()
    for name in ("DATABASE_PASSWORD", "AWS_SECRET_ACCESS_KEY", "TF_VAR_region", "HTTPS_PROXY", "TASKYARD_PASSWORD"):
        monkeypatch.setenv(name, SECRET)

    async def scenario(d: Any) -> None:
        one = d.assignment("plan", {"directory": str(configuration)})
        await d.assign(one)
        await d.report(one.task, Failed)
        seen = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
        assert {name for name, value in seen.items() if value == SECRET} == {
            *("AWS_SECRET_ACCESS_KEY", "TF_VAR_region", "HTTPS_PROXY")
        }
        assert seen["PATH"] == os.environ["PATH"]

    harness.run_with_agent(scenario, terraform=terraform, terraform_environment=["AWS_*", "TASKYARD_*"])


@pytest.mark.parametrize(
    "directory", ["outside", "roots/../outside", "roots/link-out", "roots/link-out/below", "roots-beside", "missing"]
)
def test_a_directory_must_lie_below_a_root_wherever_links_lead(
    harness: Any, tmp_path: Path, terraform: list[str], directory: str
) -> None:
    make_folders(tmp_path)

    async def scenario(d: Any) -> None:
        one = d.assignment("plan", {"directory": f"{tmp_path}/{directory}"})
        await d.assign(one)
        end = await d.report(one.task, Failed)
        assert (end.error.code, end.error.retryable) == ("directory_not_allowed", False)
        assert not (tmp_path / "pwd").exists()

    harness.run_with_agent(scenario, terraform=terraform, terraform_roots=[f"{tmp_path}/roots"])


@pytest.mark.parametrize("directory", ["roots", "roots/below", "roots/link-in", "link-to-roots/below"])
def test_below_a_root_links_may_lead_anywhere_there(
    harness: Any, tmp_path: Path, terraform: list[str], directory: str
) -> None:
    make_folders(tmp_path)

    async def scenario(d: Any) -> None:
        one = d.assignment("plan", {"directory": f"{tmp_path}/{directory}"})
        await d.assign(one)
        assert (await d.report(one.task, Failed)).error.code == "exit_status"
        assert (tmp_path / "pwd").read_text().strip() == str((tmp_path / directory).resolve())

    harness.run_with_agent(scenario, terraform=terraform, terraform_roots=[f"{tmp_path}/link-to-roots"])


def make_folders(folder: Path) -> None:
    for name in ("outside/below", "roots/below", "roots-beside"):
        (folder / name).mkdir(parents=True)
    (folder / "roots" / "link-out").symlink_to(folder / "outside")
    (folder / "roots" / "link-in").symlink_to(folder / "roots" / "below")
    (folder / "link-to-roots").symlink_to(folder / "roots")


def test_without_roots_no_directory_is_allowed(harness: Any, tmp_path: Path, terraform: list[str]) -> None:
    async def scenario(d: Any) -> None:
        one = d.assignment("plan", {"directory": str(tmp_path)})
        await d.assign(one)
        assert (await d.report(one.task, Failed)).error.code == "directory_not_allowed"

    harness.run_with_agent(scenario, terraform=terraform, terraform_roots=[])


def test_a_script_shows_in_no_list_of_processes_and_is_its_users_alone(harness: Any, tmp_path: Path) -> None:
    async def scenario(d: Any) -> None:
        script = f"echo {SECRET}; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; ls -A"
        one = d.assignment("command", {"script": script})
        await d.assign(one)

        async def said() -> bool:
            return SECRET.encode() in await d.output(one.task)

        await harness.until(said)
        assert not [
            entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and SECRET in command_line(entry)
        ]
        (file,) = (tmp_path / "agent" / "work").glob("*/script")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        (tmp_path / "go").touch()
        await d.report(one.task, Succeeded)
        assert await d.output(one.task) == f"{SECRET}\n".encode()  # nothing of ours lies where it works
        assert not list((tmp_path / "agent" / "work").iterdir())

    harness.run_with_agent(scenario)


def command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root may start an agent as another"
)
def test_a_task_of_the_agents_own_user_reads_neither_its_memory_nor_its_environment_nor_its_files(
    harness: Any, tmp_path: Path
) -> None:
    """The agent has its password from a file, which is gone before the first task runs."""

    async def scenario(d: Any) -> None:
        for folder in (tmp_path, *tmp_path.parents):
            if not folder.stat().st_mode & 0o001:
                folder.chmod(folder.stat().st_mode | 0o001)
        directory, password = tmp_path / "agent", tmp_path / "password"
        directory.mkdir()
        password.write_text("secret\n")
        config = tmp_path / "own.json"
        values = msgspec.to_builtins(harness.settings(directory=str(directory)))
        del values["password"]
        config.write_bytes(msgspec.json.encode({**values, "password_file": str(password)}))
        for one in (directory, password, config):
            os.chown(one, SAME_USER, SAME_USER)
        path = os.pathsep.join(str(ROOT / one) for one in ("services", "libs", "contracts"))
        agent = await asyncio.create_subprocess_exec(
            *AS_SAME_USER,
            *(sys.executable, "-m", "taskyard.agent", "--config", str(config)),
            env={"PATH": os.environ["PATH"], "PYTHONPATH": path, "TASKYARD_LABELS": f'{{"x":"{SECRET}"}}'},
            stderr=subprocess.DEVNULL,
        )
        try:
            await harness.joined(d)
            password.unlink()
            tries = "; ".join(
                f"cat /proc/{pid}/{name} > /dev/null 2>&1 && echo read {name}"
                for pid in (agent.pid, "$(ps -o ppid= $(ps -o ppid= $PPID) | tr -d ' ')", "$PPID")
                for name in ("environ", "mem", "maps", "fd/0")
            )
            one = d.assignment("command", {"script": f"id -u; {tries}; env | grep -c {SECRET}"})
            await d.assign(one)
            await d.report(one.task, Succeeded, Failed)
            assert (await d.output(one.task)).decode().split() == [str(SAME_USER), "0"]
        finally:
            agent.terminate()
            assert await asyncio.wait_for(agent.wait(), 20) == 0

    harness.run(scenario)
