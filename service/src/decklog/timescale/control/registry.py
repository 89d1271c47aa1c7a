"""The registry as the service's least role reads it: whole, in one snapshot, and only when its version has grown."""

from __future__ import annotations

import asyncpg

from decklog.domain.identity.access import Role
from decklog.domain.store import ApiKey, Snapshot
from decklog.domain.tenancy.spec import read_spec
from decklog.domain.tenancy.status import TenantListing, read_conditions
from decklog.domain.tenant import Isolation, Limits, State, Tenant
from decklog.timescale.connection import Pool

_VERSION = "SELECT version FROM decklog.registry_version"

_TENANTS = """
SELECT id, name, uid, isolation, schema, index, queue, retention_days, state, display_name,
       (spec #>> '{quotas,streams}')::integer AS streams,
       (spec #>> '{ingest,recordBytesMax}')::integer AS record_bytes_max,
       (spec #>> '{retention,searchDays}')::integer AS search_days
  FROM decklog.tenants WHERE state <> $1"""

# A key of a deleted tenant is revoked too; the join says so even where that was not done yet.
_KEYS = """
SELECT k.id, k.tenant_id, k.role, k.hash, k.expires_at
  FROM decklog.api_keys AS k LEFT JOIN decklog.tenants AS t ON t.id = k.tenant_id
 WHERE k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now()) AND (k.tenant_id IS NULL OR t.state <> $1)"""

_LISTING = """
SELECT name, uid, isolation, retention_days, state, display_name, generation, created_at, deleted_at, schema, index, queue,
       cell, spec, conditions
  FROM decklog.tenants WHERE """
_LIST = _LISTING + "name > $1 ORDER BY name LIMIT $2"
_FIND = _LISTING + "name = $1"


class PostgresRegistry:
    """`Registry` over a pool; see the protocol for what `load` promises."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def load(self, known: int | None) -> Snapshot | None:
        async with self._pool.connection() as connection:
            if known is not None and await connection.fetchval(_VERSION) == known:
                return None
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                version: int = await connection.fetchval(_VERSION)
                tenants = await connection.fetch(_TENANTS, int(State.DELETED))
                keys = await connection.fetch(_KEYS, int(State.DELETED))
        return Snapshot(
            version,
            {row["id"]: tenant_of(row, _limits(row)) for row in tenants},
            {row["id"]: ApiKey(row["id"], row["tenant_id"], Role(row["role"]), row["hash"], row["expires_at"]) for row in keys},
        )

    async def tenants(self, *, after: str = "", limit: int | None = None) -> list[TenantListing]:
        """Tenants by name, all or at most `limit`, those with a name greater than `after`; deleted ones that are retained
        included, and with their conditions as they are now. Raises `storage-unavailable`."""
        async with self._pool.connection() as connection:
            return [_listing(row) for row in await connection.fetch(_LIST, after, limit)]

    async def tenant(self, name: str) -> TenantListing | None:
        """The tenant of this name, also a deleted one that is retained. Raises `storage-unavailable`."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(_FIND, name)
        return None if row is None else _listing(row)


def tenant_of(row: asyncpg.Record, limits: Limits | None = None) -> Tenant:
    """The tenant of a row of the registry; with no limits told, those that a spec has which says nothing of them."""
    return Tenant(
        id=row["id"],
        name=row["name"],
        isolation=Isolation(row["isolation"]),
        schema=row["schema"],
        index=row["index"],
        queue=row["queue"],
        retention_days=row["retention_days"],
        state=State(row["state"]),
        display_name=row["display_name"],
        uid=row["uid"],
        limits=limits or Limits(),
    )


def _limits(row: asyncpg.Record) -> Limits:
    """What the spec does not say is as this version has it. Read field by field: a spec of a newer version counts too."""
    return Limits(**{name: row[name] for name in Limits.__struct_fields__ if row[name] is not None})


def _listing(row: asyncpg.Record) -> TenantListing:
    return TenantListing(
        name=row["name"],
        uid=row["uid"],
        isolation=Isolation(row["isolation"]),
        retention_days=row["retention_days"],
        state=State(row["state"]),
        display_name=row["display_name"],
        generation=row["generation"],
        created_at=row["created_at"],
        deleted_at=row["deleted_at"],
        schema=row["schema"],
        index=row["index"],
        queue=row["queue"],
        cell=row["cell"],
        spec=read_spec(row["spec"]),
        conditions=read_conditions(row["conditions"]),
    )
