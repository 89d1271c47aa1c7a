"""The consumer `indexer`: writes records into the search index.

Its cursor says up to where records can be *found*, so it moves only after a refresh that began after the write. A refresh
is expensive and many logs may share an index, so refreshes of one index are coalesced, and a slow index is refreshed
more rarely: from `REFRESH_GAP` to `REFRESH_GAP_MAX` apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import msgspec
from prometheus_client import Counter

from decklog.domain.log import LogName
from decklog.domain.records.record import StoredRecord
from decklog.domain.search.terms import terms
from decklog.domain.store import SearchDocument, SearchIndex
from decklog.domain.tenant import Tenant
from decklog.services.coalescing import Coalescing, shared
from decklog.services.records.integrity import Read, damaged_of

REFRESH_GAP = timedelta(milliseconds=300)
"""Least time from the beginning of one refresh of an index to that of the next."""
REFRESH_SHARE = 0.2
"""Largest share of the time that refreshes of one index should take, as far as `REFRESH_GAP_MAX` allows."""
REFRESH_GAP_MAX = timedelta(milliseconds=500)
"""Longest such time, however slow refreshes are: every record of a busy log waits for it."""
PARALLEL = 3
"""Batches of one log at once: while terms of one are computed, two are written. Document ids make their order irrelevant."""
YIELD_EVERY = 50
"""Records between two yields to other tasks, as terms are pure computation."""

REFRESHES = Counter("decklog_search_refreshes_total", "Refreshes of search indices.")

# msgspec itself may take 40 microseconds for one number (`1.5e300`); Python never does.
_decoder = msgspec.json.Decoder(dict, float_hook=float)


class Indexer:
    """The effect of the consumer `indexer`."""

    parallel = PARALLEL

    def __init__(self, index: SearchIndex, *, refresh_gap: timedelta = REFRESH_GAP) -> None:
        self._index = index
        self._refreshes = Coalescing(shared(self._refresh), key=lambda tenant: tenant.index, gap=self._rest)
        self._gap = refresh_gap.total_seconds()

    async def apply(self, tenant: Tenant, log: LogName, records: Sequence[StoredRecord]) -> None:
        """Write records into the tenant's index. Raises `search-unavailable`."""
        await self._index.add(tenant, await _documents(tenant, log, records))

    async def settle(self, tenant: Tenant, log: LogName) -> None:
        """Return after a refresh that began after this call. Raises `search-unavailable`."""
        await self._refreshes(tenant)

    async def _refresh(self, tenant: Tenant) -> None:
        await self._index.refresh(tenant)
        REFRESHES.inc()

    def _rest(self, took: float) -> float:
        """Seconds from the beginning of a refresh that took so long to the next: what is slow is done more rarely."""
        return max(self._gap, min(took / REFRESH_SHARE, REFRESH_GAP_MAX.total_seconds()))


async def _documents(tenant: Tenant, log: LogName, records: Sequence[StoredRecord]) -> list[SearchDocument]:
    """Return a document for each record. A damaged record without terms has none: it must not stop the records after it."""
    documents: list[SearchDocument] = []
    damaged = set(await damaged_of(records, tenant, log, Read.INDEX))
    for number, record in enumerate(records, start=1):
        try:
            found = terms(_decoder.decode(record.content))
        except (msgspec.MsgspecError, KeyError, TypeError, AttributeError, ValueError):
            if record.seq not in damaged:
                raise
            continue
        documents.append(SearchDocument(tenant.id, log, record.epoch, record.seq, record.received_at, found))
        if number % YIELD_EVERY == 0:
            await asyncio.sleep(0)
    return documents
