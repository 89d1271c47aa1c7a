"""Provisioning on real backends makes what is asked for exactly once, and a broken backend does not hold up the others."""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from msgspec.structs import replace

from decklog.domain.consumers import indexer_of
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.log import LogName
from decklog.domain.records.append import Appended, AppendRequest
from decklog.domain.tenancy.decision import decide
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.parts.keys import TENANT_ROLES
from decklog.domain.tenancy.parts.queue import QueueSeen, queue_values
from decklog.domain.tenancy.preview import planned
from decklog.domain.tenancy.spec import Queue, Retention, TenantSpec, parse_spec
from decklog.domain.tenancy.status import NAME_BLOCKED, QUOTA_EXCEEDED, READY, SYNCED, Part, TenantStatus
from decklog.domain.tenant import PLATFORM_TENANT, Isolation, State
from decklog.services.identity.keys import key_hash
from decklog.services.tenancy.ports import QueueAction
from decklog.services.tenancy.provisioning import Provisioner
from tests.backends import OpenSearchServer, SqsServer
from tests.support.control import Control, control, on_each_variant
from tests.support.memory_control import MemoryControl
from tests.support.records import prepared
from tests.support.vaults import MemoryVault

__all__ = ["control"]

ALL = (READY, *Part, QUOTA_EXCEEDED, SYNCED)


def told(status: TenantStatus) -> dict[str, tuple[str, str]]:
    return {condition.type: (condition.status, condition.reason) for condition in status.conditions}


def messages(status: TenantStatus) -> str:
    return " ".join(condition.message for condition in status.conditions)


async def live_keys(control: Control, name: str = "acme") -> dict[Role, bytes]:
    """The valid keys without an end, by role; no role may have two."""
    snapshot = await control.snapshot()
    tenant_id = next(tenant.id for tenant in snapshot.tenants.values() if tenant.name == name)
    keys = [key for key in snapshot.keys.values() if key.tenant_id == tenant_id and key.expires_at is None]
    assert len({key.role for key in keys}) == len(keys)
    return {key.role: key.hash for key in keys}


async def ending_keys(control: Control) -> dict[bytes, datetime]:
    """The ends of valid keys that have one, by hash."""
    snapshot = await control.snapshot()
    return {key.hash: key.expires_at for key in snapshot.keys.values() if key.expires_at is not None}


def hashes(vault: MemoryVault, name: str = "acme") -> dict[Role, bytes]:
    return {role: key_hash(token) for role, token in vault.keys[name].items()}


@on_each_variant
@pytest.mark.parametrize("isolation", Isolation)
async def test_new_tenant_becomes_ready_and_stores_records(control: Control, isolation: Isolation) -> None:
    vault = MemoryVault()
    status = await control.provisioner().reconcile(control.manifest(isolation=isolation.value), vault)
    assert [condition.type for condition in status.conditions] == [*ALL]
    assert all(condition.good for condition in status.conditions)
    assert {condition.observed_generation for condition in status.conditions} == {1}
    stored = await control.append()
    assert isinstance(stored, Appended)
    assert stored.receipts[0].seq == 0
    tenant = await control.tenant()
    assert (status.tenant_id, status.schema) == (tenant.id, tenant.schema)
    assert await live_keys(control) == hashes(vault)
    assert set(vault.keys["acme"]) == set(TENANT_ROLES)


