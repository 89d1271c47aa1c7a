"""Implement the protocols of `domain/store.py` in memory. `tests/conformance` tests it and the real adapters alike.

A test controls what varies in the real adapters: the clock, the number of rows that one read scans, slow or unavailable
backends, and lost messages.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from decklog.domain.consumers import REINDEXER, Behind, Cursor, LogKey, Standing
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import Head, LogName, Span
from decklog.domain.records.append import (
    QUERIES,
    RECORDS,
    Appended,
    AppendRequest,
    Rate,
    Receipt,
    Status,
    day_full,
    rate_limited,
    storage_used_up,
)
from decklog.domain.records.idempotency import KeyBinding
from decklog.domain.records.record import Prepared, RecordInput, StoredRecord, prepare
from decklog.domain.records.retained import Partition
from decklog.domain.search.coverage import too_slow
from decklog.domain.search.order import Place
from decklog.domain.search.query import Query, matches
from decklog.domain.search.stats import Bucket, Grouping
from decklog.domain.search.terms import Terms, terms
from decklog.domain.store import READ_BYTES_MAX, Reading, RecordStore, SearchDocument, SearchIndex
from decklog.domain.tenant import State, Tenant
from tests.support.fields import without_content
from tests.support.memory_index import following, tally

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
FINGERPRINT_KEY = b"a key of the tests, of 32 bytes."


class _Row(msgspec.Struct, frozen=True):
    prepared: Prepared
    stored: StoredRecord
    terms: Terms


class _Log:
    def __init__(self) -> None:
        self.rows: dict[int, _Row] = {}
        self.next_seq = 0
        self.epoch = 1
        self.received_at = _LONG_AGO


_decode = msgspec.json.Decoder(dict, float_hook=float).decode


class _Bucket(msgspec.Struct):
    """The bucket of a head; `of` names the counted unit."""

    per_second: float
    burst: int
    of: str
    available: float
    filled_at: datetime


class _Account(msgspec.Struct):
    """Settings of a tenant's heads: state, dedup window, buckets, records per day (0 for no limit), storage quota reached."""

    state: State
    dedup_window: timedelta
    buckets: dict[LogName, _Bucket]
    events_per_day: int
    storage_used_up: bool


