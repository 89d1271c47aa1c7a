"""The registry of tenants and keys, read by the service's role without Piccolo; and notices of its changes.

Nothing here reads the whole registry: triggers number every change (`migrations/m0009_changes.py`), and a look-up is one
statement, so what it returns is as of the version that it returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import asyncpg

from decklog.domain.identity.access import Role
from decklog.domain.index_generation import IndexGeneration
from decklog.domain.store import REGISTRY_CHANGES_MAX, ApiKey, Registered, RegistryChanges
from decklog.domain.tenancy.spec import read_spec
from decklog.domain.tenancy.status import TenantListing, read_conditions
from decklog.domain.tenant import Isolation, Limits, State, Tenant, default_bytes_per_second
from decklog.timescale.connection import Pool
from decklog.timescale.listening import listen
from decklog.timescale.statements import statement

CHANNEL = "decklog_registry"
"""Channel of NOTIFY after a change of the registry, without a payload."""

_CHANGES = statement("registry.changes")
_REGISTERED = statement("registry.find")
_QUEUES = statement("registry.queues")
_SEARCHING = statement("registry.searching")
_OF_INDEX = statement("registry.of_index")
_LIST = statement("registry.listing") + " WHERE name > $1 ORDER BY name LIMIT $2"
_FIND = statement("registry.listing") + " WHERE name = $1"


class PostgresRegistry:
    """`Registry` over a pool; the protocol says what each method promises."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def changes(self, known: int | None) -> RegistryChanges:
        """See the protocol."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(_CHANGES, known, REGISTRY_CHANGES_MAX + 1)
        version: int = rows[0]["version"]
        listed = {row["changed_in"] for row in rows if row["tenant_id"] is not None or row["key_id"] is not None}
        # The versions in between must all be listed. They are not after a restore, or where too much has changed.
        if known is None or len(listed) != version - known or len(rows) > REGISTRY_CHANGES_MAX:
            return RegistryChanges(version, complete=False)
        return RegistryChanges(
            version,
            tenants=frozenset(row["tenant_id"] for row in rows if row["tenant_id"] is not None),
            keys=frozenset(row["key_id"] for row in rows if row["key_id"] is not None),
        )

    async def find(self, *, tenants: Sequence[int] = (), names: Sequence[str] = (), keys: Sequence[str] = ()) -> Registered:
        """See the protocol."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(_REGISTERED, tenants, names, keys, int(State.DELETED))
        found = {row["id"]: tenant_of(row, _limits(row)) for row in rows if row["id"] is not None}
        return Registered(
            rows[0]["version"],
            list(found.values()),
            # A key of a deleted tenant is revoked as well; this holds before that has happened.
            [
                ApiKey(row["key_id"], row["key_tenant_id"], Role(row["key_role"]), row["key_hash"], row["key_expires_at"])
                for row in rows
                if row["key_id"] is not None and (row["key_tenant_id"] is None or row["key_tenant_id"] in found)
            ],
        )

    async def queues(self) -> set[str]:
        """See the protocol."""
        async with self._pool.connection() as connection:
            return {row["queue"] for row in await connection.fetch(_QUEUES, int(State.DELETED))}

    async def searching(self, *, after: int, limit: int) -> list[Tenant]:
        """See the protocol."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(_SEARCHING, after, limit, int(State.DELETED))
        return [tenant_of(row, _limits(row)) for row in rows]

    async def of_index(self, index: str, *, after: int, limit: int) -> list[Tenant]:
        """See the protocol."""
        async with self._pool.connection() as connection:
            return [tenant_of(row) for row in await connection.fetch(_OF_INDEX, index, after, limit)]

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


class RegistryNotices:
    """`Notices` by LISTEN on a connection of its own, which connects again after a failure."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._task: asyncio.Task[None] | None = None

    async def start(self, heard: Callable[[], None]) -> None:
        """See the protocol."""
        listening = listen(self._dsn, CHANNEL, lambda _: heard(), of="changes of the registry", began=heard)
        self._task = asyncio.create_task(listening, name="registry-notices")

    async def stop(self) -> None:
        """See the protocol."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def tenant_of(row: asyncpg.Record, limits: Limits | None = None) -> Tenant:
    """Return the tenant of a row of the registry. Without `limits` it has the defaults of a spec.

    It has no generations of its index where the row does not tell them.
    """
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
        live=_generation(row, "live"),
        building=_generation(row, "building"),
    )


def _generation(row: asyncpg.Record, name: str) -> IndexGeneration | None:
    found = row.get(name)
    return None if found is None else IndexGeneration(row["index"], found, tuple(row[f"{name}_starts"]))


def _limits(row: asyncpg.Record) -> Limits:
    """Return the limits of a row's spec, with this version's defaults for missing ones.

    They are read field by field, so that the spec of a newer version is readable.
    """
    found = {name: row[name] for name in Limits.__struct_fields__ if row[name] is not None}
    if row["events_per_second"] is not None:
        found.setdefault("bytes_per_second", default_bytes_per_second(row["events_per_second"]))
    return Limits(**found)


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
