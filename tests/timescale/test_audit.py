"""The check of the database: it finds what a superuser does to a log, and nothing on a log that only Decklog wrote."""

from __future__ import annotations

import asyncpg
import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.append import Appended, AppendRequest
from decklog.domain.tenant import Isolation, Tenant
from decklog.timescale.connection import WORKER_ROLE
from decklog.timescale.control.tables import migrate_control
from decklog.timescale.records import audit
from decklog.timescale.records.audit import PostgresAudit
from tests.support.records import prepared
from tests.support.stores import Database

RECORDS = 5
COPY = (
    "INSERT INTO {records} SELECT tenant_id, seq {seq}, received_at {later}, occurred_at, epoch, log, severity, outcome, id, action, actor_type,"
    " actor_id, resource_type, resource_id, session_id, correlation_id, ip, fingerprint, digest, content FROM {records} WHERE log = 0 AND seq = 2"
)
HEAD = "UPDATE decklog.heads SET {change} WHERE tenant_id = {tenant} AND log = 0"
DAMAGES = {
    COPY.format(records="{records}", seq="", later="+ interval '1 microsecond'"): "doubled",
    COPY.format(records="{records}", seq="", later="- interval '1 minute'"): "doubled disordered",
    COPY.format(records="{records}", seq="+ 3", later=""): "disordered head",
    COPY.format(records="{records}", seq="+ 1000000000", later=""): "gap disordered head",
    "DELETE FROM {records} WHERE log = 0 AND seq = 2": "gap",
    "DELETE FROM {records} WHERE log = 0 AND seq = 0": "gap",
    "DELETE FROM {records} WHERE log = 0 AND seq = 4": "head",
    "DELETE FROM {records} WHERE log = 0": "head",
    "UPDATE {records} SET content = '{{}}' WHERE log = 0 AND seq = 3": "damaged",
    "UPDATE {records} SET digest = sha256('x') WHERE log = 0 AND seq = 3": "damaged",
    "UPDATE {records} SET epoch = 9 WHERE log = 0 AND seq = 1": "disordered",
    HEAD.format(change="next_seq = 2", tenant="{tenant}"): "head",
    HEAD.format(change="next_seq = 9", tenant="{tenant}"): "head",
    HEAD.format(change="received_at = 'epoch'", tenant="{tenant}"): "head",
    HEAD.format(change="epoch = 0", tenant="{tenant}"): "head",
    "INSERT INTO decklog.archives VALUES ({tenant}, 0, 5, 'forged')": "archive",
    "INSERT INTO decklog.cursors (consumer, tenant_id, log, next_seq) VALUES ('indexer', {tenant}, 0, 99)": "cursor",
    "GRANT INSERT ON {records} TO decklog_service": "rights",
    "GRANT UPDATE (next_seq) ON decklog.heads TO decklog_worker": "rights",
}


UNIQUE_NO_MORE = """DO $$ DECLARE number regclass; BEGIN
  FOR number IN SELECT indexrelid FROM pg_index WHERE indisunique AND indexrelid::regclass::text LIKE '%_number' LOOP
    EXECUTE format('DROP INDEX %s', number);
  END LOOP; END $$"""


@pytest.fixture
async def check(database: Database) -> PostgresAudit:
    await migrate_control(database.owner_dsn)
    return PostgresAudit(await database.pool(WORKER_ROLE))


async def kinds(check: PostgresAudit) -> set[str]:
    return {fault.kind for checked in [each async for each in check.run()] for fault in checked.faults}


async def fill(database: Database, isolation: Isolation) -> Tenant:
    tenant, store = await database.tenant(isolation=isolation), await database.records()
    for log in LogName:
        for _ in range(RECORDS):
            [result] = await store.append([AppendRequest(tenant, log, [prepared()])])
            assert isinstance(result, Appended)
    return tenant


@pytest.mark.parametrize("isolation", Isolation)
async def test_audit_finds_what_a_superuser_did(
    database: Database, check: PostgresAudit, isolation: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "BATCH", 2)
    tenant = await fill(database, isolation)
    assert await kinds(check) == set()
    assert [each.records async for each in check.run() if each.subject.startswith("log ")] == [RECORDS, RECORDS]
    await database.execute(UNIQUE_NO_MORE)
    names = {"records": f'"{tenant.schema}".records', "tenant": tenant.id}
    await database.execute(f'CREATE TABLE public.kept AS SELECT * FROM "{tenant.schema}".records')
    await database.execute("CREATE TABLE public.heads AS SELECT * FROM decklog.heads")
    for damage, found in DAMAGES.items():
        await database.execute(damage.format(**names))
        assert await kinds(check) == set(found.split()), damage
        for repair in (
            "DELETE FROM {records}", "INSERT INTO {records} SELECT * FROM public.kept", "DELETE FROM decklog.heads",
            "INSERT INTO decklog.heads SELECT * FROM public.heads", "DELETE FROM decklog.archives", "DELETE FROM decklog.cursors",
            "REVOKE INSERT ON {records} FROM decklog_service", "REVOKE UPDATE (next_seq) ON decklog.heads FROM decklog_worker",
        ):  # fmt: skip
            await database.execute(repair.format(**names))
        assert await kinds(check) == set(), damage


@pytest.mark.parametrize("isolation", Isolation)
async def test_native_partition_refuses_a_second_record_with_a_number_even_of_a_superuser(
    database: Database, isolation: Isolation
) -> None:
    """After a head was moved back, the next record is refused instead of acknowledged with a number that was given before."""
    tenant, store = await fill(database, isolation), await database.records()
    [relation] = await database.execute("SELECT hypertable FROM decklog.relations WHERE schema_name = $1", tenant.schema)
    if relation["hypertable"]:
        return  # A chunk of TimescaleDB has no such index; see the decision record.
    with pytest.raises(asyncpg.exceptions.UniqueViolationError):
        await database.execute(COPY.format(records=f'"{tenant.schema}".records', seq="", later=""))
    await database.execute(HEAD.format(change="next_seq = 2", tenant=tenant.id))
    [result] = await store.append([AppendRequest(tenant, LogName.EVENTS, [prepared()])])
    assert isinstance(result, DecklogError)
    assert result.code is Code.STORAGE_UNAVAILABLE
