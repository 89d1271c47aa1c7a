"""The archive of a tenant: its parts, their names, the manifest that lists them, and their checks.

A part is a file with consecutive records of one log and one epoch. Names are functions of the tenant and of the content, so writing
a part again is harmless. The manifest is written last, after every part was read back. This module must not read or write files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Annotated, Protocol
from urllib.parse import quote

import msgspec
from msgspec import Meta

from decklog.domain.consumers import Cursor
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.canonical import digest
from decklog.domain.records.record import StoredRecord
from decklog.domain.tenant import Tenant

ARCHIVER = "archiver"
"""The consumer that archives the logs of deleted tenants; the archive holds the records below its cursor."""
FORMAT = "decklog.archive.v1"
PART_BYTES_MAX = 256 * 1024 * 1024
"""Bytes of one file. Decklog writes much smaller files and refuses to read larger ones."""
MANIFEST_BYTES_MAX = 64 * 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9%_~-][A-Za-z0-9%._~-]*(/[A-Za-z0-9%_~-][A-Za-z0-9%._~-]*)*")

Count = Annotated[int, Meta(ge=0)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
ObjectName = Annotated[str, Meta(min_length=1, max_length=1_024, pattern=f"^{_NAME.pattern}$")]


class ArchiveError(DecklogError):
    """An error of the archive itself. `reason` is one word, as in a condition."""

    def __init__(self, reason: str, detail: str, code: Code = Code.STORAGE_UNAVAILABLE) -> None:
        super().__init__(code, detail)
        self.reason = reason


class Part(msgspec.Struct, frozen=True):
    """A file with the records `first_seq` to `last_seq` of a log. `sha256` is that of the file, in hexadecimal."""

    name: ObjectName
    epoch: Count
    first_seq: Count
    last_seq: Count
    rows: Count
    bytes: Count
    sha256: Sha256


class ArchivedLog(msgspec.Struct, frozen=True):
    """All records of a log when it was archived; `next_seq` was the number of its next record."""

    next_seq: Count
    parts: tuple[Part, ...]


class ArchiveManifest(msgspec.Struct, frozen=True):
    """The content of a tenant's archive.

    All names, that of the manifest included, are relative to the root of the archive. Nothing may be removed before `keep_until`
    (RFC 3339, or empty).
    """

    name: ObjectName
    tenant: str
    uid: str
    isolation: str
    keep_until: str
    logs: dict[str, ArchivedLog]
    format: str = FORMAT


class ArchivePlace(msgspec.Struct, frozen=True):
    """The place of an archive, as a worker found it.

    `reason` is empty if the archive could be read and written. `locked`: whether the storage itself prevents early removal.
    """

    place: str
    locked: bool = False
    reason: str = ""
    message: str = ""


class ArchiveSeen(msgspec.Struct, frozen=True):
    """The progress of a tenant's archive: `archived` of `records` records are in it.

    `place` is None until a worker reports an archive. `manifest` names the manifest that was read back and holds both logs
    completely; it is empty before.
    """

    place: ArchivePlace | None = None
    records: int = 0
    archived: int = 0
    manifest: str = ""


class ToArchive(msgspec.Struct, frozen=True):
    """A deleted tenant that is not archived yet. Its files must be kept for `keep_days`, None for no such rule."""

    tenant: Tenant
    keep_days: int | None


class ArchiveObjects(Protocol):
    """The files of an archive: a bucket, or a folder. Every method raises `ArchiveError`."""

    @property
    def place(self) -> str:
        """The address for people: `s3://bucket/prefix` or a path."""
        ...

    async def put(self, name: str, content: bytes, *, keep_until: datetime | None = None) -> None:
        """Write a whole file or nothing, locked until `keep_until` if the storage can."""
        ...

    async def get(self, name: str, *, bytes_max: int) -> bytes:
        """Return the whole file. Raises ArchiveError with reason `NotFound` if it does not exist."""
        ...

    async def locked(self) -> bool:
        """Return whether the storage prevents the removal of locked files."""
        ...


class Archives(Protocol):
    """The state of archives in the database. Every method raises `storage-unavailable`."""

    async def due(self, *, limit: int) -> list[ToArchive]:
        """Return deleted tenants with deletionPolicy Archive whose archive is incomplete, first deleted first.

        A deletion that some process may not know yet is left out.
        """
        ...

    async def read(self, tenant: Tenant, log: LogName, *, first: int, limit: int) -> list[StoredRecord]:
        """Return at most `limit` stored records from a number on, in order, regardless of the tenant's retention."""
        ...

    async def head(self, tenant: Tenant, log: LogName) -> int | None:
        """Return the number of the log's next record; None if the log no longer exists."""
        ...

    async def add(self, cursor: Cursor, part: Part, *, seconds: float) -> Cursor | None:
        """Store a part and move the cursor behind it, both or neither.

        Returns the moved cursor, or None if the cursor is no longer as given or has another owner.
        """
        ...

    async def parts(self, tenant: Tenant, log: LogName) -> list[Part]:
        """Return the parts before the cursor, in order."""
        ...

    async def finish(self, cursor: Cursor, manifest: str, next_seqs: dict[LogName, int]) -> bool:
        """Store that a manifest was read back and holds the logs below these numbers; return False if the cursor was lost."""
        ...

    async def tell(self, place: ArchivePlace) -> None:
        """Store the state of the archive for provisioning."""
        ...


