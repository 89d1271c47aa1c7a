"""Keys made over the API beside provisioned ones: no provisioner touches them, a deletion ends them, every process follows them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from decklog.domain.errors import DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.tenancy.api_keys import ENDED_KEYS_MAX, KEYS_MAX, KeySource, ListedKey, NewKey
from decklog.domain.tenancy.decision import decide
from decklog.domain.tenancy.registered import DatabaseSeen
from decklog.domain.tenant import Tenant
from decklog.services.identity.keys import new_key
from decklog.timescale.control.api_keys import PostgresApiKeys, PostgresKeyUses
from tests.support.control import Control, control
from tests.support.vaults import MemoryVault
from tests.timescale.test_registry_scale import processes, refused

__all__ = ["control"]


async def keys_of(control: Control) -> PostgresApiKeys:
    return PostgresApiKeys(await control.database.pool())


async def make(control: Control, tenant: Tenant, role: Role = Role.WRITER) -> tuple[str, str]:
    """Make a key as the service's role, and return its id and the key."""
    key_id, token, hashed = new_key()
    found = await (await keys_of(control)).make(tenant, NewKey(key_id, role, hashed, "billing", "api_key::x", None))
    assert isinstance(found, ListedKey)
    return key_id, token


async def in_force(control: Control, tenant: Tenant) -> set[str]:
    """Return the ids of the keys made over the API that are in force."""
    listed = await (await keys_of(control)).all(tenant)
    return {key.id for key in listed if key.source is KeySource.API and key.revoked_at is None}


async def test_provisioning_neither_counts_nor_revokes_keys_made_over_the_api(control: Control) -> None:
    provisioner, vault = control.provisioner(), MemoryVault()
    manifest = control.manifest(isolation="Shared")
    await provisioner.reconcile(manifest, vault)
    tenant = await control.tenant()
    before = await provisioner.observe(manifest, vault)
    made = {(await make(control, tenant, role))[0] for role in (Role.WRITER, Role.AUDITOR, Role.ADMIN)}

    seen = await provisioner.observe(manifest, vault)
    assert isinstance(seen.database, DatabaseSeen)
    assert isinstance(before.database, DatabaseSeen)
    assert seen.database.keys == before.database.keys
    assert decide(manifest, seen, datetime.now(UTC)).actions == []
    status = await provisioner.reconcile(manifest, vault)
    assert status.ready
    assert status.drift is None or not status.drift.fields
    # A rotation at once, and keys that were lost in the vault, replace provisioned keys only.
    rotated = control.manifest(isolation="Shared", credentials={"rotation": {"overlapHours": 0}}, generation=2)
    vault.keys.clear()
    await provisioner.reconcile(rotated, vault)
    assert await in_force(control, tenant) == made
    assert decide(rotated, await provisioner.observe(rotated, vault), datetime.now(UTC)).actions == []


async def test_deletion_of_the_tenant_ends_its_keys_and_an_adoption_brings_none_back(control: Control) -> None:
    provisioner = control.provisioner()
    manifest = control.manifest(isolation="Shared")
    await provisioner.reconcile(manifest, MemoryVault())
    tenant = await control.tenant()
    key_id, token = await make(control, tenant)
    async with processes(control, 1) as [(_, identity)]:
        assert not await refused(identity, token)
        assert (await provisioner.remove(manifest)).synced
        async with asyncio.timeout(30):
            while not await refused(identity, token):
                await asyncio.sleep(0.005)
        again = control.manifest(isolation="Shared", uid="born-again")
        assert (await provisioner.reconcile(again, MemoryVault())).ready
        assert await refused(identity, token)
    [listed] = [key for key in await (await keys_of(control)).all(tenant) if key.id == key_id]
    assert listed.revoked_at is not None


async def test_keys_go_with_the_row_of_their_tenant(control: Control) -> None:
    await control.provisioner().reconcile(control.manifest(isolation="Shared"), MemoryVault())
    tenant = await control.tenant()
    await make(control, tenant)
    # As provisioning of every version does it: the keys that it knows, then the tenant.
    await control.database.execute("DELETE FROM decklog.api_keys WHERE tenant_id = $1", tenant.id)
    await control.database.execute("DELETE FROM decklog.tenants WHERE id = $1", tenant.id)
    assert await control.database.execute("SELECT id FROM decklog.made_keys") == []


