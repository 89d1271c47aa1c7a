"""Creation of tenants over the API, on a real database: exactly once, under concurrency and faults."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Principal, RequestContext, Role
from decklog.domain.records.append import Receipt, Status
from decklog.domain.records.record import RecordInput
from decklog.domain.tenancy.manifest import Manifest, TenantAnnotations, TenantManifest, TenantMetadata
from decklog.domain.tenancy.parts.keys import TENANT_ROLES
from decklog.domain.tenancy.spec import parse_spec
from decklog.domain.tenancy.status import READY, Part
from decklog.domain.tenant import PLATFORM_TENANT, State, Tenant
from decklog.services.identity.keys import key_hash
from decklog.services.records.access_log import AccessLog
from decklog.services.tenancy.ports import TenantDirectory
from decklog.services.tenancy.provisioning import Provisioner
from decklog.services.tenancy.tenants import Created, Tenants
from tests.backends import OpenSearchServer, SqsServer
from tests.support.control import Control, control, on_each_variant
from tests.support.memory import make_tenant
from tests.support.memory_control import MemoryControl

__all__ = ["control"]

PLATFORM = Principal("api_key", "0123456789abcdef", Role.PLATFORM, None)
REQUEST = RequestContext("request-1")


class Recorded:
    """An ingest that keeps the records it gets."""

    def __init__(self) -> None:
        self.records: list[RecordInput] = []

    def refuse_query(self, tenant: Tenant) -> None: ...

    async def append_access(self, tenant: Tenant, record: RecordInput, *, query: bool = False) -> Receipt:
        self.records.append(record)
        return Receipt(Status.STORED, 1, len(self.records) - 1, datetime.now(UTC), bytes(32))


async def tenants_of(control: Control, *clients: Any) -> Tenants:
    """The service of one process over the real backends."""
    provisioner = control.provisioner(*clients)
    await provisioner.ensure_platform_tenant()
    platform = make_tenant(PLATFORM_TENANT)
    return Tenants(await control.registry(), AccessLog(Recorded(), lambda: platform), provisioner=provisioner)


def asked(name: str = "acme", *, rotate: str = "", **spec: Any) -> TenantManifest:
    whole = parse_spec({"retention": {"days": 30}, **spec})
    return TenantManifest("decklog.dev/v1", "Tenant", TenantMetadata(name, TenantAnnotations(rotate)), whole)


async def live(control: Control, name: str = "acme") -> dict[Role, set[bytes]]:
    """The hashes of valid keys, by role."""
    snapshot = await control.snapshot()
    number = next(tenant.id for tenant in snapshot.tenants.values() if tenant.name == name)
    keys = [key for key in snapshot.keys.values() if key.tenant_id == number]
    return {role: {key.hash for key in keys if key.role is role} for role in TENANT_ROLES}


def hashes(created: Created) -> dict[Role, set[bytes]]:
    return {role: {key_hash(token)} for role, token in created.keys.items()}


@on_each_variant
async def test_created_tenant_is_complete_and_returns_exactly_its_keys(
    control: Control, opensearch_server: OpenSearchServer, sqs_server: SqsServer
) -> None:
    tenants = await tenants_of(control, control.search(opensearch_server), control.queue(sqs_server))
    created = await tenants.create(PLATFORM, REQUEST, asked())
    assert created.new
    conditions = {condition.type: (condition.status, condition.reason) for condition in created.listing.conditions}
    assert {conditions[part] for part in Part} == {("True", "Provisioned"), ("True", "Issued")}
    assert conditions[READY] == ("True", "Ready")
    assert hashes(created) == await live(control)
    assert not any(token in repr(created) for token in created.keys.values())
    again = await tenants.create(PLATFORM, REQUEST, asked())
    assert (again.new, again.keys, again.listing) == (False, {}, created.listing)
    assert hashes(created) == await live(control)


async def test_concurrent_creations_make_one_tenant_and_return_keys_once(control: Control) -> None:
    processes = [await tenants_of(control) for _ in range(3)]
    made = await asyncio.gather(*(tenants.create(PLATFORM, REQUEST, asked()) for tenants in processes * 3))
    told = [created for created in made if created.keys]
    assert len(told) == 1
    assert hashes(told[0]) == await live(control)
    assert {created.listing.uid for created in made} == {told[0].listing.uid}


async def test_concurrent_creations_with_different_specs_do_not_overwrite(control: Control) -> None:
    tenants = await tenants_of(control)
    specs = [asked(displayName=f"Acme {number}") for number in range(6)]
    made = await asyncio.gather(*(tenants.create(PLATFORM, REQUEST, spec) for spec in specs), return_exceptions=True)
    [created] = [each for each in made if isinstance(each, Created)]
    refused = [each for each in made if isinstance(each, DecklogError)]
    assert {error.code for error in refused} == {Code.CONFLICT}
    assert len(refused) == 5
    assert await (await control.registry()).tenant("acme") == created.listing


async def test_creation_in_unknown_cell_is_invalid_and_makes_nothing(control: Control) -> None:
    tenants = await tenants_of(control)
    with pytest.raises(DecklogError, match="no cell 'us-2'") as caught:
        await tenants.create(PLATFORM, REQUEST, asked(cell="us-2"))
    assert caught.value.code is Code.INVALID_TENANT
    assert await (await control.registry()).tenant("acme") is None


async def test_cancelled_creation_is_completed_by_the_same_request(control: Control) -> None:
    tenants = await tenants_of(control)
    for moment in range(10):
        making = asyncio.create_task(tenants.create(PLATFORM, REQUEST, asked()))
        await asyncio.wait([making], timeout=moment * 0.03)
        making.cancel()
        await asyncio.wait([making])
    await tenants.create(PLATFORM, REQUEST, asked())
    # The answer with the first keys may be among those that were cut off; then new ones are asked for.
    created = await tenants.create(PLATFORM, REQUEST, asked(rotate="lost"))
    assert set(created.keys) == set(TENANT_ROLES)
    found = await live(control)
    assert all(key_hash(token) in found[role] for role, token in created.keys.items())


async def test_creation_reports_broken_backend_and_same_request_completes_it(
    control: Control, opensearch_server: OpenSearchServer
) -> None:
    created = await (await tenants_of(control, control.broken_search())).create(PLATFORM, REQUEST, asked())
    conditions = {condition.type: condition.status for condition in created.listing.conditions}
    assert (conditions[READY], conditions[Part.SEARCH], conditions[Part.DATABASE]) == ("False", "False", "True")
    assert hashes(created) == await live(control)
    later = await (await tenants_of(control, control.search(opensearch_server))).create(PLATFORM, REQUEST, asked())
    assert all(condition.good for condition in later.listing.conditions)
    assert (later.new, later.keys) == (False, {})


async def test_creation_without_owner_database_fails_as_unavailable(control: Control) -> None:
    await tenants_of(control)
    platform = make_tenant(PLATFORM_TENANT)
    provisioner = control.provisioner(owner_dsn=control.broken_owner_dsn())
    recorded = Recorded()
    tenants = Tenants(await control.registry(), AccessLog(recorded, lambda: platform), provisioner=provisioner)
    with pytest.raises(DecklogError) as refused:
        await tenants.create(PLATFORM, REQUEST, asked())
    assert refused.value.code is Code.STORAGE_UNAVAILABLE
    assert "DatabaseReady" in refused.value.detail
    assert [record.outcome.value if record.outcome else None for record in recorded.records] == ["success", "failure"]


async def test_creation_on_unmigrated_database_asks_for_migration(control: Control) -> None:
    tenants = await tenants_of(control)
    await control.database.execute("DROP FUNCTION decklog.make_partitions_of")
    with pytest.raises(DecklogError) as refused:
        await tenants.create(PLATFORM, REQUEST, asked())
    assert refused.value.code is Code.MISCONFIGURED
    assert "decklog migrate" in refused.value.detail


async def test_creation_over_foreign_index_is_a_conflict(control: Control, opensearch_server: OpenSearchServer) -> None:
    search = control.search(opensearch_server)
    await search.indices.create(index=f"{control.prefix}-t-acme")
    with pytest.raises(DecklogError) as refused:
        await (await tenants_of(control, search)).create(PLATFORM, REQUEST, asked())
    assert refused.value.code is Code.CONFLICT
    assert f"{control.prefix}-t-acme" in refused.value.detail
    assert await (await control.registry()).tenant("acme") is None


@pytest.mark.parametrize("real", [True, False])
async def test_directory_lists_existing_and_retained_tenants_by_name(control: Control, real: bool) -> None:
    memory = MemoryControl()
    provisioner = control.provisioner() if real else Provisioner(memory, None, None, directory=memory)
    directory: TenantDirectory = await control.registry() if real else memory
    spec = parse_spec({"retention": {"days": 30}, "deletionProtection": False})
    manifests = [Manifest(name, f"uid-{name}", 3, spec) for name in ("beta", "acme")]
    statuses = [await provisioner.reconcile(manifest, None) for manifest in manifests]
    await provisioner.remove(manifests[0])
    assert [listing.name for listing in await directory.tenants()] == ["acme", "beta", "decklog"]
    assert [listing.name for listing in await directory.tenants(after="acme", limit=1)] == ["beta"]
    acme, beta = await directory.tenant("acme"), await directory.tenant("beta")
    assert acme is not None
    assert beta is not None
    assert (acme.uid, acme.generation, acme.spec, acme.deleted_at) == ("uid-acme", 3, manifests[1].spec, None)
    assert acme.conditions == statuses[1].conditions
    assert (acme.schema, acme.index, acme.queue) == (statuses[1].schema, statuses[1].index, statuses[1].queue)
    assert beta.state is State.DELETED
    assert beta.deleted_at is not None
    assert await directory.tenant("gamma") is None
