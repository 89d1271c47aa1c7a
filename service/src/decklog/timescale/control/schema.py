"""Definitions of a cell and of each schema with records: create, upgrade, compare, drop. Only the owner's role does this.

The three variants of storage (TimescaleDB, its Apache edition, plain PostgreSQL) differ only in partitioning. The variant of a server
is detected here and stored in `decklog.relations`. Dedicated relations are hypertables if the server has TimescaleDB; Shared ones
always have native partitions.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from functools import cache, partial

import asyncpg
import msgspec
import structlog

from decklog.domain.errors import Code, DecklogError
from decklog.domain.tenancy.parts.database import NEWER_TEMPLATE
from decklog.timescale.connection import (
    CONNECT_SECONDS_MAX,
    LEAST_ROLES,
    OWNER_ROLE,
    SERVICE_ROLE,
    TABLE_LOCK_WAIT,
    WORKER_ROLE,
    giving_way,
)
from decklog.timescale.statements import quoted, statement

_LOCK = 0x6465636B6C6F67
"""Advisory lock of all changes of definitions, so that two processes may start at once."""
DEFINITIONS = 2
"""Version of `cell.sql`, `worker.sql`, `ageing.sql`, `ingest.sql`, `searches.sql`, `sessions.sql`, `conversations.sql` and of the template
(`relations.sql`, `term_filters.sql`, `shared.sql`).

It grows with the first change of them after a release. A version never changes definitions that have a greater number in the
database, because a newer version has made them.
"""
_RELATIONS = ("records", "term_filters")
"""Relations of the template. Where tenants share a schema, row-level security isolates them in each."""
_OF_INGEST = ("bulk_keys", "rejected_records", "rejections")
"""Relations of `ingest.sql`."""
_DROPPED_AT_ONCE = 50
"""Partitions that one transaction drops. With their indexes they take about 500 locks; PostgreSQL has about 6,000 by default."""

_log = structlog.get_logger("decklog.timescale")


async def bootstrap(connection: asyncpg.Connection, *, service_password: str, worker_password: str, owner_password: str) -> None:
    """Create roles, rights on the database, and the extension TimescaleDB if the server has it.

    The connection is a superuser's. It may run again, and sets the passwords each time. Raises what asyncpg raises.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        passwords = {OWNER_ROLE: owner_password, SERVICE_ROLE: service_password, WORKER_ROLE: worker_password}
        for role, password in passwords.items():
            if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role):
                await connection.execute(f"CREATE ROLE {role} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE")
            # DDL has no parameters, so the server quotes the password. Decklog never logs this text.
            alter = await connection.fetchval(
                "SELECT format('ALTER ROLE %I LOGIN NOSUPERUSER NOBYPASSRLS PASSWORD %L', $1::text, $2::text)", role, password
            )
            await connection.execute(alter)
        await grant_rights(connection, await connection.fetchval("SELECT quote_ident(current_database())"))
        if await connection.fetchval("SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')"):
            preloaded = await connection.fetchval("SELECT current_setting('shared_preload_libraries')")
            if "timescaledb" in preloaded:
                await connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")