class MemoryStore:
    """A `RecordStore`. `scan_max`: rows that one `read` scans before it returns a continuation; `bytes_max`: bytes
    after which one `read` stops.

    Every call raises `failing` while it is set, and appends raise `failing_append`. `seconds_per_read` is the simulated time
    of a read: a read with a shorter timeout raises `search-unavailable`. `reads` counts calls of `read`.
    """

    def __init__(
        self, *tenants: Tenant, now: Callable[[], datetime] = lambda: datetime.now(UTC), scan_max: int | None = None
    ) -> None:
        self._now = now
        self._logs: dict[tuple[int, LogName], _Log] = {}
        self._accounts: dict[int, _Account] = {}
        self._keys: dict[tuple[int, bytes], tuple[bytes, datetime]] = {}
        self.scan_max = scan_max
        self.bytes_max = READ_BYTES_MAX
        self.failing: DecklogError | None = None
        self.failing_append: DecklogError | None = None
        self.seconds_per_read = 0.0
        self.reads = 0
        for item in tenants:
            self.register(item)

    def register(
        self,
        tenant: Tenant,
        *,
        events_per_second: int | None = None,
        burst: int = 0,
        dedup_window: timedelta = timedelta(days=1),
        events_per_day: int = 0,
        queries_per_minute: int = 0,
        storage_used_up: bool = False,
    ) -> None:
        """Create heads for a tenant, as provisioning does."""
        for log in LogName:
            self._logs.setdefault((tenant.id, log), _Log())
        buckets = {}
        if events_per_second is not None:
            burst = burst or events_per_second
            buckets[LogName.EVENTS] = _Bucket(events_per_second, burst, RECORDS, burst, self._now())
        if queries_per_minute:
            rate = queries_per_minute / 60
            buckets[LogName.ACCESS] = _Bucket(rate, queries_per_minute, QUERIES, queries_per_minute, self._now())
        self._accounts[tenant.id] = _Account(tenant.state, dedup_window, buckets, events_per_day, storage_used_up)

    def set_state(self, tenant: Tenant, state: State) -> None:
        self._accounts[tenant.id].state = state

    def restore(self, tenant: Tenant, log: LogName, next_seq: int) -> None:
        """Drop records from `next_seq` on and begin a new epoch, as after a failover with loss."""
        held = self._logs[tenant.id, log]
        held.rows = {seq: row for seq, row in held.rows.items() if seq < next_seq}
        held.next_seq, held.epoch = next_seq, held.epoch + 1

    def damage(self, tenant: Tenant, log: LogName, seq: int) -> None:
        """Change one byte of a stored record and leave its digest, as a superuser of the database can."""
        row = self._logs[tenant.id, log].rows[seq]
        content = row.stored.content.replace("2026-", "2025-", 1)
        assert content != row.stored.content
        stored = msgspec.structs.replace(row.stored, content=content)
        self._logs[tenant.id, log].rows[seq] = msgspec.structs.replace(row, stored=stored)

    def drop_before(self, tenant: Tenant, log: LogName, seq: int) -> None:
        """Drop older records, as the keeper drops whole partitions."""
        held = self._logs[tenant.id, log]
        held.rows = {at: row for at, row in held.rows.items() if at >= seq}

    # -- appending

    async def append(self, requests: Sequence[AppendRequest]) -> list[Appended | DecklogError]:
        await self._answer()
        if self.failing_append is not None:
            raise self.failing_append
        results: list[Appended | DecklogError] = []
        now = self._now()
        for request in requests:
            try:
                results.append(self._append(request, now))
            except DecklogError as refusal:
                results.append(refusal)
        return results

    def _append(self, request: AppendRequest, now: datetime) -> Appended:
        account = self._accounts.get(request.tenant.id) if not request.metered else self._account(request.tenant)
        if account is None:
            raise DecklogError(Code.NOT_FOUND, f"There is no tenant {request.tenant.name!r}.")
        if account.state is not State.ACTIVE and request.metered:
            raise DecklogError(Code.TENANT_SUSPENDED, f"The tenant {request.tenant.name!r} is suspended.")
        log = self._logs[request.tenant.id, request.log]
        bucket = account.buckets.get(request.log) if request.metered else None
        level = None if bucket is None else (bucket.available, bucket.filled_at)
        rate = None if bucket is None else self._charge(request.tenant, bucket, len(request.records), now)
        kept = (dict(log.rows), log.next_seq, log.received_at)
        receipts = [self._place(log, record, account.dedup_window, now) for record in request.records]
        if request.atomic and any(receipt.status is Status.CONFLICT for receipt in receipts):
            log.rows, log.next_seq, log.received_at = kept
            return Appended(receipts=receipts, stored=False, rate=rate)
        counted = request.metered and request.log is LogName.EVENTS and log.next_seq > kept[1]
        today = sum(row.stored.received_at.date() == log.received_at.date() for row in log.rows.values())
        if counted and (account.storage_used_up or 0 < account.events_per_day < today):
            log.rows, log.next_seq, log.received_at = kept
            if bucket is not None and level is not None:
                bucket.available, bucket.filled_at = level
            raise storage_used_up(request.tenant.name) if account.storage_used_up else day_full(request.tenant.name, now)
        return Appended(receipts=receipts, rate=rate)

    def _charge(self, tenant: Tenant, bucket: _Bucket, count: int, now: datetime) -> Rate:
        if count > bucket.burst:
            raise DecklogError(Code.BATCH_EXCEEDS_BURST, f"{count} records are more than the burst of {bucket.burst}.")
        elapsed = (now - bucket.filled_at).total_seconds()
        available = min(float(bucket.burst), bucket.available + elapsed * bucket.per_second)
        if count > available:
            raise rate_limited(tenant.name, Rate(bucket.per_second, bucket.burst, available, bucket.of), count)
        bucket.available, bucket.filled_at = available - count, now
        return Rate(bucket.per_second, bucket.burst, bucket.available, bucket.of)

    def _place(self, log: _Log, record: Prepared, window: timedelta, now: datetime) -> Receipt:
        first = self._first(log, record.id, now - window) if record.id is not None else None
        if first is not None:
            same = first.prepared.fingerprint == record.fingerprint
            status = Status.DUPLICATE if same else Status.CONFLICT
            at = first.stored
            return Receipt(status, at.epoch, at.seq, at.received_at, at.digest)
        seq = log.next_seq
        log.received_at = max(log.received_at, now)
        stored = StoredRecord(log.epoch, seq, log.received_at, record.digest, record.content.decode())
        found = terms(_decode(record.content), seq=seq, received_at=stored.received_at)
        log.rows[seq] = _Row(record, stored, found)
        log.next_seq = seq + 1
        return Receipt(Status.STORED, stored.epoch, seq, stored.received_at, stored.digest)

    def _first(self, log: _Log, client_id: str | None, since: datetime) -> _Row | None:
        held = (row for row in log.rows.values() if row.prepared.id == client_id and row.stored.received_at >= since)
        return next(held, None)

    # -- reading

    async def bind_keys(self, bindings: Sequence[KeyBinding]) -> list[bool]:
        if self.failing_append is not None:
            raise self.failing_append
        return [self._bound(each) for each in bindings]

    def _bound(self, asked: KeyBinding) -> bool:
        if (account := self._accounts.get(asked.tenant_id)) is None:
            return True
        place, now = (asked.tenant_id, asked.key), self._now()
        content, at = self._keys.get(place, (asked.content, now))
        if content != asked.content and now - at < account.dedup_window + timedelta(minutes=10):
            return False
        self._keys[place] = asked.content, now
        return True

    async def head(self, tenant: Tenant, log: LogName) -> Head:
        await self._answer()
        self._account(tenant)
        held = self._logs[tenant.id, log]
        return Head(held.epoch, held.next_seq, held.received_at)

    async def heads(self, logs: Sequence[tuple[int, LogName]]) -> dict[tuple[int, LogName], Head]:
        await self._answer()
        found = ((key, self._logs[key]) for key in logs if key in self._logs)
        return {key: Head(held.epoch, held.next_seq, held.received_at) for key, held in found}

    async def partitions(self, tenant: Tenant, log: LogName) -> list[Partition]:
        """Return the partitions of a log, each of which spans a day."""
        await self.head(tenant, log)
        since = self._now() - timedelta(days=tenant.retention_days)
        by_day: dict[datetime, list[int]] = {}
        for seq, row in sorted(self._logs[tenant.id, log].rows.items()):
            by_day.setdefault(row.stored.received_at.replace(hour=0, minute=0, second=0, microsecond=0), []).append(seq)
        day = timedelta(days=1)
        return [
            Partition(start, start + day, seqs[0], seqs[-1] + 1)
            for start, seqs in by_day.items()
            if start + day > since or start == max(by_day)
        ]

    async def first_received(self, tenant: Tenant, log: LogName, *, days: int, timeout: float) -> int:
        await self._read(timeout)
        held, since = self._logs[tenant.id, log], self._now() - timedelta(days=days)
        return min((seq for seq, row in held.rows.items() if row.stored.received_at > since), default=held.next_seq)

    async def first_since(self, tenant: Tenant, log: LogName, moment: datetime, *, timeout: float) -> int:
        await self._read(timeout)
        held = self._logs[tenant.id, log]
        return min((seq for seq, row in held.rows.items() if row.stored.received_at >= moment), default=held.next_seq)

    async def read(
        self,
        tenant: Tenant,
        log: LogName,
        span: Span,
        *,
        query: Query,
        limit: int,
        newest_first: bool,
        timeout: float,
        bytes_max: int = READ_BYTES_MAX,
    ) -> tuple[list[StoredRecord], int | None]:
        await self._read(timeout)
        by_columns = without_content(query)
        seqs = [seq for seq in self._visible(tenant, log) if span.first <= seq < span.end]
        seqs.sort(reverse=newest_first)
        found: list[StoredRecord] = []
        held = 0
        rows = self._logs[tenant.id, log].rows
        for looked_at, seq in enumerate(seqs):
            if len(found) == limit or looked_at == self.scan_max or held >= min(bytes_max, self.bytes_max):
                return found, seq + 1 if newest_first else seq
            if matches(by_columns, rows[seq].terms):
                found.append(rows[seq].stored)
                held += len(rows[seq].prepared.content)
        return found, None

    async def read_logs(
        self, readings: Sequence[Reading], *, timeout: float, bytes_max: int = READ_BYTES_MAX
    ) -> list[tuple[list[StoredRecord], int]]:
        await self._read(timeout)
        turns: list[tuple[int, int, int]] = []
        for place, each in enumerate(readings):
            seqs = sorted(seq for seq in self._visible(each.tenant, each.log) if each.span.first <= seq < each.span.end)
            turns += [(turn, place, seq) for turn, seq in enumerate(seqs[: each.limit])]
        found: list[list[StoredRecord]] = [[] for _ in readings]
        held = 0
        for _, place, seq in sorted(turns):
            if held < bytes_max:
                found[place].append(self._logs[readings[place].tenant.id, readings[place].log].rows[seq].stored)
                held += len(found[place][-1].content)
        return [self._onward(each, records) for each, records in zip(readings, found, strict=True)]

    def _onward(self, reading: Reading, records: list[StoredRecord]) -> tuple[list[StoredRecord], int]:
        first, end = reading.span
        after = records[-1].seq + 1 if records else first
        left = any(after <= seq < end for seq in self._visible(reading.tenant, reading.log))
        return records, after if left else end

    async def read_by_time(
        self,
        tenant: Tenant,
        log: LogName,
        span: Span,
        *,
        query: Query,
        after: Place | None,
        limit: int,
        newest_first: bool,
        timeout: float,
        bytes_max: int = READ_BYTES_MAX,
    ) -> tuple[list[tuple[Place, StoredRecord]], Place | None]:
        await self._read(timeout)
        by_columns = without_content(query)
        rows = self._logs[tenant.id, log].rows
        seqs = [seq for seq in self._visible(tenant, log) if span.first <= seq < span.end]
        places = following((Place(rows[seq].terms.occurred_at, seq) for seq in seqs), after, newest_first=newest_first)
        found: list[tuple[Place, StoredRecord]] = []
        held = 0
        for looked_at, place in enumerate(places):
            if len(found) == limit or looked_at == self.scan_max or held >= min(bytes_max, self.bytes_max):
                return found, places[looked_at - 1]
            if matches(by_columns, rows[place.seq].terms):
                found.append((place, rows[place.seq].stored))
                held += len(rows[place.seq].prepared.content)
        return found, None

    async def fetch(self, tenant: Tenant, log: LogName, seqs: Sequence[int], *, newest_first: bool = True) -> list[StoredRecord]:
        await self._answer()
        rows, wanted = self._logs[tenant.id, log].rows, set(seqs)
        found: list[StoredRecord] = []
        held = 0
        for seq in sorted(wanted.intersection(self._visible(tenant, log)), reverse=newest_first):
            if held >= self.bytes_max:
                break
            found.append(rows[seq].stored)
            held += len(rows[seq].prepared.content)
        return found

    async def count(
        self, tenant: Tenant, log: LogName, span: Span, *, query: Query, grouping: Grouping, limit: int, timeout: float
    ) -> list[Bucket]:
        await self._read(timeout)
        if query.needs_content:
            raise AssertionError("columns cannot decide this query; the caller must match terms")
        rows = self._logs[tenant.id, log].rows
        within = (rows[seq].terms for seq in self._visible(tenant, log) if span.first <= seq < span.end)
        return tally((item for item in within if matches(query, item)), grouping, limit)

    async def facets(
        self, tenant: Tenant, log: LogName, span: Span, *, query: Query, names: Sequence[str], limit: int, timeout: float
    ) -> list[list[Bucket]]:
        groupings = [Grouping((name,)) for name in names]
        return [
            await self.count(tenant, log, span, query=query, grouping=each, limit=limit, timeout=timeout) for each in groupings
        ]

    def _visible(self, tenant: Tenant, log: LogName) -> list[int]:
        self._account(tenant)
        oldest = self._now() - timedelta(days=tenant.retention_days)
        return [seq for seq, row in self._logs[tenant.id, log].rows.items() if row.stored.received_at >= oldest]

    def _account(self, tenant: Tenant) -> _Account:
        account = self._accounts.get(tenant.id)
        if account is None or account.state is State.DELETED:
            raise DecklogError(Code.NOT_FOUND, f"There is no tenant {tenant.name!r}.")
        return account

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.failing is not None:
            raise self.failing

    async def _read(self, timeout: float) -> None:
        self.reads += 1
        await self._answer()
        if self.seconds_per_read:
            await asyncio.sleep(min(self.seconds_per_read, timeout))
        if self.seconds_per_read > timeout:
            raise too_slow()


