"""The archive of a tenant: its parts, their names, the manifest that lists them, and what must hold of them. Pure.

A part is a file with consecutive records of one log and one epoch. Names are functions of whose records they are and of what
is in the file, so writing a part again is harmless and never changes one that was read back. The manifest is written last.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Annotated, Protocol
from urllib.parse import quote

import msgspec
from msgspec import Meta

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.canonical import digest
from decklog.domain.records.record import StoredRecord
from decklog.domain.store import Cursor
from decklog.domain.tenant import Tenant

ARCHIVER = "archiver"
"""The consumer that puts the logs of deleted tenants into the archive; its cursor says how much of one is there."""
FORMAT = "decklog.archive.v1"
PART_BYTES_MAX = 256 * 1024 * 1024
"""Of one file. What is written is smaller by far; a larger one was not written by us."""
MANIFEST_BYTES_MAX = 64 * 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9%_~-][A-Za-z0-9%._~-]*(/[A-Za-z0-9%_~-][A-Za-z0-9%._~-]*)*")

Count = Annotated[int, Meta(ge=0)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
ObjectName = Annotated[str, Meta(min_length=1, max_length=1_024, pattern=f"^{_NAME.pattern}$")]


class ArchiveError(DecklogError):
    """What is wrong with the archive itself. `reason` is one word, as a condition has it."""

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
    """All that a log had when it was archived: `next_seq` is the number that its next record would have got."""

    next_seq: Count
    parts: tuple[Part, ...]


class ArchiveManifest(msgspec.Struct, frozen=True):
    """What of a tenant is in the archive. Names are relative to where the archive begins, its own one too. `keep_until` is
    RFC 3339, or empty: before that nothing of it is to be removed."""

    name: ObjectName
    tenant: str
    uid: str
    isolation: str
    keep_until: str
    logs: dict[str, ArchivedLog]
    format: str = FORMAT


class ArchivePlace(msgspec.Struct, frozen=True):
    """Where an archive is, and how a worker found it. `reason` is empty where it could be read and written; `locked` tells
    whether it keeps by itself what is to be kept."""

    place: str
    locked: bool = False
    reason: str = ""
    message: str = ""


class ArchiveSeen(msgspec.Struct, frozen=True):
    """How far the archive of a tenant is: `archived` of `records` are in it. `place` is None where no worker tells of an
    archive; `manifest` names the one that was read back and has everything that both logs have, else it is empty."""

    place: ArchivePlace | None = None
    records: int = 0
    archived: int = 0
    manifest: str = ""


class ToArchive(msgspec.Struct, frozen=True):
    """A deleted tenant that is not archived yet. What is archived of it is to be kept for `keep_days`, if that is said."""

    tenant: Tenant
    keep_days: int | None


class ArchiveObjects(Protocol):
    """Where files of the archive are: a bucket, or a folder. Every method raises `ArchiveError`."""

    @property
    def place(self) -> str:
        """As people name it: `s3://bucket/prefix` or a path."""
        ...

    async def put(self, name: str, content: bytes, *, keep_until: datetime | None = None) -> None:
        """Write a whole file or nothing, and have it kept until then where that can be had."""
        ...

    async def get(self, name: str, *, bytes_max: int) -> bytes:
        """The whole file, as it is there now. Its reason is `NotFound` where there is none."""
        ...

    async def locked(self) -> bool:
        """Whether what is to be kept cannot be removed before."""
        ...


class Archives(Protocol):
    """What the database knows of archives. Every method raises `storage-unavailable`."""

    async def due(self, *, limit: int) -> list[ToArchive]:
        """Tenants that are deleted with deletionPolicy Archive, whom every process has heard of, and whose archive lacks
        something; those that were deleted first come first."""
        ...

    async def read(self, tenant: Tenant, log: LogName, *, first: int, limit: int) -> list[StoredRecord]:
        """The records that are stored from this number on, by number, whatever the tenant's retention."""
        ...

    async def head(self, tenant: Tenant, log: LogName) -> int | None:
        """The number that the log's next record gets; None where there is no such log any more."""
        ...

    async def add(self, cursor: Cursor, part: Part, *, seconds: float) -> Cursor | None:
        """Note the part and move the cursor behind it, both or none; None where the cursor is not as given or not ours."""
        ...

    async def parts(self, tenant: Tenant, log: LogName) -> list[Part]:
        """The parts before the cursor, by number."""
        ...

    async def finish(self, cursor: Cursor, manifest: str, next_seqs: dict[LogName, int]) -> bool:
        """Note that this manifest was read back and holds the logs up to these numbers. False where the cursor is not ours."""
        ...

    async def tell(self, place: ArchivePlace) -> None:
        """Tell provisioning how the archive was found."""
        ...


