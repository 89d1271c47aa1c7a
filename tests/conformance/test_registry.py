"""Conformance of `Registry`: in memory and on PostgreSQL, each change is listed by its version and look-ups return the present."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import msgspec
import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.store import Registry, RegistryChanges
from decklog.domain.tenant import Isolation, Limits, State, Tenant
from decklog.services.identity.keys import key_hash
from decklog.timescale.connection import Pool
from decklog.timescale.control.registry import PostgresRegistry, RegistryNotices
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
            self._memory.drop_key(key.id)
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
        quotas = {"streams": limits.streams, "bytesPerSecond": limits.bytes_per_second}
        ingest = {"recordBytesMax": limits.record_bytes_max, "oversize": "Trim" if limits.trims else "Reject"}
        spec: dict[str, Any] = {"quotas": quotas, "ingest": ingest, "ask": {"showRecords": limits.shows_records}}
        if limits.search_days:
            spec["retention"] = {"days": 30, "searchDays": limits.search_days}
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


async def current(registry: Registry) -> int:
    """The present version."""
    return (await registry.changes(None)).version


async def named(registry: Registry, name: str) -> Tenant | None:
    found = await registry.find(names=[name])
    assert [tenant.name for tenant in found.tenants] in ([], [name])
    return found.tenants[0] if found.tenants else None


def ids(tokens: Iterable[str]) -> list[str]:
    return [token.split("_")[1] for token in tokens]


async def test_changes_list_nothing_for_the_present_version(registered: Registered) -> None:
    before = await current(registered.registry)
    assert await registered.registry.changes(before) == RegistryChanges(before)


async def test_changes_are_not_complete_for_a_version_that_is_none_or_unknown(registered: Registered) -> None:
    await registered.add("acme", Isolation.SHARED)
    version = await current(registered.registry)
    for known in (None, version + 1, -1):
        assert await registered.registry.changes(known) == RegistryChanges(version, complete=False)


async def test_changes_list_exactly_the_tenant_and_the_keys_that_changed(registered: Registered) -> None:
    await registered.add("beta", Isolation.SHARED)
    registry, before = registered.registry, await current(registered.registry)
    tokens = await registered.add("acme", Isolation.SHARED)
    changes = await registry.changes(before)
    tenant = await named(registry, "acme")
    assert tenant is not None
    assert changes.version > before
    assert (changes.tenants, changes.keys, changes.complete) == (frozenset({tenant.id}), frozenset(ids(tokens.values())), True)
    assert not (await registry.changes(changes.version)).tenants


@pytest.mark.parametrize("change", ["suspend", "limit", "delete", "revoke"])
async def test_each_change_of_a_tenant_or_key_is_listed(registered: Registered, change: str) -> None:
    tokens = await registered.add("acme", Isolation.SHARED)
    registry = registered.registry
    tenant = await named(registry, "acme")
    assert tenant is not None
    before = await current(registry)
    match change:
        case "suspend":
            await registered.suspend("acme")
        case "limit":
            await registered.limit("acme", Limits(streams=3, record_bytes_max=2_048))
        case "delete":
            await registered.delete("acme")
        case "revoke":
            await registered.revoke(tokens[Role.WRITER])
    changes = await registry.changes(before)
    assert changes.complete
    assert changes.version > before
    assert tenant.id in changes.tenants or change == "revoke"
    if change in ("delete", "revoke"):
        assert set(ids([tokens[Role.WRITER]])) <= changes.keys


@pytest.mark.parametrize("isolation", Isolation)
async def test_find_returns_tenants_by_number_and_name_and_keys_with_their_tenants(
    registered: Registered, isolation: Isolation
) -> None:
    tokens = await registered.add("acme", isolation)
    await registered.add("beta", Isolation.SHARED)
    registry = registered.registry
    tenant = await named(registry, "acme")
    assert tenant is not None
    assert (tenant.isolation, tenant.state, tenant.retention_days) == (isolation, State.ACTIVE, 30)
    assert (await registry.find(tenants=[tenant.id])).tenants == [tenant]
    found = await registry.find(keys=ids(tokens.values()))
    assert found.tenants == [tenant]
    assert found.version == await current(registry)
    assert {key.role: key.hash for key in found.keys} == {role: key_hash(token) for role, token in tokens.items()}
    assert {key.tenant_id for key in found.keys} == {tenant.id}


async def test_find_returns_nothing_for_what_does_not_exist(registered: Registered) -> None:
    await registered.add("acme", Isolation.SHARED)
    found = await registered.registry.find(tenants=[10**9], names=["nobody"], keys=["0" * 16])
    assert (found.tenants, found.keys) == ([], [])
    assert found.version == await current(registered.registry)


async def test_find_returns_suspended_tenants_with_their_keys(registered: Registered) -> None:
    tokens = await registered.add("acme", Isolation.DEDICATED)
    await registered.suspend("acme")
    found = await registered.registry.find(keys=ids(tokens.values()))
    assert [tenant.state for tenant in found.tenants] == [State.SUSPENDED]
    assert len(found.keys) == 3


async def test_find_omits_deleted_tenants_and_their_keys(registered: Registered) -> None:
    gone = await registered.add("acme", Isolation.DEDICATED)
    kept = await registered.add("beta", Isolation.SHARED)
    await registered.delete("acme")
    found = await registered.registry.find(names=["acme", "beta"], keys=ids([*gone.values(), *kept.values()]))
    assert [tenant.name for tenant in found.tenants] == ["beta"]
    assert {key.hash for key in found.keys} == {key_hash(token) for token in kept.values()}


async def test_find_omits_revoked_keys(registered: Registered) -> None:
    tokens = await registered.add("acme", Isolation.DEDICATED)
    await registered.revoke(tokens[Role.WRITER])
    found = await registered.registry.find(keys=ids(tokens.values()))
    assert {key.role for key in found.keys} == {Role.AUDITOR, Role.ADMIN}


async def test_find_returns_platform_keys_without_a_tenant(registered: Registered) -> None:
    token = await registered.platform_key()
    found = await registered.registry.find(keys=ids([token]))
    assert [(key.tenant_id, key.role, key.hash) for key in found.keys] == [(None, Role.PLATFORM, key_hash(token))]
    assert not found.tenants


async def test_find_returns_the_limits_of_an_applied_spec(registered: Registered) -> None:
    await registered.add("acme", Isolation.DEDICATED)
    tenant = await named(registered.registry, "acme")
    assert tenant is not None
    assert tenant.limits == Limits(streams=50, record_bytes_max=256 * 1024, bytes_per_second=4_096_000)
    limits = Limits(streams=3, record_bytes_max=2_048, bytes_per_second=2**30, trims=True, shows_records=True)
    await registered.limit("acme", limits)
    tenant = await named(registered.registry, "acme")
    assert tenant is not None
    assert tenant.limits == limits


async def test_queues_are_those_of_all_tenants_that_are_not_deleted(registered: Registered) -> None:
    for name in ("acme", "beta"):
        await registered.add(name, Isolation.DEDICATED)
    acme, beta = await named(registered.registry, "acme"), await named(registered.registry, "beta")
    assert acme is not None
    assert beta is not None
    assert {acme.queue, beta.queue} <= await registered.registry.queues()
    await registered.delete("acme")
    assert acme.queue not in await registered.registry.queues()


async def test_tenants_with_search_days_are_returned_in_pages_by_number(registered: Registered) -> None:
    for name, days in (("a", 0), ("b", 3), ("c", 4), ("d", 5)):
        await registered.add(name, Isolation.SHARED)
        await registered.limit(name, Limits(search_days=days))
    registry = registered.registry
    pages = [await registry.searching(after=0, limit=2)]
    pages.append(await registry.searching(after=pages[0][-1].id, limit=2))
    assert [[(tenant.name, tenant.limits.search_days) for tenant in page] for page in pages] == [[("b", 3), ("c", 4)], [("d", 5)]]


# --- what only the real one has --------------------------------------------------------------------------------------


async def test_version_stays_when_only_conditions_change(control: Control) -> None:
    provisioner, registry = control.provisioner(), await control.registry()
    await provisioner.reconcile(control.manifest(), MemoryVault())
    before = await current(registry)
    await control.database.execute("UPDATE decklog.tenants SET conditions = '[]', generation = 9")
    await control.database.execute("UPDATE decklog.tenants SET display_name = display_name")
    assert await registry.changes(before) == RegistryChanges(before)
    assert {listed.conditions for listed in await registry.tenants()} == {()}


async def test_find_omits_expired_keys_and_returns_expiry_times(control: Control) -> None:
    registry = await control.registry()
    await control.provisioner().reconcile(control.manifest(), MemoryVault())
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    await control.database.execute("UPDATE decklog.api_keys SET expires_at = now() WHERE role = 'writer'")
    await control.database.execute("UPDATE decklog.api_keys SET expires_at = $1 WHERE role = 'auditor'", later)
    rows = await control.database.execute("SELECT id FROM decklog.api_keys")
    keys = {key.role: key.expires_at for key in (await registry.find(keys=[row["id"] for row in rows])).keys}
    assert keys == {Role.AUDITOR: later, Role.ADMIN: None}


async def test_changes_are_not_complete_after_a_version_without_a_list_or_with_too_long_a_one(control: Control) -> None:
    registry = await control.registry()
    await control.provisioner().reconcile(control.manifest(isolation="Shared"), MemoryVault())
    for statement in (
        "UPDATE decklog.registry_version SET version = version + 1",
        "DELETE FROM decklog.registry_changes WHERE version > (SELECT version - 2 FROM decklog.registry_version)",
        "TRUNCATE decklog.api_keys",
        "INSERT INTO decklog.api_keys (id, role, hash) SELECT n::text, 'platform', sha256(n::text::bytea) FROM generate_series(1, 10001) n",
    ):
        before = await current(registry) - 1
        await control.database.execute(statement)
        changes = await registry.changes(before)
        assert changes == RegistryChanges(changes.version, complete=False)


async def test_changes_keep_a_bounded_number_of_versions(control: Control) -> None:
    await control.database.execute("UPDATE decklog.registry_version SET version = 10000")
    await control.provisioner().reconcile(control.manifest(isolation="Shared"), MemoryVault())
    await control.database.execute("UPDATE decklog.registry_version SET version = 20000")
    await control.database.execute("UPDATE decklog.api_keys SET expires_at = now()")
    rows = await control.database.execute("SELECT DISTINCT version FROM decklog.registry_changes WHERE version <> 20001")
    assert {row["version"] for row in rows} <= set(range(10_002, 10_100))


async def test_versions_of_concurrent_changes_have_the_order_of_commits(control: Control) -> None:
    """A reader at a version has seen every change below it, or a process could miss one for ever."""
    registry = await control.registry()
    await control.provisioner().reconcile(control.manifest(isolation="Shared"), MemoryVault())
    known, seen, done = await current(registry), set[str](), asyncio.Event()

    async def write(first: int) -> None:
        for number in range(first, first + 20):
            await control.database.execute(
                "INSERT INTO decklog.api_keys (id, role, hash) VALUES ($1, 'platform', sha256($1::text::bytea))", str(number)
            )

    async def follow() -> None:
        nonlocal known
        while True:
            ended = done.is_set()
            changes = await registry.changes(known)
            assert changes.complete
            known = changes.version
            seen.update(changes.keys)
            if ended:
                return

    following = asyncio.create_task(follow())
    await asyncio.gather(*(write(first) for first in (0, 100, 200)))
    done.set()
    await following
    assert seen == {str(number) for first in (0, 100, 200) for number in range(first, first + 20)}


async def test_notice_is_heard_after_each_commit(control: Control) -> None:
    heard: asyncio.Queue[None] = asyncio.Queue()
    notices = RegistryNotices(control.database.service_dsn)
    await notices.start(lambda: heard.put_nowait(None))
    try:
        async with asyncio.timeout(20):
            await heard.get()  # connected
            await control.provisioner().reconcile(control.manifest(isolation="Shared"), MemoryVault())
            await heard.get()
    finally:
        await notices.stop()


async def test_tenants_are_listed_in_pages_by_name(control: Control) -> None:
    provisioner = control.provisioner()
    for name in ("c", "a", "b"):
        await provisioner.reconcile(control.manifest(name, uid=f"uid-{name}", isolation="Shared"), MemoryVault())
    registry = await control.registry()
    assert [each.name for each in await registry.tenants(limit=2)] == ["a", "b"]
    assert [each.name for each in await registry.tenants(after="b")] == ["c", "decklog"]


async def test_every_method_raises_when_the_registry_is_unreadable() -> None:
    registry = PostgresRegistry(Pool(f"postgresql://decklog_service@{NOBODY_LISTENS}/decklog", size_max=1))
    for call in (registry.changes(None), registry.find(names=["acme"]), registry.queues(), registry.searching(after=0, limit=1)):
        with pytest.raises(DecklogError) as refused:
            await call
        assert refused.value.code is Code.STORAGE_UNAVAILABLE
