"""Puts the logs of a deleted tenant into the archive: part by part under a lease, each read back before the cursor moves.

When both logs are there to their heads, everything is read once more and the manifest is written, last. Nothing is removed
here: provisioning does that, when the database says that the manifest was read back. Every step may be repeated.
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
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName, rfc3339_seconds
from decklog.domain.records.record import StoredRecord
from decklog.domain.store import Cursor, Cursors
from decklog.domain.tenant import Tenant
from decklog.services.following.follow import Ended
from decklog.services.following.leases import LEASE_SECONDS, Held, LeaseLostError, leased

READ_RECORDS = 250
"""Records that are asked for at once: the largest there may be are 64 MiB together."""
PART_BYTES = 16 * 1024 * 1024
"""Of the contents of a part, before it is compressed: it ends with the reading that reaches this. Memory follows it."""
PART_RECORDS = 50_000
PARTS_A_TURN = 16
"""Parts of one tenant before the next tenant has its turn."""
PART_SECONDS_MAX = 150.0
"""For one part, or one look at one."""
MARKER = "decklog-archive.json"
"""Written to see whether that can be done, and read to see whether the archive is still there."""
MARKER_EVERY = timedelta(days=1)
_MARKER_TEXT = b'{"about": "Records of tenants that were deleted, by Decklog. Each manifest lists its files."}\n'

PARTS = Counter("decklog_archive_parts_total", "Parts that were written to the archive and read back.")
BYTES = Counter("decklog_archive_bytes_total", "Bytes of these parts.")
RECORDS = Counter("decklog_archive_records_total", "Records in these parts.")
TENANTS = Counter("decklog_archive_tenants_total", "Tenants whose manifest was written and read back.")
FAILURES = Counter("decklog_archive_failures_total", "Turns that failed and will be tried again.")
WAITING = Gauge("decklog_archive_waiting_tenants", "Deleted tenants that are not archived yet, at the last look.")

_log = structlog.get_logger("decklog.archive")


class Archiver:
    """One process's share of archiving. `advance` is called for one tenant at a time."""

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
        return self._objects.place

    async def due(self, *, limit: int) -> list[ToArchive]:
        """Tenants that lack something in the archive. Raises `storage-unavailable`."""
        return await self._archives.due(limit=limit)

    async def advance(self, due: ToArchive) -> Ended:
        """Take one turn at a tenant. DONE when its manifest is written, WAITING when there is more to do in another turn.
        Raises `ArchiveError` where the archive is at fault, and `storage-unavailable` where the database is."""
        tenant = due.tenant
        try:
            async with leased(
                self._cursors, ARCHIVER, tenant, tuple(LogName), owner=self._owner, seconds=self._lease_seconds
            ) as held:
                return Ended.HELD if held is None else await self._turn(due, held)
        except LeaseLostError:
            return Ended.LOST

    async def check(self) -> bool:
        """See whether the archive can be read, and now and then whether it can be written; whether it locks what is to be
        kept. Raises `ArchiveError`."""
        if self._marked_at is None or self._now() - self._marked_at >= MARKER_EVERY:
            await self._objects.put(MARKER, _MARKER_TEXT)
            self._marked_at = self._now()
        try:
            await self._objects.get(MARKER, bytes_max=len(_MARKER_TEXT))
            return await self._objects.locked()
        except ArchiveError:
            self._marked_at = None  # what came in its way may keep it from writing, too
            raise

    async def tell(self, *, locked: bool = False, failed: ArchiveError | None = None) -> None:
        """Tell provisioning how the archive is. Raises `storage-unavailable`."""
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
        """The next part of a log, noted. Raises `LeaseLostError`."""
        tenant, log = due.tenant, cursor.log
        records = await self._gather(tenant, log, cursor.next_seq, head)
        if not records:
            # Older partitions may have gone before anybody asked for an archive, and then all of them.
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
        """The next records, of one epoch and without a gap; where they end follows from where they begin. Raises `internal`
        where the log has a gap."""
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
        """Write a part, and read it back: the bytes must be those that were written, and the records those that are stored."""
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
        """Raises `ArchiveError` where it is not what was written."""
        back = await self._objects.get(part.name, bytes_max=PART_BYTES_MAX)
        if hashlib.sha256(back).hexdigest() != part.sha256:
            raise _damaged(part.name)
        return back

    async def _finish(self, due: ToArchive, held: Held, heads: dict[LogName, int]) -> Ended:
        """Read all parts once more, and write the manifest. Raises `LeaseLostError`."""
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
        """The parts of a log, each as it was written. From one on that is not, the log is to be exported anew."""
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
    return ArchiveError("Damaged", f"What was read back of {name} is not what was written; it is written again.", Code.INTERNAL)