async def test_key_works_in_every_process_until_it_is_revoked(control: Control) -> None:
    await control.provisioner().reconcile(control.manifest(isolation="Shared"), MemoryVault())
    tenant = await control.tenant()
    async with processes(control, 2) as known:
        key_id, token = await make(control, tenant)
        for _, identity in known:
            assert not await refused(identity, token)
        assert await (await keys_of(control)).revoke(tenant, key_id)
        async with asyncio.timeout(30):
            for _, identity in known:
                while not await refused(identity, token):
                    await asyncio.sleep(0.005)


async def test_two_callers_do_not_both_make_the_last_key(control: Control) -> None:
    await control.provisioner().reconcile(control.manifest(isolation="Shared"), MemoryVault())
    tenant, keys = await control.tenant(), await keys_of(control)

    async def one() -> object:
        key_id, _, hashed = new_key()
        return await keys.make(tenant, NewKey(key_id, Role.WRITER, hashed, "n", "api_key::x", None))

    found = await asyncio.gather(*(one() for _ in range(KEYS_MAX + 20)))
    assert sum(isinstance(each, ListedKey) for each in found) == KEYS_MAX
    assert len(await in_force(control, tenant)) == KEYS_MAX


async def test_ended_keys_are_kept_in_a_bounded_number(control: Control) -> None:
    await control.provisioner().reconcile(control.manifest(isolation="Shared"), MemoryVault())
    tenant = await control.tenant()
    await control.database.execute(
        "INSERT INTO decklog.made_keys (id, tenant_id, role, hash, name, created_by, created_at, expires_at)"
        " SELECT lpad(n::text, 16, '0'), $1, 'writer', sha256(n::text::bytea), 'n', 'x', now() - interval '9 days', now() - n * interval '1 hour'"
        "   FROM generate_series(1, $2::integer) AS n",
        tenant.id,
        ENDED_KEYS_MAX + 5,
    )
    made, _ = await make(control, tenant)
    listed = [key.id for key in await (await keys_of(control)).all(tenant) if key.source is KeySource.API]
    assert listed[0] == made
    assert set(listed[1:]) == {f"{number:016d}" for number in range(1, ENDED_KEYS_MAX + 1)}


async def test_last_use_is_noted_for_both_kinds_and_is_no_change_of_the_registry(control: Control) -> None:
    await control.provisioner().reconcile(control.manifest(isolation="Shared"), MemoryVault())
    tenant, keys, registry = await control.tenant(), await keys_of(control), await control.registry()
    made, _ = await make(control, tenant)
    unused, _ = await make(control, tenant)
    [provisioned] = [key.id for key in await keys.all(tenant) if key.source is KeySource.PROVISIONED and key.role is Role.ADMIN]
    version = (await registry.changes(None)).version
    uses = PostgresKeyUses(await control.database.pool())

    async def last_uses() -> dict[str, datetime | None]:
        return {key.id: key.last_used_at for key in await keys.all(tenant)}

    await uses.note_uses([made, provisioned, "0" * 16])
    first = await last_uses()
    assert first[unused] is None
    await uses.note_uses([made])
    assert await last_uses() == first  # noted a moment ago
    ago, ahead = timedelta(minutes=5), timedelta(days=1)
    await control.database.execute("UPDATE decklog.made_keys SET last_used_at = last_used_at - $1::interval", ago)
    await control.database.execute("UPDATE decklog.api_keys SET last_used_at = last_used_at + $1::interval", ahead)
    await uses.note_uses([made, provisioned])
    later = await last_uses()
    before, after = first[made], later[made]
    assert before is not None
    assert after is not None
    assert after > before
    noted = first[provisioned]
    assert noted is not None
    assert later[provisioned] == noted + ahead  # never moved back
    assert (await registry.changes(None)).version == version
    with pytest.raises(DecklogError):
        await uses.note_uses(["x"] * 10_001)


async def test_key_of_a_known_id_or_of_another_role_is_not_made(control: Control) -> None:
    await control.provisioner().reconcile(control.manifest(isolation="Shared"), MemoryVault())
    tenant = await control.tenant()
    [known, *_] = await control.database.execute("SELECT id, hash FROM decklog.api_keys")
    hashed = new_key()[2]
    service = await asyncpg.connect(control.database.service_dsn)
    try:
        for key_id, role, secret in (
            (known["id"], "writer", hashed),
            ("0" * 16, "writer", known["hash"]),
            ("0" * 16, "platform", hashed),
        ):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await service.execute("SELECT decklog.make_key($1, $2, $3, $4, 'n', 'x', NULL)", tenant.id, key_id, role, secret)
    finally:
        await service.close()
