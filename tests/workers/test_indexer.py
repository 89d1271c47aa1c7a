"""The consumer `indexer`: its cursor means "findable up to here", and refreshes are shared."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.consumers import INDEXER, Cursor
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName, Span
from decklog.domain.search.query import parse
from decklog.domain.store import SearchDocument
from decklog.domain.tenant import Tenant
from decklog.services.following.follow import Follower
from decklog.services.following.lines import Ended
from decklog.workers.consumers import refreshes
from decklog.workers.consumers.indexer import Indexer
from decklog.workers.consumers.refreshes import REFRESH_SHARE
from tests.support.asked import asked
from tests.support.examples import examples
from tests.support.memory import make_tenant
from tests.support.memory_index import MemoryIndex
from tests.support.memory_store import MemoryCursors, MemoryStore, fill

EVENTS = LogName.EVENTS
NO_GAP = timedelta(0)


class Faulty(MemoryIndex):
    """Takes some documents and then fails, or fails to refresh, as often as `failing_part` says."""

    def __init__(self, failing_part: float, chance: random.Random) -> None:
        super().__init__()
        self.failing_part, self._chance = failing_part, chance

    async def add(self, tenant: Tenant, documents: Sequence[SearchDocument]) -> int:
        if self._chance.random() < self.failing_part:
            await super().add(tenant, documents[: self._chance.randrange(len(documents))])
            raise DecklogError(Code.SEARCH_UNAVAILABLE, "on purpose")
        return await super().add(tenant, documents)

    async def refresh(self, *tenants: Tenant) -> None:
        if self._chance.random() < self.failing_part:
            raise DecklogError(Code.SEARCH_UNAVAILABLE, "on purpose")
        await super().refresh(*tenants)


class Slow(MemoryIndex):
    """Every refresh takes `seconds`; knows when each began."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.began: list[float] = []

    async def refresh(self, *tenants: Tenant) -> None:
        self.began.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.seconds)
        await super().refresh(*tenants)


class CheckedCursors(MemoryCursors):
    """Whatever the cursor has passed must be found, at the moment that it passes it."""

    def __init__(self, store: MemoryStore, index: MemoryIndex, tenant: Tenant) -> None:
        super().__init__(store)
        self._index, self._tenant = index, tenant

    async def move(self, cursor: Cursor, to: int, *, seconds: float) -> Cursor | None:
        assert set(range(to)) <= set(self._index.findable(self._tenant, cursor.log))
        return await super().move(cursor, to, seconds=seconds)


@settings(max_examples=examples(60), deadline=None)
@given(bursts=st.lists(st.integers(0, 30), min_size=1, max_size=5), failing=st.floats(0, 0.5), seed=st.integers(0, 2**32))
async def test_indexed_records_below_the_cursor_are_found_whatever_fails(bursts: list[int], failing: float, seed: int) -> None:
    chance = random.Random(seed)
    tenant = make_tenant("acme")
    store, index = MemoryStore(tenant), Faulty(failing, chance)
    cursors = CheckedCursors(store, index, tenant)
    workers = [
        Follower(
            INDEXER,
            store,
            cursors,
            Indexer(index, refresh_gap=NO_GAP),
            batch_records_max=chance.randint(1, 12),
            backoff_seconds=(0, 0),
        )
        for _ in range(2)
    ]
    for burst in bursts:
        await fill(store, tenant, *({} for _ in range(burst)))
        await asyncio.gather(*(worker.advance(tenant, EVENTS) for worker in workers))
    index.failing_part = 0.0
    await workers[0].advance(tenant, EVENTS)
    assert await cursors.next_seq(INDEXER, tenant.id, EVENTS) == sum(bursts)
    assert index.findable(tenant, EVENTS) == list(range(sum(bursts)))


async def test_indexer_keeps_the_cursor_when_a_batch_fails() -> None:
    tenant = make_tenant("acme")
    store, index = MemoryStore(tenant), MemoryIndex()
    cursors = MemoryCursors(store)
    worker = Follower(INDEXER, store, cursors, Indexer(index), backoff_seconds=(0, 0))
    await fill(store, tenant, {}, {})
    index.failing = DecklogError(Code.SEARCH_UNAVAILABLE, "away")
    assert await worker.advance(tenant, EVENTS) is Ended.FAILED
    assert await cursors.next_seq(INDEXER, tenant.id, EVENTS) == 0
    index.failing = None
    assert await worker.advance(tenant, EVENTS) is Ended.DONE
    assert await cursors.next_seq(INDEXER, tenant.id, EVENTS) == 2


async def test_indexer_indexes_both_logs_and_all_fields() -> None:
    tenant = make_tenant("acme")
    store, index = MemoryStore(tenant), MemoryIndex()
    worker = Follower(INDEXER, store, MemoryCursors(store), Indexer(index, refresh_gap=NO_GAP))
    await fill(store, tenant, {"action": "a.b", "metadata": {"deep": [{"er": 2**70}]}, "message": "Hello, World"})
    await fill(store, tenant, {"action": "log.read"}, log=LogName.ACCESS)
    for log in LogName:
        await worker.advance(tenant, log)
    everything: dict[str, Any] = {"span": Span(0, 9), "limit": 9, "newest_first": True}
    query = asked(f"action:a.* metadata.deep.er:{2**70} hello world")
    assert await index.find(tenant, EVENTS, query=query, **everything) == [0]
    assert await index.find(tenant, LogName.ACCESS, query=asked("action:log.read"), **everything) == [0]
    assert await index.find(tenant, LogName.ACCESS, query=query, **everything) == []


