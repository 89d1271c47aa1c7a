"""The control tables: tenants, API keys and the registry's version, written by provisioning as the owner and by nobody else.

Piccolo has the tables and their migrations. The service's role reads them through `registry.py`, without Piccolo.
"""

from __future__ import annotations

import pkgutil
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg
import msgspec
from piccolo.columns import JSONB, Array, BigInt, BigSerial, Bytea, ForeignKey, Integer, OnDelete, SmallInt, Text, Timestamptz
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.query.functions import Count
from piccolo.table import Table

from decklog.domain.access import Role
from decklog.domain.credentials import IssuedKey
from decklog.domain.plan import Row
from decklog.domain.status import Condition, read_conditions
from decklog.domain.tenant import DEFAULT_CELL, Isolation, State, read_spec
from decklog.timescale import migrations
from decklog.timescale.connection import CONNECT_SECONDS_MAX, SERVICE_ROLE
from decklog.timescale.piccolo_engine import ENGINE, on

SCHEMA = "decklog"
APP = "decklog"
_LOCK = 0x6465636B6374726C
"""Advisory lock of the migrations, so that two processes may start at once."""
_MIGRATE_SECONDS_MAX = 120.0
_TABLE_LOCK_WAIT = "1s"
"""How long a change of a table may wait for those who read it: others wait behind it, and a process that cannot read the
registry for two seconds stops serving."""


class TenantRow(Table, tablename="tenants", schema=SCHEMA, db=ENGINE):  # type: ignore[call-arg]
    """One tenant: a deleted one that is retained keeps its row, its number and its name."""

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


class ApiKeyRow(Table, tablename="api_keys", schema=SCHEMA, db=ENGINE):  # type: ignore[call-arg]
    """One API key: never the secret, only its hash. `tenant_id` is null for the platform's."""

    id = Text(primary_key=True)
    tenant_id = ForeignKey(references=TenantRow, on_delete=OnDelete.restrict, null=True, default=None, index=True)
    role = Text(required=True)
    hash = Bytea(unique=True, required=True)
    created_at = Timestamptz(default=TimestamptzNow())
    expires_at = Timestamptz(null=True, default=None)
    revoked_at = Timestamptz(null=True, default=None)


class RegistryVersion(Table, tablename="registry_version", schema=SCHEMA, db=ENGINE):  # type: ignore[call-arg]
    """One row: a number that grows with every change of what the service serves by."""

    id = SmallInt(primary_key=True, default=1)
    version = BigInt(default=1)


class IndexRow(Table, tablename="search_indices", schema=SCHEMA, db=ENGINE):  # type: ignore[call-arg]
    """For each index the life of it that the indexer's cursors count for; null while there is none."""

    name = Text(primary_key=True)
    uuid = Text(null=True, default=None)


# --- migrations ------------------------------------------------------------------------------------------------------


def migration_names() -> list[str]:
    """The migrations of this version, in order; a migration's id is the name of its module."""
    return sorted(module.name for module in pkgutil.iter_modules(migrations.__path__))


async def migrate_control(owner_dsn: str) -> None:
    """The newest control tables, in one transaction. As the owner; may run again, and in two processes at once.

    Raises what asyncpg raises.
    """
    connection = await asyncpg.connect(owner_dsn, timeout=CONNECT_SECONDS_MAX, command_timeout=_MIGRATE_SECONDS_MAX)
    try:
        async with on(connection):
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", SCHEMA):
                await connection.execute(f"CREATE SCHEMA {SCHEMA}")
            await connection.execute(f"GRANT USAGE ON SCHEMA {SCHEMA} TO {SERVICE_ROLE}")
            # Piccolo's own table of migrations has no schema.
            await connection.execute(f"SET LOCAL search_path = {SCHEMA}")
            if set(migration_names()) - await _migrated(connection):
                await connection.execute(f"SET LOCAL lock_timeout = '{_TABLE_LOCK_WAIT}'")
                from decklog.timescale import control_migrations  # noqa: PLC0415 - see there

                await control_migrations.run(APP, migrations.__name__, migration_names())
    finally:
        await connection.close(timeout=CONNECT_SECONDS_MAX)


async def _migrated(connection: asyncpg.Connection) -> set[str]:
    if not await connection.fetchval("SELECT to_regclass('migration') IS NOT NULL"):
        return set()
    return {row["name"] for row in await connection.fetch("SELECT name FROM migration WHERE app_name = $1", APP)}


# --- rows; each function runs inside `on` ----------------------------------------------------------------------------


def _encoded(value: Any) -> str:
    return msgspec.json.encode(value).decode()


async def find_tenants(names: Sequence[str]) -> dict[str, Row]:
    """The tenants of these names, deleted or not."""
    return {found["name"]: _row(found) for found in await TenantRow.select().where(TenantRow.name.is_in(list(names)))}


async def find_tenant(name: str) -> Row | None:
    """The tenant of this name, deleted or not."""
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
    """Dedicated tenants, deleted ones included: their relations are still there."""
    found = await TenantRow.select(Count()).where(TenantRow.isolation == Isolation.DEDICATED.value).first()
    return int(found["count"])


