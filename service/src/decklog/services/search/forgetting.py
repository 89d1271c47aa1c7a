"""Removes from the search index what is older than `retention.searchDays`: the records stay, and Postgres answers for them.

First the floor is moved, the cursor of the consumer `forgetter`: nobody who reads it believes the index below it any more.
What is below is removed by the pass after that, an hour later or more, when whoever read the floor before has long been
answered. A pass is leased for that hour, so that several workers do one.
"""

from __future__ import annotations

import uuid

from decklog.domain.log import LogName
from decklog.domain.store import FORGETTER, Cursors, RecordStore, SearchIndex
from decklog.domain.tenant import Tenant
from decklog.services.following.leases import leased

PASS_SECONDS = 3_600.0
"""From one pass over a log to the next, for all workers; far longer than any question to the index takes."""
READ_SECONDS_MAX = 20.0


class Forgetting:
    """The passes of one process."""

    def __init__(self, store: RecordStore, cursors: Cursors, index: SearchIndex) -> None:
        self._store = store
        self._cursors = cursors
        self._index = index

    async def forget(self, tenant: Tenant, log: LogName) -> bool:
        """One pass over a log, if it is due. Raises `search-unavailable` and `storage-unavailable`; then it is due again."""
        async with leased(
            self._cursors,
            FORGETTER,
            tenant,
            [log],
            owner=uuid.uuid4().hex,
            seconds=PASS_SECONDS,
            release_on_success=False,
        ) as held:
            if held is None:
                return False
            cursor = held[log]
            if cursor.next_seq:
                await self._index.forget(tenant, log, cursor.next_seq)
            days = tenant.limits.search_days
            floor = await self._store.first_received(tenant, log, days=days, timeout=READ_SECONDS_MAX)
        # Outside the block: once the floor may have moved, the lease is kept even if the move raises.
        if floor > cursor.next_seq:
            await self._cursors.move(cursor, floor, seconds=PASS_SECONDS)
        return True
