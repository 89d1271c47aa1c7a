"""Access records of ranges that were dropped: written by processes of the API, as a worker may append nothing.

The database notes a range in the transaction that drops it, until an access log has its record. The record's id is made of the range, so
two processes, or one that was killed between record and note, write one record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from prometheus_client import Counter

from decklog.domain.errors import DecklogError
from decklog.domain.log import rfc3339
from decklog.domain.pauses import jittered
from decklog.domain.records.ageing import DroppedRange, Drops
from decklog.domain.records.record import Actor, Outcome, RecordInput, Resource
from decklog.domain.tenant import Tenant
from decklog.services.outage import Outage
from decklog.services.records.access_log import RETENTION_DROP, AppendsAccess

INTERVAL_SECONDS = 60.0
RANGES_MAX = 1_000
"""Ranges that are read at once."""
_AT_ONCE = 50
"""Records that wait for their commit at once."""

RECORDED = Counter("decklog_dropped_ranges_recorded_total", "Ranges of logs whose removal was recorded in an access log.")


class DropRecords:
    """Writes the records, in each interval.

    Args:
        drops: Where ranges are noted.
        ingest: Appends access records.
        tenant_now: Returns a tenant by its number, None for one that is deleted.
        platform: Returns the reserved tenant, whose access log has the ranges of deleted tenants.
        interval: Seconds between two looks, before jitter.
    """

    def __init__(
        self,
        drops: Drops,
        ingest: AppendsAccess,
        *,
        tenant_now: Callable[[int], Awaitable[Tenant | None]],
        platform: Callable[[], Tenant],
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        self._drops = drops
        self._ingest = ingest
        self._tenant_now = tenant_now
        self._platform = platform
        self._interval = interval
        self._outage = Outage("database", "dropped ranges cannot be recorded")
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name="dropped ranges")

    async def stop(self) -> None:
        """End writing. A later process goes on where this one stopped. Must be called before ingest is stopped."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def write(self) -> int:
        """Record ranges that have no record, at most `RANGES_MAX`; return how many. Raises `storage-` and `registry-` errors, and those of appends."""
        found = await self._drops.unrecorded(RANGES_MAX)
        for at in range(0, len(found), _AT_ONCE):
            group = found[at : at + _AT_ONCE]
            await asyncio.gather(*(self._record(each) for each in group))
            await self._drops.note_recorded(group)
            RECORDED.inc(len(group))
        return len(found)

    async def _record(self, gone: DroppedRange) -> None:
        tenant = await self._tenant_now(gone.tenant_id)
        await self._ingest.append_access(tenant or self._platform(), record_of(gone))

    async def _run(self) -> None:
        while True:
            try:
                more = await self.write() == RANGES_MAX
                self._outage.well()
            except DecklogError as error:
                self._outage.failed(error)
                more = False
            if not more:
                await asyncio.sleep(jittered(self._interval, 0.25))


def record_of(gone: DroppedRange) -> RecordInput:
    """Return the access record of a range that was dropped."""
    return RecordInput(
        id=f"{RETENTION_DROP}/{gone.tenant_id}/{gone.log.text}/{rfc3339(gone.since)}",
        action=RETENTION_DROP,
        actor=Actor(id="keeper", type="decklog"),
        resource=Resource(type="log", id=gone.log.text),
        outcome=Outcome.SUCCESS,
        metadata={
            "tenant_id": gone.tenant_id,
            "dropped_at": rfc3339(gone.dropped_at),
            "from": rfc3339(gone.since),
            "to": rfc3339(gone.until),
            "first_seq": gone.first_seq,
            "end_seq": gone.end_seq,
            "records": gone.end_seq - gone.first_seq,
        },
    )
