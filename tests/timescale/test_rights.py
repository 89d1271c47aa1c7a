"""Rights of the database roles: every statement on every object, as each role, has the answer that the documentation states."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg

from decklog.domain.log import LogName
from decklog.domain.records.append import AppendRequest
from decklog.domain.tenant import Isolation
from decklog.timescale.connection import SERVICE_ROLE, WORKER_ROLE
from decklog.timescale.control.tables import migrate_control
from tests.support.records import prepared
from tests.support.stores import Database

PAGE = Path(__file__).parents[2] / "docs/reference/database-roles.md"
RELATIONS = """SELECT format('%I.%I', nspname, relname) AS name, nspname AS schema, relname AS short, relkind::text AS kind,
       (SELECT array_agg(quote_ident(attname)) FROM pg_attribute WHERE attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped) AS columns
  FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
 WHERE nspname = ANY ($1) AND relkind NOT IN ('i', 'I', 'c', 't')"""
FUNCTIONS = """SELECT nspname AS schema, proname AS short, format('%I.%I(%s)', nspname, proname,
         (SELECT string_agg('NULL::' || format_type(given, NULL), ', ') FROM unnest(proargtypes) AS given)) AS call
  FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace WHERE nspname = ANY ($1)"""
CHUNKS = "SELECT inhrelid::regclass::text AS name, '' AS schema, '' AS short, 'r' AS kind, ARRAY['seq', 'content'] AS columns FROM pg_inherits WHERE inhparent = to_regclass($1)"
Rights = dict[str, dict[str, frozenset[str]]]


def documented() -> Rights:
    """Return the rights in the page's table, by object and role."""
    heading, *rows = re.findall(r"^\| (.+) \|$", PAGE.read_text().partition("## Rights\n")[2], re.MULTILINE)
    _, *roles = heading.split(" | ")
    cells = [row.split(" | ") for row in rows if not row.startswith("---")]
    return {
        name.strip("`"): {role: frozenset(re.findall(r"[A-Z]+", cell)) for role, cell in zip(roles, rights, strict=True)}
        for name, *rights in cells
    }


async def allowed(connection: asyncpg.Connection, statement: str) -> bool:
    """Return whether the role may run a statement, which is rolled back. It may fail for another reason than a right."""
    trying = connection.transaction()
    await trying.start()
    try:
        await connection.execute(statement)
    except asyncpg.exceptions.InsufficientPrivilegeError:
        return False
    except (asyncpg.exceptions.ObjectNotInPrerequisiteStateError, asyncpg.exceptions.WrongObjectTypeError):  # writing a view
        return False
    except asyncpg.exceptions.PostgresError:
        return True
    else:
        return True
    finally:
        await trying.rollback()


async def on_relation(connection: asyncpg.Connection, row: asyncpg.Record) -> frozenset[str]:
    name = row["name"]
    if row["kind"] == "S":
        tries = {
            "SELECT": [f"SELECT FROM {name}"],
            "UPDATE": [f"SELECT setval('{name}', 1)"],
            "USAGE": [f"SELECT nextval('{name}')"],
        }
    else:
        tries = {
            "SELECT": [f"SELECT {column} FROM {name} LIMIT 0" for column in row["columns"]],
            "INSERT": [
                f"INSERT INTO {name} DEFAULT VALUES",
                *(f"INSERT INTO {name} ({c}) VALUES (DEFAULT)" for c in row["columns"]),
            ],
            "UPDATE": [
                f"SELECT FROM {name} FOR UPDATE",
                *(f"UPDATE {name} SET {c} = DEFAULT WHERE false" for c in row["columns"]),
            ],
            "DELETE": [f"DELETE FROM {name} WHERE false"],
            "TRUNCATE": [f"TRUNCATE {name}"],
        }
    return frozenset(
        [right for right, statements in tries.items() if any([await allowed(connection, each) for each in statements])]
    )


async def found(database: Database, schemas: dict[str, str], role: str, dsn: str) -> dict[str, set[frozenset[str]]]:
    """Return what the role may do with each object; more than one answer where schemas or partitions differ."""
    answers: dict[str, set[frozenset[str]]] = {}

    def note(row: asyncpg.Record, rights: frozenset[str], suffix: str = "") -> None:
        short = re.sub(r"^records_.*", "records_*", row["short"]) + suffix
        answers.setdefault(f"{schemas[row['schema']]}.{short}", set()).add(rights)

    connection = await asyncpg.connect(dsn)
    try:
        for row in await database.execute(RELATIONS, list(schemas)):
            note(row, await on_relation(connection, row))
        for row in await database.execute(FUNCTIONS, list(schemas)):
            may = await allowed(connection, f"SELECT {row['call']}")
            note(row, frozenset({"EXECUTE"} if may else ()), "()")
        for schema in schemas:
            for row in await database.execute(CHUNKS, f"{schema}.records"):
                if row["name"].startswith("_timescaledb_internal"):
                    answers["<schema>.records"].add(await on_relation(connection, row))
    finally:
        await connection.close()
    return answers


async def test_roles_may_do_on_every_object_what_the_documentation_says(database: Database) -> None:
    tenants = [await database.tenant(isolation=isolation) for isolation in Isolation]
    await migrate_control(database.owner_dsn)
    store = await database.records()
    await store.append([AppendRequest(tenant, LogName.EVENTS, [prepared()]) for tenant in tenants])
    schemas = {"decklog": "decklog"} | {tenant.schema: "<schema>" for tenant in tenants}
    wanted = documented()
    for role, dsn in ((SERVICE_ROLE, database.service_dsn), (WORKER_ROLE, database.worker_dsn)):
        answers = await found(database, schemas, role, dsn)
        assert answers == {name: {rights[role]} for name, rights in wanted.items()}


async def test_functions_of_the_owner_pin_their_search_path(database: Database) -> None:
    """Else a caller could put a function of their own before one of the system."""
    await database.tenant()
    rows = await database.execute(
        "SELECT oid::regprocedure::text AS name, coalesce(proconfig, '{}') AS settings FROM pg_proc"
        " WHERE prosecdef AND proowner = 'decklog_owner'::regrole"
    )
    assert len(rows) > 8
    assert [row["name"] for row in rows if "search_path=pg_catalog, pg_temp" not in row["settings"]] == []