EncodePart = Callable[[dict[str, str], Sequence[StoredRecord]], bytes]
"""A file with these records, and with what is said of all of them."""
DecodePart = Callable[[bytes], Iterable[StoredRecord]]
"""The records of a file. Raises `ArchiveError`."""


def part_name(tenant: Tenant, log: LogName, epoch: int, first_seq: int, sha256: str) -> str:
    return f"{_folder(tenant)}/{log.text}/{epoch}-{first_seq:016d}-{sha256[:16]}.parquet"


def manifest_name(tenant: Tenant, next_seqs: dict[LogName, int]) -> str:
    """Another one for each state of the logs, so that an older manifest never takes the place of a newer."""
    return f"{_folder(tenant)}/manifest-{'-'.join(str(next_seqs[log]) for log in LogName)}.json"


def _folder(tenant: Tenant) -> str:
    return f"{tenant.name}/{quote(tenant.uid, safe='').replace('.', '%2E')}"


def about(tenant: Tenant, log: LogName) -> dict[str, str]:
    """What each file says of itself."""
    return {"format": FORMAT, "tenant": tenant.name, "uid": tenant.uid, "log": log.text}


def chain(parts: Iterable[Part]) -> tuple[list[Part], int]:
    """The parts that follow each other without a gap, from the first one on, and the number after the last record. What an
    attempt that was given up left between them is not among them."""
    found: list[Part] = []
    end = 0
    for part in sorted(parts, key=lambda part: part.first_seq):
        if not found or part.first_seq == end:
            found.append(part)
            end = part.last_seq + 1
    return found, end


def part_problems(part: Part, records: Iterable[StoredRecord]) -> list[str]:
    """What is wrong with the records of a part: each must be the next one, and its digest that of its content."""
    expected, wrong = part.first_seq, list[str]()
    for record in records:
        if (record.epoch, record.seq) != (part.epoch, expected):
            return [*wrong, f"there is record {record.epoch}.{record.seq} where {part.epoch}.{expected} should be"]
        if digest(record.content.encode()) != record.digest:
            wrong.append(f"the digest of record {record.seq} is not that of its content")
        expected += 1
    if expected != part.last_seq + 1 or part.rows != part.last_seq + 1 - part.first_seq:
        wrong.append(f"it ends before record {expected} and should hold {part.rows} up to {part.last_seq}")
    return wrong


def manifest_problems(manifest: ArchiveManifest) -> list[str]:
    """What is wrong with a manifest by itself: the format, a log that lacks, parts that leave a gap."""
    if manifest.format != FORMAT:
        return [f"its format is {manifest.format!r}, and this version reads {FORMAT!r}"]
    wrong = [f"it lacks the log {log.text!r}" for log in LogName if log.text not in manifest.logs]
    for name, log in manifest.logs.items():
        end = log.parts[0].first_seq if log.parts else log.next_seq
        for part in log.parts:
            if part.first_seq != end:
                wrong.append(f"{name}: after record {end - 1} comes {part.first_seq}")
            end = part.last_seq + 1
        if end != log.next_seq:
            wrong.append(f"{name}: the parts end before record {end}, and the log before {log.next_seq}")
    return wrong
