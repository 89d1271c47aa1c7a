"""The consumer `indexer`: writes records into the search index.

Its cursor says up to where records can be *found*, so it moves only after a refresh that began after the write. A refresh
is expensive and many logs may share an index, so refreshes of one index are coalesced, and a slow index is refreshed
more rarely: from `REFRESH_GAP` to `REFRESH_GAP_MAX` apart.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

from prometheus_client import Counter

from decklog.domain.consumers import LogRecords
from decklog.domain.search.terms import Terms
from decklog.domain.store import SearchDocument, SearchIndex
from decklog.domain.tenant import Tenant
from decklog.services.coalescing import Coalescing, shared
from decklog.workers.consumers.record_terms import record_terms

REFRESH_GAP = timedelta(milliseconds=300)
"""Least time from the beginning of one refresh of an index to that of the next."""
REFRESH_SHARE = 0.2
"""Largest share of the time that refreshes of one index should take, as far as `REFRESH_GAP_MAX` allows."""
REFRESH_GAP_MAX = timedelta(milliseconds=500)
"""Longest such time, however slow refreshes are: every record of a busy log waits for it."""
PART_TERMS_MAX = 200_000
"""Leaves, numbers and texts that are written at once, 20 to 60 MB of memory. A thousand usual records have 100,000; a large one
may have that many by itself."""
PARALLEL = 3
"""Batches of one log at once: while terms of one are computed, two are written. Document ids make their order irrelevant."""

REFRESHES = Counter("decklog_search_refreshes_total", "Refreshes of search indices.")
REFUSED = Counter("decklog_search_refused_documents_total", "Documents that the index stored without a field that it refused.")


class Indexer:
    """The effect of the consumer `indexer`."""

    parallel = PARALLEL

    def __init__(self, index: SearchIndex, *, refresh_gap: timedelta = REFRESH_GAP) -> None:
        self._index = index
        self._refreshes = Coalescing(shared(self._refresh), key=_index_of, gap=self._rest)
        self._gap = refresh_gap.total_seconds()

    async def apply(self, batch: Sequence[LogRecords]) -> None:
        """Write records into the index of their place. Raises `search-unavailable`."""
        async for documents in _parts(batch):
            REFUSED.inc(await self._index.add(batch[0].tenant, documents))

    async def settle(self, tenants: Sequence[Tenant]) -> None:
        """Return after a refresh that began after this call. Raises `search-unavailable`."""
        await self._refreshes(tenants[0])

    async def _refresh(self, tenant: Tenant) -> None:
        await self._index.refresh(tenant)
        REFRESHES.inc()

    def _rest(self, took: float) -> float:
        """Seconds from the beginning of a refresh that took so long to the next: what is slow is done more rarely."""
        return max(self._gap, min(took / REFRESH_SHARE, REFRESH_GAP_MAX.total_seconds()))


def _index_of(tenant: Tenant) -> str:
    """Return what one refresh serves: the live generation of an index."""
    return tenant.index if tenant.live is None else tenant.live.alias


async def _parts(batch: Sequence[LogRecords]) -> AsyncIterator[list[SearchDocument]]:
    """Yield the documents of records, in parts of about `PART_TERMS_MAX` terms."""
    part: list[SearchDocument] = []
    held = 0
    for each in batch:
        async for record, found in record_terms(each.tenant, each.log, each.records, _whole):
            part.append(SearchDocument(each.tenant.id, each.log, record.epoch, record.seq, record.received_at, found))
            held += len(found.leaves) + len(found.numbers) + len(found.texts)
            if held >= PART_TERMS_MAX:
                yield part
                part, held = [], 0
    if part:
        yield part


def _whole(found: Terms) -> Terms:
    return found
