"""Drift on real backends is named and repaired."""

from __future__ import annotations

from datetime import UTC, datetime

import asyncpg
import pytest

from decklog.domain.records.append import Appended
from decklog.domain.tenancy.decision import decide
from decklog.domain.tenancy.parts.database import CreateRelations
from decklog.domain.tenancy.registered import DatabaseSeen
from decklog.domain.tenancy.spec import DriftPolicy
from decklog.domain.tenancy.status import SYNCED, Drift, Part
from decklog.domain.tenant import Isolation
from tests.backends import OpenSearchServer, SqsServer
from tests.support.control import Control, control, on_each_variant
from tests.support.generations import remove_indices
from tests.support.vaults import MemoryVault

__all__ = ["control"]

DAMAGES = [
    ("DROP INDEX {schema}.records_actor", ["index records_actor"]),
    (
        "DROP INDEX {schema}.records_id; CREATE INDEX records_id ON {schema}.records (severity)",
        ["index records_id"],
    ),
    ("REVOKE SELECT ON {schema}.records FROM decklog_service", ["grant SELECT on records"]),
    ("GRANT INSERT, TRUNCATE ON {schema}.records TO decklog_service", ["grant INSERT on records", "grant TRUNCATE on records"]),
    ("GRANT EXECUTE ON FUNCTION {schema}.store TO decklog_service", ["grant EXECUTE on store"]),
    ("GRANT UPDATE (content) ON {schema}.records TO decklog_service", ["grant UPDATE on records.content"]),
    ("GRANT SELECT ON {schema}.records TO PUBLIC", ["grant SELECT on records to everybody"]),
    ("REVOKE EXECUTE ON FUNCTION {schema}.append FROM decklog_service", ["grant EXECUTE on append"]),
    ("REVOKE USAGE ON SCHEMA {schema} FROM decklog_service", ["grant USAGE on schema"]),
    ("DROP FUNCTION {schema}.append", ["function append", "grant EXECUTE on append"]),
    (
        "DROP FUNCTION {schema}.append; CREATE FUNCTION {schema}.append() RETURNS text LANGUAGE sql AS 'SELECT NULL'",
        ["function append", "grant EXECUTE on append", "grant EXECUTE on append to everybody"],
    ),
    ("ALTER FUNCTION {schema}.store SECURITY DEFINER", ["function store"]),
    ("ALTER FUNCTION {schema}.add_term_filters SECURITY INVOKER", ["function add_term_filters"]),
    ("GRANT INSERT ON {schema}.term_filters TO decklog_service", ["grant INSERT on term_filters"]),
    ("DROP INDEX {schema}.term_filters_first", ["index term_filters_first"]),
]
SHARED_DAMAGES = [
    ("ALTER TABLE {schema}.records DISABLE ROW LEVEL SECURITY", ["row-level security"]),
    ("ALTER TABLE {schema}.records NO FORCE ROW LEVEL SECURITY", ["row-level security"]),
    ("DROP POLICY tenant ON {schema}.records", ["policy tenant"]),
    ("ALTER POLICY tenant ON {schema}.records USING (true)", ["policy tenant"]),
    ("CREATE POLICY everything ON {schema}.records USING (true)", ["policy everything"]),
    ("CREATE POLICY everything ON {schema}.term_filters USING (true)", ["policy everything of term_filters"]),
    ("ALTER TABLE {schema}.term_filters DISABLE ROW LEVEL SECURITY", ["row-level security of term_filters"]),
]
DEDICATED_DAMAGES = [("ALTER TABLE {schema}.records ENABLE ROW LEVEL SECURITY", ["row-level security"])]


async def missing(control: Control, isolation: Isolation) -> list[str]:
    """Return the names of missing relations of a tenant that existed before."""
    manifest = control.manifest(isolation=isolation.value)
    seen = await control.provisioner().observe(manifest, None)
    assert isinstance(seen.database, DatabaseSeen)
    wanted = [
        action.missing for action in decide(manifest, seen, datetime.now(UTC)).actions if isinstance(action, CreateRelations)
    ]
    assert wanted == ([seen.database.missing] if seen.database.missing else [])
    return list(seen.database.missing)


@on_each_variant
@pytest.mark.parametrize("isolation", Isolation)
async def test_drift_of_relations_is_named_and_repaired(control: Control, isolation: Isolation) -> None:
    provisioner, vault = control.provisioner(), MemoryVault()
    manifest = control.manifest(isolation=isolation.value)
    status = await provisioner.reconcile(manifest, vault)
    assert await missing(control, isolation) == []
    for damage, named in DAMAGES + (SHARED_DAMAGES if isolation is Isolation.SHARED else DEDICATED_DAMAGES):
        owner = await asyncpg.connect(control.database.owner_dsn)
        try:
            await owner.execute(damage.format(schema=status.schema))
        finally:
            await owner.close()
        assert await missing(control, isolation) == named, damage
        assert (await provisioner.reconcile(manifest, vault)).condition(SYNCED).status == "True", damage
        assert await missing(control, isolation) == [], damage
        assert isinstance(await control.append(), Appended), damage


