"""A process that was taken over: what its database role can do to a log by SQL of its own, beside what the service does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from decklog.domain.errors import DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.append import Appended, AppendRequest
from decklog.domain.tenant import Isolation, Tenant
from decklog.timescale.control import schema
from decklog.timescale.control.tables import contract_control, migrate_control
from tests.support.records import prepared
from tests.support.stores import Database

ROW = "(tenant_id, seq, received_at, occurred_at, epoch, log, severity, outcome, action, actor_id, digest, content)"
FORGED = "VALUES ($1, 0, now(), now(), 1, 0, 0, 0, 'x', 'x', '', '{}')"
EVENTS, ACCESS = LogName.EVENTS.value, LogName.ACCESS.value


def item(request: int | None = 1, key: str | None = None) -> tuple[Any, ...]:
    """Return a record as a row of `decklog.new_record`."""
    now = datetime.now(UTC)
    return (request, key, None, now, 0, 0, "forged", None, "mallory", None, None, None, None, None, b"", "{}")


async def append(
    connection: asyncpg.Connection, place: str, tenants: list[Any], counts: list[Any], items: list[Any], **changed: Any
) -> Any:
    """Call the append function of a schema as a process does, with some arguments changed."""
    number = len(tenants)
    flags = [True] * number
    logs, metered, atomic = (
        changed.get(name, default) for name, default in (("logs", [0] * number), ("metered", flags), ("atomic", flags))
    )
    ids = [each[1] for each in items if each[1] is not None]
    return await connection.fetchrow(
        f'SELECT * FROM "{place}".append($1, $2, $3, $4, $5, $6, $7)', tenants, logs, counts, atomic, metered, ids, items
    )


async def append_new(
    connection: asyncpg.Connection, runs: list[tuple[str, int, int, int]], tenants: list[Any], counts: list[Any], items: list[Any]
) -> Any:
    """Call the cell's append function; a run is its schema and the numbers of its requests, records and ids."""
    number = len(tenants)
    return await connection.fetchrow(
        "SELECT * FROM decklog.append_new($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        *map(list, zip(*runs, strict=True)), tenants, [0] * number, counts, [True] * number, [], items,
    )  # fmt: skip


