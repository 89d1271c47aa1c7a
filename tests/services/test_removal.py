"""Removal on real backends is ordered, complete, and touches only what the tenant owns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from opensearchpy import AsyncOpenSearch

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.append import Appended, AppendRequest
from decklog.domain.search.term_filters import filters as term_filters
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.removal import STOP_SECONDS
from decklog.domain.tenancy.status import READY, SYNCED, Part, TenantStatus
from decklog.domain.tenant import PLATFORM_TENANT, Isolation, State, Tenant
from decklog.opensearch.provision import OpenSearchProvisioning
from decklog.opensearch.search import OpenSearchIndex
from decklog.services.tenancy.provisioning import Provisioner
from decklog.sqs.provision import SqsProvisioning
from decklog.timescale.connection import WORKER_ROLE, Pool
from decklog.timescale.control import schema
from decklog.timescale.control.provision import CONNECTIONS_MAX, PostgresProvisioning
from decklog.timescale.control.registry import PostgresRegistry
from decklog.timescale.records.term_filters import PostgresTermFilters
from tests.backends import OpenSearchServer, SqsServer
from tests.services.test_rotation import Fuse, FusedDatabase, Killed
from tests.support.control import Control, control, on_each_variant
from tests.support.documents import documents, made
from tests.support.records import prepared
from tests.support.vaults import MemoryVault

__all__ = ["control"]


def told(status: TenantStatus, kind: str) -> tuple[str, str]:
    condition = status.condition(kind)
    return condition.status, condition.reason


async def stops_apply_everywhere(control: Control) -> None:
    """Date all deletions back, so that every process applies them."""
    ago = timedelta(seconds=STOP_SECONDS + 1)
    await control.database.execute("UPDATE decklog.tenants SET deleted_at = deleted_at - $1::interval WHERE state = 2", ago)


async def left_in_the_database(control: Control, tenant: Tenant) -> dict[str, int]:
    """Rows of the control tables and relations that belong to the tenant."""
    counts = {
        "tenants": "SELECT count(*) FROM decklog.tenants WHERE id = $1",
        "keys": "SELECT count(*) FROM decklog.api_keys WHERE tenant_id = $1",
        "made keys": "SELECT count(*) FROM decklog.made_keys WHERE tenant_id = $1",
        "heads": "SELECT count(*) FROM decklog.heads WHERE tenant_id = $1",
        "cursors": "SELECT count(*) FROM decklog.cursors WHERE tenant_id = $1",
    }
    found = {name: (await control.database.execute(sql, tenant.id))[0][0] for name, sql in counts.items()}
    if tenant.isolation is Isolation.DEDICATED:
        named = {
            "relations": ("SELECT count(*) FROM decklog.relations WHERE schema_name = $1", tenant.schema),
            "schema": ("SELECT count(*) FROM pg_namespace WHERE nspname = $1", tenant.schema),
            "chunks": ("SELECT count(*) FROM pg_class WHERE relname LIKE $1", "_hyper_%chunk"),
            "indices": ("SELECT count(*) FROM decklog.search_generations WHERE index = $1", tenant.index),
        }
        found |= {name: (await control.database.execute(sql, value))[0][0] for name, (sql, value) in named.items()}
    return {name: count for name, count in found.items() if count}


async def on_more_days(control: Control, tenant: Tenant) -> None:
    """Copies of a record on the days before, each in a partition of its own where there are chunks."""
    columns = ", ".join(
        row[0]
        for row in await control.database.execute(
            "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 ORDER BY attnum",
            f"{tenant.schema}.records",
        )
    )
    moved = columns.replace("received_at", "received_at + day * interval '1 day'")
    await control.database.execute(
        f"INSERT INTO {tenant.schema}.records ({columns}) SELECT {moved} FROM {tenant.schema}.records, generate_series(1, 5) AS day"
    )


def queues_of(client: Any, tenant: Tenant) -> list[str]:
    return [url.rpartition("/")[2] for url in client.list_queues(QueueNamePrefix=tenant.queue).get("QueueUrls", ())]


async def documents_of(client: AsyncOpenSearch, tenant: Tenant) -> int:
    await client.indices.refresh(index=f"{tenant.index}.*")
    found = await client.count(index=f"{tenant.index}.*", body={"query": {"term": {"tenant_id": tenant.id}}})
    return int(found["count"])


async def platform_log(control: Control) -> list[str]:
    """Contents of the removal records in the platform's access log, as JSON."""
    platform = await control.tenant(PLATFORM_TENANT)
    rows = await control.database.execute(
        f"SELECT content FROM {platform.schema}.records WHERE tenant_id = $1 AND action = 'tenant.remove' ORDER BY seq",
        platform.id,
    )
    return [row["content"] for row in rows]