EncodePart = Callable[[dict[str, str], Sequence[StoredRecord]], bytes]
"""Returns a file with these records and metadata (`about`)."""
DecodePart = Callable[[bytes], Iterable[StoredRecord]]
"""Returns the records of a file. Raises `ArchiveError`."""


def part_name(tenant: Tenant, log: LogName, epoch: int, first_seq: int, sha256: str) -> str:
    """Return the name of a part, made of its owner, its place and the digest of its file."""
    return f"{_folder(tenant)}/{log.text}/{epoch}-{first_seq:016d}-{sha256[:16]}.parquet"


def manifest_name(tenant: Tenant, next_seqs: dict[LogName, int]) -> str:
    """Return the name of a manifest. Each state of the logs has another, so an old manifest never replaces a newer one."""
    return f"{_folder(tenant)}/manifest-{'-'.join(str(next_seqs[log]) for log in LogName)}.json"


def _folder(tenant: Tenant) -> str:
    return f"{tenant.name}/{quote(tenant.uid, safe='').replace('.', '%2E')}"


def about(tenant: Tenant, log: LogName) -> dict[str, str]:
    """Return the metadata that each file carries."""
    return {"format": FORMAT, "tenant": tenant.name, "uid": tenant.uid, "log": log.text}


def chain(parts: Iterable[Part]) -> tuple[list[Part], int]:
    """Return the parts that follow each other without a gap, from the first one on, and the number after the last record.

    Parts of an abandoned attempt, which overlap these, are left out.
    """
    found: list[Part] = []
    end = 0
    for part in sorted(parts, key=lambda part: part.first_seq):
        if not found or part.first_seq == end:
            found.append(part)
            end = part.last_seq + 1
    return found, end


def part_problems(part: Part, records: Iterable[StoredRecord]) -> list[str]:
    """Return what is wrong with the records of a part: a gap, another epoch, or a digest that does not match the content."""
    expected, wrong = part.first_seq, list[str]()
    for record in records:
        if (record.epoch, record.seq) != (part.epoch, expected):
            return [*wrong, f"record {record.epoch}.{record.seq} stands in place of {part.epoch}.{expected}"]
        if digest(record.content.encode()) != record.digest:
            wrong.append(f"the digest of record {record.seq} does not match its content")
        expected += 1
    if expected != part.last_seq + 1 or part.rows != part.last_seq + 1 - part.first_seq:
        wrong.append(f"it ends before record {expected}, but must hold {part.rows} records up to {part.last_seq}")
    return wrong


def manifest_problems(manifest: ArchiveManifest) -> list[str]:
    """Return what is wrong with a manifest by itself: an unknown format, a missing log, a gap between parts."""
    if manifest.format != FORMAT:
        return [f"its format is {manifest.format!r}, but this version reads {FORMAT!r}"]
    wrong = [f"the log {log.text!r} is missing" for log in LogName if log.text not in manifest.logs]
    for name, log in manifest.logs.items():
        end = log.parts[0].first_seq if log.parts else log.next_seq
        for part in log.parts:
            if part.first_seq != end:
                wrong.append(f"{name}: record {end - 1} is followed by {part.first_seq}")
            end = part.last_seq + 1
        if end != log.next_seq:
            wrong.append(f"{name}: the parts end before record {end}, but the log ends before {log.next_seq}")
    return wrong
