"""Catalog of a database: what processes can use, and what a change removes from it."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from tests.support.stores import Database

_OURS = "nspname = 'decklog' OR EXISTS (SELECT FROM decklog.relations WHERE schema_name = nspname)"
_TABLES = f"""SELECT pg_class.oid, format('%s.%s', nspname, relname) AS name, relacl FROM pg_class
  JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE ({_OURS}) AND relkind IN ('r', 'p') AND NOT relispartition"""
_COLUMNS = f"""SELECT name AS place, attname AS name, format_type(atttypid, atttypmod) AS type, attnotnull AS filled, atthasdef AS defaulted
  FROM ({_TABLES}) AS tables JOIN pg_attribute ON attrelid = oid WHERE attnum > 0 AND NOT attisdropped"""
_FUNCTIONS = f"""SELECT format('%s.%s(%s)', nspname, proname, oidvectortypes(proargtypes)) AS name,
       concat_ws(' -> ', pg_get_function_arguments(pg_proc.oid), pg_get_function_result(pg_proc.oid)) AS shape
  FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace WHERE {_OURS}"""
_RULES = f"""SELECT name AS place, format('constraint %s', conname) AS name FROM ({_TABLES}) AS tables
  JOIN pg_constraint ON conrelid = tables.oid WHERE contype <> 'n'
  UNION ALL SELECT name, format('index %s', indexrelid::regclass) FROM ({_TABLES}) AS tables JOIN pg_index ON indrelid = tables.oid"""
_RIGHTS = f"""SELECT format('%s on %s', privilege_type, name) AS name FROM (
    SELECT name, relacl AS acl FROM ({_TABLES}) AS tables
    UNION ALL SELECT format('%s.%s(%s)', nspname, proname, oidvectortypes(proargtypes)), proacl FROM pg_proc
      JOIN pg_namespace ON pg_namespace.oid = pronamespace WHERE {_OURS}) AS things, aclexplode(acl)
  WHERE grantee = 'decklog_service'::regrole"""


@dataclass(frozen=True)
class Catalog:
    """Objects that processes depend on.

    `columns`: by table and name the type, NOT NULL, and whether there is a default. `functions`: arguments and result by name.
    `rules`: constraints and indexes, with their tables. `rights`: grants of the service's role.
    """

    columns: dict[tuple[str, str], tuple[str, bool, bool]]
    functions: dict[str, str]
    rules: frozenset[tuple[str, str]]
    rights: frozenset[str]

    @property
    def tables(self) -> frozenset[str]:
        return frozenset(table for table, _ in self.columns)


async def catalog(database: Database, connection: asyncpg.Connection | None = None) -> Catalog:
    """Return the catalog, as the transaction of this connection sees it if one is given."""
    fetch = database.execute if connection is None else connection.fetch
    return Catalog(
        {(c["place"], c["name"]): (c["type"], c["filled"], c["defaulted"]) for c in await fetch(_COLUMNS)},
        {f["name"]: f["shape"] for f in await fetch(_FUNCTIONS)},
        frozenset((r["place"], r["name"]) for r in await fetch(_RULES)),
        frozenset(r["name"] for r in await fetch(_RIGHTS)),
    )


def taken_away(before: Catalog, after: Catalog) -> list[str]:
    """Return what a process made for `before` can no longer do with `after`; empty if the change only adds."""
    found = [f"column {place}.{name} is gone" for place, name in before.columns.keys() - after.columns.keys()]
    for key, (kind, filled, defaulted) in after.columns.items():
        name = ".".join(key)
        if key not in before.columns:
            if key[0] in before.tables and filled and not defaulted:
                found.append(f"column {name} is new and must be filled")
            continue
        was, was_filled, _ = before.columns[key]
        found += [f"column {name} was {was} and is {kind}"] if was != kind else []
        found += [f"column {name} must be filled now"] if filled and not was_filled else []
    found += [f"function {name} is gone" for name in before.functions.keys() - after.functions.keys()]
    found += [
        f"function {name} has another shape"
        for name, shape in before.functions.items()
        if after.functions.get(name, shape) != shape
    ]
    found += [f"{rule} of {table} is new" for table, rule in after.rules - before.rules if table in before.tables]
    found += [f"{right} is not granted any more" for right in before.rights - after.rights]
    return sorted(found)
