"""The supervisor: what it starts begins when told, ends whole, is heard of again, and outlives who asked for it."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from host_processes import is_running

from taskyard.agent import supervised as supervised_module
from taskyard.agent.programs import Gap, Program
from taskyard.agent.supervised import Supervised
from taskyard.agent.supervisor.keeper import ORPHAN_GRACE_SECONDS, descendants
from taskyard.agent.supervisor.protocol import Open, Room
from taskyard.contracts.values import Position

ENV = {"PATH": os.environ["PATH"]}
ROOMS = (Room(1 << 20, 1 << 20), Room(1 << 20, 1 << 20))
ONE = Position(1)


def run(folder: Path, scenario: Callable[[Supervised], Awaitable[None]], seconds: float = 20.0) -> None:
    """A scenario with a supervisor, of which nothing is left after it."""

    async def main() -> None:
        supervised = Supervised(folder)
        await supervised.connect()
        hearing = asyncio.create_task(supervised.run())
        try:
            async with asyncio.timeout(seconds):
                await scenario(supervised)
        finally:
            hearing.cancel()
            await supervised.close(leave_running=True)
            await end(folder)

    asyncio.run(main())


async def end(folder: Path) -> None:
    other = Supervised(folder)
    await other.connect()
    await other.close(leave_running=False)
    deadline = time.monotonic() + 15
    while (folder / "supervisor" / "socket").exists():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def begin(
    supervised: Supervised, number: Position = ONE, *, seconds_left: float = 60.0, number_of: int = signal.SIGTERM
) -> None:
    await supervised.open(
        number,
        Open(attempt=number, note=b"n", seconds_left=seconds_left, stop_signal=number_of, timeout_grace_seconds=1.0),
    )


async def start(
    supervised: Supervised, script: str, *, step: str = "one", rooms: tuple[Room, Room] = ROOMS, go: bool = True
) -> Program:
    program = await supervised.start(ONE, step, ["sh", "-c", script], cwd=Path("/"), env=ENV, rooms=rooms)
    await program.made()
    if go:
        supervised.go(program)
    return program


async def over(program: Program) -> int:
    while program.state.status is None:
        await program.changed()
    return program.state.status


def read(program: Program, stream: str = "stdout") -> list[bytes | Gap]:
    reader = program.reader(stream)
    pieces: list[bytes | Gap] = []
    while piece := reader.next(1 << 30):
        pieces.append(piece)
        reader.moved(piece)
    reader.close()
    return pieces


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def number_in(path: Path) -> int:
    return int(path.read_text()) if path.exists() and path.read_text().strip() else 0


def test_a_program_waits_until_it_is_told_to_go(tmp_path: Path) -> None:
    async def scenario(supervised: Supervised) -> None:
        await begin(supervised)
        program = await start(supervised, f"touch {tmp_path}/ran; echo hello; echo oops >&2; exit 3", go=False)
        assert not program.state.has_begun
        assert b"touch" not in Path(f"/proc/{program.state.pid}/cmdline").read_bytes()
        assert not (tmp_path / "ran").exists()
        supervised.go(program)
        assert await over(program) == 3
        assert (read(program), read(program, "stderr")) == ([b"hello\n"], [b"oops\n"])

    run(tmp_path, scenario)


def test_a_program_that_is_stopped_before_it_may_go_never_runs(tmp_path: Path) -> None:
    async def scenario(supervised: Supervised) -> None:
        await begin(supervised)
        program = await start(supervised, f"touch {tmp_path}/ran", go=False)
        supervised.stop(ONE, 1.0, b"r")
        supervised.go(program)
        assert await over(program) != 0
        assert not (tmp_path / "ran").exists()

    run(tmp_path, scenario)


def test_a_step_that_is_started_again_is_the_one_that_runs(tmp_path: Path) -> None:
    """As when an agent is killed before it hears that its program was made, and the next one asks for the same."""

    async def scenario(supervised: Supervised) -> None:
        await begin(supervised)
        script = f"echo ran >> {tmp_path}/ran; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done"
        first = await start(supervised, script)
        await until((tmp_path / "ran").exists)
        again = await supervised.start(ONE, "one", ["sh", "-c", script], cwd=Path("/"), env=ENV, rooms=ROOMS)
        supervised.go(again)
        other = await start(supervised, "true", step="other")  # what was asked before is done when this is over
        assert await over(other) == 0
        (tmp_path / "go").touch()
        assert await over(again) == 0
        assert again.state.pid == first.state.pid
        assert (tmp_path / "ran").read_text() == "ran\n"

    run(tmp_path, scenario)


def test_the_first_stop_counts_with_its_reason_and_its_grace(tmp_path: Path) -> None:
    async def scenario(supervised: Supervised) -> None:
        await begin(supervised)
        program = await start(
            supervised, "trap 'sleep 0.5; exit 5' TERM; echo ready; while :; do sleep 0.02; done"
        )  # fmt: skip
        await until(lambda: read(program) == [b"ready\n"])
        supervised.stop(ONE, 15.0, b"first")
        supervised.stop(ONE, 0.0, b"second")
        assert await over(program) == 5
        again = Supervised(tmp_path)
        await again.connect()
        assert again.left[ONE].stopped == b"first"
        await again.close(leave_running=True)

    run(tmp_path, scenario)


def test_programs_output_and_ends_outlive_who_asked_for_them(tmp_path: Path) -> None:
    async def scenario(supervised: Supervised) -> None:
        await begin(supervised)
        go_on = f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done"
        await start(supervised, f"echo first; {go_on}; echo second; exit 7")
        await supervised.about_to_send(ONE, b"so far")
        await supervised.close(leave_running=True)
        again = Supervised(tmp_path)
        await again.connect()
        hearing = asyncio.create_task(again.run())
        left = again.left[ONE]
        assert (left.note, left.sent, left.stopped, left.timed_out) == (b"n", b"so far", None, False)
        again.adopt(ONE)
        program = again.program(ONE, "one", ROOMS)
        assert program is not None
        (tmp_path / "go").touch()
        assert await over(program) == 7
        assert read(program) == [b"first\nsecond\n"]
        again.forget(ONE)
        await until(lambda: not list((tmp_path / "supervisor" / "spool").iterdir()))
        hearing.cancel()
        await again.close(leave_running=True)

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    "leave",
    ["setsid sh -c 'echo $$ > {pid}; exec sleep 300' &", "(setsid sh -c 'env -i sleep 300 & echo $! > {pid}' &) &"],
    ids=["a session of its own", "a double fork without the environment"],
)
def test_what_leaves_the_group_ends_with_its_program(tmp_path: Path, leave: str) -> None:
    async def scenario(supervised: Supervised) -> None:
        await begin(supervised)
        pid = tmp_path / "pid"
        wait = f"while [ ! -s {pid} ]; do sleep 0.02; done"
        program = await start(supervised, f"{leave.format(pid=pid)} {wait}")
        assert await over(program) == 0
        assert not is_running(number_in(pid))

    run(tmp_path, scenario)


def test_a_stop_reaches_what_left_the_group_and_ignores_it(tmp_path: Path) -> None:
    async def scenario(supervised: Supervised) -> None:
        await begin(supervised)
        pid = tmp_path / "pid"
        stubborn = f"trap '' TERM INT; echo \\$\\$ > {pid}; while :; do sleep 0.1; done"
        program = await start(supervised, f'trap "" TERM; setsid sh -c "{stubborn}" & sleep 300')
        await until(lambda: number_in(pid) > 0)
        supervised.stop(ONE, 0.3, b"r")
        assert await over(program) == -signal.SIGKILL
        assert not is_running(number_in(pid))

    run(tmp_path, scenario)


def test_the_first_signal_comes_once_and_its_grace_holds_and_its_trap_can_print(tmp_path: Path) -> None:
    async def scenario(supervised: Supervised) -> None:
        await begin(supervised, number_of=signal.SIGINT)
        trap = "trap 'echo caught; echo x >> caught; sleep 0.3; echo saved; exit 9' INT"
        program = await start(supervised, f"cd {tmp_path}; {trap}; echo ready; while :; do sleep 0.02; done")
        await until(lambda: program.state.kept[0].total > 0)
        supervised.stop(ONE, 10.0, b"r")
        assert await over(program) == 9
        assert read(program) == [b"ready\ncaught\nsaved\n"]
        assert (tmp_path / "caught").read_text() == "x\n"

    run(tmp_path, scenario)


def test_a_deadline_holds_also_while_no_agent_lives(tmp_path: Path) -> None:
    async def scenario(supervised: Supervised) -> None:
        await begin(supervised, seconds_left=0.6)
        await start(supervised, f"echo $$ > {tmp_path}/pid; exec sleep 300")
        await supervised.close(leave_running=True)
        await until(lambda: number_in(tmp_path / "pid") > 0)
        await until(lambda: not is_running(number_in(tmp_path / "pid")))
        again = Supervised(tmp_path)
        await again.connect()
        assert again.left[ONE].timed_out
        hearing = asyncio.create_task(again.run())
        again.adopt(ONE)
        program = again.program(ONE, "one", ROOMS)
        assert program is not None
        assert await over(program) == -signal.SIGTERM
        hearing.cancel()
        await again.close(leave_running=True)

    run(tmp_path, scenario)


def test_of_much_output_the_beginning_and_the_end_are_kept_in_private_files(tmp_path: Path) -> None:
    async def scenario(supervised: Supervised) -> None:
        await begin(supervised)
        rooms = (Room(1000, 500), Room(1000, 500))
        script = "echo begins; head -c 3000000 /dev/zero; echo the end; echo broken >&2"
        program = await start(supervised, script, rooms=rooms)
        assert await over(program) == 0
        head, gap, *tail = read(program)
        end = b"".join(one for one in tail if isinstance(one, bytes))
        assert head == b"begins\n" + bytes(993)
        assert gap == Gap(7 + 3_000_000 + 8 - 1500)
        assert end == bytes(492) + b"the end\n"
        assert read(program, "stderr") == [b"broken\n"]
        spool = tmp_path / "supervisor" / "spool"
        assert spool.parent.stat().st_mode & 0o777 == 0o700
        assert {one.stat().st_mode & 0o777 for one in spool.iterdir()} == {0o600}
        assert max(one.stat().st_size for one in spool.iterdir()) <= 1500

    run(tmp_path, scenario)


def test_a_squeezed_spool_gives_its_ring_back_and_keeps_the_last_words(tmp_path: Path) -> None:
    async def scenario(supervised: Supervised) -> None:
        await begin(supervised)
        rooms = (Room(1000, 1 << 20), ROOMS[1])
        go_on = f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done"
        program = await start(supervised, f"head -c 500000 /dev/zero; {go_on}; echo the end", rooms=rooms)
        await until(lambda: program.state.kept[0].total == 500_000)
        file = next((tmp_path / "supervisor" / "spool").glob("*stdout"))
        supervised.squeeze()
        await until(lambda: file.stat().st_size == 1000)
        (tmp_path / "go").touch()
        assert await over(program) == 0
        head, gap, end = read(program)
        assert head == bytes(1000)
        assert isinstance(gap, Gap)
        assert isinstance(end, bytes)
        assert end.endswith(b"\0the end\n")
        assert len(head) + gap + len(end) == program.state.kept[0].total

    run(tmp_path, scenario)


def keeper_of(program: Program) -> int:
    return int(Path(f"/proc/{program.state.pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_keeper_that_is_killed_takes_its_program_with_it(tmp_path: Path) -> None:
    async def scenario(supervised: Supervised) -> None:
        await begin(supervised)
        program = await start(supervised, "setsid sleep 300 & sleep 300")
        keeper = keeper_of(program)
        await until(lambda: len(descendants(keeper)) == 3)
        pids = [pid for pid, _ in descendants(keeper)]
        os.kill(keeper, signal.SIGKILL)
        assert await over(program) == -signal.SIGTERM
        assert not any(is_running(pid) for pid in pids)

    run(tmp_path, scenario)


def test_a_program_that_has_stopped_its_keeper_is_stopped_in_order_all_the_same(tmp_path: Path) -> None:
    async def scenario(supervised: Supervised) -> None:
        await begin(supervised)
        program = await start(
            supervised, "trap 'echo saved; exit 7' TERM; kill -STOP $PPID; echo ready; while :; do sleep 0.02; done"
        )
        await until(lambda: program.state.kept[0].total > 0)
        supervised.stop(ONE, 5.0, b"")
        assert await over(program) == 7
        assert read(program) == [b"ready\nsaved\n"]

    run(tmp_path, scenario)


@pytest.mark.slow
def test_a_program_that_stops_its_keeper_again_and_again_ends_with_it(tmp_path: Path) -> None:
    async def scenario(supervised: Supervised) -> None:
        await begin(supervised)
        program = await start(supervised, "trap '' TERM; echo ready; while :; do kill -STOP $PPID; done")
        await until(lambda: program.state.kept[0].total > 0)
        supervised.stop(ONE, 0.1, b"")
        assert await over(program) in (-signal.SIGKILL, -signal.SIGTERM)
        assert not is_running(program.state.pid)

    run(tmp_path, scenario, seconds=60.0)


def test_when_its_keeper_is_killed_a_program_gets_its_signal_once_and_its_grace(tmp_path: Path) -> None:
    async def scenario(supervised: Supervised) -> None:
        await begin(supervised, number_of=signal.SIGINT)
        trap = f"trap 'echo x >> {tmp_path}/caught; sleep 0.5; echo saved; exit 9' INT"
        program = await start(supervised, f"{trap}; echo ready; while :; do sleep 0.02; done")
        await until(lambda: program.state.kept[0].total > 0)
        os.kill(keeper_of(program), signal.SIGKILL)
        assert await over(program) == 9
        assert read(program) == [b"ready\nsaved\n"]
        assert (tmp_path / "caught").read_text() == "x\n"

    run(tmp_path, scenario)


def test_what_a_killed_keeper_has_left_and_ignores_its_signal_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(supervised: Supervised) -> None:
        await begin(supervised)
        program = await start(supervised, "trap '' TERM; echo ready; while :; do sleep 0.02; done")
        await until(lambda: program.state.kept[0].total > 0)
        os.kill(keeper_of(program), signal.SIGKILL)
        begun = time.monotonic()
        assert await over(program) == -signal.SIGKILL
        assert time.monotonic() - begun >= ORPHAN_GRACE_SECONDS - 0.5

    run(tmp_path, scenario)


def test_who_tells_a_supervisor_to_end_returns_when_it_and_its_keepers_are_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path)
        await supervised.connect()
        hearing = asyncio.create_task(supervised.run())
        await begin(supervised)
        program = await start(supervised, "echo ready; exec sleep 300")
        await until(lambda: program.state.kept[0].total > 0)
        keeper = keeper_of(program)
        (supervisor,) = [pid for pid, _ in descendants(os.getpid()) if keeper in dict(descendants(pid))]
        await supervised.close(leave_running=False)
        assert not any(is_running(pid) for pid in (program.state.pid, keeper, supervisor))
        assert not Path(f"/proc/{supervisor}").exists()
        await asyncio.wait_for(hearing, 5)

    asyncio.run(scenario())


def test_a_supervisor_that_stands_still_when_it_is_told_to_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised_module, "QUIT_SECONDS_MAX", 0.3)

    async def scenario() -> None:
        supervised = Supervised(tmp_path)
        await supervised.connect()
        (supervisor,) = [pid for pid, _ in descendants(os.getpid()) if is_supervisor_of(pid, tmp_path)]
        os.kill(supervisor, signal.SIGSTOP)
        await supervised.close(leave_running=False)
        assert not is_running(supervisor)

    asyncio.run(scenario())


def is_supervisor_of(pid: int, folder: Path) -> bool:
    return str(folder / "supervisor").encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def test_when_the_supervisor_is_killed_its_programs_are_stopped_in_order(tmp_path: Path) -> None:
    async def scenario(supervised: Supervised) -> None:
        lost: list[int] = []
        supervised.on_lost = lost.append
        await begin(supervised, number_of=signal.SIGINT)
        trap = f"trap 'echo told; echo saved > {tmp_path}/state; exit 0' INT"
        program = await start(supervised, f"{trap}; echo ready; while :; do sleep 0.02; done")
        await until(lambda: program.state.kept[0].total > 0)
        pid = program.state.pid
        keeper = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        supervisor = int(Path(f"/proc/{keeper}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(supervisor, signal.SIGKILL)
        await until(lambda: not is_running(pid) and not is_running(keeper))
        assert (tmp_path / "state").read_text() == "saved\n"
        await until(lambda: lost == [ONE])

    run(tmp_path, scenario)


def test_a_supervisor_with_nothing_to_do_ends_by_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path)
        await supervised.connect()
        await supervised.close(leave_running=True)
        await until(lambda: not (tmp_path / "supervisor" / "socket").exists())

    asyncio.run(scenario())


def test_a_supervisor_whose_folder_is_gone_ends_with_what_it_runs(tmp_path: Path) -> None:
    folder = tmp_path / "agent"
    folder.mkdir()

    async def scenario() -> None:
        supervised = Supervised(folder)
        await supervised.connect()
        hearing = asyncio.create_task(supervised.run())
        await begin(supervised)
        await start(supervised, f"echo $$ > {tmp_path}/pid; exec sleep 300")
        await until(lambda: number_in(tmp_path / "pid") > 0)
        hearing.cancel()
        shutil.rmtree(folder)
        await until(lambda: not is_running(number_in(tmp_path / "pid")))
        await supervised.close(leave_running=True)

    asyncio.run(scenario())


def test_the_keeper_of_one_program_runs_the_next(tmp_path: Path) -> None:
    async def scenario(supervised: Supervised) -> None:
        await begin(supervised)
        parents = set[str]()
        for step in range(5):
            program = await start(supervised, "ps -o ppid= -p $$", step=str(step))
            assert await over(program) == 0
            parents.add(str(read(program)))
        assert len(parents) == 1

    run(tmp_path, scenario)


def test_of_many_short_programs_each_has_its_own_output_and_none_ends_the_supervisor(tmp_path: Path) -> None:
    async def scenario(supervised: Supervised) -> None:
        await begin(supervised)

        async def one_after_another(slot: int) -> None:
            for number in range(25):
                text = f"{slot}-{number}"
                program = await start(supervised, f"echo {text}; echo {text} >&2", step=text)
                assert await over(program) == 0
                assert read(program) == read(program, "stderr") == [f"{text}\n".encode()]

        async with asyncio.TaskGroup() as group:
            for slot in range(8):
                group.create_task(one_after_another(slot))

    run(tmp_path, scenario)
