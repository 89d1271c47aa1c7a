"""The registry cache: fresh or refused, and never a load that strangers control."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.store import Snapshot
from decklog.services.identity.registry import RegistryCache
from tests.support.memory import MemoryRegistry, make_tenant


@asynccontextmanager
async def cached(registry: MemoryRegistry, *, max_age: float = 2.0, interval: float = 0.02) -> AsyncIterator[RegistryCache]:
    cache = RegistryCache(registry, max_age=max_age, interval=interval)
    await cache.start()
    try:
        yield cache
    finally:
        await cache.stop()


async def until(condition: object, *, seconds: float = 5.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.005)


def stale(cache: RegistryCache) -> bool:
    try:
        _ = cache.snapshot
    except DecklogError as error:
        return error.code is Code.REGISTRY_STALE
    return False


async def test_registry_cache_is_stale_before_start() -> None:
    with pytest.raises(DecklogError) as caught:
        _ = RegistryCache(MemoryRegistry()).snapshot
    assert caught.value.code is Code.REGISTRY_STALE
    assert caught.value.retry_after == 1


async def test_registry_cache_start_raises_when_the_registry_cannot_be_read() -> None:
    registry = MemoryRegistry()
    registry.broken = True
    with pytest.raises(DecklogError) as caught:
        await RegistryCache(registry).start()
    assert caught.value.code is Code.STORAGE_UNAVAILABLE


async def test_registry_cache_polls_changes_and_sets_its_event() -> None:
    registry = MemoryRegistry()
    async with cached(registry) as cache:
        changed = cache.changed()
        acme = registry.add_tenant(make_tenant("acme"))
        await asyncio.wait_for(changed.wait(), 5)
        assert cache.snapshot.tenants[acme.id] == acme
        assert cache.tenant("acme") == acme
        assert cache.tenant("nobody") is None
        assert not cache.changed().is_set()


async def test_registry_cache_sets_no_event_without_a_change() -> None:
    registry = MemoryRegistry()
    async with cached(registry) as cache:
        changed, loads = cache.changed(), registry.loads
        await until(lambda: registry.loads > loads + 3)
        assert not changed.is_set()


async def test_registry_cache_turns_stale_while_reads_fail_and_recovers() -> None:
    registry = MemoryRegistry()
    async with cached(registry, max_age=0.2) as cache:
        assert cache.snapshot.version == registry.version
        registry.broken = True
        await until(lambda: stale(cache))
        registry.broken = False
        await until(lambda: not stale(cache))


async def test_registry_cache_turns_stale_while_a_read_hangs_and_recovers() -> None:
    class Hanging(MemoryRegistry):
        hangs = False

        async def load(self, known: int | None) -> Snapshot | None:
            if self.hangs:
                await asyncio.Event().wait()
            return await super().load(known)

    registry = Hanging()
    async with cached(registry, max_age=0.2) as cache:
        registry.hangs = True
        await until(lambda: stale(cache))
        registry.hangs = False
        await until(lambda: not stale(cache))


async def test_registry_cache_refresh_returns_a_new_key() -> None:
    registry = MemoryRegistry()
    async with cached(registry, interval=60) as cache:
        registry.add_key(registry.add_tenant(make_tenant("acme")), Role.WRITER)
        assert not cache.snapshot.keys
        await cache.refresh()
        assert len(cache.snapshot.keys) == 1


async def test_registry_cache_reads_once_for_many_refreshes_at_once() -> None:
    registry = MemoryRegistry()
    async with cached(registry, interval=60) as cache:
        loads = registry.loads
        await asyncio.gather(*(cache.refresh() for _ in range(100)))
        assert registry.loads == loads + 1


async def test_registry_cache_reads_a_stale_snapshot_again_unless_reads_fail() -> None:
    registry = MemoryRegistry()
    async with cached(registry, max_age=0.3, interval=60) as cache:
        await asyncio.sleep(0.35)
        assert not cache.fresh
        assert (await cache.current()).version == registry.version
        registry.broken = True
        await asyncio.sleep(0.35)
        for _ in range(3):
            with pytest.raises(DecklogError) as caught:
                await cache.current()
            assert caught.value.code is Code.REGISTRY_STALE
        tried = registry.loads
        await asyncio.sleep(0.25)
        with pytest.raises(DecklogError):
            await cache.current()
        assert registry.loads == tried


async def test_registry_cache_refresh_waits_for_a_read_that_is_running() -> None:
    class Slow(MemoryRegistry):
        async def load(self, known: int | None) -> Snapshot | None:
            await asyncio.sleep(0.05)
            return await super().load(known)

    registry = Slow()
    async with cached(registry, interval=60) as cache:
        registry.add_key(registry.add_tenant(make_tenant("acme")), Role.WRITER)

        async def ask() -> int:
            await cache.refresh()
            return len(cache.snapshot.keys)

        assert await asyncio.gather(*(ask() for _ in range(10))) == [1] * 10