@pytest.mark.parametrize("isolation", Isolation)
async def test_new_tenant_gets_index_and_queues_when_configured(
    control: Control, opensearch_server: OpenSearchServer, sqs_server: SqsServer, isolation: Isolation
) -> None:
    search, queue = control.search(opensearch_server), control.queue(sqs_server)
    provisioner = control.provisioner(search, queue)
    manifest, vault = control.manifest(isolation=isolation.value), MemoryVault()
    status = await provisioner.reconcile(manifest, vault)
    assert told(status)[SYNCED] == ("True", "Synced"), messages(status)
    tenant = await control.tenant()
    assert (status.index, status.queue) == (tenant.index, tenant.queue)
    assert tenant.live is not None
    there = await search.indices.get_mapping(index=f"{tenant.index}.*")
    assert sorted(there) == list(tenant.live.range_indices)
    [mapping] = [found["mappings"] for found in there.values()]
    owner = manifest.uid if isolation is Isolation.DEDICATED else (await control.tenant(PLATFORM_TENANT)).uid
    assert mapping["_meta"]["decklog"]["uid"] == owner
    assert mapping["dynamic"] == "false"
    url = queue.get_queue_url(QueueName=tenant.queue)["QueueUrl"]
    dead = queue.get_queue_url(QueueName=f"{tenant.queue}-dlq")["QueueUrl"]
    for each in (url, dead):
        assert queue.list_queue_tags(QueueUrl=each)["Tags"]["decklog.dev/uid"] == owner
    attributes = queue.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert attributes["VisibilityTimeout"] == "30"
    assert f"{tenant.queue}-dlq" in attributes["RedrivePolicy"]
    assert decide(manifest, await provisioner.observe(manifest, vault), datetime.now(UTC)).actions == []


@on_each_variant
async def test_reconcile_changes_nothing_when_repeated(
    control: Control, opensearch_server: OpenSearchServer, sqs_server: SqsServer
) -> None:
    provisioner = control.provisioner(control.search(opensearch_server), control.queue(sqs_server))
    manifest, vault = control.manifest(), MemoryVault()

    async def everything() -> list[Any]:
        rows = "SELECT xmin::text AS x, ctid::text AS c FROM decklog."
        tables = ("tenants", "api_keys", "registry_version", "heads", "relations", "cursors")
        return [await control.database.execute(f"{rows}{table} ORDER BY 2") for table in tables]

    first = await provisioner.reconcile(manifest, vault)
    before = await everything()
    with structlog.testing.capture_logs() as logged:
        again = await provisioner.reconcile(manifest, vault)
    assert replace(again, usage=None) == replace(first, usage=None)
    assert await everything() == before
    assert vault.writes == 1
    assert not [line for line in logged if line["event"] == "provisioning"]


@on_each_variant
@pytest.mark.parametrize("isolation", Isolation)
async def test_observe_changes_nothing_and_makes_no_reserved_tenant(
    control: Control, opensearch_server: OpenSearchServer, sqs_server: SqsServer, isolation: Isolation
) -> None:
    search, queue = control.search(opensearch_server), control.queue(sqs_server)
    manifest = control.manifest(isolation=isolation.value)

    async def everything() -> list[Any]:
        rows = "SELECT xmin::text AS x, ctid::text AS c FROM decklog."
        tables = ("tenants", "api_keys", "registry_version", "heads", "relations", "cursors", "search_generations")
        found: list[Any] = [await control.database.execute(f"{rows}{table} ORDER BY 2") for table in tables]
        found += [await control.database.execute("SELECT oid::int, xmin::text FROM pg_class ORDER BY 1")]
        indices = await search.indices.get_settings(index=f"{control.prefix}-*")
        return [*found, indices, queue.list_queues(QueueNamePrefix=control.prefix).get("QueueUrls")]

    empty = await everything()
    first = planned(manifest, await control.provisioner(search, queue).observe(manifest, None), datetime.now(UTC))
    assert await everything() == empty
    assert first.platform_first
    assert {action.part for action in first.actions} == set(Part)

    await control.provisioner(search, queue).reconcile(manifest, MemoryVault())
    settled = await everything()
    later = planned(manifest, await control.provisioner(search, queue).observe(manifest, None), datetime.now(UTC))
    assert (later.actions, later.refused, later.unseen, later.platform_first) == ((), None, {}, False)
    assert await everything() == settled


