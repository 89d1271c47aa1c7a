"""Follows logs for one consumer: lease, read the next records, apply the effect, move the cursor by compare-and-set.

Records are read from the log itself and never from a message, so wake-ups may be lost, doubled or reordered. The cursor
moves only after the effect is settled, so a record may be applied twice (effects must be idempotent) and is never left
out. No transaction is open while an effect runs.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Protocol

import msgspec
from prometheus_client import Counter, Gauge, Histogram

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName, Span
from decklog.domain.pauses import backoff, jittered
from decklog.domain.records.record import StoredRecord
from decklog.domain.search.query import Query
from decklog.domain.store import Cursor, Cursors, RecordStore
from decklog.domain.tenant import Tenant
from decklog.services.following.leases import LEASE_SECONDS, LeaseLostError, leased
from decklog.services.outage import Outage

BATCH_RECORDS_MAX = 1_000
BATCH_RECORDS_FIRST = 200
"""Records of the first batch, while the size of the log's records is unknown."""
BATCH_BYTES = 2 * 1024 * 1024
"""Target size of a batch, by the average record of the batch before."""
LOOK_AGAIN_SECONDS = 0.1
"""Between reads of the head while the last batch settles, so that records that arrive meanwhile form one batch."""
READ_SECONDS_MAX = 20.0
ADVANCE_SECONDS_MAX = 60.0
"""An advance ends after this, and goes on with what the registry then says of the tenant. Under load it would never end."""
BACKOFF_SECONDS = (0.5, 2.0)
"""First and longest pause after failures of one log, before jitter: near the lag that a log has when all is well."""
DOWN_LOGS = 3
"""Logs that fail without a success between them, after which the failing logs are tried one at a time."""
BACKING_OFF_MAX = 100_000
"""Logs whose failures are kept in memory."""

LAG = Histogram(
    "decklog_consumer_lag_seconds",
    "Seconds from the receipt of a record until it is done, for the oldest record of each move of a cursor.",
    ["consumer"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1_800, 7_200),
)
RECORDS = Counter("decklog_consumer_records_total", "Records done.", ["consumer"])
BATCHES = Counter("decklog_consumer_batches_total", "Batches whose effect succeeded.", ["consumer"])
FAILURES = Counter("decklog_consumer_failures_total", "Failed advances of a log, which are tried again.", ["consumer"])
PROGRESS = Gauge(
    "decklog_consumer_progress_timestamp_seconds", "Time of the last move of a cursor, in seconds since 1970.", ["consumer"]
)

_EVERYTHING = Query()


class Effect(Protocol):
    """What a consumer does with records. Both methods may be called again with the same records."""

    @property
    def parallel(self) -> int:
        """Batches of one log that may be applied at once; 1 where their order matters."""
        ...

    async def apply(self, tenant: Tenant, log: LogName, records: Sequence[StoredRecord]) -> None:
        """Apply the records, which are in the order of `seq`. After any error the same records are given again."""
        ...

    async def settle(self, tenant: Tenant, log: LogName) -> None:
        """Return when everything that was applied before this call is done. Runs beside later `apply` calls."""
        ...


class BatchTrace(Protocol):
    """The trace of one batch. Exactly one of the methods is called, once."""

    def done(self) -> None:
        """End the trace: the cursor has moved over the batch."""
        ...

    def broken_off(self) -> None:
        """End the trace as failed: the batch will be applied again."""
        ...


class BatchTraces(Protocol):
    """Traces of batches, where traces are sent."""

    def batch(self, consumer: str, tenant: Tenant, log: LogName, records: Sequence[StoredRecord]) -> BatchTrace:
        """Begin the trace of a batch."""
        ...


class Ended(Enum):
    """How an advance ended."""

    DONE = "done"
    """The consumer has done every record of the log, or is stopping."""
    MORE = "more"
    """It did what there was time for, and the log may have more."""
    HELD = "held"
    """Another worker has the lease."""
    LOST = "lost"
    """Another worker took the lease or moved the cursor, and continues from there."""
    WAITING = "waiting"
    """It failed recently and is not tried again yet."""
    FAILED = "failed"


class _Batch(msgspec.Struct, frozen=True):
    records: list[StoredRecord]
    end: int
    """Records below this number have been read."""

    @property
    def oldest(self) -> datetime | None:
        return self.records[0].received_at if self.records else None


