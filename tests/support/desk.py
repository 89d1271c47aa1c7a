"""The real services of reading over storage in memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from decklog.domain.consumers import INDEXER
from decklog.domain.identity.access import Principal, RequestContext, Role
from decklog.domain.log import LogName, Span
from decklog.domain.search.query import Query
from decklog.domain.tenant import Limits as TenantLimits
from decklog.domain.tenant import Tenant
from decklog.services.records.access_log import AccessLog
from decklog.services.records.ingest import Ingest
from decklog.services.records.reading import Reading
from decklog.services.records.streaming import Limits, Streams
from decklog.services.sealing import Sealing
from decklog.services.search.search import Search
from tests.support.memory import make_tenant
from tests.support.memory_index import MemoryIndex
from tests.support.memory_store import FINGERPRINT_KEY, MemoryAnnouncements, MemoryCursors, MemoryStore, fill, index_all

REQUEST = RequestContext(request_id="request-1", ip="192.0.2.7", user_agent="tests/1")


class Clock:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.time = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def forward(self, **by: float) -> None:
        self.time += timedelta(**by)


class Desk:
    """Two tenants, `acme` and `rival`, the platform's own, and everything that reads them. `withdrawn` holds the
    subjects whose credentials are no longer good; `limits` are those of streams, `tenant` those of each tenant."""

    def __init__(
        self,
        *,
        indexed: bool = True,
        limits: Limits | None = None,
        tenant: TenantLimits | None = None,
        timeout: float = 5.0,
    ) -> None:
        self.now = Clock()
        self.acme, self.rival, self.platform = (make_tenant(name, limits=tenant) for name in ("acme", "rival", "decklog"))
        self.store = MemoryStore(self.acme, self.rival, self.platform, now=self.now)
        self.cursors = MemoryCursors(self.store, now=self.now)
        self.announcements = MemoryAnnouncements()
        self.index = MemoryIndex()
        self.ingest = Ingest(self.store, self.announcements, fingerprint_key=FINGERPRINT_KEY, now=self.now)
        self.access_log = AccessLog(self.ingest, lambda: self.platform)
        cursors = self.cursors if indexed else None
        self.search = Search(self.store, index=self.index if indexed else None, cursors=cursors, timeout=timeout)
        self.withdrawn: set[str] = set()
        self.tenants = {tenant.id: tenant for tenant in (self.acme, self.rival, self.platform)}
        self.sealing = Sealing()
        self.reading = Reading(
            self.search, self.store, self.access_log, still_valid=self.still_valid, checked_share=1, sealing=self.sealing
        )
        self.streams = Streams(
            self.store,
            self.announcements,
            self.access_log,
            still_valid=self.still_valid,
            tenant_now=self.tenant_now,
            limits=limits or Limits(heartbeat=60, poll=0.05),
            sealing=self.sealing,
        )

    async def still_valid(self, principal: Principal) -> bool:
        return principal.subject not in self.withdrawn

    async def tenant_now(self, number: int) -> Tenant | None:
        return self.tenants.get(number)

    def principal(self, tenant: Tenant | None = None, role: Role = Role.AUDITOR, *, subject: str = "key-1") -> Principal:
        return Principal(kind="api_key", subject=subject, role=role, tenant=tenant or self.acme)

    async def put(self, *values: dict[str, Any], tenant: Tenant | None = None, log: LogName = LogName.EVENTS) -> None:
        """Store and announce records, in one transaction."""
        owner = tenant or self.acme
        receipts = await fill(self.store, owner, *values, log=log, now=self.now())
        self.announcements.announce(owner.id, log, receipts[-1].seq + 1)

    async def index_all(self, tenant: Tenant | None = None) -> None:
        await index_all(self.store, tenant or self.acme, self.index, self.cursors, INDEXER)

    async def accesses(self, tenant: Tenant | None = None) -> list[dict[str, Any]]:
        """Return the access records of a tenant, oldest first."""
        found, _ = await self.store.read(
            tenant or self.acme, LogName.ACCESS, Span(0, 10**9), query=Query(), limit=10**6, newest_first=False, timeout=5
        )
        return [json.loads(record.content) for record in found]


@asynccontextmanager
async def desk(**options: Any) -> AsyncIterator[Desk]:
    """Make a desk, and run its services within the block."""
    made = Desk(**options)
    await made.ingest.start()
    await made.streams.start()
    try:
        yield made
    finally:
        await made.streams.stop()
        await made.access_log.stop()
        await made.ingest.stop()
