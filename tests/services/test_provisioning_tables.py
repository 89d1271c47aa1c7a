"""The control tables are made once by any number of processes, and the service's role can only read them."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import subprocess
import sys

import asyncpg
import pytest
from piccolo.apps.migrations.auto.diffable_table import DiffableTable
from piccolo.apps.migrations.auto.schema_differ import SchemaDiffer
from piccolo.apps.migrations.auto.schema_snapshot import SchemaSnapshot

from decklog.timescale.control import migrations
from decklog.timescale.control.piccolo_app import APP_CONFIG
from decklog.timescale.control.piccolo_engine import on
from decklog.timescale.control.tables import (
    ApiKeyRow,
    IndexRow,
    RegistryVersion,
    TenantRow,
    find_tenant,
    migrate_control,
)
from tests.support.control import Control, control
from tests.support.vaults import MemoryVault

__all__ = ["control"]

TABLES = ("tenants", "api_keys", "registry_version")


async def test_migrations_change_nothing_when_repeated_concurrently(control: Control) -> None:
    await control.database.execute(
        "DROP TABLE decklog.made_keys, decklog.api_keys, decklog.tenants, decklog.registry_version, decklog.registry_changes, decklog.search_indices, "
        "decklog.migration"
    )
    for function in (
        "count_registry_version",
        "next_registry_version",
        "log_tenant_changes",
        "log_key_changes",
        "end_made_keys",
        "make_key",
        "revoke_key",
        "note_key_uses",
    ):
        await control.database.execute(f"DROP FUNCTION decklog.{function}")
    script = "import asyncio, sys; from decklog.timescale.control.tables import migrate_control; asyncio.run(migrate_control(sys.argv[1]))"
    command = [sys.executable, "-c", script, control.database.owner_dsn]
    processes = [subprocess.Popen(command, env={**os.environ}) for _ in range(3)]
    codes = await asyncio.gather(*(asyncio.to_thread(process.wait, 60) for process in processes))
    assert codes == [0, 0, 0]
    await migrate_control(control.database.owner_dsn)
    rows = await control.database.execute("SELECT name FROM decklog.migration WHERE app_name = 'decklog' ORDER BY name")
    assert [row["name"] for row in rows] == migrations.names()
    [version] = await control.database.execute("SELECT version FROM decklog.registry_version")
    assert version["version"] == 1


async def test_migrations_lead_to_the_tables_of_the_classes() -> None:
    modules = [importlib.import_module(f"{migrations.__name__}.{name}") for name in migrations.names()]
    managers = [await module.forwards() for module in modules]
    snapshot = SchemaSnapshot(managers=managers)
    classes = [
        DiffableTable(table.__name__, table._meta.tablename, table._meta.schema, columns=table._meta.non_default_columns)
        for table in APP_CONFIG.table_classes
    ]
    differ = SchemaDiffer(schema=classes, schema_snapshot=snapshot.get_snapshot(), auto_input="y")
    assert [statement for changes in differ.get_alter_statements() for statement in changes.statements] == []
    assert {TenantRow, ApiKeyRow, RegistryVersion, IndexRow} == set(APP_CONFIG.table_classes)
    assert [module.ID for module in modules] == migrations.names()


async def before_rotation(control: Control) -> None:
    """The tables of the version before key rotation."""
    await control.database.execute("ALTER TABLE decklog.tenants DROP COLUMN keys_revision, DROP COLUMN keys_request")
    await control.database.execute("DELETE FROM decklog.migration WHERE name = 'm0003_rotation'")


async def test_migrated_database_keeps_keys_and_serves_the_previous_version(control: Control) -> None:
    provisioner, vault = control.provisioner(), MemoryVault()
    await provisioner.reconcile(control.manifest(), vault)
    before = dict(vault.keys["acme"])
    await before_rotation(control)
    await migrate_control(control.database.owner_dsn)
    assert (await provisioner.reconcile(control.manifest(), vault)).synced
    assert vault.keys["acme"] == before
    # A row as that version writes it, without the columns it does not know.
    await control.database.execute(
        "INSERT INTO decklog.tenants (name, uid, isolation, schema, index, queue, retention_days, state, display_name, spec, generation)"
        " VALUES ('beta', 'uid-b', 'Dedicated', 't_beta', 'i', 'q', 30, 0, '', '{}', 1)"
    )
    rows = await control.database.execute("SELECT keys_revision, keys_request FROM decklog.tenants WHERE name = 'beta'")
    assert [tuple(row) for row in rows] == [(0, "")]


async def test_migration_does_not_block_readers(control: Control) -> None:
    await before_rotation(control)
    slow = await asyncpg.connect(control.database.service_dsn)
    quick = await asyncpg.connect(control.database.service_dsn, server_settings={"lock_timeout": "3s"})
    try:
        async with slow.transaction():
            await slow.fetch("SELECT 1 FROM decklog.tenants")
            migrating = asyncio.create_task(migrate_control(control.database.owner_dsn))
            given_up = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'decklog.tenants'::regclass"
            for waiting in (1, 0, 1, 0):
                async with asyncio.timeout(60):
                    while (await control.database.execute(given_up))[0]["count"] != waiting:
                        await asyncio.sleep(0.02)
                await quick.fetch("SELECT 1 FROM decklog.tenants")
            assert not migrating.done()
        await migrating
    finally:
        await slow.close()
        await quick.close()
    rows = await control.database.execute("SELECT name FROM decklog.migration WHERE app_name = 'decklog' ORDER BY name")
    assert [row["name"] for row in rows] == migrations.names()


@pytest.mark.parametrize("table", TABLES)
async def test_service_role_may_only_read_the_registry(control: Control, table: str) -> None:
    await control.provisioner().reconcile(control.manifest(), MemoryVault())
    connection = await asyncpg.connect(control.database.service_dsn)
    try:
        assert await connection.fetchval(f"SELECT count(*) FROM decklog.{table}") > 0
        for statement in (f"DELETE FROM decklog.{table}", f"TRUNCATE decklog.{table}", f"UPDATE decklog.{table} SET id = id"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(f"INSERT INTO decklog.{table} DEFAULT VALUES")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("SELECT decklog.count_registry_version()")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT * FROM decklog.migration")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT * FROM decklog.search_indices")
    finally:
        await connection.close()


async def test_tenant_numbers_are_never_reused(control: Control) -> None:
    provisioner = control.provisioner()
    first = await provisioner.reconcile(control.manifest("one"), MemoryVault())
    for table in ("api_keys WHERE tenant_id IS NOT NULL", "tenants WHERE name = 'one'"):
        await control.database.execute(f"DELETE FROM decklog.{table}")
    second = await provisioner.reconcile(control.manifest("two"), MemoryVault())
    assert first.tenant_id is not None
    assert second.tenant_id is not None
    assert second.tenant_id > first.tenant_id


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE decklog.tenants SET state = 7",
        "UPDATE decklog.tenants SET isolation = 'None'",
        "UPDATE decklog.tenants SET conditions = '{}'",
        "INSERT INTO decklog.registry_version (id, version) VALUES (2, 1)",
        "INSERT INTO decklog.api_keys (id, role, hash) VALUES ('k', 'admin', decode(repeat('00', 32), 'hex'))",
        "INSERT INTO decklog.api_keys (id, role, hash) VALUES ('k', 'platform', 'short')",
        "UPDATE decklog.api_keys SET role = 'platform'",
        "DELETE FROM decklog.tenants",
    ],
)
async def test_tables_reject_invalid_rows(control: Control, statement: str) -> None:
    await control.provisioner().reconcile(control.manifest(), MemoryVault())
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await control.database.execute(statement)


async def test_control_table_refuses_a_connection_that_was_not_chosen() -> None:
    with pytest.raises(RuntimeError, match=re.escape("piccolo_engine.on")):
        await find_tenant("acme")


async def test_two_databases_are_not_confused_when_used_concurrently(control: Control) -> None:
    await control.provisioner().reconcile(control.manifest(), MemoryVault())
    one, other = await asyncpg.connect(control.database.owner_dsn), await asyncpg.connect(control.database.owner_dsn)
    try:
        await other.execute("CREATE TEMPORARY TABLE nothing ()")

        async def seen(connection: asyncpg.Connection) -> list[int]:
            pids = []
            for _ in range(20):
                async with on(connection):
                    [row] = await TenantRow.raw("SELECT pg_backend_pid() AS pid")
                    pids.append(row["pid"])
                    await asyncio.sleep(0)
            return pids

        pids = await asyncio.gather(seen(one), seen(other))
        assert [set(each) for each in pids] == [{one.get_server_pid()}, {other.get_server_pid()}]
    finally:
        await one.close()
        await other.close()
