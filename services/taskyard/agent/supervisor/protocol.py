"""What agent and supervisor say to each other: frames of msgpack, each after its length in four bytes."""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

MESSAGE_BYTES_MAX = 64 << 20
STREAMS = ("stdout", "stderr")
_LENGTH = struct.Struct("!I")


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag=True, gc=False):
    """The root of all messages."""


class Room(msgspec.Struct, frozen=True, gc=False):
    """How many bytes of a stream are kept: the first `head`, the last `tail`."""

    head: int
    tail: int


class Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What is kept of a stream that had `total` bytes: `head` in the spool, then a gap, then `tail` in its ring or `last`."""

    total: int = 0
    head: int = 0
    tail: int = 0
    last: bytes = b""


class User(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Whom a program runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...]


class Open(Message):
    """An attempt begins. `note` is for the agent that comes after, and nothing to the supervisor.

    Its programs are stopped by `stop_signal`, and KILL after the grace; at its deadline with `timeout_grace_seconds`.
    """

    attempt: int
    note: bytes
    seconds_left: float
    stop_signal: int
    timeout_grace_seconds: float


class Start(Message):
    """Make the process of a program. It waits until `Go`."""

    attempt: int
    step: str
    argv: tuple[str, ...]
    cwd: str
    env: dict[str, str]
    stdout: Room
    stderr: Room
    user: User | None = None


class Go(Message):
    """The program may run."""

    attempt: int
    step: str


class Stop(Message):
    """Stop the attempt: its program now, and no other begins. The first `reason` counts; it is for the agent."""

    attempt: int
    grace_seconds: float
    reason: bytes


class Sent(Message):
    """What the agent is about to send of the attempt's output: for the agent that comes after."""

    attempt: int
    sent: bytes


class Forget(Message):
    """Nobody will ask for the attempt again."""

    attempt: int


class Squeeze(Message):
    """The disk is full: give back what rings take."""


class Quit(Message):
    """Stop everything, and end."""

    grace_seconds: float


class ProgramState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One program. `status` is None until nothing of it lives; negative for the signal that ended it."""

    step: str
    pid: int = 0
    start_ticks: int = 0
    has_begun: bool = False
    status: int | None = None
    kept: tuple[Kept, Kept] = (Kept(), Kept())


class AttemptState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One attempt with all its programs in the order in which they were started."""

    attempt: int
    note: bytes
    seconds_left: float
    sent: bytes = b""
    stopped: bytes | None = None
    timed_out: bool = False
    programs: tuple[ProgramState, ...] = ()


class Hello(Message):
    """The first message to whoever connects: everything there is."""

    pid: int
    attempts: tuple[AttemptState, ...] = ()
    knows_users: bool = False
    """Whether it runs programs as other users: one that an older agent left would run them as itself."""


class Changed(Message):
    """A program was made, wrote, or has ended with everything that it started."""

    attempt: int
    program: ProgramState


class TimedOut(Message):
    """The deadline of the attempt has passed."""

    attempt: int


class NotStarted(Message):
    """The host cannot make another process."""

    attempt: int
    step: str
    reason: str


Command = Open | Start | Go | Stop | Sent | Forget | Squeeze | Quit
Event = Hello | Changed | TimedOut | NotStarted

_encode = msgspec.msgpack.Encoder().encode
decode_command = msgspec.msgpack.Decoder(Command).decode
decode_event = msgspec.msgpack.Decoder(Event).decode


def encode_frame(message: object) -> bytes:
    """A message with its length before it."""
    body = _encode(message)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Cuts what comes from a socket into the bodies of messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def add(self, data: bytes) -> Iterator[bytes]:
        """Take more in, give the bodies that are whole now.

        Raises:
            ValueError: this is no frame.
        """
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MESSAGE_BYTES_MAX:
                raise ValueError(f"a message of {length} bytes")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield body


def spool_file(folder: Path, attempt: int, step: str, stream: str) -> Path:
    """Where the supervisor keeps the output of a program."""
    return folder / "spool" / f"{attempt}.{step}.{stream}"


@contextmanager
def socket_address(folder: Path) -> Iterator[str]:
    """The address of the supervisor's socket: by way of a descriptor, since an address is at most 107 bytes long."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/socket"
    finally:
        os.close(descriptor)
