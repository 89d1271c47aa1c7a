"""Refreshes of search indices: one request at a time serves all indices of the cluster that wait for one.

A refresh is expensive for the whole cluster, and a thousand indices must not cost a thousand of them. An index that fails or is slow is
refreshed apart, so that it does not hold up the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from prometheus_client import Counter

from decklog.domain.errors import DecklogError
from decklog.domain.store import SearchIndex
from decklog.domain.tenant import Tenant
from decklog.services.coalescing import Coalescing, shared

REFRESH_GAP = timedelta(milliseconds=300)
"""Least time from the beginning of one refresh to that of the next."""
REFRESH_SHARE = 0.2
"""Largest share of the time that refreshes should take, as far as `REFRESH_GAP_MAX` allows."""
REFRESH_GAP_MAX = timedelta(milliseconds=500)
"""Longest such time, however slow refreshes are: every record of a busy log waits for it."""
TOGETHER_SECONDS_MAX = 2.0
"""Time of a refresh, after which each of its indices is refreshed apart, as after a failure."""

REFRESHES = Counter("decklog_search_refreshes_total", "Requests that refresh search indices, of any number each.")


class Refreshes:
    """The refreshes of one worker."""

    def __init__(self, index: SearchIndex, *, gap: timedelta = REFRESH_GAP) -> None:
        self._index = index
        self._gap = gap.total_seconds()
        self._slow: set[str] = set()
        self._together = Coalescing(self._refresh_all, gap=self._rest)
        self._apart = Coalescing(shared(self._refresh), key=_index_of, gap=self._rest)

    async def __call__(self, tenant: Tenant) -> None:
        """Return after a refresh of the tenant's index that began after this call. Raises `search-unavailable`."""
        if _index_of(tenant) in self._slow or not await self._together(tenant):
            await self._apart(tenant)

    async def _refresh_all(self, tenants: Sequence[Tenant]) -> Sequence[bool]:
        """Refresh the indices of tenants; return for each whether that is done. It is not where the index is to be refreshed apart."""
        indices = {_index_of(tenant): tenant for tenant in tenants if _index_of(tenant) not in self._slow}
        try:
            async with asyncio.timeout(TOGETHER_SECONDS_MAX):
                if indices:
                    await self._index.refresh(*indices.values())
                    REFRESHES.inc()
        except (DecklogError, TimeoutError):
            self._slow.update(indices)
            indices = {}
        return [_index_of(tenant) in indices for tenant in tenants]

    async def _refresh(self, tenant: Tenant) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._index.refresh(tenant)
        REFRESHES.inc()
        if loop.time() - began < TOGETHER_SECONDS_MAX:
            self._slow.discard(_index_of(tenant))

    def _rest(self, took: float) -> float:
        """Seconds from the beginning of a refresh that took so long to the next: what is slow is done more rarely."""
        return max(self._gap, min(took / REFRESH_SHARE, REFRESH_GAP_MAX.total_seconds()))


def _index_of(tenant: Tenant) -> str:
    """Return what one refresh serves: the live generation of an index."""
    return tenant.index if tenant.live is None else tenant.live.alias
