"""The consumer `indexer`: puts records into the search index.

Its cursor says how far the index *finds*, so it moves only after a refresh that began after the write. A refresh is
dear, and many logs may share an index: one at a time serves all who wait for it, the rarer the longer it takes, from
`REFRESH_GAP` to `REFRESH_GAP_MAX` apart.
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

REFRESH_GAP = timedelta(milliseconds=300)
"""From the beginning of one refresh of an index to that of the next, at least."""
REFRESH_SHARE = 0.2
"""Of the time that refreshing one index should take; what takes longer than this part of `REFRESH_GAP_MAX` takes more."""
REFRESH_GAP_MAX = timedelta(milliseconds=500)
"""However long a refresh takes: every record of a busy log waits for the end of this."""
PARALLEL = 3
"""Batches of one log at once: while terms are made of one, two are being written. Their ids make the order irrelevant."""
YIELD_EVERY = 50
"""Records between two chances for other tasks: terms are pure computing."""

REFRESHES = Counter("decklog_search_refreshes_total", "Refreshes of search indices.")

_decoder = msgspec.json.Decoder(dict)


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
    documents: list[SearchDocument] = []
    for number, record in enumerate(records, start=1):
        found = terms(_decoder.decode(record.content))
        documents.append(SearchDocument(tenant.id, log, record.epoch, record.seq, record.received_at, found))
        if number % YIELD_EVERY == 0:
            await asyncio.sleep(0)
    return documents
