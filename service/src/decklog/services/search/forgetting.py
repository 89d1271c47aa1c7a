"""Removal of documents older than `retention.searchDays` from the search index. The records stay, and Postgres searches them.

A pass moves the floor, which is the cursor of the consumer `forgetter`: searches ignore documents below it. The next pass removes
those documents an hour later, when every search that read the earlier floor has ended. A pass is leased for that hour, so several
workers run one pass.
"""

from __future__ import annotations

import uuid

from decklog.domain.log import LogName
from decklog.domain.store import FORGETTER, Cursors, RecordStore, SearchIndex
from decklog.domain.tenant import Tenant
from decklog.services.following.leases import leased

PASS_SECONDS = 3_600.0
"""Interval between two passes over a log, for all workers; far longer than any search."""
READ_SECONDS_MAX = 20.0
"""Time limit for the search of a log's new floor."""


class Forgetting:
    """The passes of one process."""

    def __init__(self, store: RecordStore, cursors: Cursors, index: SearchIndex) -> None:
        self._store = store
        self._cursors = cursors
        self._index = index

    async def forget(self, tenant: Tenant, log: LogName) -> bool:
        """Run one pass over a log if it is due; return whether it was.

        Raises:
            DecklogError: `search-unavailable` and `storage-unavailable`; the pass is then due again at once.
        """
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
