"""The control tables: tenants, API keys, the registry's version, uuids of indexes. Only provisioning writes them, as the owner.

Piccolo defines and migrates the tables. The service's role reads them through `registry.py`, without Piccolo.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
from piccolo.columns import JSONB, Array, BigInt, BigSerial, Bytea, ForeignKey, Integer, OnDelete, SmallInt, Text, Timestamptz
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.table import Table

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.tenancy.parts.keys import IssuedKey
from decklog.domain.tenancy.registered import Row
from decklog.domain.tenancy.spec import read_spec
from decklog.domain.tenancy.status import Condition, read_conditions
from decklog.domain.tenant import DEFAULT_CELL, Isolation, State
from decklog.timescale.connection import (
    APPLICATION,
    CONNECT_SECONDS_MAX,
    LEAST_ROLES,
    OWNER_ROLE,
    TABLE_LOCK_WAIT,
    giving_way,
)
from decklog.timescale.control import migrations
from decklog.timescale.control.piccolo_engine import ENGINE, on
from decklog.timescale.statements import statement

SCHEMA = "decklog"
APP = "decklog"
_LOCK = 0x6465636B6374726C
"""Advisory lock of migrations, so that two processes may start at once."""
_MIGRATE_SECONDS_MAX = 120.0
"""Seconds of one statement of a migration."""
_LOOK_AGAIN_SECONDS = 1.0
"""Wait between two checks for connections of older versions."""


class TenantRow(Table, tablename="tenants", schema=SCHEMA, db=ENGINE):
    """One tenant. A deleted one that is retained keeps its row, number and name."""

    id = BigSerial(primary_key=True)
    name = Text(unique=True, required=True)
    uid = Text(required=True)
    former_uids = Array(base_column=Text(), default=list)
    isolation = Text(required=True)
    schema = Text(required=True)
    index = Text(required=True)
    queue = Text(required=True)
    retention_days = Integer(required=True)
    state = SmallInt(required=True)
    display_name = Text()
    spec = JSONB(required=True)
    generation = BigInt(required=True)
    conditions = JSONB(default="[]")
    created_at = Timestamptz(default=TimestamptzNow())
    deleted_at = Timestamptz(null=True, default=None)
    keys_revision = BigInt(default=0)
    keys_request = Text(default="")
    settled = Array(base_column=Text(), default=list)
    cell = Text(default=DEFAULT_CELL)


class ApiKeyRow(Table, tablename="api_keys", schema=SCHEMA, db=ENGINE):
    """One provisioned API key, as the SHA-256 of its secret. `tenant_id` is null for a key of the platform.

    Keys that are made over the API are in `made_keys`, which provisioning neither reads nor writes.
    """

    id = Text(primary_key=True)
    tenant_id = ForeignKey(references=TenantRow, on_delete=OnDelete.restrict, null=True, default=None, index=True)
    role = Text(required=True)
    hash = Bytea(unique=True, required=True)
    created_at = Timestamptz(default=TimestamptzNow())
    expires_at = Timestamptz(null=True, default=None)
    revoked_at = Timestamptz(null=True, default=None)
    last_used_at = Timestamptz(null=True, default=None)


class RegistryVersion(Table, tablename="registry_version", schema=SCHEMA, db=ENGINE):
    """One row: a number that grows with every change of the registry that the service has to load."""

    id = SmallInt(primary_key=True, default=1)
    version = BigInt(default=1)


class IndexRow(Table, tablename="search_indices", schema=SCHEMA, db=ENGINE):
    """Per index, the uuid of the OpenSearch index, as versions before generations of indices kept it. This version neither reads nor writes it."""

    name = Text(primary_key=True)
    uuid = Text(null=True, default=None)


# --- migrations ------------------------------------------------------------------------------------------------------


async def migrate_control(owner_dsn: str) -> None:
    """Run the migrations that processes of the previous version tolerate; all of them in a new database.

    It is one transaction, may run again, and in two processes at once. `owner_dsn` connects as the owner.

    Raises:
        DecklogError: `misconfigured` if a newer version has removed what this one uses, `storage-unavailable` as `giving_way`.
        asyncpg.PostgresError: A migration failed.
    """
    connection = await asyncpg.connect(owner_dsn, timeout=CONNECT_SECONDS_MAX, command_timeout=_MIGRATE_SECONDS_MAX)

    async def change() -> None:
        async with on(connection):
            await _prepare(connection)
            done = await _migrated(connection)
            _check_known(done)
            await _run(connection, [name for name in migrations.names() if not (done and migrations.is_post(name))], done)

    try:
        await giving_way(change)
    finally:
        await connection.close(timeout=CONNECT_SECONDS_MAX)


async def contract_control(owner_dsn: str, *, wait: float = 0.0) -> None:
    """Run the migrations that remove what only older versions use, once none of their processes is connected.

    It may run again.

    Args:
        owner_dsn: Connects as the owner.
        wait: Seconds to wait for older processes to disconnect.

    Raises:
        DecklogError: `conflict`, with the connections that remain, or `storage-unavailable` as `giving_way`.
        asyncpg.PostgresError: A migration failed.
    """
    connection = await asyncpg.connect(owner_dsn, timeout=CONNECT_SECONDS_MAX, command_timeout=_MIGRATE_SECONDS_MAX)

    async def change() -> None:
        async with on(connection):
            await _prepare(connection)
            await _run(connection, migrations.names(), await _migrated(connection))

    clock = asyncio.get_running_loop().time
    end = clock() + wait
    try:
        while older := await _older(connection):
            if clock() >= end:
                connected = ", ".join(f"{row['name']} as {row['role']} ({row['connections']} connections)" for row in older)
                raise DecklogError(
                    Code.CONFLICT,
                    f"Processes of an older version still use what this removes: {connected}. Nothing was removed. Replace them and run this again.",
                )
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        await giving_way(change)
    finally:
        await connection.close(timeout=CONNECT_SECONDS_MAX)


async def _prepare(connection: asyncpg.Connection) -> None:
    """Take the lock of migrations and create the schema; Piccolo's own table needs it as the `search_path`."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
    if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", SCHEMA):
        await connection.execute(f"CREATE SCHEMA {SCHEMA}")
    await connection.execute(f"GRANT USAGE ON SCHEMA {SCHEMA} TO {', '.join(LEAST_ROLES)}")
    await connection.execute(f"SET LOCAL search_path = {SCHEMA}")


