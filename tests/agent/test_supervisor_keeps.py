"""What a supervisor keeps, forgets and refuses, and how keepers and programs end that were killed or stopped beside it."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from host_processes import is_running
from test_supervisor import ENV, ONE, ROOMS, begin, keeper_of, over, read, run, start, until

from taskyard.agent.errors import SupervisorLostError
from taskyard.agent.supervised import Supervised
from taskyard.agent.supervisor.protocol import Open
from taskyard.contracts.values import Position

LONG = "while :; do sleep 0.02; done"
TWO = Position(2)


async def told_anew(folder: Path) -> list[Position]:
    """The attempts of which the next agent is told."""
    other = Supervised(folder)
    await other.connect()
    await other.close(leave_running=True)
    return list(other.left)


def test_what_is_forgotten_while_it_runs_is_stopped_and_told_to_nobody(tmp_path: Path) -> None:
    async def scenario(supervised: Supervised) -> None:
        await begin(supervised)
        script = f"trap 'touch {tmp_path}/told; sleep 0.5; exit 1' TERM; echo ready; {LONG}"
        program = await start(supervised, script)
        await until(lambda: program.state.kept[0].total > 0)
        supervised.forget(ONE)
        await until((tmp_path / "told").exists)
        assert is_running(program.state.pid)
        assert await told_anew(tmp_path) == []
        await until(lambda: not is_running(program.state.pid))
        spool = tmp_path / "supervisor" / "spool"
        await until(lambda: not list(spool.iterdir()))

    run(tmp_path, scenario)


def test_an_attempt_that_is_opened_again_keeps_its_first_deadline(tmp_path: Path) -> None:
    async def scenario(supervised: Supervised) -> None:
        await begin(supervised, seconds_left=0.5)
        await begin(supervised, seconds_left=600.0)
        program = await start(supervised, LONG)
        assert await over(program) == -signal.SIGTERM

    run(tmp_path, scenario)


def test_a_stranger_who_holds_the_pipe_of_a_program_does_not_hold_up_its_end(tmp_path: Path) -> None:
    async def scenario(supervised: Supervised) -> None:
        await begin(supervised)
        program = await start(supervised, f"echo said; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done")
        await until(lambda: program.state.kept[0].total > 0)
        held = os.open(f"/proc/{program.state.pid}/fd/1", os.O_WRONLY)
        try:
            (tmp_path / "go").touch()
            assert await over(program) == 0
            assert read(program) == [b"said\n"]
        finally:
            os.close(held)

    run(tmp_path, scenario)


def test_a_program_whose_keeper_is_killed_before_it_was_made_is_told_as_not_started(tmp_path: Path) -> None:
    """As by a kernel without memory. Nobody would hear that its process exists, and wait for that until its deadline."""

    async def scenario(supervised: Supervised) -> None:
        await begin(supervised)
        first = await start(supervised, f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done")
        waits = keeper_of(first)
        (tmp_path / "go").touch()
        assert await over(first) == 0
        os.kill(waits, signal.SIGSTOP)
        second = await supervised.start(
            ONE, "two", ["touch", str(tmp_path / "ran")], cwd=Path("/"), env=ENV, rooms=ROOMS
        )
        other = await start(supervised, "echo other", step="three")  # what was asked before is done when this is made
        assert await over(other) == 0
        os.kill(waits, signal.SIGKILL)
        with pytest.raises(OSError, match="its keeper was killed"):
            await asyncio.wait_for(second.made(), 5)
        assert not (tmp_path / "ran").exists()

    run(tmp_path, scenario)


def test_a_program_that_has_stopped_its_keeper_gets_its_signal_at_once(tmp_path: Path) -> None:
    """And not when a keeper that stands still is killed, five seconds after the grace."""

    async def scenario(supervised: Supervised) -> None:
        await begin(supervised)
        program = await start(supervised, f"trap 'exit 7' TERM; kill -STOP $PPID; echo ready; {LONG}")
        await until(lambda: program.state.kept[0].total > 0)
        begun = time.monotonic()
        supervised.stop(ONE, 1.0, b"")
        assert await over(program) == 7
        assert time.monotonic() - begun < 4.0

    run(tmp_path, scenario)


def test_a_script_without_its_first_line_is_run_by_the_shell(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo by the shell")
    script.chmod(0o700)

    async def scenario(supervised: Supervised) -> None:
        await begin(supervised)
        program = await supervised.start(ONE, "one", [str(script)], cwd=Path("/"), env=ENV, rooms=ROOMS)
        await program.made()
        supervised.go(program)
        assert await over(program) == 0
        assert read(program) == [b"by the shell\n"]

    run(tmp_path, scenario)


def test_a_deadline_that_passes_while_a_program_is_stopped_signals_it_no_second_time(tmp_path: Path) -> None:
    """A second INT tells Terraform to let go of its state."""

    async def scenario(supervised: Supervised) -> None:
        await begin(supervised, seconds_left=1.0, number_of=signal.SIGINT)
        trap = f"trap 'echo x >> {tmp_path}/caught' INT; echo ready"
        saves = f"while [ ! -e {tmp_path}/caught ]; do sleep 0.02; done; sleep 1.5; exit 9"
        program = await start(supervised, f"{trap}; {saves}")
        await until(lambda: program.state.kept[0].total > 0)
        supervised.stop(ONE, 10.0, b"")
        assert await over(program) == 9
        assert (tmp_path / "caught").read_text() == "x\n"

    run(tmp_path, scenario)


def test_a_supervisor_that_was_told_to_end_starts_nothing_more(tmp_path: Path) -> None:
    async def scenario(supervised: Supervised) -> None:
        await begin(supervised)
        program = await start(supervised, f"trap 'sleep 1; exit 0' TERM; echo ready; {LONG}")
        await until(lambda: program.state.kept[0].total > 0)
        supervisor = int(Path(f"/proc/{keeper_of(program)}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(supervisor, signal.SIGTERM)
        await supervised.open(
            TWO, Open(attempt=TWO, note=b"", seconds_left=60, stop_signal=15, timeout_grace_seconds=1)
        )
        late = await supervised.start(
            TWO, "late", ["touch", str(tmp_path / "late")], cwd=Path("/"), env=ENV, rooms=ROOMS
        )
        with pytest.raises((OSError, SupervisorLostError)):
            await asyncio.wait_for(late.made(), 10)
        assert not (tmp_path / "late").exists()

    run(tmp_path, scenario)