async def test_missing_partition_is_named_and_created_again(control: Control) -> None:
    provisioner, vault = control.provisioner(), MemoryVault()
    status = await provisioner.reconcile(control.manifest(), vault)
    first = await control.append()
    assert isinstance(first, Appended)
    days = [
        row["relname"]
        for row in await control.database.execute(
            "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r' AND relnamespace = $1::text::regnamespace ORDER BY 1",
            status.schema,
        )
    ]
    await control.database.execute(f"ALTER TABLE {status.schema}.records DETACH PARTITION {status.schema}.{days[0]}")
    await control.database.execute(f"DROP TABLE {status.schema}.{days[2]}")
    assert await missing(control, Isolation.DEDICATED) == [f"partition {days[0]}", f"partition {days[2]}"]
    assert (await provisioner.reconcile(control.manifest(), vault)).synced
    assert await missing(control, Isolation.DEDICATED) == []
    rows = await control.database.execute(f"SELECT seq FROM {status.schema}.records WHERE log = 0")
    assert [row["seq"] for row in rows] == [0]


async def test_added_database_index_is_left_alone(control: Control) -> None:
    provisioner, vault = control.provisioner(), MemoryVault()
    status = await provisioner.reconcile(control.manifest(), vault)
    await control.database.execute(f"CREATE INDEX his_own ON {status.schema}.records (session_id)")
    assert await missing(control, Isolation.DEDICATED) == []


@pytest.mark.parametrize("policy", DriftPolicy)
async def test_drift_in_any_backend_is_repaired_or_reported(
    control: Control, opensearch_server: OpenSearchServer, sqs_server: SqsServer, policy: DriftPolicy
) -> None:
    search, queue = control.search(opensearch_server), control.queue(sqs_server)
    provisioner, vault = control.provisioner(search, queue), MemoryVault()
    manifest = control.manifest(driftPolicy=policy.value, queue={"visibilityTimeoutSeconds": 45})
    first = await provisioner.reconcile(manifest, vault)
    assert first.drift == Drift((), 0, standing=False, at="")
    url = queue.get_queue_url(QueueName=first.queue)["QueueUrl"]

    def visibility() -> str:
        return str(queue.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]["VisibilityTimeout"])

    assert visibility() == "45"
    queue.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "5"})
    await search.indices.put_settings(index=f"{first.index}.*", body={"index.refresh_interval": "1s"})
    await control.database.execute(f"DROP INDEX {first.schema}.records_actor")
    await control.database.execute("UPDATE decklog.heads SET burst = 7 WHERE tenant_id = $1 AND log = 0", first.tenant_id)
    status = await provisioner.reconcile(manifest, vault)
    assert status.drift is not None
    assert status.drift.fields == ("VisibilityTimeout", "heads burst", "index records_actor", "index.refresh_interval")
    assert status.ready
    if policy is DriftPolicy.REPAIR:
        assert (status.drift.repaired, status.drift.standing, status.synced) == (4, False, True)
        assert visibility() == "45"
        return
    assert (status.drift.repaired, status.drift.standing, status.synced) == (0, True, False)
    for part, name in ((Part.DATABASE, "records_actor"), (Part.SEARCH, "refresh_interval"), (Part.QUEUE, "VisibilityTimeout")):
        assert status.condition(part).reason == "Drifted"
        assert name in status.condition(part).message
    assert visibility() == "5"
    again = await provisioner.reconcile(manifest, vault)
    assert again.conditions == status.conditions

    # Nor is anything done once a backend was away for a while, or where somebody dropped all of it.
    away = control.provisioner(control.broken_search(), queue)
    assert (await away.reconcile(manifest, vault)).condition(Part.SEARCH).reason == "Unreachable"
    queue.delete_queue(QueueUrl=url)
    await remove_indices(search, first.index)
    lost = await provisioner.reconcile(manifest, vault)
    assert not lost.ready
    assert {"index", "queue"} <= set(lost.drift.fields if lost.drift else ())
    assert await search.indices.get(index=f"{first.index}*") == {}
    assert {lost.condition(part).status for part in (Part.SEARCH, Part.QUEUE)} == {"False"}

    # An edited spec is not drift: all of it becomes as asked for.
    edited = control.manifest(generation=2, driftPolicy="Report")
    healed = await provisioner.reconcile(edited, vault)
    assert (healed.ready, healed.synced) == (True, True)


async def test_drift_status_is_absent_while_a_backend_is_unseen(control: Control) -> None:
    provisioner, vault = control.provisioner(control.broken_search()), MemoryVault()
    status = await provisioner.reconcile(control.manifest(), vault)
    assert status.drift is None
    await control.database.execute(f"DROP INDEX {status.schema}.records_actor")
    found = await provisioner.reconcile(control.manifest(), vault)
    assert found.drift is not None
    assert (found.drift.fields, found.drift.repaired) == (("index records_actor",), 1)