@pytest.mark.parametrize("broken", ["database", "search", "queue", "vault"])
async def test_broken_backend_does_not_hold_up_the_others(
    control: Control, opensearch_server: OpenSearchServer, sqs_server: SqsServer, broken: str
) -> None:
    provisioner = control.provisioner(
        control.broken_search() if broken == "search" else control.search(opensearch_server),
        control.broken_queue() if broken == "queue" else control.queue(sqs_server),
        owner_dsn=control.broken_owner_dsn() if broken == "database" else None,
    )
    vault = MemoryVault()
    if broken == "vault":
        vault.broken = DecklogError(Code.FORBIDDEN, "The Secret may not be written in the namespace 'default'.")
    status = await provisioner.reconcile(control.manifest(), vault)
    condition = {"database": Part.DATABASE, "search": Part.SEARCH, "queue": Part.QUEUE, "vault": Part.CREDENTIALS}[broken]
    expected = dict.fromkeys(Part, "True") | {condition: "False"}
    if broken == "database":
        expected |= {Part.CREDENTIALS: "Unknown", Part.SEARCH: "Unknown"}
    assert {part: status.condition(part).status for part in Part} == expected, messages(status)
    assert (status.condition(READY).status, status.condition(SYNCED).status) == ("False", "False")
    assert condition.value in status.condition(READY).message
    assert status.condition(condition).reason == ("Forbidden" if broken == "vault" else "Unreachable")
    assert len(status.condition(condition).message) > 20


class _BlockedName:
    """SQS during the minute after a queue of this name was deleted."""

    def __init__(self) -> None:
        self.blocked, self.made = True, False

    async def observe(self, queue: str) -> QueueSeen:
        return QueueSeen(exists=self.made, owners=("uid-1", "uid-1") if self.made else (), settings=queue_values(Queue()))

    async def apply(self, action: QueueAction) -> None:
        if self.blocked:
            raise DecklogError(Code.STORAGE_UNAVAILABLE, "In a minute.", extra={"reason": NAME_BLOCKED})
        self.made = True


async def test_blocked_queue_name_is_reported_and_created_later() -> None:
    memory, queue, vault = MemoryControl(), _BlockedName(), MemoryVault()
    provisioner = Provisioner(memory, None, queue, directory=memory)
    manifest = Manifest("acme", "uid-1", 1, parse_spec({"retention": {"days": 30}}))
    waiting = await provisioner.reconcile(manifest, vault)
    assert told(waiting)[Part.QUEUE] == ("False", NAME_BLOCKED)
    assert not waiting.ready
    assert {waiting.condition(part).status for part in (Part.DATABASE, Part.CREDENTIALS)} == {"True"}
    queue.blocked = False
    assert (await provisioner.reconcile(manifest, vault, waiting.conditions)).ready


async def test_next_visit_completes_what_failed(control: Control, opensearch_server: OpenSearchServer) -> None:
    search = control.search(opensearch_server)
    manifest, vault = control.manifest(), MemoryVault()
    times = iter(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=n) for n in range(100))
    without = await control.provisioner(control.broken_search(), now=lambda: next(times)).reconcile(manifest, vault)
    assert told(without)[Part.SEARCH][0] == "False"
    later = await control.provisioner(search, now=lambda: next(times)).reconcile(manifest, vault)
    assert later.ready
    for part, same in ((Part.DATABASE, True), (Part.CREDENTIALS, True), (Part.SEARCH, False), (READY, False)):
        before, after = without.condition(part), later.condition(part)
        assert (before.last_transition_time == after.last_transition_time) is same, part


async def test_broken_vault_does_not_leak_keys(control: Control) -> None:
    vault = MemoryVault()
    vault.broken = RuntimeError("could not store dlk_abc_verysecret")
    with structlog.testing.capture_logs() as logged:
        status = await control.provisioner().reconcile(control.manifest(), vault)
    assert told(status)[Part.CREDENTIALS] == ("False", "Failed")
    assert "verysecret" not in messages(status)
    assert "RuntimeError" in str(logged)
    assert "verysecret" not in str(logged)
    assert await live_keys(control) == {}