@pytest.fixture
async def taken(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the API's role."""
    connection = await asyncpg.connect(database.service_dsn)
    yield connection
    await connection.close()


async def heads(database: Database) -> list[tuple[Any, ...]]:
    return [
        tuple(row)
        for row in await database.execute("SELECT tenant_id, log, epoch, next_seq, received_at FROM decklog.heads ORDER BY 1, 2")
    ]


async def store_one(database: Database, tenant: Tenant) -> None:
    [result] = await (await database.records()).append([AppendRequest(tenant, LogName.EVENTS, [prepared()])])
    assert isinstance(result, Appended), result


async def register(database: Database, tenant: Tenant) -> None:
    """Insert the tenant's row into the registry."""
    await database.execute(
        "INSERT INTO decklog.tenants (id, name, uid, isolation, schema, index, queue, retention_days, state, display_name, spec,"
        " generation, conditions) VALUES ($1, $2, '', 'Dedicated', $3, '', '', 90, 0, '', '{}', 1, '[]')",
        tenant.id, tenant.name, tenant.schema,
    )  # fmt: skip


@pytest.mark.parametrize("isolation", Isolation)
async def test_service_role_can_neither_insert_a_record_nor_move_a_head(
    database: Database, taken: asyncpg.Connection, isolation: Isolation
) -> None:
    tenant = await database.tenant(isolation=isolation)
    await store_one(database, tenant)
    before = await heads(database)
    await taken.execute("SELECT set_config('decklog.tenants', $1, false)", str(tenant.id))
    for sql, values in (
        (f'INSERT INTO "{tenant.schema}".records {ROW} {FORGED}', [tenant.id]),
        ("UPDATE decklog.heads SET next_seq = 0", []),
        ("UPDATE decklog.heads SET state = 0, tokens = burst, per_day = 0, storage_used_up = false", []),
        ("SELECT FROM decklog.heads FOR UPDATE", []),
        (f'SELECT "{tenant.schema}".store($1, $2, $3, $4, $5, NULL, $6, NULL, NULL, NULL)',
         [[tenant.id], [EVENTS], [1], [datetime.now(UTC)], [-1], [item()]]),
        ("SELECT decklog.on_day(heads, '2000-01-01') FROM decklog.heads", []),
        ("SELECT decklog.place(heads) FROM decklog.heads", []),
    ):  # fmt: skip
        with pytest.raises(asyncpg.exceptions.InsufficientPrivilegeError):
            await taken.execute(sql, *values)
    assert await heads(database) == before


async def test_append_refuses_requests_that_would_double_a_number(database: Database, taken: asyncpg.Connection) -> None:
    """Each would store records that a head does not count, or count records that are not stored."""
    a, b = [await database.tenant(isolation=Isolation.SHARED) for _ in range(2)]
    assert a.schema == b.schema
    place = a.schema
    many = 70
    before = await heads(database)
    for tenants, counts, items, changed in (
        ([a.id, b.id], [1, 1], [item(1), item(1)], {}),  # both records for the tenant with one number
        ([a.id, b.id], [1, 1], [item(2), item(1)], {}),
        ([a.id, b.id], [1, many], [item(1)] * (many + 1), {}),
        ([a.id], [1], [item(1), item(1)], {}),
        ([a.id], [many], [item(1)] * (many + 1), {}),
        ([a.id], [2], [item(1)], {}),
        ([a.id], [1], [item(None)], {}),
        ([a.id], [1], [item(2)], {}),
        ([a.id, a.id], [2, -1], [item(1)], {}),
        ([a.id, None], [1, 1], [item(1), item(2)], {}),
        ([a.id, b.id], [1, None], [item(1), item(2)], {}),
        ([a.id], [1, 1], [item(1), item(2)], {}),
        ([a.id], [1], [item(1)], {"logs": [EVENTS, ACCESS]}),
        ([a.id], [1], [item(1)], {"metered": []}),
        ([], [], [item(1)], {}),
    ):
        with pytest.raises(asyncpg.exceptions.InvalidParameterValueError):
            await append(taken, place, tenants, counts, items, **changed)
        assert await heads(database) == before
    with pytest.raises(asyncpg.exceptions.InvalidParameterValueError):  # an array that begins at 5
        await taken.execute(
            f"SELECT \"{place}\".append('[5:5]={{{a.id}}}', '[5:5]={{0}}', '[5:5]={{1}}', '[5:5]={{t}}', '[5:5]={{t}}', '{{}}', $1)",
            [item()],
        )
    assert await heads(database) == before
    assert (await append(taken, place, [a.id, b.id], [1, 2], [item(1), item(2), item(2)]))["first_seq"] == [0, 0]


async def test_append_refuses_records_of_a_tenant_in_another_schema(database: Database, taken: asyncpg.Connection) -> None:
    """Else a head would count records that its own schema does not have, or a tenant's own schema would hold another tenant's."""
    a, b = await database.tenant(), await database.tenant()
    before = await heads(database)
    with pytest.raises(
        asyncpg.exceptions.InvalidParameterValueError, match=f"tenant {b.id} are not stored in the schema {a.schema}"
    ):
        await append(taken, a.schema, [b.id], [1], [item()])
    for place in (a.schema, "pg_catalog", "public", "no_schema", None):
        with pytest.raises(asyncpg.exceptions.InvalidParameterValueError, match=f"tenant {b.id} are not stored"):
            await append_new(taken, [(place, 1, 1, 0)], [b.id], [1], [item()])  # type: ignore[list-item]
    with pytest.raises(
        asyncpg.exceptions.InvalidParameterValueError, match=f"tenant {a.id} are not stored in the schema {b.schema}"
    ):
        await append_new(taken, [(a.schema, 1, 1, 0), (b.schema, 1, 1, 0)], [a.id, a.id], [1, 1], [item(), item()])
    for runs, items in (
        ([(a.schema, 1, 1, 0), (b.schema, 1, 1, 0)], [item(1), item(2)]),  # `request` counts within its run
        ([(a.schema, 1, 2, 0), (b.schema, 1, 0, 0)], [item(1), item(1)]),
        ([(a.schema, 1, 1, 0)], [item(1), item(1)]),
        ([(a.schema, 1, 1, 0), (b.schema, 1, 1, 1)], [item(1), item(1)]),
        ([(a.schema, 1, -1, 0), (b.schema, 1, 3, 0)], [item(1), item(1)]),
    ):
        with pytest.raises(asyncpg.exceptions.InvalidParameterValueError):
            await append_new(taken, runs, [a.id, b.id], [1, 1], items)
    assert await heads(database) == before
    answer = await append_new(
        taken, [(a.schema, 1, 1, 0), (b.schema, 1, 2, 0)], [a.id, b.id], [1, 2], [item(1), item(1), item(1)]
    )
    assert (answer["request_status"], answer["first_seq"]) == ([0, 0], [0, 0])


async def test_events_are_metered_whatever_the_caller_says(database: Database, taken: asyncpg.Connection) -> None:
    """Only the access log may pass by quotas and states, because it records what happens to a suspended tenant."""
    tenant = await database.tenant(per_second=1, burst=2)
    unmetered = {"metered": [False]}
    assert (await append(taken, tenant.schema, [tenant.id], [3], [item()] * 3, **unmetered))["request_status"] == [2]
    await database.execute("UPDATE decklog.heads SET state = 1")
    assert (await append(taken, tenant.schema, [tenant.id], [1], [item()], **unmetered))["request_status"] == [3]
    assert (await append_new(taken, [(tenant.schema, 1, 1, 0)], [tenant.id], [1], [item()]))["request_status"] == [3]
    assert (await append(taken, tenant.schema, [tenant.id], [1], [item()], logs=[ACCESS], **unmetered))["request_status"] == [0]


async def test_caller_cannot_put_own_functions_before_those_of_the_system(database: Database) -> None:
    tenant = await database.tenant()
    await database.execute("CREATE SCHEMA evil")
    await database.execute("GRANT USAGE ON SCHEMA evil TO decklog_service")
    await database.execute("CREATE FUNCTION evil.cardinality(anyarray) RETURNS integer LANGUAGE sql AS 'SELECT 1 / 0'")
    connection = await asyncpg.connect(database.service_dsn, server_settings={"search_path": "evil, pg_catalog"})
    try:
        assert (await append(connection, tenant.schema, [tenant.id], [1], [item()]))["request_status"] == [0]
        assert (await append_new(connection, [(tenant.schema, 1, 1, 0)], [tenant.id], [1], [item()]))["first_seq"] == [1]
    finally:
        await connection.close()


async def test_head_of_an_older_operator_learns_its_schema_from_the_registry(database: Database) -> None:
    """Such an operator does not write the column; the first append does."""
    tenant = await database.tenant()
    await migrate_control(database.owner_dsn)
    await register(database, tenant)
    await database.execute("UPDATE decklog.heads SET schema_name = ''")
    await store_one(database, tenant)
    assert {row[0] for row in await database.execute("SELECT schema_name FROM decklog.heads WHERE log = 0")} == {tenant.schema}
    await database.execute("DELETE FROM decklog.tenants")
    await database.execute("UPDATE decklog.heads SET schema_name = ''")
    connection = await asyncpg.connect(database.service_dsn)
    try:
        with pytest.raises(asyncpg.exceptions.InvalidParameterValueError):
            await append(connection, tenant.schema, [tenant.id], [1], [item()])
    finally:
        await connection.close()


@pytest.mark.parametrize("isolation", Isolation)
async def test_rights_of_older_processes_last_until_the_post_migration(
    database: Database, taken: asyncpg.Connection, isolation: Isolation
) -> None:
    """The template keeps them meanwhile; afterwards, nothing differs from the template."""
    tenant = await database.tenant(isolation=isolation)
    await database.execute("GRANT UPDATE ON decklog.heads TO decklog_service")
    await database.execute("UPDATE decklog.relations SET template = 'older'")
    owner = await database.owner()
    await schema.migrate_cell(owner)
    await taken.execute("SELECT set_config('decklog.tenants', $1, false)", str(tenant.id))
    await taken.execute(f'INSERT INTO "{tenant.schema}".records {ROW} {FORGED.replace("0, now()", "7, now()", 1)}', tenant.id)
    await taken.execute("UPDATE decklog.heads SET next_seq = 8")

    await migrate_control(database.owner_dsn)  # all migrations, as the database is new to Piccolo
    await contract_control(database.owner_dsn)
    for sql in (
        "UPDATE decklog.heads SET next_seq = 8",
        f'INSERT INTO "{tenant.schema}".records {ROW} {FORGED.replace("$1", "1")}',
    ):
        with pytest.raises(asyncpg.exceptions.InsufficientPrivilegeError):
            await taken.execute(sql)
    assert (await schema.relations_missing(owner, [tenant.schema]))[tenant.schema] == []
    await store_one(database, tenant)


async def test_service_role_can_neither_move_a_cursor_nor_declare_an_archive_done(
    database: Database, taken: asyncpg.Connection
) -> None:
    """A row of `archives` is compared with the head before a tenant under the deletion policy Archive is dropped."""
    tenant = await database.tenant()
    await store_one(database, tenant)
    assert await (await database.cursors()).lease("indexer", tenant.id, LogName.EVENTS, owner="worker", seconds=60)
    for sql in (
        f"INSERT INTO decklog.archives VALUES ({tenant.id}, 0, 1, 'forged')",
        f"INSERT INTO decklog.archive_parts VALUES ({tenant.id}, 0, 0, '{{}}')",
        "SELECT decklog.report_archive_place('s3://mine', true, '', '')",
        f"SELECT decklog.finish_archive('archiver', {tenant.id}, 0::smallint, 'me', 0, '{{0}}', '{{1}}', 'forged')",
        f"SELECT decklog.lease_cursor('archiver', {tenant.id}, 0::smallint, 'me', 60)",
        "UPDATE decklog.cursors SET owner = NULL",
        "UPDATE decklog.cursors SET next_seq = 1",
        f"SELECT decklog.move_cursor('indexer', {tenant.id}, 0::smallint, 'worker', 0, 1, 60)",
        f"SELECT decklog.release_cursor('indexer', {tenant.id}, 0::smallint, 'worker')",
        f"SELECT decklog.lease_cursors('archiver', '{{{tenant.id}}}', '{{0}}', 'me', 60)",
        f"SELECT decklog.renew_cursors('indexer', '{{{tenant.id}}}', '{{0}}', 'worker', 60)",
        f"SELECT decklog.move_cursors('indexer', '{{{tenant.id}}}', '{{0}}', 'worker', '{{0}}', '{{1}}', 60)",
        f"SELECT decklog.release_cursors('indexer', '{{{tenant.id}}}', '{{0}}', 'worker')",
    ):
        with pytest.raises(asyncpg.exceptions.InsufficientPrivilegeError):
            await taken.execute(sql)


async def test_worker_role_appends_nothing_and_moves_only_what_it_leased_up_to_the_head(database: Database) -> None:
    tenant = await database.tenant()
    await store_one(database, tenant)
    cursors = await database.cursors()
    held = await cursors.lease("indexer", tenant.id, LogName.EVENTS, owner="one", seconds=10**9)
    assert held is not None
    [row] = await database.execute(
        "SELECT leased_until < clock_timestamp() + interval '61 minutes' AS bounded FROM decklog.cursors"
    )
    assert row["bounded"]
    assert await cursors.move(held, 2, seconds=60) is None  # beyond the head
    assert await cursors.move(held, -1, seconds=60) is None
    assert await cursors.move_all([(held, 2)], seconds=60) == await cursors.move_all([(held, -1)], seconds=60) == []
    assert await cursors.renew_all([held], seconds=10**9) == {held.key}
    [row] = await database.execute(
        "SELECT leased_until < clock_timestamp() + interval '61 minutes' AS bounded FROM decklog.cursors"
    )
    assert row["bounded"]
    assert (await cursors.move(held, 1, seconds=60)) is not None
    worker = await asyncpg.connect(database.worker_dsn)
    try:
        for call in (
            append(worker, tenant.schema, [tenant.id], [1], [item()]),
            append_new(worker, [(tenant.schema, 1, 1, 0)], [tenant.id], [1], [item()]),
        ):
            with pytest.raises(asyncpg.exceptions.InsufficientPrivilegeError):
                await call
        await worker.execute("SELECT set_config('decklog.tenants', $1, false)", str(tenant.id))
        for sql in (
            f'INSERT INTO "{tenant.schema}".records {ROW} {FORGED.replace("$1", "1")}',
            "UPDATE decklog.heads SET next_seq = 0",
            f"INSERT INTO decklog.archives VALUES ({tenant.id}, 0, 1, 'forged')",
        ):
            with pytest.raises(asyncpg.exceptions.InsufficientPrivilegeError):
                await worker.execute(sql)
    finally:
        await worker.close()


async def test_worker_role_notes_an_archive_only_of_a_deleted_tenant_up_to_its_cursor(database: Database) -> None:
    tenant = await database.tenant()
    await store_one(database, tenant)
    await migrate_control(database.owner_dsn)
    await register(database, tenant)
    cursors = await database.cursors()
    held = await cursors.lease("archiver", tenant.id, LogName.EVENTS, owner="me", seconds=60)
    assert held is not None
    worker = await asyncpg.connect(database.worker_dsn)
    finish = "SELECT decklog.finish_archive('archiver', $1, 0::smallint, 'me', $2, '{0}', '{1}', 'manifest')"
    try:
        assert await worker.fetchval(finish, tenant.id, 0) is False  # the cursor is at 0
        assert await cursors.move(held, 1, seconds=60)
        assert await worker.fetchval(finish, tenant.id, 1) is False  # the tenant is not deleted
        await database.execute("UPDATE decklog.tenants SET state = 2")
        assert await worker.fetchval(finish, tenant.id, 0) is False  # not at that position
        assert await worker.fetchval(finish, tenant.id, 1) is True
    finally:
        await worker.close()


async def test_migration_names_the_role_that_does_not_exist(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "LEAST_ROLES", ("decklog_service", "decklog_nobody"))
    with pytest.raises(DecklogError, match=r"no role decklog_nobody.* Run decklog migrate --bootstrap"):
        await schema.migrate_cell(await database.owner())