async def grant_rights(connection: asyncpg.Connection, database: str) -> None:
    """Give the roles their rights on a database, and others none. `database` is a quoted name. Raises what asyncpg raises."""
    await connection.execute(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC")
    await connection.execute(f"GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {database} TO {OWNER_ROLE}")
    await connection.execute(f"GRANT CONNECT ON DATABASE {database} TO {', '.join(LEAST_ROLES)}")


@cache
def _template_version() -> str:
    """Return the identity of the template: `DEFINITIONS` and a hash of its text."""
    text = statement("relations") + statement("term_filters") + statement("shared")
    return f"{DEFINITIONS}." + hashlib.sha256(text.encode()).hexdigest()[:16]


def _newer(version: str | None) -> bool:
    """Return whether a newer version made these definitions. Those from before the first release have no number."""
    number, dot, _ = (version or "").partition(".")
    return dot == "." and int(number) > DEFINITIONS


async def migrate_cell(connection: asyncpg.Connection) -> None:
    """Upgrade the cell's own definitions, and the template in every schema that has an older one.

    The connection is the owner's. It may run again and beside running processes: each schema is a transaction of its own, which waits
    for users of the schema. Definitions of a newer version stay. After an interruption a further run continues.

    Raises:
        DecklogError: `misconfigured` if a role does not exist, `storage-unavailable` as `giving_way`.
        asyncpg.PostgresError: A statement failed.
    """
    await _check_roles(connection)
    await _change(connection, _migrate_common)
    behind = "SELECT schema_name, shared, template FROM decklog.relations WHERE template <> $1 ORDER BY 1"
    for row in await connection.fetch(behind, _template_version()):
        if _newer(row["template"]):
            _log.warning("relations of a newer version stay unchanged", schema=row["schema_name"])
            continue
        await _change(connection, partial(_apply_template, schema=row["schema_name"], shared=row["shared"]))


async def _check_roles(connection: asyncpg.Connection) -> None:
    missing = await connection.fetchval(
        "SELECT string_agg(name, ' and ') FROM unnest($1::text[]) AS name WHERE to_regrole(name) IS NULL", LEAST_ROLES
    )
    if missing:
        raise DecklogError(
            Code.MISCONFIGURED,
            f"The database has no role {missing}, and the owner cannot create one. Run decklog migrate --bootstrap once, with "
            "DECKLOG_DATABASE_ADMIN_DSN and the passwords of the roles.",
        )


async def _change(connection: asyncpg.Connection, change: Callable[[asyncpg.Connection], Awaitable[None]]) -> None:
    """Run `change` in a transaction that gives way; see `giving_way`."""

    async def once() -> None:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            await connection.execute(f"SET LOCAL lock_timeout = '{TABLE_LOCK_WAIT}'")
            await change(connection)

    await giving_way(once)


async def _migrate_common(connection: asyncpg.Connection) -> None:
    made = await connection.fetchval("SELECT obj_description(to_regnamespace('decklog'), 'pg_namespace')")
    if _newer(made):
        _log.warning("definitions of a newer version stay unchanged")
        return
    await connection.execute(statement("cell"))
    await connection.execute(statement("worker"))
    await connection.execute(statement("ageing"))
    await connection.execute(statement("ingest"))
    await connection.execute(statement("searches"))
    await connection.execute(statement("sessions"))
    await connection.execute(statement("conversations"))
    await connection.execute(f"COMMENT ON SCHEMA decklog IS '{DEFINITIONS}.cell'")


async def make_roles(admin_dsn: str, *, service_password: str, worker_password: str, owner_password: str) -> None:
    """Run `bootstrap` on a new connection."""
    connection = await asyncpg.connect(admin_dsn, timeout=CONNECT_SECONDS_MAX)
    try:
        await bootstrap(
            connection, service_password=service_password, worker_password=worker_password, owner_password=owner_password
        )
    finally:
        await connection.close()


async def migrate(owner_dsn: str) -> None:
    """Run `migrate_cell` on a new connection."""
    connection = await asyncpg.connect(owner_dsn, timeout=CONNECT_SECONDS_MAX)
    try:
        await migrate_cell(connection)
    finally:
        await connection.close()


async def has_timescale(connection: asyncpg.Connection) -> bool:
    """Return whether the database has the extension TimescaleDB."""
    return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')"))


async def ensure_relations(connection: asyncpg.Connection, schema: str, *, shared: bool, partition_days: int) -> None:
    """Create a schema with its relation, functions, rights and first partitions, or correct what differs from the template.

    The connection is the owner's. It may run again.

    Args:
        connection: The owner's.
        schema: Name of the schema.
        shared: Whether several tenants share it.
        partition_days: Days of each partition.

    Raises:
        DecklogError: `misconfigured` if a newer version made the relations and they differ from its template.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        # Chunks inherit the grants of their hypertable but not its policies, so a query on a chunk would bypass row-level security.
        # Native partitions inherit no grants, so shared relations have those on every server.
        hypertable = not shared and await has_timescale(connection)
        await connection.execute(
            "INSERT INTO decklog.relations (schema_name, shared, partition_days, hypertable) VALUES ($1, $2, $3, $4)"
            " ON CONFLICT DO NOTHING",
            schema,
            shared,
            partition_days,
            hypertable,
        )
        # The template takes locks that block writers, so it runs only if something is missing.
        if (await relations_missing(connection, [schema]))[schema]:
            await connection.execute(f"SET LOCAL lock_timeout = '{TABLE_LOCK_WAIT}'")
            await _apply_template(connection, schema, shared=shared)
        await ensure_partitions(connection, schema)


async def _apply_template(connection: asyncpg.Connection, schema: str, *, shared: bool) -> None:
    name = quoted(schema)
    relation = await connection.fetchrow(
        "SELECT hypertable, partition_days, template FROM decklog.relations WHERE schema_name = $1", schema
    )
    if relation is None:
        return  # removed meanwhile
    if _newer(relation["template"]):
        raise DecklogError(
            Code.MISCONFIGURED,
            f"A newer version of Decklog made the relations of {schema!r}, so this one does not change them. Run that version.",
        )
    partitioning = "" if relation["hypertable"] else "PARTITION BY RANGE (received_at)"
    if shared and await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{name}.records"):
        # The strongest lock first: a writer with a weaker lock and this transaction could otherwise wait for each other.
        await connection.execute(f"LOCK TABLE {name}.records IN ACCESS EXCLUSIVE MODE")
    template = statement("relations").replace("{schema}", name).replace("{name}", schema).replace("{partitioning}", partitioning)
    table, rest = template.split("CREATE INDEX", 1)
    await _drop_what_differs(connection, schema)
    await connection.execute(table)
    if relation["hypertable"]:
        await connection.execute(
            "SELECT create_hypertable($1::text::regclass, by_range('received_at', make_interval(days => $2)),"
            " create_default_indexes => false, if_not_exists => true)",
            f"{name}.records",
            relation["partition_days"],
        )
    await connection.execute("CREATE INDEX" + rest)
    await connection.execute(statement("term_filters").replace("{schema}", name))
    if shared:
        for relation_name in _RELATIONS:
            await connection.execute(statement("shared").replace("{relation}", f"{name}.{relation_name}"))
    await connection.execute(
        "UPDATE decklog.relations SET template = $2, things = $3 WHERE schema_name = $1",
        schema,
        _template_version(),
        msgspec.json.encode((await _things(connection, [schema]))[schema]).decode(),
    )


async def _things(connection: asyncpg.Connection, schemas: Sequence[str]) -> defaultdict[str, dict[str, str]]:
    """Return the objects in each schema, by name, with their definitions."""
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for schema, thing, definition in await connection.fetch(statement("schemas.objects"), schemas, LEAST_ROLES):
        found[schema][thing] = definition
    return found


def _differing(made: str, there: dict[str, str]) -> list[str]:
    """Return names of objects that differ from the template, or were added to it. Added indexes are allowed."""
    wanted = msgspec.json.decode(made, type=dict[str, str])
    if not wanted:
        return []  # made by a version that did not store definitions
    added = (thing for thing in there.keys() - wanted.keys() if not thing.startswith("index "))
    return sorted({*added, *(thing for thing in wanted if there.get(thing) != wanted[thing])})


def _but_its_body(function: str) -> str:
    """Return the part of a definition that CREATE OR REPLACE cannot change: everything except the hash of the body."""
    return function.rpartition(" ")[0]


async def _drop_what_differs(connection: asyncpg.Connection, schema: str) -> None:
    """Drop objects that differ and that the template creates only if they are missing. It corrects rights and policies itself."""
    name = quoted(schema)
    made = await connection.fetchval("SELECT things::text FROM decklog.relations WHERE schema_name = $1", schema)
    wanted, there = msgspec.json.decode(made, type=dict[str, str]), (await _things(connection, [schema]))[schema]
    for thing in _differing(made, there):
        kind, _, which = thing.partition(" ")
        if kind == "index":
            await connection.execute(f"DROP INDEX IF EXISTS {name}.{quoted(which)}")
        elif kind == "function" and _but_its_body(wanted.get(thing, "")) != _but_its_body(there.get(thing, "")):
            others = "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = to_regnamespace($1) AND proname = $2"
            for row in await connection.fetch(others, name, which):
                await connection.execute(f"DROP FUNCTION {row[0]}")
        elif kind == "row-level":
            of = which.removeprefix("security").removeprefix(" of ") or "records"
            await connection.execute(
                f"ALTER TABLE IF EXISTS {name}.{quoted(of)} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY"
            )


async def drop_partitions(connection: asyncpg.Connection, schema: str) -> None:
    """Drop the partitions of a Dedicated tenant's schema, some per transaction, because the server's lock table is limited.

    The connection is the owner's. It may run again.

    Raises:
        DecklogError: `conflict` if the schema does not belong to one tenant alone.
    """
    of_schema = (
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = to_regclass(format('%I.records', $1::text)) LIMIT $2"
    )
    more = True
    while more:
        async with connection.transaction():
            await _hold_alone(connection, schema)
            partitions = await connection.fetch(of_schema, schema, _DROPPED_AT_ONCE)
            for row in partitions:
                await connection.execute(f"DROP TABLE {row[0]}")
        more = bool(partitions)


async def drop_relations(connection: asyncpg.Connection, schema: str) -> None:
    """Drop a Dedicated tenant's schema with all of its content. The caller has a transaction open.

    Raises:
        DecklogError: As `drop_partitions`.
    """
    await _hold_alone(connection, schema)
    # The lock of `decklog.make_partition_of`, so that no partition is created meanwhile.
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('decklog.partition.' || $1, 0))", schema)
    await connection.execute(f"DROP SCHEMA IF EXISTS {quoted(schema)} CASCADE")
    await connection.execute("DELETE FROM decklog.relations WHERE schema_name = $1", schema)


async def delete_term_filters(connection: asyncpg.Connection, schema: str, tenant_id: int) -> None:
    """Delete the filters of a tenant's logs, which are made again from its records. The caller has a transaction open."""
    if await connection.fetchval("SELECT to_regclass(format('%I.term_filters', $1::text)) IS NOT NULL", schema):
        # The lock of `add_term_filters`, so that none is added meanwhile. Row-level security applies to the owner too.
        await connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('decklog.term_filters.' || $1::bigint, 0))", tenant_id
        )
        await connection.execute("SELECT set_config('decklog.tenants', $1, true)", str(tenant_id))
        await connection.execute(f"DELETE FROM {quoted(schema)}.term_filters WHERE tenant_id = $1", tenant_id)


