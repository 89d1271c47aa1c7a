"""Conformance of `Registry`: in memory and on PostgreSQL a load returns everything if there was a change, else None."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec
import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.store import Registry, Snapshot
from decklog.domain.tenant import Isolation, Limits, State, Tenant
from decklog.services.identity.keys import key_hash
from decklog.timescale.connection import Pool
from decklog.timescale.control.registry import PostgresRegistry
from tests.support.control import NOBODY_LISTENS, Control, control, installation
from tests.support.memory import MemoryRegistry, make_tenant
from tests.support.vaults import MemoryVault

__all__ = ["control"]


class Registered(Protocol):
    """A registry and ways to change it."""

    @property
    def registry(self) -> Registry: ...

    async def add(self, name: str, isolation: Isolation) -> dict[Role, str]:
        """Create a tenant with a key per role."""
        ...

    async def suspend(self, name: str) -> None: ...

    async def limit(self, name: str, limits: Limits) -> None: ...

    async def delete(self, name: str) -> None: ...

    async def revoke(self, token: str) -> None: ...

    async def platform_key(self) -> str: ...


class InMemory:
    def __init__(self) -> None:
        self.registry = self._memory = MemoryRegistry()

    def _tenant(self, name: str) -> Tenant:
        return next(tenant for tenant in self._memory.tenants.values() if tenant.name == name)

    async def add(self, name: str, isolation: Isolation) -> dict[Role, str]:
        tenant = self._memory.add_tenant(make_tenant(name, isolation=isolation))
        return {role: self._memory.add_key(tenant, role) for role in (Role.WRITER, Role.AUDITOR, Role.ADMIN)}

    async def suspend(self, name: str) -> None:
        old = self._tenant(name)
        values = {field: getattr(old, field) for field in Tenant.__struct_fields__}
        self._memory.add_tenant(Tenant(**{**values, "state": State.SUSPENDED}))

    async def limit(self, name: str, limits: Limits) -> None:
        self._memory.add_tenant(msgspec.structs.replace(self._tenant(name), limits=limits))

    async def delete(self, name: str) -> None:
        tenant = self._tenant(name)
        for key in [key for key in self._memory.keys.values() if key.tenant_id == tenant.id]:
            del self._memory.keys[key.id]
        self._memory.remove_tenant(tenant)

    async def revoke(self, token: str) -> None:
        self._memory.revoke(token)

    async def platform_key(self) -> str:
        return self._memory.add_key(None, Role.PLATFORM)


class InPostgres:
    """Changed by provisioning as the owner, read by the service's role."""

    def __init__(self, control: Control, registry: PostgresRegistry) -> None:
        self.control = control
        self.registry = registry
        self._provisioner = control.provisioner()
        self._vault = MemoryVault()
        self._isolation: dict[str, Isolation] = {}

    async def add(self, name: str, isolation: Isolation) -> dict[Role, str]:
        self._isolation[name] = isolation
        manifest = self.control.manifest(name, uid=f"uid-{name}", isolation=isolation.value, displayName=name.title())
        assert (await self._provisioner.reconcile(manifest, self._vault)).ready
        return self._vault.keys[name]

    async def suspend(self, name: str) -> None:
        isolation = self._isolation[name].value
        manifest = self.control.manifest(name, uid=f"uid-{name}", generation=2, suspend=True, isolation=isolation)
        assert (await self._provisioner.reconcile(manifest, self._vault)).ready

    async def limit(self, name: str, limits: Limits) -> None:
        spec = {"quotas": {"streams": limits.streams}, "ingest": {"recordBytesMax": limits.record_bytes_max}}
        manifest = self.control.manifest(name, uid=f"uid-{name}", generation=2, isolation=self._isolation[name].value, **spec)
        assert (await self._provisioner.reconcile(manifest, self._vault)).ready

    async def delete(self, name: str) -> None:
        manifest = self.control.manifest(name, uid=f"uid-{name}", isolation=self._isolation[name].value)
        assert (await self._provisioner.remove(manifest)).synced

    async def revoke(self, token: str) -> None:
        await self.control.database.execute("UPDATE decklog.api_keys SET revoked_at = now() WHERE hash = $1", key_hash(token))

    async def platform_key(self) -> str:
        return await self._provisioner.ensure_platform_key(None)


@pytest.fixture(params=["memory", "postgres"])
async def registered(request: pytest.FixtureRequest) -> AsyncIterator[Registered]:
    if request.param == "memory":
        yield InMemory()
        return
    async with installation(request.getfixturevalue("postgres_server")) as made:
        yield InPostgres(made, await made.registry())


async def load(registry: Registry, known: int | None = None) -> Snapshot:
    snapshot = await registry.load(known)
    assert snapshot is not None
    return snapshot


def named(snapshot: Snapshot, name: str) -> Tenant | None:
    return next((tenant for tenant in snapshot.tenants.values() if tenant.name == name), None)


async def test_load_returns_none_for_the_known_version(registered: Registered) -> None:
    first = await load(registered.registry)
    assert await registered.registry.load(first.version) is None
    await registered.add("acme", Isolation.DEDICATED)
    second = await load(registered.registry, first.version)
    assert second.version > first.version
    assert await registered.registry.load(second.version) is None