async def test_indexer_writes_every_leaf_of_large_records_in_parts() -> None:
    tenant = make_tenant("acme")
    store, index = MemoryStore(tenant), Sized()
    worker = Follower(INDEXER, store, MemoryCursors(store), Indexer(index, refresh_gap=NO_GAP))
    await fill(
        store, tenant, *({"metadata": {"n": list(range(first, first + 35_000))}} for first in (0, 100_000, 200_000)), *[{}] * 9
    )
    await worker.advance(tenant, EVENTS)
    assert index.sizes == [2, 10]
    everything: dict[str, Any] = {"span": Span(0, 99), "limit": 9, "newest_first": True}
    for number in (0, 100_000, 234_999):
        query = parse([("metadata.n", str(number))])[1]
        assert await index.find(tenant, EVENTS, query=query, **everything) == [number // 100_000]


class Sized(MemoryIndex):
    """Knows how many documents each call added."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    async def add(self, tenant: Tenant, documents: Sequence[SearchDocument]) -> int:
        self.sizes.append(len(documents))
        return await super().add(tenant, documents)


class SlowRefresh(MemoryIndex):
    """Refreshes end when `gate` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.began = 0
        self.gate = asyncio.Event()

    async def refresh(self, *tenants: Tenant) -> None:
        self.began += 1
        await self.gate.wait()
        await super().refresh(*tenants)


async def test_indexer_shares_a_refresh_that_began_after_every_caller_asked() -> None:
    index, tenant = SlowRefresh(), make_tenant("acme")
    indexer = Indexer(index, refresh_gap=NO_GAP)
    first = asyncio.create_task(indexer.settle([tenant]))
    while index.began == 0:
        await asyncio.sleep(0)
    later = [asyncio.create_task(indexer.settle([tenant])) for log in LogName for _ in range(5)]
    await asyncio.sleep(0)
    index.gate.set()
    await asyncio.gather(first, *later)
    assert (index.began, index.refreshes) == (2, 2)


async def test_indexer_refreshes_a_slow_index_more_rarely() -> None:
    tenant, index = make_tenant("acme"), Slow(seconds=0.05)
    indexer = Indexer(index, refresh_gap=NO_GAP)
    for _ in range(3):
        await indexer.settle([tenant])
    gaps = [later - earlier for earlier, later in itertools.pairwise(index.began)]
    assert all(gap >= 0.9 * index.seconds / REFRESH_SHARE for gap in gaps)  # a timer may be early by its grain


class Named(MemoryIndex):
    """Knows which indices each request refreshed. Requests with one of `broken` fail, and those with one of `stuck` wait for `gate`."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[set[str]] = []
        self.broken: set[str] = set()
        self.stuck: set[str] = set()
        self.gate = asyncio.Event()

    async def refresh(self, *tenants: Tenant) -> None:
        names = {tenant.name for tenant in tenants}
        self.requests.append(names)
        if names & self.stuck:
            await self.gate.wait()
        if names & self.broken:
            raise DecklogError(Code.SEARCH_UNAVAILABLE, "on purpose")
        await super().refresh(*tenants)


async def settle_all(indexer: Indexer, tenants: Sequence[Tenant]) -> list[BaseException | None]:
    return await asyncio.gather(*(indexer.settle([tenant]) for tenant in tenants), return_exceptions=True)


async def test_indexer_refreshes_all_indices_that_wait_by_one_request() -> None:
    index, tenants = Named(), [make_tenant(f"tenant-{number}") for number in range(50)]
    indexer = Indexer(index, refresh_gap=timedelta(milliseconds=1))
    for _ in range(2):
        assert await settle_all(indexer, tenants) == [None] * 50
    assert len(index.requests) <= 4


async def test_indexer_refreshes_an_index_that_fails_apart_from_the_others() -> None:
    index, tenants = Named(), [make_tenant(f"tenant-{number}") for number in range(5)]
    indexer = Indexer(index, refresh_gap=NO_GAP)
    index.broken = {"tenant-2"}
    for _ in range(3):
        outcomes = await settle_all(indexer, tenants)
        assert [isinstance(outcome, DecklogError) for outcome in outcomes] == [False, False, True, False, False]
    assert index.requests[-1] != {tenant.name for tenant in tenants}
    index.broken = set()
    assert await settle_all(indexer, tenants) == [None] * 5
    asked = len(index.requests)
    assert await settle_all(indexer, tenants) == [None] * 5
    assert len(index.requests) - asked <= 2


async def test_slow_index_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refreshes, "TOGETHER_SECONDS_MAX", 0.05)
    index, tenants = Named(), [make_tenant(f"tenant-{number}") for number in range(3)]
    indexer = Indexer(index, refresh_gap=NO_GAP)
    index.stuck = {"tenant-0"}
    async with asyncio.timeout(10):
        slow = asyncio.create_task(indexer.settle([tenants[0]]))
        for _ in range(2):
            assert await settle_all(indexer, tenants[1:]) == [None] * 2
        assert not slow.done()
        index.gate.set()
        await slow


async def test_indexer_raises_a_failed_refresh_for_all_callers_and_retries() -> None:
    index, tenant = MemoryIndex(), make_tenant("acme")
    indexer = Indexer(index, refresh_gap=NO_GAP)
    index.failing = DecklogError(Code.SEARCH_UNAVAILABLE, "away")
    outcomes = await asyncio.gather(*(indexer.settle([tenant]) for _ in range(3)), return_exceptions=True)
    assert outcomes == [index.failing] * 3
    index.failing = None
    await indexer.settle([tenant])


async def test_indexer_completes_a_refresh_when_one_caller_is_cancelled() -> None:
    index, tenant = SlowRefresh(), make_tenant("acme")
    indexer = Indexer(index, refresh_gap=NO_GAP)
    one, other = (asyncio.create_task(indexer.settle([tenant])) for _ in range(2))
    while index.began == 0:
        await asyncio.sleep(0)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    index.gate.set()
    await other
