"""The registry of tenants and keys, read by the service's role without Piccolo.

A load reads all of it in one snapshot, and only if its version has grown.
"""

from __future__ import annotations

import asyncpg

from decklog.domain.identity.access import Role
from decklog.domain.store import ApiKey, Snapshot
from decklog.domain.tenancy.spec import read_spec
from decklog.domain.tenancy.status import TenantListing, read_conditions
from decklog.domain.tenant import Isolation, Limits, State, Tenant
from decklog.timescale.connection import Pool
from decklog.timescale.statements import statement

_VERSION = "SELECT version FROM decklog.registry_version"

_TENANTS = statement("registry.tenants")
_KEYS = statement("registry.keys")
_LIST = statement("registry.listing") + " WHERE name > $1 ORDER BY name LIMIT $2"
_FIND = statement("registry.listing") + " WHERE name = $1"


class PostgresRegistry:
    """`Registry` over a pool; see the protocol for what `load` promises."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def load(self, known: int | None) -> Snapshot | None:
        """See the protocol."""
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
        """Return tenants in the order of their names, retained ones of deleted `Tenant`s included.

        Args:
            after: Only names greater than this one.
            limit: At most so many; None for all.

        Raises:
            DecklogError: `storage-unavailable`.
        """
        async with self._pool.connection() as connection:
            return [_listing(row) for row in await connection.fetch(_LIST, after, limit)]

    async def tenant(self, name: str) -> TenantListing | None:
        """Return the tenant of this name, a retained one of a deleted `Tenant` included.

        Raises:
            DecklogError: `storage-unavailable`.
        """
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(_FIND, name)
        return None if row is None else _listing(row)


def tenant_of(row: asyncpg.Record, limits: Limits | None = None) -> Tenant:
    """Return the tenant of a row of the registry. Without `limits` it has the defaults of a spec."""
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
    """Return the limits of a row's spec, with this version's defaults for missing ones.

    They are read field by field, so that the spec of a newer version is readable.
    """
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
