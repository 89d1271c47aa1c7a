"""Migrations of a database that older processes use: they add first, and remove once those processes are disconnected."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.append import Appended, AppendRequest
from decklog.domain.tenant import Isolation
from decklog.timescale.connection import Pool
from decklog.timescale.control import migrations, schema
from decklog.timescale.control.heads import observe_heads
from decklog.timescale.control.tables import contract_control, migrate_control
from tests.backends import PostgresServer
from tests.support.catalog import catalog, taken_away
from tests.support.records import prepared
from tests.support.stores import Database, drop_database, new_database

FOUNDATION = 2
"""Number of migrations that create the tables."""
POST = """
from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from decklog.timescale.control.piccolo_engine import ENGINE

ID = "m9001_post_display_name"


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="decklog", description="")

    async def run():
        await ENGINE.run_ddl("ALTER TABLE decklog.tenants DROP COLUMN display_name CASCADE")

    manager.add_raw(run)
    return manager
"""


@pytest.fixture
async def made(postgres_server: PostgresServer) -> AsyncIterator[Database]:
    """A database with a cell, without control tables."""
    database = await new_database(postgres_server)
    yield database
    await drop_database(database)


@pytest.fixture
def next_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a further migration in this version, which removes a column."""
    name = "m9001_post_display_name"
    (tmp_path / f"{name}.py").write_text(POST)
    monkeypatch.setattr(migrations, "__path__", [*migrations.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    yield name
    sys.modules.pop(f"{migrations.__name__}.{name}", None)


async def columns(database: Database) -> set[str]:
    return {name for table, name in (await catalog(database)).columns if table == "decklog.tenants"}


CHANGES = {
    "ALTER TABLE decklog.heads DROP COLUMN day": ["column decklog.heads.day is gone"],
    "ALTER TABLE decklog.heads RENAME COLUMN day TO date": ["column decklog.heads.day is gone"],
    "ALTER TABLE decklog.heads ALTER COLUMN per_day TYPE integer": ["column decklog.heads.per_day was bigint and is integer"],
    "ALTER TABLE decklog.cursors ALTER COLUMN owner SET NOT NULL": ["column decklog.cursors.owner must be filled now"],
    "ALTER TABLE decklog.cursors ADD COLUMN a integer NOT NULL": ["column decklog.cursors.a is new and must be filled"],
    "ALTER TABLE decklog.cursors ADD COLUMN a integer, ADD COLUMN b integer NOT NULL DEFAULT 0": [],
    "ALTER TABLE decklog.cursors ADD CONSTRAINT short CHECK (length(consumer) < 99)": [
        "constraint short of decklog.cursors is new"
    ],
    "CREATE UNIQUE INDEX one ON decklog.cursors (owner)": ["index decklog.one of decklog.cursors is new"],
    "CREATE TABLE decklog.more (a integer PRIMARY KEY, b text NOT NULL UNIQUE)": [],
    "DROP FUNCTION decklog.skew() CASCADE": ["function decklog.skew() is gone"],
    "CREATE FUNCTION decklog.skew(a text) RETURNS text LANGUAGE sql AS 'SELECT a'": [],
    "REVOKE SELECT ON decklog.heads FROM decklog_service": ["SELECT on decklog.heads is not granted any more"],
}


async def test_taken_away_names_removals_and_ignores_additions(made: Database) -> None:
    before = await catalog(made)
    connection = await asyncpg.connect(made.admin_dsn)
    try:
        for change, named in CHANGES.items():
            trying = connection.transaction()
            await trying.start()
            try:
                await connection.execute(change)
                found = taken_away(before, await catalog(made, connection))
            finally:
                await trying.rollback()
            assert found == named, change
    finally:
        await connection.close()


async def test_pre_migrations_remove_nothing_that_older_processes_use(made: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    every = migrations.names()
    before = None
    for count in range(FOUNDATION, len(every) + 1):
        some = [name for name in every[:count] if not migrations.is_post(name)]
        monkeypatch.setattr(migrations, "names", lambda some=some: some)
        await migrate_control(made.owner_dsn)
        after = await catalog(made)
        assert before is None or taken_away(before, after) == [], every[count - 1]
        before = after


async def test_post_migration_waits_until_older_processes_are_disconnected(
    made: Database, next_version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [name for name in migrations.names() if name != next_version]
    with monkeypatch.context() as before:
        before.setattr(migrations, "names", lambda: known)
        await migrate_control(made.owner_dsn)
    old = Pool(made.service_dsn, size_max=2)  # named by the migrations that were known at its import
    await old.open()
    await migrate_control(made.owner_dsn)
    assert "display_name" in await columns(made)
    with pytest.raises(DecklogError, match=r"decklog/[0-9]+ as decklog_service") as refused:
        await contract_control(made.owner_dsn)
    assert refused.value.code is Code.CONFLICT
    assert "display_name" in await columns(made)

    waiting = asyncio.create_task(contract_control(made.owner_dsn, wait=100))
    newer = await asyncpg.connect(made.service_dsn, server_settings={"application_name": "decklog/9001"})
    try:
        await old.close()
        await waiting
    finally:
        await newer.close()
    assert "display_name" not in await columns(made)
    await contract_control(made.owner_dsn)


async def test_older_version_refuses_to_migrate_after_a_post_migration(
    made: Database, next_version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate_control(made.owner_dsn)
    assert "display_name" not in await columns(made)
    monkeypatch.setattr(migrations, "__path__", migrations.__path__[:1])
    assert next_version not in migrations.names()
    with pytest.raises(DecklogError, match=f"has removed what this one uses .*{next_version}"):
        await migrate_control(made.owner_dsn)


@pytest.mark.parametrize("isolation", list(Isolation))
async def test_template_upgrade_waits_for_readers_and_does_not_block_writers(database: Database, isolation: Isolation) -> None:
    """A long read delays the upgrade, but not the writers behind it."""
    tenant = await database.tenant(isolation=isolation)
    store = await database.records()

    async def write() -> None:
        [result] = await store.append([AppendRequest(tenant, LogName.EVENTS, [prepared()])])
        assert isinstance(result, Appended), result

    async def write_on(done: asyncio.Event) -> None:
        while not done.is_set():
            await write()

    await write()
    owner, reader = await asyncpg.connect(database.owner_dsn), await asyncpg.connect(database.service_dsn)
    done = asyncio.Event()
    writing = asyncio.create_task(write_on(done))
    try:
        for _ in range(3):
            await owner.execute("UPDATE decklog.relations SET template = 'older'")
            async with reader.transaction():
                await reader.execute("SELECT set_config('decklog.tenants', $1, true)", str(tenant.id))
                await reader.fetch(f'SELECT count(*) FROM "{tenant.schema}".records')
                changing = asyncio.create_task(schema.migrate_cell(owner))
                await asyncio.sleep(1.5)
                assert isolation is Isolation.DEDICATED or not changing.done()  # only policies need an exclusive lock
            await changing
            assert (await schema.relations_missing(owner, [tenant.schema]))[tenant.schema] == []
        assert not writing.done()
    finally:
        done.set()
        await writing
        await owner.close()
        await reader.close()


async def test_migration_keeps_definitions_of_a_newer_version(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = await database.tenant()
    owner = await asyncpg.connect(database.owner_dsn)
    try:
        with monkeypatch.context() as newer:
            newer.setattr(schema, "DEFINITIONS", schema.DEFINITIONS + 1)
            schema._template_version.cache_clear()
            await schema.migrate_cell(owner)
            await owner.execute("COMMENT ON FUNCTION decklog.skew() IS 'of a newer version'")
            told = await owner.fetchval("SELECT template FROM decklog.relations WHERE schema_name = $1", tenant.schema)
        schema._template_version.cache_clear()
        await owner.execute("DROP FUNCTION decklog.make_partitions()")  # an older version would create it again
        await schema.migrate_cell(owner)
        assert await owner.fetchval("SELECT to_regproc('decklog.make_partitions')") is None
        assert await owner.fetchval("SELECT template FROM decklog.relations WHERE schema_name = $1", tenant.schema) == told
        assert (await schema.relations_missing(owner, [tenant.schema]))[tenant.schema] == []

        await owner.execute(f'DROP INDEX "{tenant.schema}".records_actor')
        assert (await schema.relations_missing(owner, [tenant.schema]))[tenant.schema] == ["index records_actor"]
        with pytest.raises(DecklogError, match="A newer version of Decklog made the relations"):
            await schema.ensure_relations(owner, tenant.schema, shared=False, partition_days=7)
    finally:
        await owner.close()


async def test_storage_flag_survives_the_upgrade_from_definitions_1(database: Database) -> None:
    """They stored it as the bitwise complement of `per_day`."""
    used_up, free = [await database.tenant(events_per_day=7) for _ in range(2)]
    await database.execute("UPDATE decklog.heads SET per_day = ~per_day WHERE tenant_id = $1 AND log = 0", used_up.id)
    await database.execute("ALTER TABLE decklog.heads DROP COLUMN storage_used_up")
    await database.execute("COMMENT ON SCHEMA decklog IS '1.cell'")
    owner = await asyncpg.connect(database.owner_dsn)
    try:
        await schema.migrate_cell(owner)
        heads = await observe_heads(owner, [used_up.id, free.id])
    finally:
        await owner.close()
    assert {number: (head.events_per_day, head.storage_used_up) for number, head in heads.items()} == {
        used_up.id: (7, True),
        free.id: (7, False),
    }
