"""Conformance of `ApiKeys`: in memory and on PostgreSQL, keys belong to one tenant, are bounded, and only made ones are revoked."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from decklog.domain.identity.access import Role
from decklog.domain.store import Registry
from decklog.domain.tenancy.api_keys import KEYS_MAX, ApiKeys, KeyRefusal, KeySource, ListedKey, NewKey
from decklog.domain.tenancy.parts.keys import TENANT_ROLES
from decklog.domain.tenant import State, Tenant
from decklog.services.identity.keys import new_key
from decklog.timescale.control.api_keys import PostgresApiKeys
from tests.support.control import installation
from tests.support.memory import MemoryRegistry, make_tenant
from tests.support.memory_keys import MemoryKeys
from tests.support.vaults import MemoryVault


class World(NamedTuple):
    """Two tenants with provisioned keys, and a third one that is suspended."""

    keys: ApiKeys
    registry: Registry
    one: Tenant
    two: Tenant
    suspended: Tenant


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest) -> Any:
    if request.param == "memory":
        registry = MemoryRegistry()
        tenants = [registry.add_tenant(make_tenant(name)) for name in ("one", "two")]
        for tenant in tenants:
            for role in TENANT_ROLES:
                registry.add_key(tenant, role)
        one, two = tenants
        yield World(MemoryKeys(registry), registry, one, two, registry.add_tenant(make_tenant("three", state=State.SUSPENDED)))
        return
    async with installation(request.getfixturevalue("postgres_server")) as control:
        provisioner, names = control.provisioner(), ("one", "two", "three")
        for name in names:
            manifest = control.manifest(name, uid=f"uid-{name}", isolation="Shared", suspend=name == "three")
            assert (await provisioner.reconcile(manifest, MemoryVault())).ready
        one, two, three = [await control.tenant(name) for name in names]
        yield World(PostgresApiKeys(await control.database.pool()), await control.registry(), one, two, three)


def wanted(**changes: Any) -> NewKey:
    key_id, _, hashed = new_key()
    given = {"role": Role.WRITER, "name": "billing", "created_by": "api_key::0f3a9c51d2e4b687", "seconds": None, **changes}
    return NewKey(id=key_id, hash=hashed, **given)


async def made(world: World, **changes: Any) -> ListedKey:
    key = await world.keys.make(world.one, wanted(**changes))
    assert isinstance(key, ListedKey)
    return key


async def served(world: World, key_id: str) -> bool:
    return bool((await world.registry.find(keys=[key_id])).keys)


async def test_made_keys_are_listed_before_provisioned_ones_and_ended_ones_last(world: World) -> None:
    first, second = await made(world), await made(world, role=Role.ADMIN, name="ops", seconds=3600)
    listed = await world.keys.all(world.one)
    assert listed[:2] == [second, first]
    assert (second.role, second.name, second.source) == (Role.ADMIN, "ops", KeySource.API)
    assert second.expires_at is not None
    assert (second.expires_at - second.created_at).total_seconds() == 3600
    assert first.expires_at is None
    for key in listed[2:]:
        assert (key.source, key.name, key.created_by, key.revoked_at) == (KeySource.PROVISIONED, None, None, None)
    assert {key.role for key in listed[2:]} == set(TENANT_ROLES)

    assert await world.keys.revoke(world.one, second.id)
    assert await world.keys.revoke(world.one, first.id)
    listed = await world.keys.all(world.one)
    assert [key.source for key in listed[:3]] == [KeySource.PROVISIONED] * 3
    assert [key.id for key in listed[3:]] == [second.id, first.id]
    assert all(key.revoked_at is not None for key in listed[3:])
    # A second revocation changes nothing.
    assert await world.keys.revoke(world.one, first.id)
    assert await world.keys.all(world.one) == listed


async def test_made_key_is_served_by_the_registry_until_it_ends(world: World) -> None:
    lasting, ending = await made(world), await made(world, seconds=0)
    found = await world.registry.find(keys=[lasting.id])
    assert [(key.id, key.tenant_id, key.role, key.expires_at) for key in found.keys] == [
        (lasting.id, world.one.id, Role.WRITER, None)
    ]
    assert [tenant.name for tenant in found.tenants] == ["one"]
    assert not await served(world, ending.id)
    before = found.version
    assert await world.keys.revoke(world.one, lasting.id)
    assert not await served(world, lasting.id)
    changes = await world.registry.changes(before)
    assert changes.complete
    assert changes.keys == {lasting.id}


async def test_keys_of_tenants_are_apart_and_provisioned_ones_are_not_revoked(world: World) -> None:
    mine = await made(world)
    assert await world.keys.source(world.one, mine.id) is KeySource.API
    assert await world.keys.source(world.two, mine.id) is None
    assert not await world.keys.revoke(world.two, mine.id)
    [provisioned, *_] = (key for key in await world.keys.all(world.one) if key.source is KeySource.PROVISIONED)
    assert await world.keys.source(world.one, provisioned.id) is KeySource.PROVISIONED
    assert await world.keys.source(world.two, provisioned.id) is None
    assert not await world.keys.revoke(world.one, provisioned.id)
    assert await served(world, mine.id)
    assert await served(world, provisioned.id)
    assert mine.id not in {key.id for key in await world.keys.all(world.two)}


async def test_keys_in_force_and_keys_of_an_hour_are_bounded(world: World) -> None:
    keys = [await made(world) for _ in range(KEYS_MAX)]
    assert await world.keys.make(world.one, wanted()) is KeyRefusal.FULL
    assert isinstance(await world.keys.make(world.two, wanted()), ListedKey)
    assert await world.keys.revoke(world.one, keys[0].id)
    assert await world.keys.make(world.one, wanted()) is KeyRefusal.TOO_FAST


async def test_tenant_that_is_not_active_gets_no_key(world: World) -> None:
    assert await world.keys.make(world.suspended, wanted()) is KeyRefusal.GONE
