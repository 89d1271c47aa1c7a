"""Ingest: validates records outside any lock, and commits them in groups by one writer.

Requests wait on a future. The writer takes all waiting requests as one transaction, commits, answers them and takes
those that arrived meanwhile. Nothing is acknowledged before its commit; requests beyond the queue's bounds are refused
at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Counts
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
import structlog
from prometheus_client import Counter, Histogram

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.append import Appended, AppendRequest, Rate, Receipt, Status, rate_limited
from decklog.domain.records.record import RecordInput, decode, prepare
from decklog.domain.store import Announcements, RecordStore
from decklog.domain.tenant import Tenant
from decklog.services.records.bulk import Bulk, conflicting

RECORDS_PER_REQUEST_MAX = 10_000
GROUP_RECORDS_MAX = 500
"""Records of one transaction, unless a single request has more."""
GROUP_BYTES_MAX = 8 * 1024 * 1024
KEY_CHARS_MAX = 240
"""Characters of an Idempotency-Key: with `/9999` it must still fit a record's id."""
_YIELD_EVERY = 100
"""Records of a bulk that are validated before other requests get a turn."""
_LEVEL_SECONDS_MAX = 1.0
"""Age up to which the last known level of a bucket is used: the tenant's rate may change, and other processes take tokens."""

_log = structlog.get_logger("decklog.ingest")
_group_records = Histogram(
    "decklog_append_group_records", "Records committed together.", buckets=(1, 2, 5, 10, 20, 50, 100, 500, 2_000, 10_000)
)
_group_seconds = Histogram("decklog_append_group_seconds", "Seconds from taking a group to its commit.")
_records = Counter("decklog_append_records_total", "Records of append requests, by outcome.", ["status"])
_by_status = {status: _records.labels(status.name.lower()) for status in Status}
_rejected = _records.labels("rejected")


class BulkResult(msgspec.Struct, frozen=True):
    """The outcome of each record of a bulk, in the order sent; a DecklogError is a record that was rejected."""

    items: list[Receipt | DecklogError]
    rate: Rate | None


class CommitTraces(Protocol):
    """Traces of commits, where traces are sent. Neither method waits or raises."""

    def current(self) -> Any | None:
        """Return the request that is being answered, as `committed` takes it; None where it is not traced."""
        ...

    def committed(self, outcomes: Sequence[tuple[AppendRequest, Appended | DecklogError, Any | None]], seconds: float) -> None:
        """Trace a group that ended now, after so many seconds: each request, its outcome, and what `current` returned for it."""
        ...


class _Waiting:
    __slots__ = ("future", "ids", "request", "size", "traced")

    def __init__(self, request: AppendRequest, future: asyncio.Future[Appended], traced: Any | None) -> None:
        self.request = request
        self.future = future
        self.traced = traced
        self.size = sum(len(record.content) for record in request.records)
        self.ids = [(request.tenant.id, request.log, record.id) for record in request.records if record.id is not None]


class _Level:
    """The most that an empty bucket can hold again: its level in the last answer of the database, less what was spent since."""

    __slots__ = ("at", "remaining", "said", "said_at")

    def __init__(self, said: Rate) -> None:
        self.said = said
        self.said_at = self.at = time.monotonic()
        self.remaining = said.remaining

    def spend(self, count: int) -> None:
        if count <= self.said.burst:  # a larger request is refused at any level
            self.remaining -= count

    def now(self) -> Rate:
        moment = time.monotonic()
        self.remaining = min(self.said.burst, self.remaining + (moment - self.at) * self.said.per_second)
        self.at = moment
        return msgspec.structs.replace(self.said, remaining=self.remaining)