async def test_keys_appear_in_no_condition_log_or_row(control: Control) -> None:
    vault = MemoryVault()
    with structlog.testing.capture_logs() as logged:
        status = await control.provisioner().reconcile(control.manifest(), vault)
    rows = await control.database.execute(
        "SELECT t::text FROM decklog.tenants t UNION ALL SELECT k::text FROM decklog.api_keys k"
    )
    text = f"{status}{logged}{rows}"
    for token in vault.keys["acme"].values():
        assert token not in text
        assert token.split("_")[2] not in text


async def test_tenant_of_another_uid_is_a_conflict_and_untouched(control: Control) -> None:
    vault, strange = MemoryVault(), MemoryVault()
    provisioner = control.provisioner()
    await provisioner.reconcile(control.manifest(), vault)
    before = await control.database.execute("SELECT * FROM decklog.tenants ORDER BY id")
    status = await provisioner.reconcile(control.manifest(uid="somebody-else", suspend=True), strange)
    assert told(status)[READY] == ("False", "Conflict")
    assert status.tenant_id is None
    assert await control.database.execute("SELECT * FROM decklog.tenants ORDER BY id") == before
    assert strange.keys == {}
    removed = await provisioner.remove(control.manifest(uid="somebody-else"))
    assert removed.synced
    assert isinstance(await control.append(), Appended)
    assert await live_keys(control) == hashes(vault)


async def test_foreign_index_is_a_conflict_and_nothing_is_made(
    control: Control, opensearch_server: OpenSearchServer, sqs_server: SqsServer
) -> None:
    search, queue = control.search(opensearch_server), control.queue(sqs_server)
    index = f"{control.prefix}-t-acme"
    await search.indices.create(index=index)
    status = await control.provisioner(search, queue).reconcile(control.manifest(), MemoryVault())
    assert told(status)[READY] == ("False", "Conflict")
    assert index in status.condition(READY).message
    assert "acme" not in {tenant.name for tenant in (await control.snapshot()).tenants.values()}
    assert (await search.indices.get_mapping(index=index))[index]["mappings"] == {}
    assert not [url for url in queue.list_queues(QueueNamePrefix=control.prefix).get("QueueUrls", ()) if "-t-acme" in url]


async def test_foreign_queue_is_a_conflict(control: Control, sqs_server: SqsServer) -> None:
    queue = control.queue(sqs_server)
    name = f"{control.prefix}-t-acme-wake-dlq"
    url = queue.create_queue(QueueName=name, tags={"decklog.dev/uid": "another"})["QueueUrl"]
    status = await control.provisioner(queue=queue).reconcile(control.manifest(), MemoryVault())
    assert told(status)[READY] == ("False", "Conflict")
    assert queue.list_queue_tags(QueueUrl=url)["Tags"] == {"decklog.dev/uid": "another"}


@on_each_variant
async def test_retained_tenant_is_adopted_and_continues_its_log(
    control: Control, opensearch_server: OpenSearchServer, sqs_server: SqsServer
) -> None:
    provisioner = control.provisioner(control.search(opensearch_server), control.queue(sqs_server))
    manifest, vault = control.manifest(generation=4), MemoryVault()
    await provisioner.reconcile(manifest, vault)
    before = await control.tenant()
    assert isinstance(await control.append(), Appended)
    store = await control.database.records()

    removed = await provisioner.remove(manifest)
    assert removed.synced
    assert told(removed)[READY] == ("False", "Retained")
    snapshot = await control.snapshot()
    assert before.id not in snapshot.tenants
    assert not [key for key in snapshot.keys.values() if key.tenant_id == before.id]
    [refused] = await store.append([AppendRequest(before, LogName.EVENTS, [prepared()])])
    assert isinstance(refused, DecklogError)
    assert refused.code is Code.NOT_FOUND
    assert (await provisioner.remove(manifest)).conditions == removed.conditions
    [listed] = [each for each in await provisioner.tenants() if each.name == "acme"]
    assert listed.state is State.DELETED
    assert listed.deleted_at is not None

    again, fresh = control.manifest(uid="born-again", generation=1), MemoryVault()
    adopted = await provisioner.reconcile(again, fresh)
    assert adopted.ready, messages(adopted)
    after = await control.tenant()
    assert (after.id, after.schema, after.uid) == (before.id, before.schema, "born-again")
    stored = await control.append()
    assert isinstance(stored, Appended)
    assert stored.receipts[0].seq == 1
    assert await live_keys(control) == hashes(fresh)
    assert hashes(fresh) != hashes(vault)
    assert decide(again, await provisioner.observe(again, fresh), datetime.now(UTC)).actions == []
    # The object it was before is somebody else now.
    assert told(await provisioner.reconcile(manifest, vault))[READY] == ("False", "Conflict")


