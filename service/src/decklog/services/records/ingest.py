"""Taking records in: everything that can be decided about a record is decided here, then one writer commits groups.

Requests wait on a future while the writer takes whatever waits as one transaction, commits, answers all of them and
takes what came meanwhile. Nothing is acknowledged before its commit; what cannot wait any more is refused at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
import structlog
from prometheus_client import Counter, Histogram

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.append import Appended, AppendRequest, Rate, Receipt, Status, rate_limited
from decklog.domain.records.record import Prepared, RecordInput, decode, prepare
from decklog.domain.store import Announcements, RecordStore
from decklog.domain.tenant import Tenant

RECORDS_PER_REQUEST_MAX = 10_000
GROUP_RECORDS_MAX = 500
"""Records of one transaction, unless a single request has more."""
GROUP_BYTES_MAX = 8 * 1024 * 1024
KEY_CHARS_MAX = 240
"""Characters of an Idempotency-Key: with `/9999` it must still fit a record's id."""
_YIELD_EVERY = 100
"""Records of a bulk that are prepared before other requests get a turn."""
_LEVEL_SECONDS_MAX = 1.0
"""How long what the database said of a bucket counts: a tenant's rate may be changed, and other processes know of it."""

_log = structlog.get_logger("decklog.ingest")
_group_records = Histogram(
    "decklog_append_group_records", "Records committed together.", buckets=(1, 2, 5, 10, 20, 50, 100, 500, 2_000, 10_000)
)
_group_seconds = Histogram("decklog_append_group_seconds", "Seconds from taking a group to its commit.")
_records = Counter("decklog_append_records_total", "Records of append requests, by what became of them.", ["status"])
_stored, _duplicate, _conflict = (_records.labels(status.name.lower()) for status in Status)
_rejected = _records.labels("rejected")


class BulkResult(msgspec.Struct, frozen=True):
    """What became of each record of a bulk, in the order sent; a DecklogError is a record that was rejected."""

    items: list[Receipt | DecklogError]
    rate: Rate | None


class CommitTraces(Protocol):
    """What is told of commits where traces are sent. Neither method waits or fails."""

    def current(self) -> Any | None:
        """The request that is being answered, as `committed` takes it; None where it is not traced."""
        ...

    def committed(self, outcomes: Sequence[tuple[AppendRequest, Appended | DecklogError, Any | None]], seconds: float) -> None:
        """A group ended just now, after so many seconds: each request, what became of it, and what `current` gave for it."""
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
    """What a bucket may hold that was found empty: what the database said last, less what was asked of it since."""

    __slots__ = ("at", "remaining", "said", "said_at")

    def __init__(self, said: Rate) -> None:
        self.said = said
        self.said_at = self.at = time.monotonic()
        self.remaining = said.remaining

    def spend(self, count: int) -> None:
        if count <= self.said.burst:  # more is refused whatever there is
            self.remaining -= count

    def now(self) -> Rate:
        moment = time.monotonic()
        self.remaining = min(self.said.burst, self.remaining + (moment - self.at) * self.said.per_second)
        self.at = moment
        return msgspec.structs.replace(self.said, remaining=self.remaining)


