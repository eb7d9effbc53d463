"""The format of a folder of `taskyard dev`: recorded in it, and looked at before anything else is touched.

A later version opens what an earlier one made; an earlier one must not open what a later one may have changed.
"""

from importlib.metadata import version
from pathlib import Path

import msgspec

from taskyard.dev.errors import FolderDamaged, FormatTooNew
from taskyard.private_files import write_private

DATA_FORMAT = 1
"""Raised when a folder that this program has opened can no longer be opened by the version before: with its migration."""

FORMAT_FILE = "format.json"


class _Recorded(msgspec.Struct, frozen=True):
    """`taskyard` is the version of the program that opened the folder last, for people."""

    format: int
    taskyard: str = ""


def open_format(folder: Path) -> None:
    """Make sure that this program understands the folder, and record that it opened it.

    A folder without a record is empty, or was made before there were records: both are of the first format.

    Raises:
        FormatTooNew: a newer version has made or changed the folder; nothing was touched.
        FolderDamaged: the record cannot be read.
    """
    path = folder / FORMAT_FILE
    try:
        recorded = msgspec.json.decode(path.read_bytes(), type=_Recorded) if path.exists() else None
    except msgspec.DecodeError as error:
        message = f"{path} cannot be read ({error}); restore it from a copy"
        raise FolderDamaged(message) from error
    if recorded is not None and recorded.format > DATA_FORMAT:
        by = f" (by taskyard {recorded.taskyard})" if recorded.taskyard else ""
        message = (
            f"{folder} has format {recorded.format}{by}, this program knows {DATA_FORMAT} at most: run a newer one"
        )
        raise FormatTooNew(message)
    current = _Recorded(DATA_FORMAT, version("taskyard"))
    if recorded != current:
        write_private(path, msgspec.json.encode(current) + b"\n")