async def test_load_returns_everything_for_an_unknown_version(registered: Registered) -> None:
    await registered.add("acme", Isolation.SHARED)
    current = await load(registered.registry)
    assert named(await load(registered.registry, current.version + 1), "acme") is not None


@pytest.mark.parametrize("isolation", Isolation)
async def test_load_returns_tenants_and_keys_by_id(registered: Registered, isolation: Isolation) -> None:
    tokens = await registered.add("acme", isolation)
    snapshot = await load(registered.registry)
    tenant = named(snapshot, "acme")
    assert tenant is not None
    assert snapshot.tenants[tenant.id] is tenant
    assert (tenant.isolation, tenant.state, tenant.retention_days) == (isolation, State.ACTIVE, 30)
    keys = {key.role: key for key in snapshot.keys.values() if key.tenant_id == tenant.id}
    assert {role: key.hash for role, key in keys.items()} == {role: key_hash(token) for role, token in tokens.items()}
    assert {key.id for key in keys.values()} == {token.split("_")[1] for token in tokens.values()}


async def test_load_returns_suspended_tenants_with_their_keys(registered: Registered) -> None:
    await registered.add("acme", Isolation.DEDICATED)
    before = await load(registered.registry)
    await registered.suspend("acme")
    after = await load(registered.registry, before.version)
    tenant = named(after, "acme")
    assert tenant is not None
    assert tenant.state is State.SUSPENDED
    assert len([key for key in after.keys.values() if key.tenant_id == tenant.id]) == 3


async def test_load_omits_deleted_tenants_and_their_keys(registered: Registered) -> None:
    await registered.add("acme", Isolation.DEDICATED)
    kept = await registered.add("beta", Isolation.SHARED)
    before = await load(registered.registry)
    await registered.delete("acme")
    after = await load(registered.registry, before.version)
    assert named(after, "acme") is None
    assert {key.hash for key in after.keys.values()} == {key_hash(token) for token in kept.values()}


async def test_load_omits_revoked_keys(registered: Registered) -> None:
    tokens = await registered.add("acme", Isolation.DEDICATED)
    before = await load(registered.registry)
    await registered.revoke(tokens[Role.WRITER])
    after = await load(registered.registry, before.version)
    assert {key.role for key in after.keys.values()} == {Role.AUDITOR, Role.ADMIN}


async def test_load_returns_platform_keys_without_a_tenant(registered: Registered) -> None:
    token = await registered.platform_key()
    snapshot = await load(registered.registry)
    [key] = [key for key in snapshot.keys.values() if key.role is Role.PLATFORM]
    assert (key.tenant_id, key.hash) == (None, key_hash(token))


async def test_load_returns_the_limits_of_an_applied_spec(registered: Registered) -> None:
    await registered.add("acme", Isolation.DEDICATED)
    before = await load(registered.registry)
    tenant = named(before, "acme")
    assert tenant is not None
    assert tenant.limits == Limits(streams=50, record_bytes_max=256 * 1024)
    await registered.limit("acme", Limits(streams=3, record_bytes_max=2_048))
    tenant = named(await load(registered.registry, before.version), "acme")
    assert tenant is not None
    assert tenant.limits == Limits(streams=3, record_bytes_max=2_048)


# --- what only the real one has --------------------------------------------------------------------------------------


async def test_version_stays_when_only_conditions_change(control: Control) -> None:
    provisioner, registry = control.provisioner(), await control.registry()
    await provisioner.reconcile(control.manifest(), MemoryVault())
    before = await load(registry)
    await control.database.execute("UPDATE decklog.tenants SET conditions = '[]', generation = 9")
    assert await registry.load(before.version) is None
    assert {listed.conditions for listed in await registry.tenants()} == {()}


async def test_load_omits_expired_keys_and_returns_expiry_times(control: Control) -> None:
    registry = await control.registry()
    await control.provisioner().reconcile(control.manifest(), MemoryVault())
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    await control.database.execute("UPDATE decklog.api_keys SET expires_at = now() WHERE role = 'writer'")
    await control.database.execute("UPDATE decklog.api_keys SET expires_at = $1 WHERE role = 'auditor'", later)
    keys = {key.role: key.expires_at for key in (await load(registry)).keys.values()}
    assert keys == {Role.AUDITOR: later, Role.ADMIN: None}


async def test_tenants_are_listed_in_pages_by_name(control: Control) -> None:
    provisioner = control.provisioner()
    for name in ("c", "a", "b"):
        await provisioner.reconcile(control.manifest(name, uid=f"uid-{name}", isolation="Shared"), MemoryVault())
    registry = await control.registry()
    assert [each.name for each in await registry.tenants(limit=2)] == ["a", "b"]
    assert [each.name for each in await registry.tenants(after="b")] == ["c", "decklog"]


async def test_load_raises_when_the_registry_is_unreadable() -> None:
    pool = Pool(f"postgresql://decklog_service@{NOBODY_LISTENS}/decklog", size_max=1)
    with pytest.raises(DecklogError) as refused:
        await PostgresRegistry(pool).load(None)
    assert refused.value.code is Code.STORAGE_UNAVAILABLE