@on_each_variant
async def test_dedicated_tenant_is_stopped_at_once_and_removed_after_the_stop_applies(
    control: Control, opensearch_server: OpenSearchServer, sqs_server: SqsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_DROPPED_AT_ONCE", 2)
    search, queue = control.search(opensearch_server), control.queue(sqs_server)
    provisioner = control.provisioner(search, queue)
    manifest, vault = control.manifest(deletionPolicy="Delete"), MemoryVault()
    await provisioner.reconcile(manifest, vault)
    tenant = await control.tenant()
    assert isinstance(await control.append(), Appended)
    await on_more_days(control, tenant)
    store = await control.database.records()

    going = await provisioner.remove(manifest)
    assert told(going, SYNCED) == told(going, READY) == ("False", "Deleting")
    assert tenant.id not in (await control.snapshot()).tenants
    [refused] = await store.append([AppendRequest(tenant, LogName.EVENTS, [prepared()])])
    assert isinstance(refused, DecklogError)
    assert refused.code is Code.NOT_FOUND
    assert await search.indices.get(index=f"{tenant.index}.*")
    assert len(queues_of(queue, tenant)) == 2
    assert {"schema", "heads", "tenants"} <= (await left_in_the_database(control, tenant)).keys()

    await stops_apply_everywhere(control)
    gone = await provisioner.remove(manifest)
    assert told(gone, SYNCED) == ("True", "Removed")
    assert await left_in_the_database(control, tenant) == {}
    assert await search.indices.get(index=f"{tenant.index}*") == {}
    assert queues_of(queue, tenant) == []
    [entry] = await platform_log(control)
    assert f'"tenantId":{tenant.id}' in entry
    # Again, as by an operator that was killed before it could let the Tenant go.
    assert (await provisioner.remove(manifest)).synced
    assert len(await platform_log(control)) == 1

    anew = await provisioner.reconcile(control.manifest(uid="anew"), vault)
    assert anew.ready
    assert (await control.tenant()).id > tenant.id
    stored = await control.append()
    assert isinstance(stored, Appended)
    assert stored.receipts[0].seq == 0


@on_each_variant
async def test_shared_tenant_is_removed_without_touching_others_of_its_class(
    control: Control, opensearch_server: OpenSearchServer, sqs_server: SqsServer
) -> None:
    search, queue = control.search(opensearch_server), control.queue(sqs_server)
    provisioner, vault = control.provisioner(search, queue), MemoryVault()
    shared: dict[str, Any] = {"isolation": "Shared", "deletionPolicy": "Delete"}
    manifest = control.manifest(**shared)
    index = OpenSearchIndex(search)
    for each in (manifest, control.manifest("beta", uid="uid-beta", **shared)):
        assert (await provisioner.reconcile(each, vault)).ready
        assert isinstance(await control.append(each.name), Appended)
        tenant = await control.tenant(each.name)
        await index.add(tenant, documents(tenant, [made(), made()]))
    acme, beta = await control.tenant("acme"), await control.tenant("beta")
    filters = PostgresTermFilters(await control.database.pool(WORKER_ROLE))
    for tenant in (acme, beta):
        await filters.add(tenant, LogName.EVENTS, term_filters([(0, {1})]))

    await provisioner.remove(manifest)
    await stops_apply_everywhere(control)
    now = datetime.now(UTC)
    gone = await provisioner.remove(manifest)
    assert told(gone, SYNCED) == ("True", "Removed")
    assert gone.purged_after is not None
    # The class of 30 days: until the end of today's partition, and thirty days.
    assert timedelta(days=30) <= gone.purged_after - now <= timedelta(days=31, minutes=5)
    assert "purgedAfter" in gone.condition(SYNCED).message
    [entry] = await platform_log(control)
    assert "purgedAfter" in entry
    assert await left_in_the_database(control, acme) == {}
    assert (await documents_of(search, acme), await documents_of(search, beta)) == (0, 2)
    left = await control.database.execute(f"SELECT tenant_id FROM {beta.schema}.term_filters")
    assert [row["tenant_id"] for row in left] == [beta.id]
    assert len(queues_of(queue, beta)) == 2
    assert isinstance(await control.append("beta"), Appended)
    assert (await provisioner.reconcile(control.manifest("beta", uid="uid-beta", **shared), vault)).synced

    anew = await provisioner.reconcile(control.manifest(uid="anew", **shared), vault)
    assert anew.ready
    again = await control.tenant("acme")
    assert again.id > acme.id
    stored = await control.append("acme")
    assert isinstance(stored, Appended)
    assert stored.receipts[0].seq == 0
    found = await (await control.database.records()).fetch(again, LogName.EVENTS, [0, 1])
    assert [record.seq for record in found] == [0]


@pytest.mark.parametrize("broken", ["search", "queue", "database"])
async def test_removal_keeps_storage_while_a_backend_is_down_and_resumes_later(
    control: Control, opensearch_server: OpenSearchServer, sqs_server: SqsServer, broken: str
) -> None:
    search, queue = control.search(opensearch_server), control.queue(sqs_server)
    manifest = control.manifest(deletionPolicy="Delete")
    whole = control.provisioner(search, queue)
    await whole.reconcile(manifest, MemoryVault())
    tenant = await control.tenant()
    await whole.remove(manifest)
    await stops_apply_everywhere(control)
    crippled = control.provisioner(
        control.broken_search() if broken == "search" else search,
        control.broken_queue() if broken == "queue" else queue,
        owner_dsn=control.broken_owner_dsn() if broken == "database" else None,
    )
    waiting = await crippled.remove(manifest)
    kind = {"search": Part.SEARCH, "queue": Part.QUEUE, "database": Part.DATABASE}[broken]
    assert told(waiting, SYNCED) == told(waiting, kind) == ("False", "Unreachable")
    assert kind.value in waiting.condition(SYNCED).message
    assert "schema" in await left_in_the_database(control, tenant)
    assert (await whole.remove(manifest)).synced
    assert await left_in_the_database(control, tenant) == {}


async def test_removal_of_unregistered_tenant_removes_its_index_and_queue(control: Control, sqs_server: SqsServer) -> None:
    queue = control.queue(sqs_server)
    manifest = control.manifest()
    status = await control.provisioner(queue=queue, owner_dsn=control.broken_owner_dsn()).reconcile(manifest, MemoryVault())
    assert status.condition(Part.QUEUE).status == "True"
    name = f"{control.prefix}-t-acme-wake"
    assert len(queue.list_queues(QueueNamePrefix=name)["QueueUrls"]) == 2
    assert (await control.provisioner(queue=queue).remove(manifest)).synced
    assert queue.list_queues(QueueNamePrefix=name).get("QueueUrls", []) == []


async def test_removal_keeps_foreign_index_and_queue(
    control: Control, opensearch_server: OpenSearchServer, sqs_server: SqsServer
) -> None:
    search, queue = control.search(opensearch_server), control.queue(sqs_server)
    manifest = control.manifest(deletionPolicy="Delete")
    await control.provisioner().reconcile(manifest, MemoryVault())
    tenant = await control.tenant()
    await search.indices.create(index=tenant.index)
    queue.create_queue(QueueName=tenant.queue, tags={"decklog.dev/uid": "another"})
    provisioner = control.provisioner(search, queue)
    await provisioner.remove(manifest)
    await stops_apply_everywhere(control)
    assert (await provisioner.remove(manifest)).synced
    assert await left_in_the_database(control, tenant) == {}
    assert await search.indices.exists(index=tenant.index)
    assert queues_of(queue, tenant) == [tenant.queue]


async def test_removal_of_protected_or_held_tenant_is_refused_and_it_keeps_working(control: Control) -> None:
    provisioner, vault = control.provisioner(), MemoryVault()
    held: dict[str, Any] = {"deletionPolicy": "Delete", "legalHold": True}
    await provisioner.reconcile(control.manifest(**held), vault)
    status = await provisioner.remove(control.manifest(**held), vault)
    assert told(status, SYNCED) == ("False", "LegalHold")
    assert status.ready
    assert (await control.tenant()).state is State.ACTIVE
    assert isinstance(await control.append(), Appended)


async def test_archiving_removal_waits_without_archive_until_policy_changes(control: Control) -> None:
    provisioner, vault = control.provisioner(), MemoryVault()
    await provisioner.reconcile(control.manifest(deletionPolicy="Archive"), vault)
    tenant = await control.tenant()
    await provisioner.remove(control.manifest(deletionPolicy="Archive"), vault)
    await stops_apply_everywhere(control)
    status = await provisioner.remove(control.manifest(deletionPolicy="Archive"), vault)
    assert told(status, SYNCED) == ("False", "NoArchive")
    assert "schema" in await left_in_the_database(control, tenant)
    assert (await provisioner.remove(control.manifest(generation=2, deletionPolicy="Retain"), vault)).synced


class Fused:
    """An adapter whose `apply` may kill its process."""

    def __init__(self, inner: Any, fuse: Fuse) -> None:
        self.observe = inner.observe
        self._inner, self._fuse = inner, fuse

    async def apply(self, action: Any) -> None:
        await self._fuse.run(self._inner.apply(action))


async def kills_until_removed(
    process: Callable[[], Provisioner], manifest: Manifest, then: Callable[[], Awaitable[None]] | None = None
) -> int:
    """Retry with a new process until the deletion is complete; return how many were killed. `then` runs after each try."""
    kills, synced = 0, False
    while not synced:
        try:
            synced = (await process().remove(manifest)).synced
        except Killed:
            kills += 1
        if then is not None:
            await then()
    return kills


@pytest.mark.parametrize("isolation", Isolation)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_removal_killed_at_any_action_leaves_nothing_orphaned(
    control: Control, opensearch_server: OpenSearchServer, sqs_server: SqsServer, isolation: Isolation, after: bool
) -> None:
    search, queue, fuse = control.search(opensearch_server), control.queue(sqs_server), Fuse()
    pool = Pool(control.database.owner_dsn, size_max=CONNECTIONS_MAX, role=None)

    def process() -> Provisioner:
        return Provisioner(
            FusedDatabase(PostgresProvisioning(pool), fuse),
            Fused(OpenSearchProvisioning(search, replicas=0), fuse),
            Fused(SqsProvisioning(queue), fuse),
            directory=PostgresRegistry(pool),
            prefix=control.prefix,
        )

    kills = steps = 0
    burnt = True
    while burnt:
        manifest = control.manifest(uid=f"uid-{steps}", isolation=isolation.value, deletionPolicy="Delete")
        assert (await process().reconcile(manifest, MemoryVault())).ready
        tenant = await control.tenant()
        fuse.steps, fuse.after = steps, after
        kills += await kills_until_removed(process, manifest, then=lambda: stops_apply_everywhere(control))
        burnt, fuse.steps, steps = fuse.steps is None, None, steps + 1
        assert await left_in_the_database(control, tenant) == {}
        if isolation is Isolation.DEDICATED:
            assert await search.indices.get(index=f"{tenant.index}*") == {}
            assert queues_of(queue, tenant) == []
    assert kills >= 6, "it stops, tells so, removes here and there, and tells so"
    await pool.close()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_retaining_removal_killed_at_any_action_loses_no_record_and_leaves_no_key(control: Control, after: bool) -> None:
    pool, fuse = Pool(control.database.owner_dsn, size_max=CONNECTIONS_MAX, role=None), Fuse()

    def process() -> Provisioner:
        return Provisioner(
            FusedDatabase(PostgresProvisioning(pool), fuse), None, None, directory=PostgresRegistry(pool), prefix=control.prefix
        )

    numbers, kills, steps = set(), 0, 0
    burnt = True
    while burnt:
        manifest = control.manifest(uid=f"uid-{steps}")
        assert (await process().reconcile(manifest, MemoryVault())).ready
        tenant = await control.tenant()
        numbers.add(tenant.id)
        stored = await control.append()
        assert isinstance(stored, Appended)
        assert stored.receipts[0].seq == steps
        fuse.steps, fuse.after = steps, after
        kills += await kills_until_removed(process, manifest)
        burnt, fuse.steps, steps = fuse.steps is None, None, steps + 1
        snapshot = await control.snapshot()
        assert tenant.id not in snapshot.tenants
        live = "SELECT 1 FROM decklog.api_keys WHERE tenant_id = $1 AND revoked_at IS NULL"
        assert await control.database.execute(live, tenant.id) == []
    assert len(numbers) == 1
    assert kills >= 4, "it stops, revokes, records, and tells"
    await pool.close()
