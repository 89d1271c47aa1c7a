"""Keeping of rejected records: beside the append, in batches, within bounds.

An append never waits for it. Where a record cannot be kept, it is counted, and the answer says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, Protocol

import structlog
from msgspec.structs import replace
from prometheus_client import Counter

from decklog.domain.errors import DecklogError
from decklog.domain.records.rejected import RejectedBatch, Rejection, sent_form
from decklog.domain.tenant import Tenant

WAITING_RECORDS_MAX: Final = 2_000
"""Rejected records of one process that wait to be stored."""
WAITING_BYTES_MAX: Final = 16 * 1024 * 1024
TENANT_RECORDS_MAX: Final = 500
"""Those of one tenant, of which a batch has all."""
TENANT_BYTES_MAX: Final = 4 * 1024 * 1024
_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_EVERY_SECONDS: Final = 0.2
_RETRY_SECONDS_MAX: Final = 30.0
_STOP_SECONDS_MAX: Final = 5.0

_rejected = Counter("decklog_rejected_records_total", "Records that were rejected, by the code of the refusal.", ["code"])
_unkept = Counter("decklog_rejected_records_unkept_total", "Rejected records that were not kept, because too many waited.")
_failures = Counter("decklog_rejected_failures_total", "Failed attempts to store rejected records.")
_log = structlog.get_logger("decklog.rejections")


class KeepsRejected(Protocol):
    """The part of `RejectedStore` that this module uses."""

    async def keep(self, batch: RejectedBatch) -> None:
        """See `RejectedStore.keep`."""
        ...


class _Waiting:
    """Rejections of one tenant that are not stored yet."""

    __slots__ = ("bytes", "days", "last_at", "last_code", "records", "rejected", "unkept")

    def __init__(self, days: int) -> None:
        self.days = days
        self.records: list[Rejection] = []
        self.bytes = 0
        self.rejected = 0
        self.unkept = 0
        self.last_at = _NEVER
        self.last_code = ""


class RejectionQueue:
    """The rejected records of one process, until they are stored."""

    def __init__(self, store: KeepsRejected) -> None:
        self._store = store
        self._waiting: dict[int, _Waiting] = {}
        self._records = 0
        self._bytes = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start to store."""
        self._task = asyncio.create_task(self._run(), name="rejected records")

    async def stop(self) -> None:
        """Store what waits, for a bounded time."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with suppress(TimeoutError, DecklogError):
            async with asyncio.timeout(_STOP_SECONDS_MAX):
                await self._store_all()
        if self._records:
            _log.warning("rejected records are not kept", records=self._records)

    def has_room(self, tenant: Tenant) -> bool:
        """Return whether a rejected record of the tenant can be kept at all, before its form is made."""
        mine = self._waiting.get(tenant.id)
        return self._fits(mine, 0)

    def _fits(self, mine: _Waiting | None, size: int) -> bool:
        if self._records >= WAITING_RECORDS_MAX or self._bytes + size > WAITING_BYTES_MAX:
            return False
        return mine is None or (len(mine.records) < TENANT_RECORDS_MAX and mine.bytes + size <= TENANT_BYTES_MAX)

    def note(self, tenant: Tenant, found: Sequence[Rejection]) -> int:
        """Count rejected records, and return how many of them are kept. Never waits."""
        mine = self._waiting.setdefault(tenant.id, _Waiting(tenant.retention_days))
        kept = 0
        for each in found:
            _rejected.labels(each.code).inc()
            size = len(each.content or b"")
            if self._fits(mine, size):
                mine.records.append(each)
                mine.bytes += size
                self._records += 1
                self._bytes += size
                kept += 1
        _unkept.inc(len(found) - kept)
        mine.rejected += len(found)
        mine.unkept += len(found) - kept
        mine.last_at, mine.last_code = found[-1].at, found[-1].code
        self._wake.set()
        return kept

    async def _run(self) -> None:
        pause = _EVERY_SECONDS
        while True:
            await self._wake.wait()
            await asyncio.sleep(pause)
            self._wake.clear()
            try:
                await self._store_all()
                pause = _EVERY_SECONDS
            except DecklogError as error:
                if pause == _EVERY_SECONDS:
                    _log.warning("rejected records cannot be stored", code=error.code.value)
                pause = min(pause * 2, _RETRY_SECONDS_MAX)
                self._wake.set()

    async def _store_all(self) -> None:
        for tenant_id in tuple(self._waiting):
            await self._store_of(tenant_id, self._waiting[tenant_id])

    async def _store_of(self, tenant_id: int, mine: _Waiting) -> None:
        """Store what one tenant has waiting now. It leaves the queue only after it is stored."""
        records = tuple(mine.records)
        batch = RejectedBatch(
            tenant_id, mine.days, mine.rejected, mine.unkept, mine.last_at, mine.last_code, [_as_sent(each) for each in records]
        )
        try:
            await self._store.keep(batch)
        except DecklogError:
            _failures.inc()
            raise
        size = sum(len(each.content or b"") for each in records)
        del mine.records[: len(records)]
        mine.bytes -= size
        mine.rejected -= batch.rejected
        mine.unkept -= batch.unkept
        self._records -= len(records)
        self._bytes -= size
        if not mine.rejected:
            del self._waiting[tenant_id]


def _as_sent(rejection: Rejection) -> Rejection:
    if not rejection.as_stored or rejection.content is None:
        return rejection
    return replace(rejection, content=sent_form(rejection.content), as_stored=False)
