"""Writes the logs of a deleted tenant to the archive: part by part under a lease, each read back before the cursor moves.

When both logs are archived to their heads, every part is read once more, and the manifest is written last. Nothing is
removed here: provisioning removes the tenant once the database says that the manifest was read back. Every step may be
repeated.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import structlog
from prometheus_client import Counter, Gauge

from decklog.domain.archive.manifest import (
    ARCHIVER,
    MANIFEST_BYTES_MAX,
    PART_BYTES_MAX,
    ArchivedLog,
    ArchiveError,
    ArchiveManifest,
    ArchiveObjects,
    ArchivePlace,
    Archives,
    DecodePart,
    EncodePart,
    Part,
    ToArchive,
    about,
    chain,
    manifest_name,
    part_name,
)
from decklog.domain.consumers import Cursor, Cursors
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName, rfc3339_seconds
from decklog.domain.records.record import StoredRecord
from decklog.domain.tenant import Tenant
from decklog.services.following.leases import LEASE_SECONDS, Held, LeaseLostError, leased
from decklog.services.following.lines import Ended

READ_RECORDS = 250
"""Records of one reading; at their largest they take 64 MiB together."""
PART_BYTES = 16 * 1024 * 1024
"""Size of a part's contents before compression: a part ends with the reading that reaches it. Memory use follows it."""
PART_RECORDS = 50_000
PARTS_A_TURN = 16
"""Parts of one tenant in one turn, before the turn of the next tenant."""
PART_SECONDS_MAX = 150.0
"""Time limit for writing or checking one part."""
MARKER = "decklog-archive.json"
"""Object that is written and read to check that the archive can be."""
MARKER_EVERY = timedelta(days=1)
_MARKER_TEXT = b'{"about": "Records of tenants that were deleted, by Decklog. Each manifest lists its files."}\n'

PARTS = Counter("decklog_archive_parts_total", "Parts written to the archive and read back.")
BYTES = Counter("decklog_archive_bytes_total", "Bytes of the parts written to the archive and read back.")
RECORDS = Counter("decklog_archive_records_total", "Records in the parts written to the archive and read back.")
TENANTS = Counter("decklog_archive_tenants_total", "Tenants whose archive is complete, with its manifest read back.")
FAILURES = Counter("decklog_archive_failures_total", "Failed turns of archiving, which are tried again.")
WAITING = Gauge("decklog_archive_waiting_tenants", "Deleted tenants that are not archived yet, at the last round.")

_log = structlog.get_logger("decklog.archive")


