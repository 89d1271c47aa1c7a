"""A worker's surroundings in memory: registry, store, cursors, index, queue, and a keeper that counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from decklog.domain.consumers import INDEXER
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.ageing import Aged
from decklog.domain.tenant import Tenant
from decklog.services.identity.registry import RegistryCache
from decklog.settings import Settings, Worker
from decklog.workers import runner
from decklog.workers.consumers.filterer import TermFilters
from tests.support.memory import MemoryRegistry, make_tenant
from tests.support.memory_index import MemoryIndex
from tests.support.memory_queue import MemoryQueue
from tests.support.memory_store import MemoryCursors, MemoryStore, fill


class CountingKeeper:
    def __init__(self) -> None:
        self.calls = 0
        self.failing: DecklogError | None = None
        self.until: datetime | None = datetime(2026, 2, 1, tzinfo=UTC)
        self.due: dict[str, list[datetime | None]] = {}
        self.dropped: list[tuple[str, datetime]] = []
        self.kept = (0, 0)

    async def make_partitions_ahead(self) -> datetime | None:
        self.calls += 1
        if self.failing is not None:
            raise self.failing
        return self.until

    async def schemas(self) -> list[str]:
        return list(self.due)

    async def drop_due(self, schema: str) -> Aged:
        """Drop the partition that begins first; a None in its place is a failure, once."""
        left = self.due[schema]
        if not left:
            return Aged(None, None, 0, 0, *self.kept)
        if (since := left.pop(0)) is None:
            raise DecklogError(Code.STORAGE_UNAVAILABLE, "away")
        self.dropped.append((schema, since))
        return Aged(since, since + timedelta(days=1), 8_192, len(left), *self.kept)


class MemoryService:
    """Everything that a worker is given, in memory."""

    def __init__(self, *names: str, queue: MemoryQueue | None = None, index: MemoryIndex | None = None) -> None:
        self.backing = MemoryRegistry()
        self.tenants = [self.backing.add_tenant(make_tenant(name)) for name in names]
        self.registry = RegistryCache(self.backing, interval=0.02)
        self.store = MemoryStore(*self.tenants)
        self.cursors = MemoryCursors(self.store)
        self.index = index
        self.filters: TermFilters | None = None
        self.queue = queue
        self.keeper = CountingKeeper()

    async def work(self, given: Settings, stop: asyncio.Event) -> None:
        """Run a worker until `stop` is set."""
        await runner.run(
            stop,
            given,
            registry=self.registry,
            store=self.store,
            cursors=self.cursors,
            keeper=self.keeper,
            index=self.index,
            filters=self.filters,
            queue=self.queue,
        )

    async def append(self, tenant: Tenant, count: int = 1, *, log: LogName = LogName.EVENTS) -> int:
        """The log's next number afterwards."""
        receipts = await fill(self.store, tenant, *({} for _ in range(count)), log=log)
        return receipts[-1].seq + 1

    async def done(self, tenant: Tenant, log: LogName = LogName.EVENTS, *, consumer: str = INDEXER) -> int:
        return await self.cursors.next_seq(consumer, tenant.id, log)

    async def until_done(self, tenant: Tenant, number: int, log: LogName = LogName.EVENTS, *, consumer: str = INDEXER) -> None:
        async with asyncio.timeout(30):
            while await self.done(tenant, log, consumer=consumer) < number:
                await asyncio.sleep(0.005)


def settings(*, sweep_seconds: float = 3_600.0, pollers: int = 2, metrics_port: int = 0) -> Settings:
    return Settings(worker=Worker(sweep_seconds=sweep_seconds, pollers=pollers, metrics_port=metrics_port))


@asynccontextmanager
async def running(service: MemoryService, given: Settings) -> AsyncIterator[asyncio.Event]:
    """A worker over the service, stopped in the end."""
    await service.registry.start()
    stop = asyncio.Event()
    worker = asyncio.create_task(service.work(given, stop))
    try:
        yield stop
    finally:
        stop.set()
        try:
            async with asyncio.timeout(20):
                await worker
        finally:
            await service.registry.stop()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.005)
