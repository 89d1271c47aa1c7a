"""The consumer `indexer`: writes records into the search index.

Its cursor says up to where records can be *found*, so it moves only after a refresh that began after the write.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

from prometheus_client import Counter

from decklog.domain.consumers import LogRecords
from decklog.domain.search.terms import Terms
from decklog.domain.store import SearchDocument, SearchIndex
from decklog.domain.tenant import Tenant
from decklog.workers.consumers.record_terms import record_terms
from decklog.workers.consumers.refreshes import REFRESH_GAP, Refreshes

PART_TERMS_MAX = 200_000
"""Leaves, numbers and texts that are written at once, 20 to 60 MB of memory. A thousand usual records have 100,000; a large one
may have that many by itself."""
PARALLEL = 3
"""Batches of one log at once: while terms of one are computed, two are written. Document ids make their order irrelevant."""

REFUSED = Counter("decklog_search_refused_documents_total", "Documents that the index stored without a field that it refused.")


class Indexer:
    """The effect of the consumer `indexer`."""

    parallel = PARALLEL

    def __init__(self, index: SearchIndex, *, refresh_gap: timedelta = REFRESH_GAP) -> None:
        self._index = index
        self._refreshes = Refreshes(index, gap=refresh_gap)

    async def apply(self, batch: Sequence[LogRecords]) -> None:
        """Write records into the index of their place. Raises `search-unavailable`."""
        async for documents in _parts(batch):
            REFUSED.inc(await self._index.add(batch[0].tenant, documents))

    async def settle(self, tenants: Sequence[Tenant]) -> None:
        """Return after a refresh that began after this call. Raises `search-unavailable`."""
        await self._refreshes(tenants[0])


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
