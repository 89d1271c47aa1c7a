"""Ingest: validates records outside any lock, and commits them in groups by one writer.

Requests wait on a future. The writer takes all waiting requests as one transaction, commits, answers them and takes
those that arrived meanwhile. Nothing is acknowledged before its commit; requests beyond the queue's bounds are refused
at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Counts
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec
import structlog
from msgspec.structs import replace
from prometheus_client import Counter, Histogram

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.append import Appended, AppendRequest, Rate, Receipt, Status
from decklog.domain.records.idempotency import KeyBinding, binding, key_reused
from decklog.domain.records.record import Prepared, RecordInput, prepare, prepare_sent
from decklog.domain.records.rejected import OF_RECORDS, kept_form
from decklog.domain.records.trimming import OVERSIZE_BYTES_MAX
from decklog.domain.store import Announcements, RecordStore
from decklog.domain.tenant import Tenant
from decklog.services.budget import Budget
from decklog.services.coalescing import Coalescing
from decklog.services.records.bulk import Bulk, Sender, Sent, conflicting
from decklog.services.records.levels import Levels
from decklog.services.records.preparer import Handling, prepared_here, too_large
from decklog.services.records.preparing import INLINE_BYTES_MAX, INLINE_RECORDS_MAX, Preparing
from decklog.services.records.queue import CommitQueue, Waiting, overloaded
from decklog.services.records.rates import ByteRates
from decklog.services.records.rejections import RejectionQueue

RECORDS_PER_REQUEST_MAX = 10_000
_UNNAMED: Final = Sender()
_BOUND_AT_ONCE: Final = 200
"""Keys of bulks that one statement binds to their content."""
_log = structlog.get_logger("decklog.ingest")
_group_records = Histogram(
    "decklog_append_group_records", "Records committed together.", buckets=(1, 2, 5, 10, 20, 50, 100, 500, 2_000, 10_000)
)
_group_seconds = Histogram("decklog_append_group_seconds", "Seconds from taking a group to its commit.")
_records = Counter("decklog_append_records_total", "Records of append requests, by outcome.", ["status"])
_by_status = {status: _records.labels(status.name.lower()) for status in Status}
_rejected = _records.labels("rejected")


class BulkResult(msgspec.Struct, frozen=True):
    """The outcome of each record of a bulk, in the order sent; a DecklogError is a record that was rejected.

    `refused` is set where a part was refused after others had been stored. `kept` counts the rejected records that are kept.
    """

    items: list[Receipt | DecklogError]
    rate: Rate | None
    refused: DecklogError | None = None
    kept: int = 0


class CommitTraces(Protocol):
    """Traces of commits, where traces are sent. Neither method waits or raises."""

    def current(self) -> Any | None:
        """Return the request that is being answered, as `committed` takes it; None where it is not traced."""
        ...

    def committed(self, outcomes: Sequence[tuple[AppendRequest, Appended | DecklogError, Any | None]], seconds: float) -> None:
        """Trace a group that ended now, after so many seconds: each request, its outcome, and what `current` returned for it."""
        ...


class Ingest:
    """The writer of one process into the logs of a cell."""

    def __init__(
        self,
        store: RecordStore,
        announcements: Announcements,
        *,
        fingerprint_key: bytes,
        waiting_requests_max: int = 2_000,
        waiting_bytes_max: int = 64 * 1024 * 1024,
        body_bytes_max: int = 128 * 1024 * 1024,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        traces: CommitTraces | None = None,
        rejections: RejectionQueue | None = None,
    ) -> None:
        if len(fingerprint_key) < 32:
            raise DecklogError(Code.MISCONFIGURED, "DECKLOG_IDENTITY_FINGERPRINT_KEY must have at least 32 characters.")
        self._store = store
        self._announcements = announcements
        self._key = fingerprint_key
        self.bodies = Budget(body_bytes_max, of="bodies")
        """Bytes of bodies that are received, decompressed or prepared."""
        self._now = now
        self._traces = traces
        self._rejections = rejections
        self._queue = CommitQueue(waiting_requests_max, waiting_bytes_max)
        self._wake = asyncio.Event()
        self._wake_large = asyncio.Event()
        self._writers: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self._levels = Levels()
        self._preparing = Preparing(fingerprint_key)
        self._binding: Coalescing[KeyBinding, bool] = Coalescing(store.bind_keys, group_max=_BOUND_AT_ONCE)
        self.byte_rates = ByteRates()
        """Bytes that each tenant may append in this process."""

    async def start(self) -> None:
        """Start the writers."""
        self._loop = asyncio.get_running_loop()
        self._writers = [
            asyncio.create_task(self._write(), name="writer"),
            asyncio.create_task(self._write_large(), name="writer-of-large-requests"),
        ]

    async def stop(self) -> None:
        """Commit the waiting requests, refuse new ones, and end the writers."""
        self._stopping = True
        self._wake.set()
        await asyncio.gather(*self._writers)
        await self._preparing.stop()

    async def append(
        self,
        tenant: Tenant,
        raw: bytes,
        *,
        key: str | None = None,
        sender: Sender = _UNNAMED,
        trims: bool | None = None,
        keeps: bool = True,
    ) -> tuple[Receipt, Rate | None]:
        """Store one record of the events log and return its receipt, with the state of the tenant's rate where it has one.

        Args:
            tenant: Owner of the log.
            raw: The record as JSON.
            key: Id of the record where it has none itself.
            sender: The credential that stores the record.
            trims: Whether a record that is too large or too deep is trimmed; None for what the tenant's spec says.
            keeps: Whether a record that is rejected is kept.

        Raises:
            DecklogError: `id-conflict`, `body-too-large`, and what `decode`, `prepare` and the store raise. `kept` of a rejection is 1
                where the record is kept.
        """
        self._levels.refuse_early(tenant, LogName.EVENTS, 1)
        trims = tenant.limits.trims if trims is None else trims
        if len(raw) > OVERSIZE_BYTES_MAX:
            raise too_large(tenant.name, tenant.limits.record_bytes_max)
        self.byte_rates.charge(tenant, len(raw))
        prepared: Prepared | None = None
        if len(raw) <= INLINE_BYTES_MAX and len(raw) <= tenant.limits.record_bytes_max:
            try:
                now, recorder = self._now(), sender.recorder
                prepared = prepare_sent(raw, now=now, fingerprint_key=self._key, default_id=key, recorder=recorder)
            except DecklogError as error:
                if not trims:
                    raise (self._kept(error, tenant, Sent(raw, key, sender)) if keeps else error) from None
        if prepared is None:
            prepared = await self._prepare(tenant, Sent(raw, key, sender), trims=trims, keeps=keeps)
        appended = await self._submit(AppendRequest(tenant, LogName.EVENTS, (prepared,)))
        receipt = appended.receipts[0]
        if receipt.status is Status.CONFLICT:
            conflict = conflicting(receipt)
            raise self._kept(conflict, tenant, Sent(raw, key, sender), valid=prepared) if keeps else conflict
        return replace(receipt, trimmed=prepared.trimmed) if prepared.trimmed else receipt, appended.rate

    async def _prepare(self, tenant: Tenant, sent: Sent, *, trims: bool, keeps: bool) -> Prepared:
        """Validate one record that is large, or to be trimmed, in the preparing process."""
        handling = Handling(
            self._now(),
            sent.sender.recorder,
            tenant.name,
            tenant.limits.record_bytes_max,
            trims=trims,
            keeps=keeps and self._has_room(tenant),
        )
        found = await self._preparing.prepare(tenant.id, [sent.raw], [sent.key], handling)
        [record] = found.records
        if isinstance(record, DecklogError):
            raise self._kept(record, tenant, sent, form=found.kept.get(0)) if keeps else record
        return record

    def _has_room(self, tenant: Tenant) -> bool:
        return self._rejections is not None and self._rejections.has_room(tenant)

    def _kept(
        self, error: DecklogError, tenant: Tenant, sent: Sent, *, valid: Prepared | None = None, form: bytes | None = None
    ) -> DecklogError:
        """Keep a record that was rejected, if there is room for it, and return its refusal, which says so."""
        if self._rejections is not None and error.code in OF_RECORDS:
            if valid is None and form is None and len(memoryview(sent.raw)) <= INLINE_BYTES_MAX and self._has_room(tenant):
                form = kept_form(sent.raw)
            made = sent.rejection(error, self._now(), form, valid)
            error.extra["kept"] = self._rejections.note(tenant, [made])
        return error

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
        self._levels.refuse_early(tenant, LogName.ACCESS, 1)

    async def append_bulk(
        self,
        tenant: Tenant,
        raws: Sequence[bytes | msgspec.Raw],
        *,
        key: str | None = None,
        atomic: bool = False,
        sender: Sender = _UNNAMED,
        trims: bool | None = None,
    ) -> BulkResult:
        """Store many records of the events log: in parts that other tenants pass between, or at once where it is atomic.

        Where a part is refused, those before it are stored and the items of the rest say why they are not.

        Args:
            tenant: Owner of the log.
            raws: The records as JSON.
            key: Belongs to these records in this order. Record `i` gets the id `key/i` where it has none itself.
            atomic: Store all records or none. Otherwise valid records are stored beside invalid ones, and those that are rejected are kept.
            sender: The credential that stores the records.
            trims: As for `append`.

        Raises:
            DecklogError: `too-many-records`, `idempotency-key-reused`, `batch-rejected` (atomic), and what the store raises. Nothing is
                stored then.
        """
        if len(raws) > RECORDS_PER_REQUEST_MAX:
            raise DecklogError(
                Code.TOO_MANY_RECORDS, f"{len(raws)} records in one request; at most {RECORDS_PER_REQUEST_MAX} are taken."
            )
        self._levels.refuse_early(tenant, LogName.EVENTS, 1)
        self.byte_rates.charge(tenant, sum(len(memoryview(raw)) for raw in raws), bulk=True)
        handling = Handling(
            self._now(),
            sender.recorder,
            tenant.name,
            tenant.limits.record_bytes_max,
            with_forms=key is not None,
            trims=tenant.limits.trims if trims is None else trims,
            keeps=not atomic and self._has_room(tenant),
        )
        bulk, bound = await self._prepare_bulk(tenant, raws, key, handling)
        if atomic:
            bulk.refuse_unless_storable()
        if bound is not None and bulk.fresh:
            await self._bind(bound)
        rate, refused = await self._store_parts(tenant, bulk, atomic=atomic)
        items = bulk.items()
        rejected = sum(isinstance(item, DecklogError) for item in items)
        _rejected.inc(rejected)
        kept = 0
        if rejected and self._rejections is not None and (found := bulk.rejections(raws, key, sender, handling.now)):
            kept = self._rejections.note(tenant, found)
        return BulkResult(items, rate, refused, kept)

    async def _store_parts(self, tenant: Tenant, bulk: Bulk, *, atomic: bool) -> tuple[Rate | None, DecklogError | None]:
        """Store the fresh records of a bulk and note where they are; return the last rate, and the error that refused a later part.

        Raises what the store raises for the first part: nothing is stored then.
        """
        rate: Rate | None = None
        refused: DecklogError | None = None
        for number, part in enumerate([bulk.fresh] if atomic and bulk.fresh else bulk.parts()):
            request = AppendRequest(tenant, LogName.EVENTS, [prepared for _, prepared in part], atomic=atomic)
            try:
                appended = await self._submit(request)
            except DecklogError as error:
                if number == 0:
                    raise
                bulk.refuse_from(part, error)
                refused = error
                break
            rate = appended.rate
            bulk.note(part, appended)
        return rate, refused

    async def _prepare_bulk(
        self, tenant: Tenant, raws: Sequence[bytes | msgspec.Raw], key: str | None, handling: Handling
    ) -> tuple[Bulk, KeyBinding | None]:
        """Validate each record of a bulk: those of a small one here, those of others in the preparing process."""
        ids = [None if key is None else f"{key}/{index}" for index in range(len(raws))]
        if len(raws) <= INLINE_RECORDS_MAX and sum(len(memoryview(raw)) for raw in raws) <= INLINE_BYTES_MAX:
            found = prepared_here(raws, ids, handling, key=self._key)
        else:
            found = await self._preparing.prepare(tenant.id, raws, ids, handling)
        bulk = Bulk(len(raws), found.kept)
        for index, each in enumerate(found.records):
            if isinstance(each, DecklogError):
                bulk.reject(index, each)
            else:
                bulk.add(index, each)
        return bulk, None if key is None else binding(tenant.id, key, found.forms, self._key)

    async def _bind(self, bound: KeyBinding) -> None:
        """Bind the key of a bulk to its content, before anything of it is stored. Raises `idempotency-key-reused`."""
        if not await self._binding(bound):
            raise key_reused()

    def _submit(self, request: AppendRequest) -> asyncio.Future[Appended]:
        """Let a request wait for its commit. Raises `overloaded` and `rate-limited`."""
        if self._stopping:
            raise overloaded("This process is stopping")
        level = self._levels.refuse_early(request.tenant, request.log, len(request.records)) if request.metered else None
        traced = None if self._traces is None else self._traces.current()
        loop = self._loop or asyncio.get_running_loop()  # to ask for it costs a system call
        waiting = Waiting(request, loop.create_future(), traced)
        self._queue.put(waiting)
        if level is not None:
            level.spend(len(request.records))
        self._wake.set()
        return waiting.future

    async def _write(self) -> None:
        while not (self._stopping and not self._queue.requests):
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await self._commit(self._queue.take())
                if self._queue.has_large:
                    self._wake_large.set()
        self._wake_large.set()

    async def _write_large(self) -> None:
        """Commit what is larger than a group, beside the groups of other logs."""
        while not (self._stopping and not self._queue.requests):
            await self._wake_large.wait()
            self._wake_large.clear()
            while self._queue.has_large:
                large = self._queue.take_large()
                if large.future.done():
                    self._queue.release(large)
                else:
                    await self._commit([large])
                self._queue.resume(large)
                self._wake.set()

    async def _commit(self, group: list[Waiting]) -> None:
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
            for receipt in result.receipts:
                status = receipt.status
                if status is Status.STORED:
                    if result.stored:
                        if receipt.seq >= reached.get(waiting.key, 0):
                            reached[waiting.key] = receipt.seq + 1
                    else:
                        # Of a batch that was rejected whole, nothing is stored: what would have been is no conflict of its own.
                        status = Status.CONFLICT
                counts[status] += 1
        _group_records.observe(counts[Status.STORED])
        for status, count in counts.items():
            _by_status[status].inc(count)
        for (tenant_id, log_name), next_seq in reached.items():
            self._announcements.announce(tenant_id, log_name, next_seq)

    async def _store_group(self, group: list[Waiting]) -> Sequence[Appended | DecklogError]:
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

    def _answer(self, waiting: Waiting, result: Appended | DecklogError) -> None:
        self._queue.release(waiting)
        if waiting.request.metered:
            self._levels.note(waiting.request, result)
        if waiting.future.done():
            return
        if isinstance(result, DecklogError):
            waiting.future.set_exception(result)
        else:
            waiting.future.set_result(result)