class Ingest:
    """The one way into the logs of a cell, for a process."""

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
        self._writer = asyncio.create_task(self._write(), name="writer")

    async def stop(self) -> None:
        """Commit what waits, refuse what comes, end."""
        self._stopping = True
        self._wake.set()
        if self._writer is not None:
            await self._writer

    async def append(self, tenant: Tenant, raw: bytes, *, key: str | None = None) -> tuple[Receipt, Rate | None]:
        """One record of the events log, as JSON. `key` is its id where it has none itself.

        Raises `id-conflict`, `body-too-large` and all that `decode`, `prepare` and the store refuse.
        """
        self._refuse_early(tenant, LogName.EVENTS, 1)
        if len(raw) > tenant.limits.record_bytes_max:
            raise _too_large(tenant)
        prepared = prepare(decode(raw), now=self._now(), fingerprint_key=self._key, default_id=_checked(key))
        appended = await self._submit(AppendRequest(tenant, LogName.EVENTS, (prepared,)))
        receipt = appended.receipts[0]
        if receipt.status is Status.CONFLICT:
            raise _conflicting(receipt)
        return receipt, appended.rate

    async def append_access(self, tenant: Tenant, record: RecordInput, *, query: bool = False) -> Receipt:
        """One record of the access log, by the same group commit. Exempt from the tenant's quotas, unless it is of a query,
        which then is refused with `rate-limited` and `tenant-suspended`."""
        prepared = prepare(record, now=self._now(), fingerprint_key=self._key)
        appended = await self._submit(AppendRequest(tenant, LogName.ACCESS, (prepared,), metered=query))
        return appended.receipts[0]

    def refuse_query(self, tenant: Tenant) -> None:
        """Raises `rate-limited` where a query was refused and the bucket cannot have refilled yet."""
        self._refuse_early(tenant, LogName.ACCESS, 1)

    async def append_bulk(
        self, tenant: Tenant, raws: Sequence[bytes | msgspec.Raw], *, key: str | None = None, atomic: bool = False
    ) -> BulkResult:
        """Many records of the events log: good ones are stored beside bad ones, or, if `atomic`, all or none.

        Raises `too-many-records`, `batch-rejected` (atomic; nothing is stored) and what the store refuses as a whole.
        """
        if len(raws) > RECORDS_PER_REQUEST_MAX:
            raise DecklogError(
                Code.TOO_MANY_RECORDS, f"{len(raws)} records in one request; at most {RECORDS_PER_REQUEST_MAX} are taken."
            )
        self._refuse_early(tenant, LogName.EVENTS, 1)
        key, now = _checked(key), self._now()
        items: list[Receipt | DecklogError | None] = [None] * len(raws)
        first: dict[str, int] = {}
        twins: list[tuple[int, int, Prepared]] = []
        fresh: list[tuple[int, Prepared]] = []
        for index, raw in enumerate(raws):
            if index % _YIELD_EVERY == _YIELD_EVERY - 1:
                await asyncio.sleep(0)
            try:
                if len(memoryview(raw)) > tenant.limits.record_bytes_max:
                    raise _too_large(tenant)
                prepared = prepare(
                    decode(raw), now=now, fingerprint_key=self._key, default_id=None if key is None else f"{key}/{index}"
                )
            except DecklogError as error:
                items[index] = error
                continue
            original = first.setdefault(prepared.id, index) if prepared.id is not None else index
            if original == index:
                fresh.append((index, prepared))
            else:
                twins.append((index, original, prepared))
        prints = {index: prepared.fingerprint for index, prepared in fresh}
        clashing = [index for index, original, prepared in twins if prepared.fingerprint != prints[original]]
        if atomic and (clashing or any(isinstance(item, DecklogError) for item in items)):
            raise _batch_rejected(items, dict.fromkeys(clashing))
        rate: Rate | None = None
        if fresh:
            appended = await self._submit(
                AppendRequest(tenant, LogName.EVENTS, [prepared for _, prepared in fresh], atomic=atomic)
            )
            rate = appended.rate
            for (index, _), receipt in zip(fresh, appended.receipts, strict=True):
                items[index] = receipt
            if not appended.stored:
                conflicts = {i: r for i, r in enumerate(items) if isinstance(r, Receipt) and r.status is Status.CONFLICT}
                raise _batch_rejected(items, conflicts)
        for index, original, prepared in twins:
            items[index] = _as_twin(items[original], same=prepared.fingerprint == prints[original])
        results = [_conflicting(item) if isinstance(item, Receipt) and item.status is Status.CONFLICT else item for item in items]
        _rejected.inc(sum(isinstance(result, DecklogError) for result in results))
        return BulkResult([result for result in results if result is not None], rate)

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
        """A flood of one tenant costs the database nothing: what a bucket that was found empty cannot hold yet is refused here.
        It can only hold less, as other processes ask of it too. Gives what is known of it, if anything is."""
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
        """The next group: in order, within bounds, and without two records of one id, which wait for the next."""
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
        results: Sequence[Appended | DecklogError]
        try:
            results = await self._store.append([waiting.request for waiting in group])
        except DecklogError as error:
            results = [error] * len(group)
        except Exception as error:  # noqa: BLE001
            # Whatever it was, nobody may wait for ever, and whether it was committed is not known.
            _log.exception("append failed unexpectedly", requests=len(group))
            unknown = DecklogError(
                Code.OUTCOME_UNKNOWN, "The append failed unexpectedly; the records may or may not be stored.", retry_after=1
            )
            unknown.__cause__ = error
            results = [unknown] * len(group)
        seconds = time.perf_counter() - started
        _group_seconds.observe(seconds)
        if self._traces is not None and any(waiting.traced is not None for waiting in group):
            outcomes = [(waiting.request, result, waiting.traced) for waiting, result in zip(group, results, strict=True)]
            self._traces.committed(outcomes, seconds)
        reached: dict[tuple[int, LogName], int] = {}
        stored = duplicates = conflicts = 0
        for waiting, result in zip(group, results, strict=True):
            self._bytes -= waiting.size
            if waiting.request.metered:
                self._note_level(waiting.request, result)
            if isinstance(result, DecklogError):
                if not waiting.future.done():
                    waiting.future.set_exception(result)
                continue
            for receipt in result.receipts:
                if receipt.status is Status.STORED and result.stored:
                    stored += 1
                    reached[waiting.request.tenant.id, waiting.request.log] = max(
                        receipt.seq + 1, reached.get((waiting.request.tenant.id, waiting.request.log), 0)
                    )
                elif receipt.status is Status.DUPLICATE:
                    duplicates += 1
                else:
                    conflicts += 1
            if not waiting.future.done():
                waiting.future.set_result(result)
        _group_records.observe(stored)
        _stored.inc(stored)
        _duplicate.inc(duplicates)
        _conflict.inc(conflicts)
        for (tenant_id, log), next_seq in reached.items():
            self._announcements.announce(tenant_id, log, next_seq)

    def _note_level(self, request: AppendRequest, result: Appended | DecklogError) -> None:
        """What is known of a bucket from its first refusal until nobody asks of it any more, or nothing is known."""
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