async def test_remove_waits_for_unreachable_database(control: Control) -> None:
    await control.provisioner().reconcile(control.manifest(), MemoryVault())
    status = await control.provisioner(owner_dsn=control.broken_owner_dsn()).remove(control.manifest())
    assert not status.synced
    assert told(status)[SYNCED] == ("False", "Unreachable")
    assert isinstance(await control.append(), Appended)


@on_each_variant
@pytest.mark.parametrize("isolation", Isolation)
async def test_suspend_refuses_appends_until_it_is_lifted(control: Control, isolation: Isolation) -> None:
    provisioner, vault = control.provisioner(), MemoryVault()
    spec: dict[str, Any] = {"isolation": isolation.value}
    await provisioner.reconcile(control.manifest(**spec), vault)
    status = await provisioner.reconcile(control.manifest(generation=2, suspend=True, **spec), vault)
    assert told(status)[READY] == ("True", "Suspended")
    assert (await control.tenant()).state is State.SUSPENDED
    refused = await control.append()
    assert isinstance(refused, DecklogError)
    assert refused.code is Code.TENANT_SUSPENDED
    await provisioner.reconcile(control.manifest(generation=3, **spec), vault)
    stored = await control.append()
    assert isinstance(stored, Appended)
    assert stored.receipts[0].seq == 0


async def test_quotas_and_retention_reach_heads_and_registry(control: Control) -> None:
    provisioner, vault = control.provisioner(), MemoryVault()
    await provisioner.reconcile(control.manifest(), vault)
    changed: dict[str, Any] = {
        "quotas": {"eventsPerSecond": 3, "burst": 7, "eventsPerDay": 50, "queriesPerMinute": 90},
        "retention": {"days": 400, "searchDays": 40},
        "ingest": {"dedupWindow": "2h"},
    }
    status = await provisioner.reconcile(control.manifest(generation=2, displayName="Acme", **changed), vault)
    assert status.ready
    heads = await control.database.execute(
        "SELECT per_second, burst, per_day, dedup_window FROM decklog.heads WHERE tenant_id = $1 ORDER BY log", status.tenant_id
    )
    assert [tuple(head) for head in heads] == [(3.0, 7, 50, timedelta(hours=2)), (1.5, 90, 0, timedelta(hours=2))]
    tenant = await control.tenant()
    assert (tenant.retention_days, tenant.limits.search_days, tenant.display_name) == (400, 40, "Acme")


async def test_tenant_of_another_cell_is_refused_and_nothing_is_made(control: Control) -> None:
    provisioner, vault = control.provisioner(cell="eu-1"), MemoryVault()
    for name in ("default", "us-2"):
        status = await provisioner.reconcile(control.manifest(cell=name), vault)
        assert told(status)[READY] == told(status)[SYNCED] == ("False", "UnknownCell")
        assert "which has 'eu-1' alone" in status.condition(READY).message
    assert [listed.name for listed in await provisioner.tenants()] == [PLATFORM_TENANT]
    status = await provisioner.reconcile(control.manifest(cell="eu-1"), vault)
    assert status.ready, messages(status)
    assert {listed.cell for listed in await provisioner.tenants()} == {"eu-1"}
    # An installation that calls its cell otherwise does not take the tenants over.
    status = await control.provisioner().reconcile(control.manifest(cell="eu-1"), vault)
    assert told(status)[READY] == ("False", "UnknownCell")
    status = await control.provisioner().reconcile(control.manifest(generation=2), vault)
    assert told(status)[READY] == ("False", "Immutable")
    assert isinstance(await control.append(), Appended)


