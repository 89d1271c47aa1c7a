"""An index is rebuilt over the real backends while records are stored and searched."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from decklog.domain.consumers import indexer_of
from decklog.domain.errors import DecklogError
from decklog.domain.log import LogName, Span
from decklog.domain.records.append import AppendRequest
from decklog.domain.search.query import Query
from decklog.domain.tenant import Tenant
from decklog.opensearch.client import connect
from decklog.opensearch.ranges import OpenSearchRanges
from decklog.opensearch.search import OpenSearchIndex
from decklog.services.identity.registry import RegistryCache
from decklog.services.search import tending
from decklog.services.search.forgetting import Forgetting
from decklog.services.search.rebuilding import rebuild, watch
from decklog.settings import Search, Settings, Worker
from decklog.timescale.connection import WORKER_ROLE
from decklog.timescale.control.generations import PostgresGenerations
from decklog.timescale.control.registry import PostgresRegistry
from decklog.timescale.records.keeper import PostgresKeeper
from decklog.workers import runner
from decklog.workers.duties import indices
from tests.backends import OpenSearchServer
from tests.support.control import Control, control
from tests.support.records import prepared
from tests.support.vaults import MemoryVault

__all__ = ["control"]

EVENTS = LogName.EVENTS


async def test_index_is_rebuilt_while_records_are_stored_and_searched(
    control: Control, opensearch_server: OpenSearchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indices, "EVERY", timedelta(seconds=0.1))
    monkeypatch.setattr(tending, "LAG_MAX", 0)
    client = control.search(opensearch_server)
    await control.provisioner(client).reconcile(control.manifest(), MemoryVault())
    store, cursors = await control.database.records(), await control.database.cursors()
    pool = await control.database.pool(WORKER_ROLE)
    reader = PostgresRegistry(await control.database.pool())
    generations, ranges = PostgresGenerations(pool), OpenSearchRanges(connect(Search(url=opensearch_server.url)), replicas=0)
    registry, index = RegistryCache(PostgresRegistry(pool)), OpenSearchIndex(client)
    stop = asyncio.Event()

    async def append(tenant: Tenant, count: int) -> None:
        [appended] = await store.append([AppendRequest(tenant, EVENTS, [prepared() for _ in range(count)])])
        assert not isinstance(appended, DecklogError)

    async def current() -> Tenant:
        [tenant] = (await reader.find(names=["acme"])).tenants
        return tenant

    async def found(tenant: Tenant) -> tuple[list[int], int]:
        """What the index finds, and the number up to which it must."""
        done = await cursors.next_seq(indexer_of(tenant), tenant.id, EVENTS)
        span = Span(0, 10**9)
        return await index.find(tenant, EVENTS, span, query=Query(), limit=10**5, newest_first=False), done

    await registry.start()
    worker = asyncio.create_task(
        runner.run(
            stop,
            Settings(worker=Worker(sweep_seconds=0.1, pollers=1)),
            registry=registry,
            store=store,
            cursors=cursors,
            keeper=PostgresKeeper(pool),
            index=index,
            tending=tending.Tending(generations, ranges, PostgresRegistry(pool), Forgetting(store, cursors)),
        )
    )
    try:
        before = await current()
        await append(before, 300)
        async with asyncio.timeout(120):
            while (await found(before))[1] < 300:
                await asyncio.sleep(0.05)
            [tended] = [each for each in await generations.all() if each.name == before.index]
            built = await rebuild(tended, generations, ranges)
            assert built is not None
            looks = 0
            async for progress in watch([built], generations, pause=0.05):
                tenant, looks = await current(), looks + 1
                seqs, done = await found(tenant)
                assert set(seqs) >= set(range(done))
                assert len(seqs) == len(set(seqs))
                if progress.left and looks <= 50:  # a generation that must lack nothing is switched to once writers pause
                    await append(tenant, 20)
            after = await current()
            head = (await store.head(after, EVENTS)).next_seq
            while (await found(after))[1] < head:
                await asyncio.sleep(0.05)
        assert after.live == built
        assert (await found(after))[0] == list(range(head))
    finally:
        stop.set()
        await worker
        await registry.stop()
        await ranges._client.close()
