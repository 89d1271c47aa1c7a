"""The worker over the real things: what is stored in Postgres is found in OpenSearch, whatever becomes of the messages."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import msgspec
import pytest
from opensearchpy import AsyncOpenSearch

from decklog.domain.consumers import INDEXER, Cursors, indexer_of
from decklog.domain.errors import DecklogError
from decklog.domain.log import LogName, Span
from decklog.domain.records.append import AppendRequest
from decklog.domain.search.query import Query
from decklog.domain.store import FollowedStore, SearchIndex, WakeQueue, WakeUp
from decklog.domain.tenant import Isolation, Limits, Tenant
from decklog.opensearch.client import connect
from decklog.opensearch.search import OpenSearchIndex
from decklog.services.following.follow import FAILURES
from decklog.services.following.wake import Waker
from decklog.services.identity.registry import RegistryCache
from decklog.services.search.forgetting import Forgetting
from decklog.services.search.search import Search as Finding
from decklog.settings import Search, Settings, Worker
from decklog.sqs.queue import SqsWakeQueue
from decklog.sqs.queue import connect as connect_queue
from decklog.timescale.connection import WORKER_ROLE
from decklog.timescale.control.tables import migrate_control
from decklog.timescale.records.keeper import PostgresKeeper
from decklog.workers import runner
from tests.backends import OpenSearchServer, SqsServer
from tests.support.asked import asked
from tests.support.generations import generation, living, make_indices, remove_indices
from tests.support.memory import MemoryRegistry
from tests.support.queues import queue_settings
from tests.support.records import prepared
from tests.support.stores import Database

EVENTS = LogName.EVENTS
ONES = {*range(1, 30, 3), *range(31, 40, 3)}
"""Numbers of the records of `user-1`, where thirty were appended and then ten."""


class LosingQueue(SqsWakeQueue):
    """Throws away a part of all messages before they are sent, and sends a part twice."""

    lost = 0.0
    chance = random.Random(1)

    async def send(self, queue: str, wake_ups: Sequence[WakeUp]) -> None:
        kept = [wake_up for wake_up in wake_ups if self.chance.random() >= self.lost]
        kept += [wake_up for wake_up in kept if self.chance.random() < 0.2]
        await super().send(queue, kept)


@dataclass
class Real:
    """What a worker is given: real backends, and a registry in memory."""

    registry: RegistryCache
    store: FollowedStore
    cursors: Cursors
    index: SearchIndex | None
    queue: WakeQueue | None
    keeper: PostgresKeeper

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
            queue=self.queue,
        )


class Chain:
    def __init__(
        self, tenants: list[Tenant], service: Real, queue: LosingQueue, client: AsyncOpenSearch, database: Database
    ) -> None:
        self.tenants, self.service, self.queue, self.client, self.database = tenants, service, queue, client, database
        self.waker = Waker(queue)

    async def append(self, tenant: Tenant, count: int, *, log: LogName = EVENTS, tell: bool = True) -> int:
        """The log's next number afterwards."""
        records = [prepared(actor={"id": f"user-{number % 3}"}) for number in range(count)]
        (appended,) = await self.service.store.append([AppendRequest(tenant, log, records)])
        assert not isinstance(appended, DecklogError)
        number = appended.receipts[-1].seq + 1
        if tell:
            self.waker.wake(tenant, log, number)
        return number

    async def until_indexed(self, tenant: Tenant, number: int, log: LogName = EVENTS) -> None:
        async with asyncio.timeout(120):
            while await self.service.cursors.next_seq(indexer_of(tenant), tenant.id, log) < number:
                await asyncio.sleep(0.02)

    async def found(self, tenant: Tenant, query: Query | None = None, log: LogName = EVENTS) -> list[int]:
        assert self.service.index is not None
        return await self.service.index.find(tenant, log, Span(0, 10**9), query=query or Query(), limit=10**6, newest_first=False)

    @asynccontextmanager
    async def worker(self, *, sweep_seconds: float) -> AsyncIterator[None]:
        stop = asyncio.Event()
        given = Settings(worker=Worker(sweep_seconds=sweep_seconds, pollers=2))
        running = asyncio.create_task(self.service.work(given, stop))
        try:
            yield
        finally:
            stop.set()
            await running