def _values(row: Row) -> dict[Any, Any]:
    return {
        TenantRow.uid: row.uid,
        TenantRow.former_uids: list(row.former_uids),
        TenantRow.isolation: row.isolation.value,
        TenantRow.schema: row.schema,
        TenantRow.index: row.index,
        TenantRow.queue: row.queue,
        TenantRow.retention_days: row.retention_days,
        TenantRow.state: int(row.state),
        TenantRow.display_name: row.display_name,
        TenantRow.spec: _encoded(row.spec),
        TenantRow.generation: row.generation,
        TenantRow.settled: list(row.settled),
        TenantRow.cell: row.cell,
    }


async def insert_tenant(name: str, row: Row) -> int:
    """The number that the tenant got."""
    values = {column._meta.name: value for column, value in _values(row).items()}  # noqa: SLF001 - Piccolo's documented way
    inserted = await TenantRow.insert(TenantRow(name=name, **values))
    return int(inserted[0]["id"])


async def update_tenant(row: Row, changes: Sequence[str]) -> None:
    """Write these fields of the row; the version grows where the service serves by one of them."""
    values: dict[Any, Any] = {column: value for column, value in _values(row).items() if column._meta.name in changes}  # noqa: SLF001
    if "state" in changes:
        values[TenantRow.deleted_at] = TimestamptzNow().python() if row.state is State.DELETED else None
    if values:
        await TenantRow.update(values).where(TenantRow.id == row.id)


async def delete_tenant(tenant_id: int) -> None:
    """The row of a tenant that goes for ever, with its keys. Its number is not used again."""
    await ApiKeyRow.delete().where(_of(tenant_id))
    await TenantRow.delete().where(TenantRow.id == tenant_id).where(TenantRow.state == State.DELETED.value)


async def forget_index(index: str) -> None:
    """No cursor counts for an index of this name any more."""
    await IndexRow.delete().where(IndexRow.name == index)


async def index_uuids(indices: Sequence[str]) -> dict[str, str | None]:
    """The life of each index that the indexer's cursors count for, None or nothing where they are at the beginning."""
    found = await IndexRow.select(IndexRow.name, IndexRow.uuid).where(IndexRow.name.is_in(list(indices)))
    return {row["name"]: row["uuid"] for row in found}


async def set_index_uuid(index: str, uuid: str | None) -> None:
    await IndexRow.insert(IndexRow(name=index, uuid=uuid)).on_conflict(IndexRow.name, "DO UPDATE", [IndexRow.uuid])


async def set_conditions(tenant_id: int, conditions: Sequence[Condition], settled: Sequence[str]) -> None:
    values = {TenantRow.conditions: _encoded(conditions), TenantRow.settled: list(settled)}
    await TenantRow.update(values).where(TenantRow.id == tenant_id)


def _of(tenant_id: int | None) -> Any:
    return ApiKeyRow.tenant_id.is_null() if tenant_id is None else ApiKeyRow.tenant_id == tenant_id


async def issued_keys(tenant_ids: Sequence[int]) -> defaultdict[int, tuple[IssuedKey, ...]]:
    """The keys of these tenants that were not revoked; some may have ended by themselves."""
    found: defaultdict[int, tuple[IssuedKey, ...]] = defaultdict(tuple)
    for row in await _unrevoked(ApiKeyRow.tenant_id.is_in(list(tenant_ids))):
        found[row["tenant_id"]] += (_key(row),)
    return found


async def platform_keys() -> tuple[IssuedKey, ...]:
    """The keys of the platform that were not revoked."""
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
    rows = [
        ApiKeyRow(id=key.id, tenant_id=tenant_id, role=key.role.value, hash=key.hash, created_at=key.created_at) for key in keys
    ]
    await ApiKeyRow.insert(*rows)


async def retire_keys(tenant_id: int, ids: Sequence[str], until: datetime) -> None:
    """Let these keys of the tenant in until then and no longer; an earlier end of theirs stays."""
    await (
        ApiKeyRow.update({ApiKeyRow.expires_at: until})
        .where(_of(tenant_id))
        .where(ApiKeyRow.id.is_in(list(ids)))
        .where(ApiKeyRow.expires_at.is_null() | (ApiKeyRow.expires_at > until))
    )


async def set_keys_revision(tenant_id: int, revision: int) -> None:
    await TenantRow.update({TenantRow.keys_revision: revision}).where(TenantRow.id == tenant_id)


async def set_keys_request(tenant_id: int, request: str) -> None:
    await TenantRow.update({TenantRow.keys_request: request}).where(TenantRow.id == tenant_id)


async def revoke_keys(tenant_id: int | None, ids: Sequence[str]) -> None:
    """Revoke these keys of the tenant; those of others are never touched."""
    if not ids:
        return
    await (
        ApiKeyRow.update({ApiKeyRow.revoked_at: TimestamptzNow().python()})
        .where(_of(tenant_id))
        .where(ApiKeyRow.id.is_in(list(ids)))
        .where(ApiKeyRow.revoked_at.is_null())
    )
