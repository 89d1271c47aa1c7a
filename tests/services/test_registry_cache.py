"""The registry cache: fresh or refused, bounded, and right after each change without reading what did not change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.store import Registered, RegistryChanges
from decklog.domain.tenant import PLATFORM_TENANT, State, Tenant
from decklog.services.identity.entries import UNKNOWN_SECONDS_MAX, Entries
from decklog.services.identity.identity import Identity
from decklog.services.identity.issuers import Issuers
from decklog.services.identity.registry import READ_AGAIN_MAX, RegistryCache
from tests.support.memory import MemoryRegistry, make_tenant


@asynccontextmanager
async def cached(
    registry: MemoryRegistry, *, max_age: float = 2.0, interval: float = 0.02, **options: Any
) -> AsyncIterator[RegistryCache]:
    cache = RegistryCache(registry, max_age=max_age, interval=interval, **options)
    await cache.start()
    try:
        yield cache
    finally:
        await cache.stop()


async def until(condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.005)


def stale(cache: RegistryCache) -> bool:
    try:
        _ = cache.version
    except DecklogError as error:
        return error.code is Code.REGISTRY_STALE
    return False


def key_id(token: str) -> str:
    return token.split("_")[1]


def suspended(tenant: Tenant) -> Tenant:
    return msgspec.structs.replace(tenant, state=State.SUSPENDED)


# Age


async def test_registry_cache_is_stale_before_start() -> None:
    cache = RegistryCache(MemoryRegistry())
    with pytest.raises(DecklogError) as caught:
        _ = cache.version
    assert (caught.value.code, caught.value.retry_after) == (Code.REGISTRY_STALE, 1)
    for ask in (lambda: cache.cached_key("k"), lambda: cache.cached_tenant(1), lambda: cache.cached_named("acme")):
        with pytest.raises(DecklogError):
            ask()
    for look_up in (cache.key("k"), cache.tenant(1), cache.named("acme"), cache.queues(), anext(cache.searching())):
        with pytest.raises(DecklogError) as caught:
            await look_up
        assert caught.value.code is Code.REGISTRY_STALE


async def test_registry_cache_start_raises_when_the_registry_cannot_be_read() -> None:
    registry = MemoryRegistry()
    registry.broken = True
    with pytest.raises(DecklogError) as caught:
        await RegistryCache(registry).start()
    assert caught.value.code is Code.STORAGE_UNAVAILABLE


async def test_registry_cache_polls_changes_and_sets_its_event() -> None:
    registry = MemoryRegistry()
    async with cached(registry) as cache:
        assert await cache.named("acme") is None
        changed = cache.changed()
        acme = registry.add_tenant(make_tenant("acme"))
        await asyncio.wait_for(changed.wait(), 5)
        assert await cache.tenant(acme.id) == await cache.named("acme") == acme
        assert await cache.named("nobody") is None
        assert not cache.changed().is_set()


async def test_registry_cache_sets_no_event_without_a_change() -> None:
    registry = MemoryRegistry()
    async with cached(registry) as cache:
        changed, polls = cache.changed(), registry.polls
        await until(lambda: registry.polls > polls + 3)
        assert not changed.is_set()


async def test_registry_cache_follows_a_change_upon_its_notice() -> None:
    class Noticing:
        heard: Callable[[], None]

        async def start(self, heard: Callable[[], None]) -> None:
            self.heard = heard

        async def stop(self) -> None:
            pass

    registry, notices = MemoryRegistry(), Noticing()
    async with cached(registry, interval=60, notices=notices) as cache:
        token = registry.add_key(None, Role.PLATFORM)
        await cache.key(key_id(token))
        registry.revoke(token)
        notices.heard()
        await asyncio.wait_for(cache.changed().wait(), 5)
        assert await cache.key(key_id(token)) is None


async def test_registry_cache_turns_stale_while_reads_fail_and_recovers() -> None:
    registry = MemoryRegistry()
    async with cached(registry, max_age=0.2) as cache:
        assert cache.version == registry.version
        registry.broken = True
        await until(lambda: stale(cache))
        registry.broken = False
        await until(lambda: not stale(cache))


async def test_registry_cache_turns_stale_while_a_read_hangs_and_recovers() -> None:
    class Hanging(MemoryRegistry):
        hangs = False

        async def changes(self, known: int | None) -> RegistryChanges:
            if self.hangs:
                await asyncio.Event().wait()
            return await super().changes(known)

    registry = Hanging()
    async with cached(registry, max_age=0.2) as cache:
        registry.hangs = True
        await until(lambda: stale(cache))
        registry.hangs = False
        await until(lambda: not stale(cache))


async def test_registry_cache_reads_once_for_many_refreshes_at_once() -> None:
    registry = MemoryRegistry()
    async with cached(registry, interval=60) as cache:
        polls = registry.polls
        await asyncio.gather(*(cache.refresh() for _ in range(100)))
        assert registry.polls == polls + 1


async def test_registry_cache_polls_a_stale_version_again_unless_polls_fail() -> None:
    registry = MemoryRegistry()
    async with cached(registry, max_age=0.3, interval=60) as cache:
        await asyncio.sleep(0.35)
        assert not cache.fresh
        assert await cache.current() == registry.version
        registry.broken = True
        await asyncio.sleep(0.35)
        for _ in range(3):
            with pytest.raises(DecklogError) as caught:
                await cache.current()
            assert caught.value.code is Code.REGISTRY_STALE
        tried = registry.polls
        await asyncio.sleep(0.25)
        with pytest.raises(DecklogError):
            await cache.current()
        assert registry.polls == tried


# Look-ups


async def test_new_key_is_found_before_the_next_poll() -> None:
    registry = MemoryRegistry()
    async with cached(registry, interval=60) as cache:
        token = registry.add_key(registry.add_tenant(make_tenant("acme")), Role.WRITER)
        found = await cache.key(key_id(token))
        assert found == registry.keys[key_id(token)]


async def test_look_ups_at_once_share_one_query_and_known_things_need_none() -> None:
    registry = MemoryRegistry()
    acme = registry.add_tenant(make_tenant("acme"))
    tokens = [registry.add_key(acme, Role.WRITER) for _ in range(100)]
    async with cached(registry, interval=60) as cache:
        finds = registry.finds
        keys = await asyncio.gather(*(cache.key(key_id(token)) for token in tokens))
        assert all(keys)
        assert registry.finds - finds <= 2
        finds = registry.finds
        assert await cache.tenant(acme.id) == await cache.named("acme") == acme
        assert [await cache.key(key_id(token)) for token in tokens] == keys
        assert registry.finds == finds


async def test_unknown_keys_cause_no_second_query_and_push_out_no_key_in_use() -> None:
    registry = MemoryRegistry()
    acme = registry.add_tenant(make_tenant("acme"))
    token = registry.add_key(acme, Role.WRITER)
    entries = Entries(keys_max=2, tenants_max=2, unknown_max=100)
    async with cached(registry, interval=60, entries=entries) as cache:
        await cache.key(key_id(token))
        guesses = [f"{number:016x}" for number in range(1_000)]
        finds = registry.finds
        assert not any(await asyncio.gather(*(cache.key(guess) for guess in guesses)))
        assert registry.finds - finds <= 3
        finds = registry.finds
        assert await cache.key(guesses[-1]) is None
        assert await cache.key(key_id(token)) is not None
        assert registry.finds == finds
        assert entries.sizes == (1, 1, 100)


async def test_key_that_was_unknown_is_found_after_its_creation_and_after_a_moment() -> None:
    now = 0.0
    registry, entries = MemoryRegistry(), Entries(monotonic=lambda: now)
    async with cached(registry, interval=60, entries=entries) as cache:
        token = registry.add_key(None, Role.PLATFORM)
        key = registry.keys.pop(key_id(token))
        await cache.refresh()
        assert await cache.key(key.id) is None
        registry.keys[key.id] = key  # without a change: as if this process had not followed it yet
        assert await cache.key(key.id) is None
        now += UNKNOWN_SECONDS_MAX
        assert await cache.key(key.id) == key
        registry.drop_key(key.id)
        await cache._loads(None)
        assert await cache.key(key.id) is None
        registry.put_key(key)
        await cache._loads(None)
        assert await cache.key(key.id) == key


async def test_look_up_raises_registry_stale_when_the_database_fails() -> None:
    registry = MemoryRegistry()
    async with cached(registry, interval=60) as cache:
        registry.broken = True
        with pytest.raises(DecklogError) as caught:
            await cache.key("0" * 16)
        assert caught.value.code is Code.REGISTRY_STALE


async def test_entries_stay_within_their_bounds_and_the_platform_stays_among_them() -> None:
    registry = MemoryRegistry()
    registry.add_tenant(make_tenant(PLATFORM_TENANT))
    tenants = [registry.add_tenant(make_tenant(f"t{number}")) for number in range(20)]
    tokens = [registry.add_key(tenant, Role.WRITER) for tenant in tenants]
    entries = Entries(keys_max=5, tenants_max=6)
    async with cached(registry, interval=60, entries=entries) as cache:
        for token, tenant in zip(tokens, tenants, strict=True):
            key = await cache.key(key_id(token))
            assert key is not None
            assert cache.cached_tenant(tenant.id) == tenant
        assert entries.sizes[:2] == (6, 5)
        assert cache.cached_named(PLATFORM_TENANT) is not None
        assert cache.cached_key(key_id(tokens[0])) is None
        assert cache.cached_named("t0") is None
        assert (await cache.named("t0")) == tenants[0]


# Changes


async def test_change_reads_only_what_is_known_and_changed() -> None:
    registry = MemoryRegistry()
    registry.add_tenant(make_tenant(PLATFORM_TENANT))
    tenants = [registry.add_tenant(make_tenant(f"t{number}")) for number in range(200)]
    tokens = [registry.add_key(tenant, Role.WRITER) for tenant in tenants]
    async with cached(registry, interval=60) as cache:
        for token in tokens[:100]:
            await cache.key(key_id(token))
        rows = registry.rows
        registry.add_tenant(suspended(tenants[0]))  # known
        registry.revoke(tokens[1])  # known
        registry.add_tenant(suspended(tenants[150]))  # unknown
        await cache.refresh()
        assert registry.rows - rows == 1
        known = cache.cached_tenant(tenants[0].id)
        assert known is not None
        assert known.state is State.SUSPENDED
        assert cache.cached_key(key_id(tokens[1])) is None
        assert cache.cached_tenant(tenants[150].id) is None
        assert cache.cached_key(key_id(tokens[2])) is not None


async def test_changes_of_more_than_is_read_again_are_looked_up_when_used() -> None:
    registry = MemoryRegistry()
    registry.add_tenant(make_tenant(PLATFORM_TENANT))
    tenants = [registry.add_tenant(make_tenant(f"t{number}")) for number in range(READ_AGAIN_MAX + 1)]
    async with cached(registry, interval=60) as cache:
        await asyncio.gather(*(cache.tenant(tenant.id) for tenant in tenants))
        for tenant in tenants:
            registry.add_tenant(suspended(tenant))
        rows = registry.rows
        await cache.refresh()
        assert registry.rows == rows
        assert cache.cached_tenant(tenants[0].id) is None
        found = await cache.tenant(tenants[0].id)
        assert found is not None
        assert found.state is State.SUSPENDED


async def test_changes_that_are_not_listed_evict_everything() -> None:
    registry = MemoryRegistry()
    registry.add_tenant(make_tenant(PLATFORM_TENANT))
    acme = registry.add_tenant(make_tenant("acme"))
    token = registry.add_key(acme, Role.WRITER)
    async with cached(registry, interval=60) as cache:
        await cache.key(key_id(token))
        registry.tenants[acme.id] = suspended(acme)
        registry.version += 1
        await cache.refresh()
        assert cache.cached_key(key_id(token)) is None
        assert cache.cached_named(PLATFORM_TENANT) is not None
        found = await cache.tenant(acme.id)
        assert found is not None
        assert found.state is State.SUSPENDED
        registry.version = 1  # a restored database
        registry.log.clear()
        await asyncio.sleep(0.2)
        await cache.refresh()
        assert cache.version == 1
        assert cache.cached_tenant(acme.id) is None


class Gated(MemoryRegistry):
    """Answers of `find` are as of its beginning and arrive when `opened` is set, where `gated` says so."""

    def __init__(self) -> None:
        super().__init__()
        self.gated = False
        self.asked = asyncio.Event()
        self.opened = asyncio.Event()

    async def find(self, *, tenants: Sequence[int] = (), names: Sequence[str] = (), keys: Sequence[str] = ()) -> Registered:
        found = await super().find(tenants=tenants, names=names, keys=keys)
        if self.gated:
            self.gated = False
            self.asked.set()
            await self.opened.wait()
        return found


async def test_look_up_that_began_before_a_change_does_not_bring_back_what_it_revoked() -> None:
    registry = Gated()
    token = registry.add_key(registry.add_tenant(make_tenant("acme")), Role.WRITER)
    async with cached(registry, interval=60) as cache:
        registry.gated = True
        looking = asyncio.create_task(cache.key(key_id(token)))
        await registry.asked.wait()
        registry.revoke(token)
        await cache.refresh()
        registry.opened.set()
        assert await looking is None
        assert cache.cached_key(key_id(token)) is None


async def test_key_that_is_looked_up_while_its_change_is_followed_is_not_left_as_it_was() -> None:
    registry = Gated()
    registry.add_tenant(make_tenant(PLATFORM_TENANT))
    acme = registry.add_tenant(make_tenant("acme"))
    held, other = (registry.add_key(acme, Role.WRITER) for _ in range(2))
    async with cached(registry, interval=60) as cache:
        await cache.key(key_id(held))
        version = registry.version
        registry.put_key(msgspec.structs.replace(registry.keys[key_id(held)], role=Role.ADMIN))
        registry.revoke(other)
        registry.gated = True
        following = asyncio.create_task(cache.refresh())
        await registry.asked.wait()
        # As a look-up would have done that read the other key just before it was revoked.
        old = registry.keys[key_id(held)]
        cache._entries.put(Registered(version, [], [msgspec.structs.replace(old, id=key_id(other))]))
        registry.opened.set()
        await following
        assert cache.cached_key(key_id(other)) is None
        known = cache.cached_key(key_id(held))
        assert known is not None
        assert known.role is Role.ADMIN


async def test_key_that_is_revoked_while_its_tenant_is_looked_up_is_not_recognised_afterwards() -> None:
    registry = Gated()
    token = registry.add_key(registry.add_tenant(make_tenant("acme")), Role.WRITER)
    async with cached(registry, interval=60, entries=Entries(tenants_max=0)) as cache:
        identity = Identity(cache, Issuers([], fetch=no_network))
        await cache.key(key_id(token))
        registry.gated = True
        asking = asyncio.create_task(identity.authenticate(token))
        await registry.asked.wait()
        registry.revoke(token)
        await cache.refresh()
        assert identity.recognise(token) is None
        registry.opened.set()
        await asyncio.gather(asking, return_exceptions=True)
        assert identity.recognise(token) is None
        with pytest.raises(DecklogError) as caught:
            await identity.authenticate(token)
        assert caught.value.code is Code.UNAUTHENTICATED


async def no_network(url: str) -> bytes:
    raise OSError(url)


async def test_suspension_and_revocation_are_effective_in_every_process_however_many_look_ups_run() -> None:
    """Random reads and changes: no process ever serves what was withdrawn at the version that it shows."""
    registry = MemoryRegistry()
    registry.add_tenant(make_tenant(PLATFORM_TENANT))
    acme = registry.add_tenant(make_tenant("acme"))
    tokens = [registry.add_key(acme, Role.WRITER) for _ in range(30)]
    small = Entries(keys_max=7, tenants_max=3)
    async with cached(registry, interval=0.001) as one, cached(registry, interval=0.002, entries=small) as two:
        revoked: dict[str, int] = {}

        async def use(cache: RegistryCache) -> None:
            for _ in range(8):
                for token in tokens:
                    key = await cache.key(key_id(token))
                    assert (key is None) or revoked.get(token, cache.version + 1) > cache.version
                await asyncio.sleep(0)

        async def withdraw() -> None:
            for token in tokens[::2]:
                registry.revoke(token)
                revoked[token] = registry.version
                await asyncio.sleep(0.002)

        await asyncio.gather(use(one), use(two), use(one), use(two), withdraw())
        for cache in (one, two):
            await until(lambda cache=cache: cache.version == registry.version)  # type: ignore[misc]
            found = [await cache.key(key_id(token)) is not None for token in tokens]
            assert found == [token not in revoked for token in tokens]


async def test_pages_of_tenants_with_search_days_follow_each_other() -> None:
    registry = MemoryRegistry()
    for number in range(3):
        tenant = make_tenant(f"t{number}")
        registry.add_tenant(msgspec.structs.replace(tenant, limits=msgspec.structs.replace(tenant.limits, search_days=number)))
    async with cached(registry, interval=60) as cache:
        assert [tenant.name async for tenant in cache.searching()] == ["t1", "t2"]
        assert await cache.queues() == {tenant.queue for tenant in registry.tenants.values()}