@pytest.fixture
async def chain(database: Database, opensearch_server: OpenSearchServer, sqs_server: SqsServer) -> AsyncIterator[Chain]:
    """Two Dedicated tenants and two Shared ones, with indices and queues of names that nobody else has."""
    suffix = uuid.uuid4().hex[:8]
    kinds = (Isolation.DEDICATED, Isolation.DEDICATED, Isolation.SHARED, Isolation.SHARED)
    plain = [await database.tenant(f"{suffix}-{number}", isolation=kind) for number, kind in enumerate(kinds)]
    tenants = [
        living(tenant if tenant.isolation is Isolation.DEDICATED else renamed(tenant, f"decklog-shared-{suffix}"))
        for tenant in plain
    ]
    await registered(database, tenants)
    async with AsyncExitStack() as stack:
        client = connect(Search(url=opensearch_server.url))
        stack.push_async_callback(client.close)
        sqs = connect_queue(queue_settings(sqs_server))
        for name in sorted({tenant.index for tenant in tenants}):
            await make_indices(client, generation(name))
            stack.push_async_callback(remove_indices, client, name)
            url = (await asyncio.to_thread(sqs.create_queue, QueueName=name))["QueueUrl"]
            stack.push_async_callback(asyncio.to_thread, sqs.delete_queue, QueueUrl=url)
        backing = MemoryRegistry()
        for tenant in tenants:
            backing.add_tenant(tenant)
        registry = RegistryCache(backing)
        await registry.start()
        stack.push_async_callback(registry.stop)
        queue = LosingQueue(queue_settings(sqs_server), polls=2)
        stack.push_async_callback(queue.close)
        service = Real(
            registry,
            await database.records(),
            await database.cursors(),
            OpenSearchIndex(client),
            queue,
            PostgresKeeper(await database.pool(WORKER_ROLE)),
        )
        made = Chain(tenants, service, queue, client, database)
        stack.push_async_callback(made.waker.stop)
        yield made


async def registered(database: Database, tenants: list[Tenant]) -> None:
    """Register the tenants and the generations of their indices, by which the sweep finds what to do."""
    await migrate_control(database.owner_dsn)
    for tenant in tenants:
        assert tenant.live is not None
        await database.execute(
            "INSERT INTO decklog.tenants (id, name, uid, isolation, schema, index, queue, retention_days, state, display_name, spec,"
            " generation) VALUES ($1, $2, $2, $3, $4, $5, $5, 90, 0, '', '{}', 1)",
            *(tenant.id, tenant.name, tenant.isolation.value, tenant.schema, tenant.index),
        )
        await database.execute(
            "INSERT INTO decklog.search_generations (index, generation, state, starts, uuids) VALUES ($1, $2, 1, $3, $4)"
            " ON CONFLICT DO NOTHING",
            *(tenant.index, tenant.live.name, list(tenant.live.starts), ["uuid"]),
        )


def renamed(tenant: Tenant, name: str) -> Tenant:
    return msgspec.structs.replace(tenant, index=name, queue=name)


async def test_stored_records_are_found_for_their_tenant_only(chain: Chain) -> None:
    counts = {tenant.id: 10 * (number + 1) for number, tenant in enumerate(chain.tenants)}
    # Nothing is swept here: messages alone must do.
    async with chain.worker(sweep_seconds=3_600):
        heads = {tenant.id: await chain.append(tenant, counts[tenant.id]) for tenant in chain.tenants}
        for tenant in chain.tenants:
            await chain.until_indexed(tenant, heads[tenant.id])
            assert await chain.found(tenant) == list(range(counts[tenant.id]))
            assert await chain.found(tenant, asked("actor:user-1")) == list(range(1, counts[tenant.id], 3))