async def _run(connection: asyncpg.Connection, wanted: list[str], done: set[str]) -> None:
    if set(wanted) - done:
        await connection.execute(f"SET LOCAL lock_timeout = '{TABLE_LOCK_WAIT}'")
        from decklog.timescale.control import upgrade as control_migrations  # noqa: PLC0415 - takes half a second to import

        await control_migrations.run(APP, migrations.__name__, wanted)


async def _migrated(connection: asyncpg.Connection) -> set[str]:
    """Return the names of migrations that have run, including those of newer versions."""
    if not await connection.fetchval("SELECT to_regclass('decklog.migration') IS NOT NULL"):
        return set()
    return {row["name"] for row in await connection.fetch("SELECT name FROM decklog.migration WHERE app_name = $1", APP)}


def _check_known(done: set[str]) -> None:
    """Refuse to work if a newer version has removed something. Additions do no harm."""
    if gone := sorted(name for name in done.difference(migrations.names()) if migrations.is_post(name)):
        raise DecklogError(
            Code.MISCONFIGURED,
            f"A newer version of Decklog has removed what this one uses ({', '.join(gone)}). Nothing was changed. Run that version, or a newer one.",
        )


async def _older(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    """Return the connections of processes that do not know the newest `post` migration that has not run yet."""
    left = set(filter(migrations.is_post, migrations.names())) - await _migrated(connection)
    if not left:
        return []
    known = migrations.number(max(left))
    found: list[asyncpg.Record] = await connection.fetch(
        statement("registry.older_processes"), [*LEAST_ROLES, OWNER_ROLE], APPLICATION, known
    )
    return found


# --- rows; each function runs inside `on` ----------------------------------------------------------------------------


def _encoded(value: Any) -> str:
    return msgspec.json.encode(value).decode()


async def find_tenants(names: Sequence[str]) -> dict[str, Row]:
    """Return the tenants of these names, deleted or not, by name."""
    return {found["name"]: _row(found) for found in await TenantRow.select().where(TenantRow.name.is_in(list(names)))}


async def find_tenant(name: str) -> Row | None:
    """Return the tenant of this name, deleted or not."""
    return (await find_tenants([name])).get(name)


def _row(found: dict[str, Any]) -> Row:
    return Row(
        id=found["id"],
        uid=found["uid"],
        isolation=Isolation(found["isolation"]),
        schema=found["schema"],
        index=found["index"],
        queue=found["queue"],
        retention_days=found["retention_days"],
        state=State(found["state"]),
        display_name=found["display_name"],
        spec=read_spec(found["spec"]),
        generation=found["generation"],
        former_uids=tuple(found["former_uids"]),
        conditions=read_conditions(found["conditions"]),
        keys_revision=found["keys_revision"],
        keys_request=found["keys_request"],
        settled=tuple(found["settled"]),
        cell=found["cell"],
    )


async def count_dedicated() -> int:
    """Return the number of Dedicated tenants, deleted ones included, because their relations still exist."""
    count: int = await TenantRow.count().where(TenantRow.isolation == Isolation.DEDICATED.value)
    return count


def _values(row: Row) -> dict[str, Any]:
    """Return the columns of a row, by name."""
    return {
        "uid": row.uid,
        "former_uids": list(row.former_uids),
        "isolation": row.isolation.value,
        "schema": row.schema,
        "index": row.index,
        "queue": row.queue,
        "retention_days": row.retention_days,
        "state": int(row.state),
        "display_name": row.display_name,
        "spec": _encoded(row.spec),
        "generation": row.generation,
        "settled": list(row.settled),
        "cell": row.cell,
    }


async def insert_tenant(name: str, row: Row) -> int:
    """Insert a tenant and return its number."""
    inserted = await TenantRow.insert(TenantRow(name=name, **_values(row)))
    return int(inserted[0]["id"])


async def update_tenant(row: Row, changes: Sequence[str]) -> None:
    """Write these fields of the row. The registry's version grows if the service uses one of them."""
    values: dict[Any, Any] = {name: value for name, value in _values(row).items() if name in changes}
    if "state" in changes:
        values["deleted_at"] = datetime.now(UTC) if row.state is State.DELETED else None
    if values:
        await TenantRow.update(values).where(TenantRow.id == row.id)


async def delete_tenant(tenant_id: int) -> None:
    """Delete the row of a tenant that is marked as deleted, with its keys. Its number is never used again."""
    await ApiKeyRow.delete().where(_of(tenant_id))
    await TenantRow.delete().where(TenantRow.id == tenant_id).where(TenantRow.state == State.DELETED.value)


async def set_conditions(tenant_id: int, conditions: Sequence[Condition], settled: Sequence[str]) -> None:
    """Store a tenant's conditions and the names of its settled parts."""
    values: dict[Any, Any] = {TenantRow.conditions: _encoded(conditions), TenantRow.settled: list(settled)}
    await TenantRow.update(values).where(TenantRow.id == tenant_id)


def _of(tenant_id: int | None) -> Any:
    return ApiKeyRow.tenant_id.is_null() if tenant_id is None else ApiKeyRow.tenant_id == tenant_id


async def issued_keys(tenant_ids: Sequence[int]) -> defaultdict[int, tuple[IssuedKey, ...]]:
    """Return the keys of these tenants that are not revoked, by tenant. Some may have expired."""
    found: defaultdict[int, tuple[IssuedKey, ...]] = defaultdict(tuple)
    for row in await _unrevoked(ApiKeyRow.tenant_id.is_in(list(tenant_ids))):
        found[row["tenant_id"]] += (_key(row),)
    return found


async def platform_keys() -> tuple[IssuedKey, ...]:
    """Return the platform's keys that are not revoked."""
    return tuple(_key(row) for row in await _unrevoked(_of(None)))


async def _unrevoked(whose: Any) -> list[dict[str, Any]]:
    columns = (ApiKeyRow.tenant_id, ApiKeyRow.id, ApiKeyRow.role, ApiKeyRow.hash, ApiKeyRow.created_at, ApiKeyRow.expires_at)
    found: list[dict[str, Any]] = (
        await ApiKeyRow.select(*columns).where(whose).where(ApiKeyRow.revoked_at.is_null()).order_by(ApiKeyRow.id)
    )
    return found


def _key(row: dict[str, Any]) -> IssuedKey:
    return IssuedKey(row["id"], Role(row["role"]), row["hash"], row["created_at"], row["expires_at"])


async def insert_keys(tenant_id: int | None, keys: Sequence[IssuedKey]) -> None:
    """Insert keys of a tenant, of the platform if `tenant_id` is None."""
    rows = [
        ApiKeyRow(id=key.id, tenant_id=tenant_id, role=key.role.value, hash=key.hash, created_at=key.created_at) for key in keys
    ]
    await ApiKeyRow.insert(*rows)


async def retire_keys(tenant_id: int, ids: Sequence[str], until: datetime) -> None:
    """Let these keys of the tenant expire at `until`, unless they expire earlier."""
    await (
        ApiKeyRow.update({ApiKeyRow.expires_at: until})
        .where(_of(tenant_id))
        .where(ApiKeyRow.id.is_in(list(ids)))
        .where(ApiKeyRow.expires_at.is_null() | (ApiKeyRow.expires_at > until))
    )


async def set_keys_revision(tenant_id: int, revision: int) -> None:
    """Store the revision of the tenant's Secret."""
    await TenantRow.update({TenantRow.keys_revision: revision}).where(TenantRow.id == tenant_id)


async def set_keys_request(tenant_id: int, request: str) -> None:
    """Store the request for rotation that was fulfilled last."""
    await TenantRow.update({TenantRow.keys_request: request}).where(TenantRow.id == tenant_id)


async def revoke_keys(tenant_id: int | None, ids: Sequence[str]) -> None:
    """Revoke these keys of the tenant, of the platform if `tenant_id` is None. Keys of others stay."""
    if not ids:
        return
    await (
        ApiKeyRow.update({ApiKeyRow.revoked_at: datetime.now(UTC)})
        .where(_of(tenant_id))
        .where(ApiKeyRow.id.is_in(list(ids)))
        .where(ApiKeyRow.revoked_at.is_null())
    )