@pytest.mark.parametrize(
    "changed", [{"isolation": "Dedicated"}, {"isolation": "Shared", "retention": {"days": 31}}], ids=["isolation", "class"]
)
async def test_immutable_change_is_refused_and_tenant_keeps_working(control: Control, changed: dict[str, Any]) -> None:
    provisioner, vault = control.provisioner(), MemoryVault()
    await provisioner.reconcile(control.manifest(isolation="Shared"), vault)
    status = await provisioner.reconcile(control.manifest(generation=2, suspend=True, **changed), vault)
    assert told(status)[READY] == told(status)[SYNCED] == ("False", "Immutable")
    assert isinstance(await control.append(), Appended)


async def test_concurrent_provisioners_make_one_tenant_and_one_set_of_keys(
    control: Control, opensearch_server: OpenSearchServer, sqs_server: SqsServer
) -> None:
    search, queue, vault = control.search(opensearch_server), control.queue(sqs_server), MemoryVault()
    provisioners = [control.provisioner(search, queue) for _ in range(3)]
    manifests = [control.manifest("acme"), control.manifest("beta", uid="uid-beta", isolation="Shared")]
    statuses = await asyncio.gather(*(each.reconcile(one, vault) for each in provisioners for one in manifests))
    assert all(status.ready for status in statuses), [messages(status) for status in statuses if not status.ready]
    assert len({status.tenant_id for status in statuses}) == 2
    for name in ("acme", "beta"):
        assert await live_keys(control, name) == hashes(vault, name)
    assert {listed.name for listed in await provisioners[0].tenants()} == {"acme", "beta", PLATFORM_TENANT}


@on_each_variant
async def test_many_tenants_are_reconciled_concurrently(control: Control) -> None:
    provisioner, vault = control.provisioner(), MemoryVault()
    manifests = [control.manifest(f"t{n}", uid=f"uid-{n}", isolation=("Shared", "Dedicated")[n % 4 == 0]) for n in range(24)]
    statuses = await asyncio.gather(*(provisioner.reconcile(each, vault) for each in manifests))
    assert [messages(status) for status in statuses if not status.ready] == []


@pytest.mark.parametrize("fault", ["lost", "altered", "all lost"])
async def test_lost_or_altered_key_is_replaced_and_the_old_one_ends_after_overlap(control: Control, fault: str) -> None:
    now = datetime.now(UTC)
    provisioner, vault = control.provisioner(now=lambda: now), MemoryVault()
    await provisioner.reconcile(control.manifest(), vault)
    before = hashes(vault)
    if fault == "all lost":
        del vault.keys["acme"]
    elif fault == "lost":
        del vault.keys["acme"][Role.AUDITOR]
    else:
        vault.keys["acme"][Role.AUDITOR] = "dlk_0123456789abcdef_" + "0" * 64
    status = await provisioner.reconcile(control.manifest(), vault)
    assert status.ready
    after = hashes(vault)
    assert await live_keys(control) == after
    replaced = {role for role in TENANT_ROLES if before[role] != after[role]}
    assert replaced == (set(TENANT_ROLES) if fault == "all lost" else {Role.AUDITOR})
    assert await ending_keys(control) == {before[role]: now + timedelta(hours=24) for role in replaced}


async def test_key_revoked_outside_decklog_is_replaced(control: Control) -> None:
    provisioner, vault = control.provisioner(), MemoryVault()
    await provisioner.reconcile(control.manifest(), vault)
    await control.database.execute("UPDATE decklog.api_keys SET revoked_at = now() WHERE role = 'writer'")
    assert set(await live_keys(control)) == {Role.AUDITOR, Role.ADMIN}
    await provisioner.reconcile(control.manifest(), vault)
    assert await live_keys(control) == hashes(vault)
    assert set(hashes(vault)) == set(TENANT_ROLES)


