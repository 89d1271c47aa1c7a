"""The records of a cell, read in turns: no tenant's readings occupy the database while another tenant waits.

A turn is one call, which the store bounds in rows, bytes and time. So an export, a page of many readings and a stream that
catches up take a turn for each batch, and have none while their client reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from decklog.domain.errors import DecklogError
from decklog.domain.log import Head, LogName, Span
from decklog.domain.records.append import Appended, AppendRequest
from decklog.domain.records.idempotency import KeyBinding
from decklog.domain.records.record import StoredRecord
from decklog.domain.search.order import Place
from decklog.domain.search.query import Query
from decklog.domain.search.stats import Bucket, Grouping
from decklog.domain.store import READ_BYTES_MAX, RecordStore
from decklog.domain.tenant import Tenant
from decklog.services.search.index_reader import ReadsCursors
from decklog.services.turns import Turns

WAIT_SECONDS = 5.0
"""Wait for the turn of a reading that has no time limit of its own. Others wait for at most their time limit."""
_NO_TENANT = 0
"""Takes the turns of the process itself; ids of tenants begin at 1."""


def database_turns(connections: int) -> Turns:
    """Return turns at so many connections: a third of them for one tenant, a fifth to spare for tenants that have none."""
    return Turns(connections, each=max(1, connections // 3), spare=connections // 5, of="database")


class TurnedStore:
    """A `RecordStore` over another one; see the protocol. Every reading also raises `overloaded` where no turn comes."""

    def __init__(self, store: RecordStore, turns: Turns) -> None:
        self._store = store
        self._turns = turns

    async def append(self, requests: Sequence[AppendRequest]) -> list[Appended | DecklogError]:
        """See the protocol. Appending takes no turn: it has a connection of its own."""
        return await self._store.append(requests)

    async def bind_keys(self, bindings: Sequence[KeyBinding]) -> list[bool]:
        """See the protocol. Binding takes no turn, as appending."""
        return await self._store.bind_keys(bindings)

    async def head(self, tenant: Tenant, log: LogName) -> Head:
        """See the protocol."""
        async with self._turns.turn(tenant.id, seconds=WAIT_SECONDS):
            return await self._store.head(tenant, log)

    async def heads(self, logs: Sequence[tuple[int, LogName]]) -> Mapping[tuple[int, LogName], Head]:
        """See the protocol."""
        async with self._turns.turn(_NO_TENANT, seconds=WAIT_SECONDS):
            return await self._store.heads(logs)

    async def first_received(self, tenant: Tenant, log: LogName, *, days: int, timeout: float) -> int:
        """See the protocol."""
        async with self._turns.turn(tenant.id, seconds=timeout):
            return await self._store.first_received(tenant, log, days=days, timeout=timeout)

    async def first_since(self, tenant: Tenant, log: LogName, moment: datetime, *, timeout: float) -> int:
        """See the protocol."""
        async with self._turns.turn(tenant.id, seconds=timeout):
            return await self._store.first_since(tenant, log, moment, timeout=timeout)

    async def read(
        self,
        tenant: Tenant,
        log: LogName,
        span: Span,
        *,
        query: Query,
        limit: int,
        newest_first: bool,
        timeout: float,
        bytes_max: int = READ_BYTES_MAX,
    ) -> tuple[list[StoredRecord], int | None]:
        """See the protocol."""
        async with self._turns.turn(tenant.id, seconds=timeout):
            return await self._store.read(
                tenant,
                log,
                span,
                query=query,
                limit=limit,
                newest_first=newest_first,
                timeout=timeout,
                bytes_max=bytes_max,
            )

    async def read_by_time(
        self,
        tenant: Tenant,
        log: LogName,
        span: Span,
        *,
        query: Query,
        after: Place | None,
        limit: int,
        newest_first: bool,
        timeout: float,
        bytes_max: int = READ_BYTES_MAX,
    ) -> tuple[list[tuple[Place, StoredRecord]], Place | None]:
        """See the protocol."""
        async with self._turns.turn(tenant.id, seconds=timeout):
            return await self._store.read_by_time(
                tenant,
                log,
                span,
                query=query,
                after=after,
                limit=limit,
                newest_first=newest_first,
                timeout=timeout,
                bytes_max=bytes_max,
            )

    async def fetch(self, tenant: Tenant, log: LogName, seqs: Sequence[int], *, newest_first: bool = True) -> list[StoredRecord]:
        """See the protocol."""
        async with self._turns.turn(tenant.id, seconds=WAIT_SECONDS):
            return await self._store.fetch(tenant, log, seqs, newest_first=newest_first)

    async def count(
        self, tenant: Tenant, log: LogName, span: Span, *, query: Query, grouping: Grouping, limit: int, timeout: float
    ) -> list[Bucket]:
        """See the protocol."""
        async with self._turns.turn(tenant.id, seconds=timeout):
            return await self._store.count(tenant, log, span, query=query, grouping=grouping, limit=limit, timeout=timeout)

    async def facets(
        self, tenant: Tenant, log: LogName, span: Span, *, query: Query, names: Sequence[str], limit: int, timeout: float
    ) -> list[list[Bucket]]:
        """See the protocol."""
        async with self._turns.turn(tenant.id, seconds=timeout):
            return await self._store.facets(tenant, log, span, query=query, names=names, limit=limit, timeout=timeout)


class TurnedCursors:
    """The cursors that searches read, in the turns of their tenants."""

    def __init__(self, cursors: ReadsCursors, turns: Turns) -> None:
        self._cursors = cursors
        self._turns = turns

    async def next_seqs(self, consumers: Sequence[str], tenant_id: int, log: LogName) -> list[int]:
        """See `Cursors.next_seqs`."""
        async with self._turns.turn(tenant_id, seconds=WAIT_SECONDS):
            return await self._cursors.next_seqs(consumers, tenant_id, log)