async def delete_ingest(connection: asyncpg.Connection, tenant_id: int) -> None:
    """Delete the keys of a tenant's bulks and its rejected records. The caller has a transaction open."""
    await connection.execute("SELECT set_config('decklog.tenants', $1, true)", str(tenant_id))  # it applies to the owner too
    for name in _OF_INGEST:
        await connection.execute(f"DELETE FROM decklog.{name} WHERE tenant_id = $1", tenant_id)


async def delete_searches(connection: asyncpg.Connection, tenant_id: int) -> None:
    """Delete the saved searches of a tenant. The caller has a transaction open."""
    await connection.execute("SELECT set_config('decklog.tenants', $1, true)", str(tenant_id))  # it applies to the owner too
    await connection.execute("DELETE FROM decklog.saved_searches WHERE tenant_id = $1", tenant_id)


async def delete_conversations(connection: asyncpg.Connection, tenant_id: int) -> None:
    """Delete the conversations of a tenant's users. The caller has a transaction open."""
    await connection.execute("SELECT set_config('decklog.tenants', $1, true)", str(tenant_id))  # it applies to the owner too
    await connection.execute("DELETE FROM decklog.conversations WHERE tenant_id = $1", tenant_id)


async def delete_sessions(connection: asyncpg.Connection, tenant_id: int) -> None:
    """Delete sessions and one-time codes that belong to this tenant alone. The caller has a transaction open."""
    await connection.execute("DELETE FROM decklog.sessions WHERE tenants <@ ARRAY[$1::bigint]", tenant_id)
    await connection.execute("DELETE FROM decklog.session_codes WHERE tenant_id = $1", tenant_id)