async def test_manifest_with_reserved_name_is_refused(control: Control) -> None:
    provisioner = control.provisioner()
    await provisioner.ensure_platform_tenant()
    before = await control.tenant(PLATFORM_TENANT)
    manifest = control.manifest(PLATFORM_TENANT, isolation="Shared", retention={"days": 365}, suspend=True)
    for status in (await provisioner.reconcile(manifest, MemoryVault()), await provisioner.remove(manifest)):
        assert told(status)[READY] == ("False", "InvalidSpec")
    assert await control.tenant(PLATFORM_TENANT) == before


async def test_reconcile_validates_spec_that_was_never_parsed(control: Control) -> None:
    manifest = control.manifest()
    broken = type(manifest)("Bad_Name", "uid", 1, TenantSpec(retention=Retention(30)))
    status = await control.provisioner().reconcile(broken, MemoryVault())
    assert told(status)[READY] == ("False", "InvalidSpec")
    assert set(told(status)) == set(ALL)


async def test_platform_has_a_tenant_without_keys_and_one_platform_key(control: Control) -> None:
    one, other = control.provisioner(), control.provisioner()
    statuses = await asyncio.gather(one.ensure_platform_tenant(), other.ensure_platform_tenant())
    assert all(status.ready for status in statuses)
    assert await live_keys(control, PLATFORM_TENANT) == {}
    token = await one.ensure_platform_key(None)
    assert await other.ensure_platform_key(token) == token
    replaced = await other.ensure_platform_key("dlk_0123456789abcdef_" + secrets.token_hex(32))
    assert replaced != token
    keys = [key for key in (await control.snapshot()).keys.values() if key.tenant_id is None]
    assert [(key.role, key.hash) for key in keys] == [(Role.PLATFORM, key_hash(replaced))]


@on_each_variant
async def test_removed_objects_are_restored(control: Control, opensearch_server: OpenSearchServer, sqs_server: SqsServer) -> None:
    search, queue = control.search(opensearch_server), control.queue(sqs_server)
    provisioner = control.provisioner(search, queue)
    manifest, vault = control.manifest(isolation="Shared"), MemoryVault()
    await provisioner.reconcile(manifest, vault)
    tenant = await control.tenant()
    url = queue.get_queue_url(QueueName=tenant.queue)["QueueUrl"]
    await control.database.execute("ALTER TABLE shared_30.records NO FORCE ROW LEVEL SECURITY")
    await control.database.execute("UPDATE decklog.heads SET burst = 1 WHERE tenant_id = $1 AND log = 0", tenant.id)
    await search.indices.put_settings(index=f"{tenant.index}.*", body={"index.refresh_interval": "1s"})
    queue.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "5"})
    queue.delete_queue(QueueUrl=queue.get_queue_url(QueueName=f"{tenant.queue}-dlq")["QueueUrl"])
    status = await provisioner.reconcile(manifest, vault)
    assert status.synced, messages(status)
    assert decide(manifest, await provisioner.observe(manifest, vault), datetime.now(UTC)).actions == []
    [row] = await control.database.execute("SELECT relforcerowsecurity FROM pg_class WHERE oid = 'shared_30.records'::regclass")
    assert row["relforcerowsecurity"]
    assert queue.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]["VisibilityTimeout"] == "30"