class _Advance:
    """One pass over a log under a lease.

    Batches are read in order and applied, several at once where the effect allows it. Applied batches are settled while
    the next ones are applied, and the cursor follows.
    """

    def __init__(
        self,
        tenant: Tenant,
        cursor: Cursor,
        store: RecordStore,
        cursors: Cursors,
        effect: Effect,
        *,
        consumer: str,
        slots: asyncio.Semaphore,
        lease_seconds: float,
        batch_records_max: int,
        stopping: Callable[[], bool],
        traces: BatchTraces | None,
        failures: int,
    ) -> None:
        self._consumer = consumer
        self._tenant = tenant
        self._log = cursor.log
        self._cursor = cursor
        self._store = store
        self._cursors = cursors
        self._effect = effect
        self._slots = slots
        self._lease_seconds = lease_seconds
        self._records_max = batch_records_max
        # What failed is tried again in small batches, one at a time, which grow with each that succeeds.
        self._cap = max(1, batch_records_max >> 2 * failures)
        self._limit = min(BATCH_RECORDS_FIRST, batch_records_max)
        self._stopping = stopping
        self._traces = traces
        self._traced: deque[tuple[int, BatchTrace]] = deque()
        self._end = self._read_to = self._applied = cursor.next_seq
        self._applying: deque[tuple[asyncio.Task[None], _Batch]] = deque()
        self._settling: asyncio.Task[Cursor] | None = None
        self._oldest: datetime | None = None

    async def run(self) -> None:
        """Run until the end of the log. Raises `LeaseLostError` and what the effect raises."""
        try:
            while True:
                if self._stopping():
                    self._end = self._read_to
                if self._read_to < self._end and len(self._applying) < self._parallel:
                    await self._begin_batch()
                elif self._applying:
                    await self._end_batch()
                elif self._settling is not None:
                    # Records that arrive meanwhile are applied at once, so that the next settling covers more of them.
                    await asyncio.wait((self._settling,), timeout=LOOK_AGAIN_SECONDS)
                    await self._look()
                else:
                    await self._look()
                    if self._end <= self._read_to:
                        return
                self._settle()
        finally:
            left = [task for task, _ in self._applying] + ([self._settling] if self._settling else [])
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            for _, trace in self._traced:
                trace.broken_off()

    @property
    def _parallel(self) -> int:
        """Batches that may be applied at once."""
        return self._effect.parallel if self._cap == self._records_max else 1

    async def _look(self) -> None:
        """Read the head of the log, unless the worker stops."""
        if not self._stopping():
            self._end = max(self._end, (await self._store.head(self._tenant, self._log)).next_seq)

    async def _begin_batch(self) -> None:
        await self._slots.acquire()
        try:
            batch = await self._read()
            if self._traces is not None and batch.records:
                trace = self._traces.batch(self._consumer, self._tenant, self._log, batch.records)
                self._traced.append((batch.end, trace))
            task = asyncio.create_task(self._apply(batch))
        except BaseException:  # a slot is given back whatever happens
            self._slots.release()
            raise
        task.add_done_callback(lambda _: self._slots.release())
        self._applying.append((task, batch))
        self._read_to = batch.end
        if batch.records:
            average = sum(len(record.content) for record in batch.records) // len(batch.records) + 1
            self._limit = max(1, min(self._records_max, BATCH_BYTES // average))

    async def _read(self) -> _Batch:
        records, onward = await self._store.read(
            self._tenant,
            self._log,
            Span(self._read_to, self._end),
            query=_EVERYTHING,
            limit=min(self._limit, self._cap),
            newest_first=False,
            timeout=READ_SECONDS_MAX,
        )
        if onward is not None and not self._read_to < onward <= self._end:
            raise DecklogError(Code.INTERNAL, f"A reading that began at {self._read_to} would go on at {onward}.")
        # At the end of the store, records missing below `end` are beyond the tenant's retention, and count as done.
        return _Batch(records, self._end if onward is None else onward)

    async def _apply(self, batch: _Batch) -> None:
        if batch.records:
            await self._effect.apply(self._tenant, self._log, batch.records)
            BATCHES.labels(self._consumer).inc()

    async def _end_batch(self) -> None:
        """Wait for the oldest batch that is being applied."""
        task, batch = self._applying[0]
        await asyncio.wait((task,))
        self._applying.popleft()
        task.result()
        self._cap = min(self._records_max, 2 * self._cap)
        self._applied = batch.end
        self._oldest = self._oldest or batch.oldest

    def _settle(self) -> None:
        """Take over the cursor of a settling that has ended, and begin the next one. Raises `LeaseLostError`."""
        if self._settling is not None and self._settling.done():
            settled, self._settling = self._settling, None
            self._cursor = settled.result()
        if self._settling is None and self._applied > self._cursor.next_seq:
            self._settling = asyncio.create_task(self._settle_to(self._applied, self._oldest))
            self._oldest = None

    async def _settle_to(self, to: int, oldest: datetime | None) -> Cursor:
        """Settle everything below `to`, which was applied, and move the cursor. Raises `LeaseLostError`."""
        cursor = self._cursor
        await self._effect.settle(self._tenant, self._log)
        moved = await self._cursors.move(cursor, to, seconds=self._lease_seconds)
        if moved is None:
            raise LeaseLostError
        while self._traced and self._traced[0][0] <= to:
            self._traced.popleft()[1].done()
        RECORDS.labels(self._consumer).inc(to - cursor.next_seq)
        PROGRESS.labels(self._consumer).set_to_current_time()
        if oldest is not None:
            LAG.labels(self._consumer).observe(max(0.0, (datetime.now(UTC) - oldest).total_seconds()))
        return moved


class Follower:
    """One consumer of one process. `advance` may be called for many logs at once; a second call for one log waits.

    `cursor_of` names the consumer's cursor in the logs of a tenant; None: it has the name of the consumer. `slots` bounds how many batches are read and applied at once; waiting for an effect to settle takes no slot.
    """

    def __init__(
        self,
        consumer: str,
        store: RecordStore,
        cursors: Cursors,
        effect: Effect,
        *,
        cursor_of: Callable[[Tenant], str] | None = None,
        slots: int = 4,
        lease_seconds: float = LEASE_SECONDS,
        batch_records_max: int = BATCH_RECORDS_MAX,
        backoff_seconds: tuple[float, float] = BACKOFF_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        traces: BatchTraces | None = None,
    ) -> None:
        self.consumer = consumer
        self._store = store
        self._cursors = cursors
        self._effect = effect
        self._cursor_of = cursor_of or (lambda _: consumer)
        self._slots = asyncio.Semaphore(slots)
        self._lease_seconds = lease_seconds
        self._batch_records_max = batch_records_max
        self._backoff_seconds = backoff_seconds
        self._clock = clock
        self._traces = traces
        self._owner = uuid.uuid4().hex
        self._busy: dict[tuple[int, LogName], asyncio.Event] = {}
        self._failures: dict[tuple[int, LogName], tuple[int, float]] = {}
        self._failing: set[tuple[int, LogName]] = set()
        """Logs that failed after the last success of any log."""
        self._trying = False
        self._try_at = 0.0
        self._outage = Outage(consumer, "a log could not be advanced", clock=clock)
        self._stopping = False

    def stop(self) -> None:
        """Let every advance end after its current batch, with its cursor moved. Later advances do nothing."""
        self._stopping = True

    async def advance(self, tenant: Tenant, log: LogName) -> Ended:
        """Work until the consumer has done every record of the log, but not much longer than `ADVANCE_SECONDS_MAX`.

        Errors of the store, the cursors and the effect are logged and counted, and end as `FAILED`.
        """
        key = (tenant.id, log)
        while (before := self._busy.get(key)) is not None:
            await before.wait()
        ended = self._busy[key] = asyncio.Event()
        try:
            return await self._advance(tenant, log)
        finally:
            del self._busy[key]
            ended.set()

    async def _advance(self, tenant: Tenant, log: LogName) -> Ended:
        key = (tenant.id, log)
        _, not_before = self._failures.get(key, (0, 0.0))
        if self._clock() < not_before:
            return Ended.WAITING
        if key not in self._failing or len(self._failing) < DOWN_LOGS:
            return await self._try(tenant, log)
        # What all logs need is down. One that failed is tried for all of them.
        if self._trying or self._clock() < self._try_at:
            return Ended.WAITING
        self._trying = True
        try:
            return await self._try(tenant, log)
        finally:
            self._trying = False

    async def _try(self, tenant: Tenant, log: LogName) -> Ended:
        try:
            async with leased(
                self._cursors, self._cursor_of(tenant), tenant, [log], owner=self._owner, seconds=self._lease_seconds
            ) as held:
                if held is None:
                    return Ended.HELD
                until = self._clock() + ADVANCE_SECONDS_MAX
                await self._work(tenant, held[log], until)
        except LeaseLostError:
            return Ended.LOST
        except Exception as error:  # noqa: BLE001 - an effect may raise anything; only its own log fails
            self._failed(tenant, log, error)
            return Ended.FAILED
        self._failures.pop((tenant.id, log), None)
        self._failing.clear()
        self._outage.well()
        return Ended.DONE if self._stopping or self._clock() < until else Ended.MORE

    def _failed(self, tenant: Tenant, log: LogName, error: Exception) -> None:
        """Count and log a failure, and set when the log may be tried again."""
        FAILURES.labels(self.consumer).inc()
        count, _ = self._failures.get((tenant.id, log), (0, 0.0))
        first, longest = self._backoff_seconds
        wait = jittered(backoff(count + 1, first=first, longest=longest), 0.5)
        if len(self._failures) >= BACKING_OFF_MAX:
            self._failures.clear()
            self._failing.clear()
        self._try_at = self._clock() + wait
        self._failures[tenant.id, log] = (count + 1, self._try_at)
        self._failing.add((tenant.id, log))
        self._outage.failed(error, tenant=tenant.name, log=log.text)

    async def _work(self, tenant: Tenant, cursor: Cursor, until: float) -> None:
        """Follow the log to its end, or until that time. Raises `LeaseLostError` and what the effect raises."""
        await _Advance(
            tenant,
            cursor,
            self._store,
            self._cursors,
            self._effect,
            consumer=self.consumer,
            slots=self._slots,
            lease_seconds=self._lease_seconds,
            batch_records_max=self._batch_records_max,
            stopping=lambda: self._stopping or self._clock() >= until,
            traces=self._traces,
            failures=self._failures.get((tenant.id, cursor.log), (0, 0.0))[0],
        ).run()
