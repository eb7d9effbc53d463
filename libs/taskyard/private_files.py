"""Files and folders that only their owner may read or write, whatever the umask: the one way in which we write any.

What is written holds inputs and output of tasks, and passwords. So a folder has the mode 0700 and a file 0600 from the moment
at which it is there, not from the moment after. Of a folder that was there before, others keep only the right to pass through:
users whom an agent runs its tasks as need it.
"""

import errno
import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

FOLDER_MODE = 0o700
FILE_MODE = 0o600
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
OTHERS_LOOK = stat.S_IRGRP | stat.S_IROTH | OTHERS_WRITE
OTHERS = stat.S_IRWXG | stat.S_IRWXO


class NotPrivate(PermissionError):
    """A folder belongs to others or can be written by them: they could change what is in it, or put a file in our way.

    Remedy: `chown` or `chmod go-w`, or another folder.
    """


def make_folder(folder: Path) -> None:
    """Make the folder, and those above it that are missing."""
    missing = [above for above in (folder, *folder.parents) if not above.exists()]
    for each in reversed(missing):
        with suppress(FileExistsError):  # another of our processes was faster
            each.mkdir(mode=FOLDER_MODE)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is no folder", str(folder))


def own_folder(folder: Path) -> None:
    """Make sure that the folder is there and is ours alone: others cannot list it any more, whatever it was made with.

    Raises:
        NotPrivate: it belongs to others, or they may write there.
    """
    make_folder(folder)
    found = folder.stat()
    if found.st_uid != os.geteuid():
        raise NotPrivate(
            errno.EPERM, f"belongs to {_name_of(found.st_uid)}, who could change what is kept there", str(folder)
        )
    refuse_writable(folder)
    if found.st_mode & OTHERS_LOOK:
        folder.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS_LOOK)


def refuse_writable(folder: Path) -> None:
    """Raises `NotPrivate` if others than its owner may write in the folder, `FileNotFoundError` if there is none."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & OTHERS_WRITE:
        raise NotPrivate(errno.EPERM, f"can be written by others (mode {mode:04o}): chmod go-w it", str(folder))


def close_files(files: Iterable[Path]) -> None:
    """Take from others what rights they have on these files, as an earlier version may have left them."""
    for file in files:
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & OTHERS:
            file.chmod(mode & ~OTHERS)


def open_private(file: Path, flags: int) -> int:
    """`os.open` of a file that is made if it is missing, and closed to others if it is not."""
    descriptor = os.open(file, flags | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        if os.fstat(descriptor).st_mode & OTHERS:
            os.fchmod(descriptor, FILE_MODE)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def open_to_append(file: Path) -> BinaryIO:
    """The file, made if it is missing; what is written goes to its end."""
    return os.fdopen(open_private(file, os.O_WRONLY | os.O_APPEND), "ab", buffering=0)


def make_file(file: Path) -> None:
    """An empty file if there is none: for what can only be told to open one, as SQLite, which keeps the mode it finds."""
    os.close(open_private(file, os.O_WRONLY))


def write_private(file: Path, content: bytes) -> None:
    """Put a file with `content` in the place of the one of that name; a reader sees the old or the new one."""
    with writing(file) as out:
        out.write(content)


def write_passing(file: Path, content: bytes) -> None:
    """Write a file that nobody reads yet and that need not outlive a loss of power: it costs no flush."""
    with os.fdopen(open_private(file, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW), "wb") as out:
        out.write(content)


@contextmanager
def writing(file: Path) -> Iterator[BinaryIO]:
    """A file to write, which gets its name when the block ends, and is then on disk; nothing of it stays if that fails."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    try:
        with os.fdopen(open_private(partial, os.O_WRONLY | os.O_EXCL), "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        partial.replace(file)
        _flush_name(file.parent)
    except OSError as error:
        error.filename = error.filename or str(file)  # of a full disk the kernel does not say for which file
        raise
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _flush_name(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"the user {user}"