class Archiver:
    """Archives the tenants of one process. `advance` must be called for one tenant at a time."""

    def __init__(
        self,
        archives: Archives,
        cursors: Cursors,
        objects: ArchiveObjects,
        encode: EncodePart,
        decode: DecodePart,
        *,
        lease_seconds: float = LEASE_SECONDS,
        part_bytes: int = PART_BYTES,
        part_records: int = PART_RECORDS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._archives = archives
        self._cursors = cursors
        self._objects = objects
        self._encode = encode
        self._decode = decode
        self._lease_seconds = lease_seconds
        self._part_bytes = part_bytes
        self._part_records = part_records
        self._now = now
        self._owner = uuid.uuid4().hex
        self._marked_at: datetime | None = None

    @property
    def place(self) -> str:
        """Where the archive is, as an address or a path."""
        return self._objects.place

    async def due(self, *, limit: int) -> list[ToArchive]:
        """Return tenants whose archive is not complete. Raises `storage-unavailable`."""
        return await self._archives.due(limit=limit)

    async def advance(self, due: ToArchive) -> Ended:
        """Archive one tenant for one turn.

        Return DONE when its manifest is written, WAITING when it needs another turn, HELD or LOST when another worker has it.

        Raises:
            ArchiveError: The archive failed.
            DecklogError: `storage-unavailable`, and `internal` where a log has a gap.
            TimeoutError: A part took longer than `PART_SECONDS_MAX`.
        """
        tenant = due.tenant
        try:
            async with leased(
                self._cursors, ARCHIVER, tenant, tuple(LogName), owner=self._owner, seconds=self._lease_seconds
            ) as held:
                return Ended.HELD if held is None else await self._turn(due, held)
        except LeaseLostError:
            return Ended.LOST

    async def check(self) -> bool:
        """Check that the archive can be read and, once in `MARKER_EVERY`, that it can be written.

        Return whether the archive locks objects until their retention ends. Raises `ArchiveError`.
        """
        if self._marked_at is None or self._now() - self._marked_at >= MARKER_EVERY:
            await self._objects.put(MARKER, _MARKER_TEXT)
            self._marked_at = self._now()
        try:
            await self._objects.get(MARKER, bytes_max=len(_MARKER_TEXT))
            return await self._objects.locked()
        except ArchiveError:
            self._marked_at = None  # the same fault may prevent writing, too
            raise

    async def tell(self, *, locked: bool = False, failed: ArchiveError | None = None) -> None:
        """Report the state of the archive to provisioning. Raises `storage-unavailable`."""
        reason, message = (failed.reason, failed.detail) if failed is not None else ("", "")
        await self._archives.tell(ArchivePlace(self.place, locked, reason, message))

    async def _turn(self, due: ToArchive, held: Held) -> Ended:
        tenant, budget = due.tenant, PARTS_A_TURN
        heads = dict[LogName, int]()
        for log in LogName:
            head = await self._archives.head(tenant, log)
            if head is None:
                return Ended.LOST  # removed meanwhile
            heads[log] = head
            while held[log].next_seq < head:
                if budget == 0:
                    return Ended.WAITING
                async with asyncio.timeout(PART_SECONDS_MAX):
                    held[log] = await self._export(due, held[log], head)
                budget -= 1
        return await self._finish(due, held, heads)

    async def _export(self, due: ToArchive, cursor: Cursor, head: int) -> Cursor:
        """Write the next part of a log and move the cursor over it. Raises `LeaseLostError`."""
        tenant, log = due.tenant, cursor.log
        records = await self._gather(tenant, log, cursor.next_seq, head)
        if not records:
            # Older partitions may have been dropped before the deletion, or all of them.
            moved = await self._cursors.move(cursor, head, seconds=self._lease_seconds)
        else:
            part = await self._write(due, log, records)
            moved = await self._archives.add(cursor, part, seconds=self._lease_seconds)
            PARTS.inc()
            BYTES.inc(part.bytes)
            RECORDS.inc(part.rows)
        if moved is None:
            raise LeaseLostError
        return moved

    async def _gather(self, tenant: Tenant, log: LogName, first: int, end: int) -> list[StoredRecord]:
        """Return the next records, of one epoch and without a gap. The same `first` always gives the same records.

        Raises `internal` where the log has a gap.
        """
        found: list[StoredRecord] = []
        size, wanted = 0, first
        while wanted < end and size < self._part_bytes and len(found) < self._part_records:
            limit = min(READ_RECORDS, self._part_records - len(found))
            some = await self._archives.read(tenant, log, first=wanted, limit=limit)
            for record in some:
                if record.seq != wanted and (found or first > 0):
                    raise DecklogError(
                        Code.INTERNAL, f"The log {log.text!r} of {tenant.name!r} has no record {wanted}, but {record.seq}."
                    )
                if record.seq >= end or (found and record.epoch != found[0].epoch):
                    return found
                found.append(record)
                size += len(record.content)
                wanted = record.seq + 1
            if len(some) < limit:
                break
        if wanted < end and (found or first > 0) and size < self._part_bytes and len(found) < self._part_records:
            raise DecklogError(Code.INTERNAL, f"The log {log.text!r} of {tenant.name!r} has no record {wanted}.")
        return found

    async def _write(self, due: ToArchive, log: LogName, records: Sequence[StoredRecord]) -> Part:
        """Write a part and read it back. Raises `ArchiveError` where its bytes or its records differ."""
        tenant, first = due.tenant, records[0]
        content = await asyncio.to_thread(self._encode, about(tenant, log), records)
        sha256 = hashlib.sha256(content).hexdigest()
        name = part_name(tenant, log, first.epoch, first.seq, sha256)
        part = Part(name, first.epoch, first.seq, records[-1].seq, len(records), len(content), sha256)
        await self._objects.put(name, content, keep_until=self._keep_until(due))
        back = await self._read_back(part)
        if await asyncio.to_thread(lambda: list(self._decode(back))) != list(records):
            raise _damaged(name)
        return part

    async def _read_back(self, part: Part) -> bytes:
        """Return the bytes of a part. Raises `ArchiveError` where they differ from what was written."""
        back = await self._objects.get(part.name, bytes_max=PART_BYTES_MAX)
        if hashlib.sha256(back).hexdigest() != part.sha256:
            raise _damaged(part.name)
        return back

    async def _finish(self, due: ToArchive, held: Held, heads: dict[LogName, int]) -> Ended:
        """Read all parts once more and write the manifest. Raises `LeaseLostError`."""
        tenant = due.tenant
        logs = {
            log.text: ArchivedLog(head, tuple(await self._checked(tenant, held[log], log, head))) for log, head in heads.items()
        }
        name, until = manifest_name(tenant, heads), self._keep_until(due)
        told = rfc3339_seconds(until) if until is not None else ""
        content = msgspec.json.format(
            msgspec.json.encode(ArchiveManifest(name, tenant.name, tenant.uid, tenant.isolation.value, told, logs)), indent=1
        )
        await self._objects.put(name, content, keep_until=until)
        if await self._objects.get(name, bytes_max=MANIFEST_BYTES_MAX) != content:
            raise _damaged(name)
        if not await self._archives.finish(held[LogName.ACCESS], name, heads):
            raise LeaseLostError
        TENANTS.inc()
        _log.info("a tenant is archived", tenant=tenant.name, place=self.place, manifest=name)
        return Ended.DONE

    async def _checked(self, tenant: Tenant, cursor: Cursor, log: LogName, head: int) -> list[Part]:
        """Return the parts of a log after reading each back. From a damaged one on, the log is exported again.

        Raises `ArchiveError` and `LeaseLostError`.
        """
        parts, end = chain(await self._archives.parts(tenant, log))
        if parts and end != head:
            await self._rewind(cursor, end)
            raise ArchiveError("Damaged", f"The parts of {tenant.name!r} end before record {end} of {head}.", Code.INTERNAL)
        for part in parts:
            try:
                async with asyncio.timeout(PART_SECONDS_MAX):
                    await self._read_back(part)
            except ArchiveError as error:
                if error.reason in {"NotFound", "Damaged"}:
                    await self._rewind(cursor, part.first_seq)
                raise
        return parts

    async def _rewind(self, cursor: Cursor, to: int) -> None:
        if await self._cursors.move(cursor, to, seconds=self._lease_seconds) is None:
            raise LeaseLostError

    def _keep_until(self, due: ToArchive) -> datetime | None:
        return None if due.keep_days is None else self._now() + timedelta(days=due.keep_days)


def _damaged(name: str) -> ArchiveError:
    return ArchiveError(
        "Damaged", f"{name} was read back with other content than was written. It is written again.", Code.INTERNAL
    )