def _conflicting(receipt: Receipt) -> DecklogError:
    return DecklogError(
        Code.ID_CONFLICT,
        f"The id was already used for other content, stored as seq {receipt.seq}. Nothing was stored; use a new id for a new record.",
        extra={"seq": receipt.seq},
    )


def _as_twin(original: Receipt | DecklogError | None, *, same: bool) -> Receipt | DecklogError:
    if not isinstance(original, Receipt):
        assert original is not None  # noqa: S101 - every first of its id has got a result before its twins
        return original
    status = Status.CONFLICT if original.status is Status.CONFLICT or not same else Status.DUPLICATE
    return msgspec.structs.replace(original, status=status)


def _batch_rejected(items: Sequence[Any], conflicts: Mapping[int, Receipt | None]) -> DecklogError:
    errors: list[dict[str, object]] = []
    for index, item in enumerate(items):
        if index in conflicts:
            receipt = conflicts[index]
            error = (
                _conflicting(receipt)
                if receipt
                else DecklogError(Code.ID_CONFLICT, "Another record of this batch has the same id.")
            )
        elif isinstance(item, DecklogError):
            error = item
        else:
            continue
        errors.append({"index": index, "code": error.code.value, "detail": error.detail})
    return DecklogError(
        Code.BATCH_REJECTED,
        f"{len(errors)} of {len(items)} records cannot be stored, so none was.",
        extra={"errors": errors[:100]},
    )
