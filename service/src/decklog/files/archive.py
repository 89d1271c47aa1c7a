"""The archive in a folder, for installations without S3: the same files under the same names, without object lock."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from decklog.domain.archive.manifest import ArchiveError
from decklog.domain.errors import Code

_Result = TypeVar("_Result")


class FolderObjects:
    """`ArchiveObjects` in a folder, which is created with the first file.

    `keep_until` is not enforced here; only the manifest states it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def place(self) -> str:
        """The path of the folder."""
        return str(self._folder)

    async def put(self, name: str, content: bytes, *, keep_until: datetime | None = None) -> None:
        """Write the file atomically. Raises ArchiveError."""
        await self._call(name, lambda: self._put(self._folder / name, content))

    async def get(self, name: str, *, bytes_max: int) -> bytes:
        """Return the content of the file. Raises ArchiveError, also for more than `bytes_max` bytes."""
        content = await self._call(name, lambda: self._get(self._folder / name, bytes_max))
        if len(content) > bytes_max:
            raise ArchiveError("Damaged", f"{self._folder / name} is larger than {bytes_max} bytes.", Code.INTERNAL)
        return content

    async def locked(self) -> bool:
        """Return False: a folder locks no file."""
        return False

    async def close(self) -> None:
        """Do nothing: no file stays open."""

    async def _call(self, name: str, call: Callable[[], _Result]) -> _Result:
        try:
            return await asyncio.to_thread(call)
        except FileNotFoundError:
            raise ArchiveError("NotFound", f"There is no {self._folder / name}.", Code.NOT_FOUND) from None
        except PermissionError as error:
            raise ArchiveError("AccessDenied", f"{error.filename} may not be used: {error.strerror}.", Code.FORBIDDEN) from error
        except OSError as error:
            raise ArchiveError("Unreachable", f"{self._folder / name}: {error.strerror}.") from error

    # What follows runs in threads.

    @staticmethod
    def _put(path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with partial.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @staticmethod
    def _get(path: Path, bytes_max: int) -> bytes:
        with path.open("rb") as file:
            return file.read(bytes_max + 1)