async def _hold_alone(connection: asyncpg.Connection, schema: str) -> None:
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
    others = (
        "SELECT count(*) > 1 OR EXISTS (SELECT FROM decklog.relations WHERE schema_name = $1 AND shared)"
        " FROM decklog.tenants WHERE schema = $1"
    )
    if await connection.fetchval(others, schema):
        raise DecklogError(Code.CONFLICT, f"The schema {schema!r} does not belong to one tenant alone. Nothing of it is removed.")


async def relations_missing(connection: asyncpg.Connection, schemas: Sequence[str]) -> dict[str, list[str]]:
    """Return, per schema, the names of objects that are absent or differ from the template."""
    rows = await connection.fetch(statement("schemas.missing"), schemas)
    there = await _things(connection, schemas)
    return {schema: _missing(template, made, there[schema], exists=exists) for schema, template, made, exists in rows}


def _missing(template: str | None, made: str, there: dict[str, str], *, exists: bool) -> list[str]:
    if template is None or not exists:
        return ["relation records"]
    return _differing(made, there) if template == _template_version() or _newer(template) else [NEWER_TEMPLATE]


async def ensure_partitions(connection: asyncpg.Connection, schema: str) -> int:
    """Create the partitions of the coming days in a schema that has its relations; return how many were missing."""
    made: int = await connection.fetchval(
        "SELECT decklog.make_partitions_of(relation) FROM decklog.relations AS relation WHERE schema_name = $1", schema
    )
    return made