class _Lease(msgspec.Struct):
    next_seq: int = 0
    epoch: int = 1
    owner: str = ""
    until: datetime = _LONG_AGO


class MemoryCursors:
    """`Cursors` over the heads of a MemoryStore."""

    def __init__(self, store: MemoryStore, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._store = store
        self._now = now
        self._leases: dict[tuple[str, int, LogName], _Lease] = {}

    async def behind(self, consumer: str, *, limit: int) -> list[Behind]:
        if consumer == REINDEXER:
            return []  # nothing is built here
        found: list[Behind] = []
        for (tenant_id, log), held in self._store._logs.items():
            lease = self._leases.get((consumer, tenant_id, log), _Lease())
            if held.next_seq > lease.next_seq and lease.until <= self._now():
                found.append(Behind(tenant_id, log, lease.next_seq, held.next_seq))
        return sorted(found, key=lambda item: item.next_seq - item.head_seq)[:limit]

    async def lease(self, consumer: str, tenant_id: int, log: LogName, *, owner: str, seconds: float) -> Cursor | None:
        lease = self._leases.setdefault((consumer, tenant_id, log), _Lease())
        if lease.owner not in ("", owner) and lease.until > self._now():
            return None
        lease.owner, lease.until = owner, self._now() + timedelta(seconds=seconds)
        return Cursor(consumer, tenant_id, log, lease.epoch, lease.next_seq, owner)

    async def move(self, cursor: Cursor, to: int, *, seconds: float) -> Cursor | None:
        lease = self._leases.get((cursor.consumer, cursor.tenant_id, cursor.log))
        if lease is None or (lease.owner, lease.epoch, lease.next_seq) != (cursor.owner, cursor.epoch, cursor.next_seq):
            return None
        lease.next_seq, lease.until = to, self._now() + timedelta(seconds=seconds)
        return msgspec.structs.replace(cursor, next_seq=to)

    async def release(self, cursor: Cursor) -> None:
        lease = self._leases.get((cursor.consumer, cursor.tenant_id, cursor.log))
        if lease is not None and lease.owner == cursor.owner:
            lease.owner, lease.until = "", _LONG_AGO

    async def lease_all(self, consumer: str, logs: Sequence[LogKey], *, owner: str, seconds: float) -> list[Standing]:
        found: list[Standing] = []
        for tenant_id, log in logs:
            if (held := self._store._logs.get((tenant_id, log))) is None:
                continue
            lease = self._leases.get((consumer, tenant_id, log), _Lease())
            cursor = Cursor(consumer, tenant_id, log, lease.epoch, lease.next_seq, "")
            if lease.next_seq < held.next_seq:
                cursor = await self.lease(consumer, tenant_id, log, owner=owner, seconds=seconds) or cursor
            found.append(Standing(cursor, held.next_seq))
        return found

    async def renew_all(self, cursors: Sequence[Cursor], *, seconds: float) -> set[LogKey]:
        kept = set[LogKey]()
        for cursor in cursors:
            lease = self._leases.get((cursor.consumer, *cursor.key))
            if lease is not None and lease.owner == cursor.owner:
                lease.until = self._now() + timedelta(seconds=seconds)
                kept.add(cursor.key)
        return kept

    async def move_all(self, moves: Sequence[tuple[Cursor, int]], *, seconds: float) -> list[Standing]:
        moved: list[Standing] = []
        for cursor, to in moves:
            if (now := await self.move(cursor, to, seconds=seconds)) is None:
                continue
            head_seq = self._store._logs[cursor.key].next_seq
            if to == head_seq:
                await self.release(now)
                now = msgspec.structs.replace(now, owner="")
            moved.append(Standing(now, head_seq))
        return moved

    async def release_all(self, cursors: Sequence[Cursor]) -> None:
        for cursor in cursors:
            await self.release(cursor)

    async def next_seq(self, consumer: str, tenant_id: int, log: LogName) -> int:
        return self._leases.get((consumer, tenant_id, log), _Lease()).next_seq

    async def next_seqs(self, consumers: Sequence[str], tenant_id: int, log: LogName) -> list[int]:
        return [await self.next_seq(consumer, tenant_id, log) for consumer in consumers]


class MemoryAnnouncements:
    """`Announcements` within one process. While `lost` is true, none is delivered."""

    def __init__(self) -> None:
        self._heard: list[Callable[[int, LogName, int], None]] = []
        self.lost = False

    def announce(self, tenant_id: int, log: LogName, next_seq: int) -> None:
        if not self.lost:
            for heard in list(self._heard):
                asyncio.get_running_loop().call_soon(heard, tenant_id, log, next_seq)

    def subscribe(self, heard: Callable[[int, LogName, int], None]) -> Callable[[], None]:
        self._heard.append(heard)

        def stop() -> None:
            with contextlib.suppress(ValueError):
                self._heard.remove(heard)

        return stop


async def fill(
    store: RecordStore,
    tenant: Tenant,
    *values: dict[str, Any],
    log: LogName = LogName.EVENTS,
    now: datetime | None = None,
) -> list[Receipt]:
    """Store records of plain JSON in one transaction, with a default `action` and `actor`."""
    full = [{"action": "test.happened", "actor": {"id": "tester"}, **value} for value in values]
    prepared = [
        prepare(msgspec.convert(value, RecordInput), now=now or datetime.now(UTC), fingerprint_key=FINGERPRINT_KEY)
        for value in full
    ]
    (appended,) = await store.append([AppendRequest(tenant, log, prepared, metered=False)])
    if isinstance(appended, DecklogError):
        raise appended
    return list(appended.receipts)


async def index_all(store: MemoryStore, tenant: Tenant, index: SearchIndex, cursors: MemoryCursors, consumer: str) -> None:
    """Index all stored records and move the cursor, as the indexer does."""
    for log in LogName:
        held = store._logs[tenant.id, log]
        found = [
            SearchDocument(tenant.id, log, row.stored.epoch, row.stored.seq, row.stored.received_at, row.terms)
            for row in held.rows.values()
        ]
        await index.add(tenant, found)
        await index.refresh(tenant)
        cursor = await cursors.lease(consumer, tenant.id, log, owner="tests", seconds=60)
        assert cursor is not None
        moved = await cursors.move(cursor, held.next_seq, seconds=60)
        assert moved is not None
        await cursors.release(moved)
