"""Where archives are kept: a folder, or a bucket of an S3-compatible store.

A bucket is spoken to through `obstore` (the object store library of Apache Arrow's Rust project), the optional extra
`s3`, which is loaded when an address `s3://…` is named and not before. Credentials, region and endpoint come from the
environment, as other tools take them: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL.
"""

import asyncio
import importlib
import os
from pathlib import Path
from typing import Any

from taskyard.eventlog.archive import SEGMENT_SUFFIX, ArchiveStore
from taskyard.eventlog.errors import ArchiveUnreachable
from taskyard.private_files import NotPrivate, close_files, own_folder, refuse_writable, write_private

S3_SCHEME = "s3://"
S3_SECONDS_MAX = 60.0
"""How long one file may take to go to the bucket or to come from it."""


def open_store(where: str) -> ArchiveStore:
    """The store at `s3://<bucket>/<path>`, or in a folder.

    Raises:
        ArchiveUnreachable: the library for S3 is not installed, or the address is none.
    """
    return S3Store(where) if where.startswith(S3_SCHEME) else FolderStore(Path(where))


class FolderStore:
    """Files in a folder, which is made when the first one is written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def read(self, name: str) -> bytes | None:
        """The content of a file: see `ArchiveStore`."""
        try:
            return await asyncio.to_thread(self._read, name)
        except FileNotFoundError:
            return None
        except NotPrivate as error:
            raise ArchiveUnreachable(f"the folder of the archive, {self._folder}, {error.strerror}") from error
        except OSError as error:
            raise ArchiveUnreachable(f"{self._folder / name} cannot be read: {error.strerror}") from error

    async def write(self, name: str, data: bytes) -> None:
        """Put a file there: see `ArchiveStore`."""
        try:
            await asyncio.to_thread(self._write, name, data)
        except NotPrivate as error:
            raise ArchiveUnreachable(f"the folder of the archive, {self._folder}, {error.strerror}") from error
        except OSError as error:
            raise ArchiveUnreachable(f"{self._folder / name} cannot be written: {error.strerror}") from error

    def _read(self, name: str) -> bytes:
        refuse_writable(self._folder)
        return (self._folder / name).read_bytes()

    def _write(self, name: str, data: bytes) -> None:
        own_folder(self._folder)
        for left_over in self._folder.glob("*.partial"):
            left_over.unlink(missing_ok=True)  # of a run that was killed
        close_files(self._folder.glob(f"*{SEGMENT_SUFFIX}"))
        write_private(self._folder / name, data)


class S3Store:
    """Objects in a bucket, below the path of the address."""

    def __init__(self, where: str) -> None:
        self._where = where
        try:
            # Not needed by anything else and not installed everywhere, so types cannot know it.
            self._library: Any = importlib.import_module("obstore")
            stores: Any = importlib.import_module("obstore.store")
        except ImportError as error:
            raise ArchiveUnreachable(f"{where} needs the package obstore: pip install 'taskyard[s3]'") from error
        endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
        try:
            self._store: Any = stores.S3Store.from_url(
                where,
                client_options={"allow_http": endpoint.startswith("http://"), "timeout": f"{S3_SECONDS_MAX:.0f}s"},
            )
        except Exception as error:
            raise ArchiveUnreachable(f"{where} is not understood: {error}") from error

    async def read(self, name: str) -> bytes | None:
        """The content of an object: see `ArchiveStore`."""
        try:
            async with asyncio.timeout(S3_SECONDS_MAX):
                answer = await self._library.get_async(self._store, name)
                return bytes(await answer.bytes_async())
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._unreachable(name, error) from error

    async def write(self, name: str, data: bytes) -> None:
        """Put an object there: see `ArchiveStore`."""
        try:
            async with asyncio.timeout(S3_SECONDS_MAX):
                await self._library.put_async(self._store, name, data)
        except Exception as error:
            raise self._unreachable(name, error) from error

    def _unreachable(self, name: str, error: Exception) -> ArchiveUnreachable:
        return ArchiveUnreachable(
            f"{self._where}/{name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        )
