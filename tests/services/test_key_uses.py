"""The last use of keys: noted without a cost for a cached principal, and written once in each interval."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.services.identity import identity as identities
from decklog.services.identity.identity import Identity
from decklog.services.identity.issuers import Issuers
from decklog.services.identity.registry import RegistryCache
from decklog.services.identity.uses import KeyUses
from tests.support.memory import MemoryRegistry, make_tenant


class Written:
    """Where uses are stored; `broken` makes it fail."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.broken = False

    async def note_uses(self, ids: Sequence[str]) -> None:
        if self.broken:
            raise DecklogError(Code.STORAGE_UNAVAILABLE, "The store is broken on purpose.")
        self.groups.append(list(ids))


class World:
    """An identity over a registry in memory, with two keys of a tenant."""

    def __init__(self, cache: RegistryCache, registry: MemoryRegistry) -> None:
        tenant = registry.add_tenant(make_tenant("acme"))
        self.tokens = [registry.add_key(tenant, role) for role in (Role.WRITER, Role.ADMIN)]
        self.ids = [token.split("_")[1] for token in self.tokens]
        self.identity = Identity(cache, Issuers([], fetch=_no_network))
        self.written = Written()
        self.uses = KeyUses(self.identity, self.written)


async def _no_network(url: str) -> bytes:
    raise OSError(url)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    registry = MemoryRegistry()
    cache = RegistryCache(registry, max_age=30)
    made = World(cache, registry)
    await cache.start()
    yield made
    await cache.stop()


async def test_each_used_key_is_written_once_in_each_interval(world: World) -> None:
    await world.uses.write()
    for _ in range(3):
        await world.identity.authenticate(world.tokens[0])
    await world.uses.write()
    await world.uses.write()
    # A cached principal is one of the interval before, and its next use is noted again.
    assert world.identity.recognise(world.tokens[0]) is not None
    await world.identity.authenticate(world.tokens[1])
    await world.uses.write()
    assert world.written.groups == [[world.ids[0]], sorted(world.ids)]


async def test_refused_credential_is_no_use_and_an_open_stream_is_one(world: World) -> None:
    token = world.tokens[0]
    with pytest.raises(DecklogError):
        await world.identity.authenticate(token[:-1] + ("0" if token[-1] != "0" else "1"))
    await world.uses.write()
    assert world.written.groups == []
    principal = await world.identity.authenticate(token)
    await world.uses.write()
    assert await world.identity.still_valid(principal)
    await world.uses.write()
    assert world.written.groups == [[world.ids[0]]] * 2


async def test_use_is_written_later_if_the_database_is_away_and_at_the_end_of_the_process(world: World) -> None:
    world.written.broken = True
    await world.identity.authenticate(world.tokens[0])
    with pytest.raises(DecklogError):
        await world.uses.write()
    world.written.broken = False
    await world.identity.authenticate(world.tokens[1])
    await world.uses.start()
    await world.uses.stop()
    assert world.written.groups == [sorted(world.ids)]


async def test_noted_uses_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identities, "USED_MAX", 1)
    for token in world.tokens:
        await world.identity.authenticate(token)
    assert world.identity.take_used() == {world.ids[0]}