async def test_lost_range_is_replaced_by_a_generation_that_is_filled_from_the_beginning(
    control: Control, opensearch_server: OpenSearchServer
) -> None:
    search = control.search(opensearch_server)
    provisioner, vault = control.provisioner(search), MemoryVault()
    manifests = [control.manifest(name, uid=name, isolation="Shared") for name in ("acme", "beta")]
    cursors = await control.database.cursors()
    held = []
    for manifest in manifests:
        await provisioner.reconcile(manifest, vault)
        tenant = await control.tenant(manifest.name)
        leased = await cursors.lease(indexer_of(tenant), tenant.id, LogName.EVENTS, owner="w", seconds=60)
        assert leased is not None
        await control.database.execute("UPDATE decklog.heads SET next_seq = 100 WHERE tenant_id = $1", tenant.id)
        held.append(await cursors.move(leased, 40, seconds=60))
    for manifest in manifests:
        await provisioner.reconcile(manifest, vault)
    assert [await cursors.next_seq(each.consumer, each.tenant_id, LogName.EVENTS) for each in held if each] == [40, 40]

    assert tenant.live is not None
    await search.indices.delete(index=tenant.live.range_indices[0])
    status = await provisioner.reconcile(manifests[0], vault)
    assert status.synced, messages(status)
    # For both tenants at once, as both are in that index; a worker at work finds that its cursor is gone.
    for cursor, manifest in zip(held, manifests, strict=True):
        assert cursor is not None
        found = await control.tenant(manifest.name)
        assert found.live is not None
        assert found.live.name != tenant.live.name
        assert await cursors.next_seq(indexer_of(found), cursor.tenant_id, LogName.EVENTS) == 0
        assert await cursors.move(cursor, 41, seconds=60) is None


async def test_unmigrated_database_is_reported(control: Control) -> None:
    await control.database.execute("DROP TABLE decklog.tenants CASCADE")
    status = await control.provisioner().reconcile(control.manifest(), MemoryVault())
    assert told(status)[Part.DATABASE] == ("False", "Misconfigured")
    assert "decklog migrate" in status.condition(Part.DATABASE).message


async def test_directory_lists_the_last_reported_conditions(control: Control) -> None:
    provisioner = control.provisioner()
    status = await provisioner.reconcile(control.manifest(), MemoryVault())
    [listed] = [each for each in await provisioner.tenants() if each.name == "acme"]
    assert listed.conditions == status.conditions


async def test_manifest_of_file_keeps_uid_and_counts_generations(control: Control) -> None:
    provisioner = control.provisioner()
    spec = control.manifest().spec
    first = await provisioner.manifest("acme", spec)
    await provisioner.reconcile(first, MemoryVault())
    assert await provisioner.manifest("acme", spec) == first
    changed = await provisioner.manifest("acme", control.manifest(suspend=True).spec)
    assert (changed.uid, changed.generation) == (first.uid, 2)


async def test_database_refusal_is_reported_and_no_key_is_issued(control: Control, opensearch_server: OpenSearchServer) -> None:
    provisioner = control.provisioner(control.search(opensearch_server))
    await provisioner.ensure_platform_tenant()
    await control.database.execute(
        "CREATE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no more heads'; END $$"
    )
    await control.database.execute("CREATE TRIGGER no BEFORE INSERT ON decklog.heads EXECUTE FUNCTION public.no()")
    vault = MemoryVault()
    status = await provisioner.reconcile(control.manifest(), vault)
    assert told(status)[Part.DATABASE] == ("False", "Failed")
    assert "no more heads" in status.condition(Part.DATABASE).message
    assert told(status)[Part.CREDENTIALS] == ("Unknown", "Pending")
    assert told(status)[Part.SEARCH][0] == "True"
    assert vault.keys == {}
    # All or nothing: there is no tenant without heads.
    assert {tenant.name for tenant in (await control.snapshot()).tenants.values()} == {PLATFORM_TENANT}

    await control.database.execute("DROP TRIGGER no ON decklog.heads")
    assert (await provisioner.reconcile(control.manifest(), vault)).synced


async def test_cancelled_visit_leaves_the_tenant_to_the_next_visit(control: Control) -> None:
    provisioner, vault = control.provisioner(), MemoryVault()
    for moment in range(12):
        visiting = asyncio.create_task(provisioner.reconcile(control.manifest(generation=moment + 1), vault))
        await asyncio.wait([visiting], timeout=moment * 0.03)
        visiting.cancel()
        await asyncio.wait([visiting])
    status = await provisioner.reconcile(control.manifest(generation=20), vault)
    assert status.synced, messages(status)
    assert await live_keys(control) == hashes(vault)
