"""An export into a file, which continues where it broke off and then has the bytes of an unbroken one.

The records go to `<file>.part`; beside it, `<file>.part.json` says what is exported and up to which record. The file gets its name
when it is complete, so a part is never taken for the whole. After a kill, the last whole record in the part is where it continues:
nothing that was written is trusted but whole records.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import msgspec

from decklog.client.client import Client, Exported
from decklog.client.patience import Patience
from decklog.client.progress import Progress
from decklog.client.relative_times import settled
from decklog.client.splitting import Rows, Whole, whole_records
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import Position

ATTEMPTS_MAX = 8
"""Attempts in a row without a new record before an export gives up."""
RESUMABLE = ("ndjson", "csv")
"""Formats that continue: the records of JSON are one value."""


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Source of an export: the server, and the parameters of the API."""

    url: str
    query: str
    log: str
    format: str
    fields: str | None = None
    bom: bool = False


class _Begun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An export that has begun: what is exported, its query without relative times, the number of its last record, and their total."""

    wanted: Wanted
    query: str
    end: int | None
    total: int | None


class ExportFile:
    """An export into the file at `path`."""

    def __init__(self, path: Path, wanted: Wanted, progress: Progress) -> None:
        self.path = path
        self.part = path.with_name(path.name + ".part")
        self._state = path.with_name(path.name + ".part.json")
        self._wanted = wanted
        self._progress = progress
        self._begun: _Begun | None = None
        self._whole = Whole(0, 0, None)

    async def run(self, client: Client, *, resume: bool, force: bool = False) -> int:
        """Write the file, and return the number of its records. `resume` continues a part, or begins one.

        Raises `misconfigured` where there is a file or a part already and neither `resume` nor `force` says what to do with it,
        and what a Client raises.
        """
        if self.path.exists() and not force:
            raise DecklogError(Code.MISCONFIGURED, f"{self.path} exists. Give another name, or --force to replace it.")
        with self._opened() as file:
            self._begin(file, resume=resume, force=force)
            patience = Patience(self._progress.waiting, attempts=ATTEMPTS_MAX)
            while True:
                try:
                    await self._read(client, file, patience)
                    break
                except DecklogError as error:
                    await patience.wait(error)
                    self._reread(file)
            file.flush()
            os.fsync(file.fileno())
        self.part.replace(self.path)
        self._state.unlink(missing_ok=True)
        return self._whole.records

    @contextlib.contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        """Open the part, for this process alone."""
        with open(os.open(self.part, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DecklogError(Code.MISCONFIGURED, f"Another process writes {self.part}.") from None
            yield file

    def _begin(self, file: IO[bytes], *, resume: bool, force: bool) -> None:
        held = self._load()
        if held is not None and not resume and not force:
            raise DecklogError(
                Code.MISCONFIGURED, f"{self.part} is a part of an export. Continue it with --resume, or replace it with --force."
            )
        if held is None or force:
            file.truncate(0)
            return
        if held.wanted != self._wanted:
            raise DecklogError(
                Code.MISCONFIGURED,
                f"{self.part} was begun with the query {held.wanted.query!r}, log {held.wanted.log}, format {held.wanted.format}, fields "
                f"{held.wanted.fields or 'all'}, from {held.wanted.url}. Continue with the same, or begin anew with --force.",
            )
        if not self._continues(held):
            raise DecklogError(
                Code.MISCONFIGURED, f"An export of this kind cannot continue. Begin {self.part} anew with --force."
            )
        self._begun = held
        self._reread(file)

    def _continues(self, begun: _Begun) -> bool:
        return self._wanted.format in RESUMABLE and begun.end is not None

    def _load(self) -> _Begun | None:
        try:
            return msgspec.json.decode(self._state.read_bytes(), type=_Begun)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError:
            raise DecklogError(Code.MISCONFIGURED, f"{self._state} cannot be read. Begin the export anew with --force.") from None

    def _reread(self, file: IO[bytes]) -> None:
        """Cut the part behind its last whole record."""
        file.flush()
        if self._begun is None or not self._continues(self._begun):
            self._begun, self._whole = None, Whole(0, 0, None)
        else:
            try:
                self._whole = whole_records(self.part, self._wanted.format)
            except (ValueError, StopIteration):
                raise DecklogError(
                    Code.MISCONFIGURED, f"{self.part} has no seq to continue after: --resume needs seq among --fields."
                ) from None
        file.truncate(self._whole.size)
        file.seek(self._whole.size)

    async def _read(self, client: Client, file: IO[bytes], patience: Patience) -> None:
        """Write what follows the whole records of the part."""
        begun, wanted = self._begun, self._wanted
        parameters: dict[str, str | int] = {"format": wanted.format, "log": wanted.log}
        query = settled(wanted.query, datetime.now(UTC)) if begun is None else begun.query
        if begun is not None and begun.end is not None:
            query = f"({query}) AND seq:<={begun.end}" if query else f"seq:<={begun.end}"
            parameters |= {} if self._whole.last is None else {"after": str(self._whole.last)}
        else:
            parameters["count"] = "exact"
        parameters |= {"q": query} if query else {}
        parameters |= {"fields": wanted.fields} if wanted.fields else {}
        parameters |= {"bom": "true"} if wanted.bom else {}
        async with client.export(parameters) as exported:
            if begun is None:
                self._save(exported, query)
            await self._write(self._pieces(exported), file, patience)
        if self._begun is not None and self._begun.total is not None and self._whole.records != self._begun.total:
            raise DecklogError(Code.INTERNAL, f"The export has {self._whole.records} records in place of {self._begun.total}.")

    def _save(self, exported: Exported, query: str) -> None:
        """Record what was begun, before anything is written."""
        try:
            place = Position.parse(exported.position)
        except DecklogError:
            place = None  # the position of a viewer token is sealed
        end = place.seq if isinstance(place, Position) else place
        self._begun = _Begun(self._wanted, query, end, exported.total)
        beside = self._state.with_suffix(f".{os.getpid()}")
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as making:
            making.write(msgspec.json.encode(self._begun))
        beside.replace(self._state)
        self._progress.begin(exported.total or 0)

    async def _pieces(self, exported: Exported) -> AsyncIterator[bytes]:
        """Yield the export; without its heading where the part has one."""
        heads = self._wanted.format == "csv" and self._whole.size > 0
        rows, kept = Rows(quoted=True), b""
        async for piece in exported:
            if heads:
                kept += piece
                if not (ends := rows.ends(piece)):
                    continue
                heads = False
                yield kept[len(kept) - len(piece) + ends[0] :]
            else:
                yield piece

    async def _write(self, pieces: AsyncIterator[bytes], file: IO[bytes], patience: Patience) -> None:
        rows = Rows(quoted=self._wanted.format == "csv")
        before = self._whole.records - (self._wanted.format == "csv" and self._whole.size == 0)
        if before > 0 and self._begun is not None:
            self._progress.begin(self._begun.total or 0)
            self._progress.skip(before, before)
        async for piece in pieces:
            file.write(piece)
            if rows.ends(piece):
                patience.succeeded()
            self._progress.advance(self.path.name, before + rows.ended, before + rows.ended)
        self._whole = Whole(self._counted(before + rows.ended), 0, None)

    def _counted(self, rows: int) -> int:
        """Return the records of so many rows: the brackets of JSON are two of them."""
        return max(rows - 2, 0) if self._wanted.format == "json" else rows
