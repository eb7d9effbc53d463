"""Processes of attempts: each leads its own session and group, begins behind a gate, and ends with its whole group.

The gate is a shell that waits for one line and then becomes the program. Until the line comes nothing of the program
has run, so its process id can be on disk first; if the agent dies before, the shell reads the end of its input and
leaves. So no crash leaves a program behind that the journal does not know.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from taskyard.agent.errors import ProgramNotFoundError
from taskyard.agent.slots import ProcessIdentity

ENV_TASK = "TASKYARD_TASK"
ENV_ATTEMPT = "TASKYARD_ATTEMPT"
"""Set for every process of an attempt. The first also tells whose process it is when the leader of a group is gone."""

GROUP_POLL_SECONDS = 0.05
LEFTOVER_GRACE_SECONDS = 1.0
"""What a program leaves behind in its group when it ends by itself gets this long between TERM and KILL."""
PIPE_PATIENCE_SECONDS = 1.0
"""How long output may still come after the group is dead: a process that left the group may hold the pipe for ever."""
ORPHAN_GRACE_SECONDS = 5.0

_GATE = 'read -r _ || exit 125; exec "$@" </dev/null'

TakeOutput = Callable[[str, bytes], None]


class Program(asyncio.SubprocessProtocol):
    """One running program. Made by `spawn`; nothing of it runs until `open_gate`."""

    identity: ProcessIdentity

    def __init__(self, take_output: TakeOutput) -> None:
        self._take_output = take_output
        self._transport: asyncio.SubprocessTransport | None = None
        self._exited = asyncio.Event()
        self._open_pipes = {1, 2}
        self._pipes_closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Called by asyncio."""
        self._take_output("stdout" if fd == 1 else "stderr", data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._open_pipes.discard(fd)
        if not self._open_pipes:
            self._pipes_closed.set()

    def process_exited(self) -> None:
        """Called by asyncio."""
        self._exited.set()

    def open_gate(self) -> None:
        """Let the program run."""
        stdin = self._pipe(0)
        if isinstance(stdin, asyncio.WriteTransport):
            stdin.write(b"\n")
            stdin.close()

    def set_flow(self, flowing: bool) -> None:
        """Read its output, or let it wait."""
        for fd in self._open_pipes:
            pipe = self._pipe(fd)
            if isinstance(pipe, asyncio.ReadTransport) and pipe.is_reading() != flowing:
                if flowing:
                    pipe.resume_reading()
                else:
                    pipe.pause_reading()

    async def exited(self) -> int:
        """Wait until the leader has ended. Returns its exit code, negative for the signal that ended it."""
        await self._exited.wait()
        assert self._transport is not None
        return self._transport.get_returncode() or 0

    async def drain(self) -> None:
        """After the group is dead: wait a moment for the rest of its output, then let go of the pipes."""
        self.set_flow(True)
        with suppress(TimeoutError):
            async with asyncio.timeout(PIPE_PATIENCE_SECONDS):
                await self._pipes_closed.wait()
        assert self._transport is not None
        self._transport.close()

    def kill_now(self) -> None:
        """KILL the group without waiting, when the agent itself is falling."""
        _signal_group(self.identity.pid, signal.SIGKILL)
        if self._transport is not None:
            self._transport.close()

    def _pipe(self, fd: int) -> asyncio.BaseTransport | None:
        assert self._transport is not None
        return self._transport.get_pipe_transport(fd)


async def spawn(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], take_output: TakeOutput) -> Program:
    """Make the process of a program, waiting behind its gate.

    Raises:
        ProgramNotFoundError: there is no such program or directory.
        OSError: the host cannot make another process.
    """
    _check_found(argv[0], cwd, env)
    loop = asyncio.get_running_loop()
    transport, program = await loop.subprocess_exec(
        lambda: Program(take_output),
        *("/bin/sh", "-c", _GATE, "taskyard", *argv),
        cwd=cwd,
        env=dict(env),
        start_new_session=True,
    )
    identity = identify(transport.get_pid())
    if identity is None:
        transport.close()
        raise OSError("the process was gone before its program began")
    program.identity = identity
    return program


async def stop_group(pid: int, *, first: signal.Signals, grace_seconds: float) -> None:
    """End the whole group of `pid`: the first signal, the grace period, KILL. Returns when nobody of it lives."""
    loop = asyncio.get_running_loop()
    _signal_group(pid, first)
    deadline = loop.time() + grace_seconds
    while _group_lives(pid):
        if loop.time() >= deadline:
            _signal_group(pid, signal.SIGKILL)  # again each time: the group may have grown meanwhile
        await asyncio.sleep(GROUP_POLL_SECONDS)


async def stop_orphan(identity: ProcessIdentity, *, task: str, first: signal.Signals) -> bool:
    """End the group of a process of an earlier run of the agent, if it is still that one. Returns whether it was."""
    now = identify(identity.pid)
    if identity.boot != _boot():
        return False
    if now is None:
        # The leader is gone; its number cannot be given to another process while its group has members.
        members = group_members(identity.pid)
        if not any(_belongs_to(member, task) for member in members):
            return False
    elif now != identity:
        return False
    await stop_group(identity.pid, first=first, grace_seconds=ORPHAN_GRACE_SECONDS)
    return True


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of a living process, None if there is none."""
    fields = _stat(pid)
    if fields is None or fields[0] in "ZX":
        return None
    return ProcessIdentity(pid=pid, start_ticks=int(fields[19]), boot=_boot())


def group_members(group: int) -> list[int]:
    """The living processes of a process group, zombies not among them."""
    members: list[int] = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 (names only, this is the hot part)
        if entry.isdigit():
            fields = _stat(int(entry))
            if fields is not None and int(fields[2]) == group and fields[0] not in "ZX":
                members.append(int(entry))
    return members


def _group_lives(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    # There may be only zombies, which an init that never reaps would keep for ever.
    return bool(group_members(pid))


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on: the name before may hold spaces and brackets."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _belongs_to(pid: int, task: str) -> bool:
    try:
        return f"{ENV_TASK}={task}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _check_found(program: str, cwd: Path, env: Mapping[str, str]) -> None:
    if not cwd.is_dir():
        raise ProgramNotFoundError(f"there is no directory {cwd} on this worker")
    if "/" in program:
        candidates = [cwd / program]
    else:
        candidates = [Path(cwd, folder, program) for folder in env.get("PATH", os.defpath).split(":")]
    if not program or not any(one.is_file() and os.access(one, os.X_OK) for one in candidates):
        raise ProgramNotFoundError(f"there is no program {program} on this worker")