@pytest.mark.chaos
async def test_two_workers_index_everything_when_half_of_the_messages_are_lost(chain: Chain) -> None:
    chain.queue.lost = 0.5
    chance = random.Random(7)
    heads: dict[tuple[int, LogName], int] = {}
    async with chain.worker(sweep_seconds=0.5), chain.worker(sweep_seconds=0.5):
        for _ in range(60):
            tenant, log = chance.choice(chain.tenants), chance.choice(list(LogName))
            heads[tenant.id, log] = await chain.append(tenant, chance.randint(1, 50), log=log)
        for tenant in chain.tenants:
            for log in LogName:
                await chain.until_indexed(tenant, heads.get((tenant.id, log), 0), log)
    for tenant in chain.tenants:
        for log in LogName:
            assert await chain.found(tenant, log=log) == list(range(heads.get((tenant.id, log), 0)))


@pytest.mark.chaos
async def test_workers_killed_at_any_moment_leave_no_record_out(chain: Chain) -> None:
    chance = random.Random(11)
    tenant = chain.tenants[0]
    head = 0
    for _ in range(6):
        stop = asyncio.Event()
        given = Settings(worker=Worker(sweep_seconds=0.1, pollers=1))
        worker = asyncio.create_task(chain.service.work(given, stop))
        for _ in range(4):
            head = await chain.append(tenant, chance.randint(1, 800))
        await asyncio.sleep(chance.random() / 2)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        done = await chain.service.cursors.next_seq(indexer_of(tenant), tenant.id, EVENTS)
        assert (await chain.found(tenant))[:done] == list(range(done))
    async with chain.worker(sweep_seconds=0.1):
        await chain.until_indexed(tenant, head)
    assert await chain.found(tenant) == list(range(head))


async def test_records_below_the_floor_are_still_found(chain: Chain) -> None:
    clock = "CREATE OR REPLACE FUNCTION decklog.clock() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE AS 'SELECT {}'"
    chosen = [chain.tenants[0], chain.tenants[2]]
    await chain.database.execute(clock.format("clock_timestamp() - interval ''11 days''"))
    for tenant in chosen:
        await chain.append(tenant, 30)
    await chain.database.execute(clock.format("clock_timestamp()"))
    async with chain.worker(sweep_seconds=0.1):
        for tenant in chosen:
            await chain.append(tenant, 10)
            await chain.until_indexed(tenant, 40)
    assert chain.service.index is not None
    forgetting = Forgetting(chain.service.store, chain.service.cursors)
    search = Finding(chain.service.store, index=chain.service.index, cursors=chain.service.cursors)
    short = msgspec.structs.replace(chosen[1], limits=Limits(search_days=10))
    assert await forgetting.forget(short, EVENTS)
    assert not await forgetting.forget(short, EVENTS)
    page = await search.page(short, EVENTS, asked("actor:user-1"), limit=100)
    assert ([record.seq for record in page.items], page.coverage.indexed_from) == (
        [n for n in range(39, -1, -1) if n in ONES],
        30,
    )
    counted = await search.count(short, EVENTS, asked("actor:user-1"))
    assert (counted.total, counted.coverage.engine) == (len(ONES), "opensearch")


async def test_lost_index_is_not_created_by_writing_and_is_filled_after_its_creation(chain: Chain) -> None:
    tenant = chain.tenants[0]
    async with chain.worker(sweep_seconds=0.1):
        head = await chain.append(tenant, 300)
        await chain.until_indexed(tenant, head)
        await remove_indices(chain.client, tenant.index)
        failures = FAILURES.labels(INDEXER)._value.get()
        head = await chain.append(tenant, 5)
        async with asyncio.timeout(60):
            while FAILURES.labels(INDEXER)._value.get() == failures:
                await asyncio.sleep(0.02)
        assert await chain.client.indices.get(index=f"{tenant.index}*") == {}
        await make_indices(chain.client, generation(tenant.index))
        # As provisioning does where it has made an index anew.
        await chain.database.execute("UPDATE decklog.cursors SET next_seq = 0, owner = NULL, leased_until = 'epoch'")
        await chain.until_indexed(tenant, head)
    assert await chain.found(tenant) == list(range(head))
