"""The floor of a log: the index finds nothing below it, and Postgres searches there.

The floor is the cursor of the consumer `forgetter`. It follows `retention.searchDays`, and it moves before a range of the index is
dropped. So a search never takes what an index no longer has for what is not there.
"""

from __future__ import annotations

import uuid

from decklog.domain.consumers import FORGETTER, Cursor, Cursors
from decklog.domain.log import LogName
from decklog.domain.store import RecordStore
from decklog.domain.tenant import Tenant
from decklog.services.following.leases import LEASE_SECONDS, leased

PASS_SECONDS = 3_600.0
"""Interval between two passes over a log, for all workers."""
READ_SECONDS_MAX = 20.0
"""Time limit for the search of a log's new floor."""


class Forgetting:
    """The floors of all logs."""

    def __init__(self, store: RecordStore, cursors: Cursors) -> None:
        self._store = store
        self._cursors = cursors

    async def forget(self, tenant: Tenant, log: LogName) -> bool:
        """Move the floor of a log with `retention.searchDays` if a pass is due; return whether it was.

        A pass is leased for `PASS_SECONDS`, so several workers run one pass.

        Raises:
            DecklogError: `storage-unavailable`; the pass is then due again at once.
        """
        owner = uuid.uuid4().hex
        async with leased(
            self._cursors, FORGETTER, tenant, [log], owner=owner, seconds=PASS_SECONDS, release_on_success=False
        ) as held:
            if held is None:
                return False
            await self._raise(tenant, held[log], days=tenant.limits.search_days, seconds=PASS_SECONDS)
        return True

    async def raise_floor(self, tenant: Tenant, log: LogName, *, days: int) -> bool:
        """Move the floor of a log above all records that were received more than `days` ago; return whether it is there now.

        Raises:
            DecklogError: `storage-unavailable`.
        """
        floor = await self._store.first_received(tenant, log, days=days, timeout=READ_SECONDS_MAX)
        if await self._cursors.next_seq(FORGETTER, tenant.id, log) >= floor:
            return True
        owner = uuid.uuid4().hex
        async with leased(self._cursors, FORGETTER, tenant, [log], owner=owner) as held:
            if held is None:
                return False  # a pass is under way, or was within the hour: this is tried again
            return await self._raise(tenant, held[log], days=days, seconds=LEASE_SECONDS)

    async def _raise(self, tenant: Tenant, cursor: Cursor, *, days: int, seconds: float) -> bool:
        floor = await self._store.first_received(tenant, cursor.log, days=days, timeout=READ_SECONDS_MAX)
        return floor <= cursor.next_seq or await self._cursors.move(cursor, floor, seconds=seconds) is not None