class Ingest:
    """The writer of one process into the logs of a cell."""

    def __init__(
        self,
        store: RecordStore,
        announcements: Announcements,
        *,
        fingerprint_key: bytes,
        waiting_requests_max: int = 2_000,
        waiting_bytes_max: int = 128 * 1024 * 1024,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        traces: CommitTraces | None = None,
    ) -> None:
        if len(fingerprint_key) < 32:
            raise DecklogError(Code.MISCONFIGURED, "DECKLOG_IDENTITY_FINGERPRINT_KEY must have at least 32 characters.")
        self._store = store
        self._announcements = announcements
        self._key = fingerprint_key
        self._requests_max = waiting_requests_max
        self._bytes_max = waiting_bytes_max
        self._now = now
        self._traces = traces
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._stopping = False
        self._levels: dict[tuple[int, LogName], _Level] = {}

    async def start(self) -> None:
        """Start the writer."""
        self._writer = asyncio.create_task(self._write(), name="writer")

    async def stop(self) -> None:
        """Commit the waiting requests, refuse new ones, and end the writer."""
        self._stopping = True
        self._wake.set()
        if self._writer is not None:
            await self._writer

    async def append(self, tenant: Tenant, raw: bytes, *, key: str | None = None) -> tuple[Receipt, Rate | None]:
        """Store one record of the events log and return its receipt, with the state of the tenant's rate where it has one.

        Args:
            tenant: Owner of the log.
            raw: The record as JSON.
            key: Id of the record where it has none itself.

        Raises:
            DecklogError: `id-conflict`, `body-too-large`, and what `decode`, `prepare` and the store raise.
        """
        self._refuse_early(tenant, LogName.EVENTS, 1)
        if len(raw) > tenant.limits.record_bytes_max:
            raise _too_large(tenant)
        prepared = prepare(decode(raw), now=self._now(), fingerprint_key=self._key, default_id=_checked(key))
        appended = await self._submit(AppendRequest(tenant, LogName.EVENTS, (prepared,)))
        receipt = appended.receipts[0]
        if receipt.status is Status.CONFLICT:
            raise conflicting(receipt)
        return receipt, appended.rate

    async def append_access(self, tenant: Tenant, record: RecordInput, *, query: bool = False) -> Receipt:
        """Store one record of the access log, by the same group commit.

        The record of a query takes a token of the tenant's rate of queries and raises `rate-limited` and
        `tenant-suspended`. All others are exempt from quotas.
        """
        prepared = prepare(record, now=self._now(), fingerprint_key=self._key)
        appended = await self._submit(AppendRequest(tenant, LogName.ACCESS, (prepared,), metered=query))
        return appended.receipts[0]

    def refuse_query(self, tenant: Tenant) -> None:
        """Raise `rate-limited` where a query was refused and the bucket cannot have refilled yet."""
        self._refuse_early(tenant, LogName.ACCESS, 1)

    async def append_bulk(
        self, tenant: Tenant, raws: Sequence[bytes | msgspec.Raw], *, key: str | None = None, atomic: bool = False
    ) -> BulkResult:
        """Store many records of the events log.

        Args:
            tenant: Owner of the log.
            raws: The records as JSON.
            key: Record `i` gets the id `key/i` where it has none itself.
            atomic: Store all records or none. Otherwise valid records are stored beside invalid ones.

        Raises:
            DecklogError: `too-many-records`, `batch-rejected` (atomic; nothing is stored), and what the store raises.
        """
        if len(raws) > RECORDS_PER_REQUEST_MAX:
            raise DecklogError(
                Code.TOO_MANY_RECORDS, f"{len(raws)} records in one request; at most {RECORDS_PER_REQUEST_MAX} are taken."
            )
        self._refuse_early(tenant, LogName.EVENTS, 1)
        bulk = await self._prepare_bulk(tenant, raws, _checked(key))
        if atomic:
            bulk.refuse_unless_storable()
        rate: Rate | None = None
        if bulk.fresh:
            records = [prepared for _, prepared in bulk.fresh]
            appended = await self._submit(AppendRequest(tenant, LogName.EVENTS, records, atomic=atomic))
            rate = appended.rate
            bulk.note(appended)
        items = bulk.items()
        _rejected.inc(sum(isinstance(item, DecklogError) for item in items))
        return BulkResult(items, rate)

    async def _prepare_bulk(self, tenant: Tenant, raws: Sequence[bytes | msgspec.Raw], key: str | None) -> Bulk:
        """Validate each record of a bulk. Other requests get a turn after every `_YIELD_EVERY` records."""
        bulk, now = Bulk(len(raws)), self._now()
        for index, raw in enumerate(raws):
            if index % _YIELD_EVERY == _YIELD_EVERY - 1:
                await asyncio.sleep(0)
            try:
                if len(memoryview(raw)) > tenant.limits.record_bytes_max:
                    raise _too_large(tenant)
                default_id = None if key is None else f"{key}/{index}"
                bulk.add(index, prepare(decode(raw), now=now, fingerprint_key=self._key, default_id=default_id))
            except DecklogError as error:
                bulk.reject(index, error)
        return bulk

    async def _submit(self, request: AppendRequest) -> Appended:
        if self._stopping:
            raise _overloaded("This process is stopping")
        level = self._refuse_early(request.tenant, request.log, len(request.records)) if request.metered else None
        traced = None if self._traces is None else self._traces.current()
        waiting = _Waiting(request, asyncio.get_running_loop().create_future(), traced)
        if len(self._waiting) >= self._requests_max or (self._waiting and self._bytes + waiting.size > self._bytes_max):
            raise _overloaded("Too many records wait to be committed")
        if level is not None:
            level.spend(len(request.records))
        self._waiting.append(waiting)
        self._bytes += waiting.size
        self._wake.set()
        return await waiting.future

    def _refuse_early(self, tenant: Tenant, log: LogName, count: int) -> _Level | None:
        """Raise `rate-limited` where the tenant's bucket cannot hold `count` tokens yet, so that a flood costs no database work.

        Return the known level of the bucket, if any. The real level can only be lower, as other processes take tokens too.
        """
        level = self._levels.get((tenant.id, log))
        if level is None:
            return None
        if time.monotonic() - level.said_at > _LEVEL_SECONDS_MAX:
            del self._levels[tenant.id, log]
            return None
        rate = level.now()
        if rate.remaining < count <= rate.burst:
            raise rate_limited(tenant.name, rate, count)
        return level

    def _take(self) -> list[_Waiting]:
        """Return the next group: in order, within bounds, and never with two records of one id."""
        group: list[_Waiting] = []
        later: list[_Waiting] = []
        ids: set[tuple[int, LogName, str | None]] = set()
        records = size = 0
        while self._waiting:
            waiting = self._waiting[0]
            count = len(waiting.request.records)
            if group and (records + count > GROUP_RECORDS_MAX or size + waiting.size > GROUP_BYTES_MAX):
                break
            self._waiting.popleft()
            if waiting.future.done():
                self._bytes -= waiting.size
            elif waiting.ids and not ids.isdisjoint(waiting.ids):
                later.append(waiting)
            else:
                ids.update(waiting.ids)
                group.append(waiting)
                records += count
                size += waiting.size
        self._waiting.extendleft(reversed(later))
        return group

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._commit(self._take())
            if self._stopping:
                return

    async def _commit(self, group: list[_Waiting]) -> None:
        if not group:
            return
        started = time.perf_counter()
        results = await self._store_group(group)
        seconds = time.perf_counter() - started
        _group_seconds.observe(seconds)
        if self._traces is not None and any(waiting.traced is not None for waiting in group):
            outcomes = [(waiting.request, result, waiting.traced) for waiting, result in zip(group, results, strict=True)]
            self._traces.committed(outcomes, seconds)
        reached: dict[tuple[int, LogName], int] = {}
        counts: Counts[Status] = Counts()
        for waiting, result in zip(group, results, strict=True):
            self._answer(waiting, result)
            if isinstance(result, DecklogError):
                continue
            log = waiting.request.tenant.id, waiting.request.log
            for receipt in result.receipts:
                # Of a batch that was rejected whole, nothing is stored: what would have been is no conflict of its own.
                status = Status.CONFLICT if receipt.status is Status.STORED and not result.stored else receipt.status
                counts[status] += 1
                if status is Status.STORED:
                    reached[log] = max(receipt.seq + 1, reached.get(log, 0))
        _group_records.observe(counts[Status.STORED])
        for status, count in counts.items():
            _by_status[status].inc(count)
        for (tenant_id, log_name), next_seq in reached.items():
            self._announcements.announce(tenant_id, log_name, next_seq)

    async def _store_group(self, group: list[_Waiting]) -> Sequence[Appended | DecklogError]:
        """Return what became of each request. Never raises, so that every request is answered."""
        try:
            return await self._store.append([waiting.request for waiting in group])
        except DecklogError as error:
            return [error] * len(group)
        except Exception as error:  # noqa: BLE001 - no request may wait for ever, and whether it was committed is unknown
            _log.exception("append failed unexpectedly", requests=len(group))
            unknown = DecklogError(
                Code.OUTCOME_UNKNOWN, "The append failed unexpectedly; the records may or may not be stored.", retry_after=1
            )
            unknown.__cause__ = error
            return [unknown] * len(group)

    def _answer(self, waiting: _Waiting, result: Appended | DecklogError) -> None:
        self._bytes -= waiting.size
        if waiting.request.metered:
            self._note_level(waiting.request, result)
        if waiting.future.done():
            return
        if isinstance(result, DecklogError):
            waiting.future.set_exception(result)
        else:
            waiting.future.set_result(result)

    def _note_level(self, request: AppendRequest, result: Appended | DecklogError) -> None:
        """Keep the level of a bucket from its first refusal on, for as long as the database reports it."""
        place = request.tenant.id, request.log
        rate = result.extra.get("rate") if isinstance(result, DecklogError) else result.rate
        if not isinstance(rate, Rate):
            self._levels.pop(place, None)
        elif isinstance(result, DecklogError) or place in self._levels:
            self._levels[place] = _Level(rate)


def _checked(key: str | None) -> str | None:
    if key is not None and not (0 < len(key) <= KEY_CHARS_MAX and key.isprintable()):
        raise DecklogError(Code.INVALID_PARAMETER, f"Idempotency-Key must have 1 to {KEY_CHARS_MAX} printable characters.")
    return key


def _too_large(tenant: Tenant) -> DecklogError:
    return DecklogError(
        Code.BODY_TOO_LARGE, f"A record of the tenant {tenant.name!r} may have at most {tenant.limits.record_bytes_max} bytes."
    )


def _overloaded(why: str) -> DecklogError:
    return DecklogError(Code.OVERLOADED, f"{why}; nothing of this request was stored. Try again.", retry_after=1)
