"""Provisioning of tenants in the database: registry row, keys, relations, heads and partitions.

A visit works on one connection and holds an advisory lock on the tenant's name, so two provisioners never work on one tenant. It
uses the owner's role; the service's role cannot do any of this.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import asyncpg

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.log import LogName
from decklog.domain.records.append import AppendRequest
from decklog.domain.records.record import RecordInput, prepare
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.parts.credentials import IssueKeys
from decklog.domain.tenancy.parts.database import (
    AdoptTenant,
    CreateRelations,
    MakePartitions,
    RegisterTenant,
    RemoveTenant,
    SetHeads,
    UpdateTenant,
)
from decklog.domain.tenancy.parts.keys import IssuedKey
from decklog.domain.tenancy.parts.part import Action
from decklog.domain.tenancy.parts.search import RecordGeneration, RetireGenerations
from decklog.domain.tenancy.registered import DatabaseSeen, Row, Stopped
from decklog.domain.tenancy.status import Condition
from decklog.domain.tenant import PLATFORM_TENANT, Isolation, State, Tenant
from decklog.timescale.connection import Pool
from decklog.timescale.control import schema, tables
from decklog.timescale.control.errors import translated
from decklog.timescale.control.heads import ensure_heads
from decklog.timescale.control.observation import Relations, Sizes, observe
from decklog.timescale.control.piccolo_engine import borrowed, on
from decklog.timescale.records.append import append_on
from decklog.timescale.statements import statement

VISITS_MAX = 12
"""Visits of one process at once."""
CONNECTIONS_MAX = VISITS_MAX + 1
"""One connection per visit, which holds it to its end, and one for what is read between visits."""
_NO_RETRIES = b""
"""Key of fingerprints. Only records with an id have one, and records of provisioning have no id."""
_LOCK_WAIT = "20s"
"""Maximum wait of a visit for another one to the same tenant."""


class PostgresProvisioning:
    """Tenants of one database.

    `owner_pool` connects as `decklog_owner`, with up to `CONNECTIONS_MAX` connections. Every method raises `storage-unavailable` and
    `misconfigured`.
    """

    def __init__(self, owner_pool: Pool) -> None:
        self._pool = owner_pool
        self._visits = asyncio.Semaphore(VISITS_MAX)
        self._sizes = Sizes()

    @asynccontextmanager
    async def visit(self, name: str) -> AsyncIterator[PostgresVisit]:
        """Hold the tenant of this name for exclusive work."""
        async with self._visits, self._pool.connection() as connection:
            async with translated():
                await connection.execute(f"SET lock_timeout = '{_LOCK_WAIT}'")
                # A lock of the session, because no transaction stays open during calls to other systems. The pool releases it
                # with the connection, however the visit ends.
                await connection.execute("SELECT pg_advisory_lock(hashtextextended('decklog.tenant.' || $1, 0))", name)
            yield PostgresVisit(connection, name, self._sizes)

    async def observe(self, asked: Sequence[tuple[Manifest, str]]) -> list[DatabaseSeen]:
        """Return the state of each of these tenants, given with the names of their indexes.

        It takes no lock, so a visit may change a tenant meanwhile.
        """
        async with self._pool.connection() as connection:
            return await observe(connection, asked, self._sizes, {})

    async def installation(self) -> str | None:
        """Return the uid of the reserved tenant, None before it exists."""
        row = await self.find(PLATFORM_TENANT)
        return row.uid if row else None

    async def begin_epochs(self, entry: RecordInput) -> int:
        """Begin a new epoch in every log and record `entry` in the platform's access log; return the number of logs."""
        async with self.visit(PLATFORM_TENANT) as visit:
            return await visit.begin_epochs(entry)

    async def find(self, name: str) -> Row | None:
        """Return the registry's row of this name, None where there is none."""
        async with self._pool.connection() as connection, translated(), borrowed(connection):
            return await tables.find_tenant(name)


class PostgresVisit:
    """One tenant, held exclusively. Every method raises `storage-unavailable`, `misconfigured` and `internal`."""

    def __init__(self, connection: asyncpg.Connection, name: str, sizes: Sizes) -> None:
        self._connection = connection
        self._name = name
        self._sizes = sizes
        self._registered: tuple[int, str] | None = None
        # Valid until this visit changes relations. Other tenants of a shared schema observe it as well.
        self._relations: dict[str, Relations] = {}

    async def row(self) -> Row | None:
        """Return the registry's row of this tenant, None where there is none."""
        async with translated(), borrowed(self._connection):
            return await tables.find_tenant(self._name)

    async def observe(self, manifest: Manifest, index: str) -> DatabaseSeen:
        """Return the state of this tenant, whose index has this name."""
        [seen] = await observe(self._connection, [(manifest, index)], self._sizes, self._relations)
        return seen

    async def apply(self, actions: Sequence[Action]) -> None:
        """Apply these actions in their order, in one transaction."""
        async with translated(), on(self._connection):
            for action in actions:
                await self._apply(action)

    async def _apply(self, action: Action) -> None:
        connection = self._connection
        match action:
            case CreateRelations():
                self._relations.clear()
                await schema.ensure_relations(
                    connection, action.schema, shared=action.shared, partition_days=action.partition_days
                )
            case MakePartitions():
                self._relations.clear()
                await schema.ensure_partitions(connection, action.schema)
            case RegisterTenant():
                self._registered = await tables.insert_tenant(self._name, action.row), action.row.schema
            case UpdateTenant():
                await tables.update_tenant(action.row, action.changes)
                if isinstance(action, AdoptTenant):  # The tenant stores records again, which its archive does not contain.
                    await connection.execute("DELETE FROM decklog.archives WHERE tenant_id = $1", action.row.id)
            case SetHeads(settings=settings):
                await ensure_heads(connection, await self._id(), await self._schema(), settings)
            case RetireGenerations():
                await connection.execute(statement("generations.retire"), action.index, action.generations)
            case RecordGeneration():
                at_once = True  # an older mapping is not read by this version, and a lost generation not by any
                await connection.execute(
                    statement("generations.record"), action.index, action.generation, action.starts, action.uuids, at_once
                )
            case _:
                raise TypeError(f"{type(action).__name__} is not an action on the database")

    async def take_revision(self, revision: int) -> None:
        """Reserve this revision for the next writing of the tenant's Secret."""
        async with translated(), borrowed(self._connection):
            await tables.set_keys_revision(await self._id(), revision)

    async def issue(self, keys: Sequence[IssuedKey], action: IssueKeys) -> None:
        """Accept these keys, and revoke or retire their predecessors as the action says, in one transaction.

        Processes accept the keys within the 2 seconds that their registry cache may be old.
        """
        after = action.succession
        async with translated(), on(self._connection):
            number = await self._id()
            await tables.revoke_keys(number, after.revoked)
            if after.retired_until is not None:
                await tables.retire_keys(number, after.retired, after.retired_until)
            await tables.insert_keys(number, keys)
            await tables.set_keys_request(number, action.request)

    async def revoke(self, ids: Sequence[str]) -> None:
        """Revoke these keys of the tenant."""
        async with translated(), on(self._connection):
            await tables.revoke_keys(await self._id(), ids)

    async def save_conditions(self, conditions: Sequence[Condition], settled: Sequence[str]) -> None:
        """Store the tenant's conditions and the names of its settled parts."""
        async with translated(), borrowed(self._connection):
            await tables.set_conditions(await self._id(), conditions, settled)

    async def record(self, entry: RecordInput) -> None:
        """Append a record to the tenant's access log, even if it is suspended or retained."""
        async with translated(), on(self._connection):
            await self._record(self._name, entry)

    async def _record(self, name: str, entry: RecordInput) -> None:
        row = await tables.find_tenant(name)
        if row is None:
            raise DecklogError(Code.INTERNAL, f"The tenant {name!r} is not registered.")
        tenant = Tenant(row.id, name, row.isolation, row.schema, row.index, row.queue, row.retention_days, row.state)
        prepared = prepare(entry, now=datetime.now(UTC), fingerprint_key=_NO_RETRIES)
        [result] = await append_on(self._connection, [AppendRequest(tenant, LogName.ACCESS, [prepared], metered=False)])
        if isinstance(result, DecklogError):
            raise result

    async def stopped(self) -> Stopped | None:
        """Return how long the tenant has been marked as deleted, by the database's clock; None where it is not."""
        async with translated():
            found = await self._connection.fetchrow(statement("heads.stopped"), self._name, int(State.DELETED))
        return None if found is None else Stopped(found["seconds"], found["last_received"])

    async def remove(self, action: RemoveTenant, entry: RecordInput) -> None:
        """Remove the tenant from the database, with the relations of its own, and record `entry` in the platform's access log.

        Partitions go first, some per transaction; the rest is one transaction. A later visit continues an interrupted removal.

        Raises:
            DecklogError: `conflict` if a log has records that the archive lacks. Nothing is removed then.
        """
        row = action.row
        self._relations.clear()
        async with translated():
            if action.archive:
                await self._close(row, action.archive)
            if row.isolation is Isolation.DEDICATED:
                await schema.drop_partitions(self._connection, row.schema)
            async with on(self._connection):
                if row.isolation is Isolation.DEDICATED:
                    await schema.drop_relations(self._connection, row.schema)
                    await self._connection.execute(statement("generations.forget"), row.index)
                else:
                    await schema.delete_term_filters(self._connection, row.schema, row.id)
                await self._delete_from(row, "cursors", "heads", "archives", "archive_parts", "dropped_ranges")
                await schema.delete_ingest(self._connection, row.id)
                await schema.delete_searches(self._connection, row.id)
                await schema.delete_conversations(self._connection, row.id)
                await schema.delete_sessions(self._connection, row.id)
                await tables.delete_tenant(row.id)
                await self._record(PLATFORM_TENANT, entry)

    async def _close(self, row: Row, archive: str) -> None:
        """Delete the heads, so that nothing more is appended, if this manifest covers all of their records.

        Raises:
            DecklogError: `conflict` if it does not.
        """
        async with on(self._connection):
            if await self._connection.fetchval(statement("archives.lacking"), row.id, archive):
                raise DecklogError(
                    Code.CONFLICT,
                    f"A log of {self._name!r} has received records since it was archived. Nothing is removed before they are archived.",
                )
            # If the tenant is adopted after this, its logs begin again at 0, and so do their archive and their filters.
            await self._delete_from(row, "heads", "cursors", "archive_parts")
            await schema.delete_term_filters(self._connection, row.schema, row.id)

    async def _delete_from(self, row: Row, *names: str) -> None:
        for name in names:
            await self._connection.execute(f"DELETE FROM decklog.{name} WHERE tenant_id = $1", row.id)

    async def begin_epochs(self, entry: RecordInput) -> int:
        """See `PostgresProvisioning.begin_epochs`."""
        async with translated(), on(self._connection):
            begun = await self._connection.fetch(statement("heads.begin_epochs"))
            await self._record(PLATFORM_TENANT, entry)
        return len(begun)

    async def platform_keys(self) -> tuple[IssuedKey, ...]:
        """Return the platform's keys. They end only by revocation."""
        async with translated(), borrowed(self._connection):
            return await tables.platform_keys()

    async def replace_platform_keys(self, key_id: str, key_hash: bytes, revoked: Sequence[str]) -> None:
        """Accept a new platform key and revoke the keys with the ids `revoked`, in one transaction."""
        async with translated(), on(self._connection):
            await tables.insert_keys(None, [IssuedKey(key_id, Role.PLATFORM, key_hash, datetime.now(UTC))])
            await tables.revoke_keys(None, revoked)

    async def _id(self) -> int:
        """Return the tenant's number, which never changes."""
        return (await self._known())[0]

    async def _schema(self) -> str:
        """Return the name of the tenant's schema, which never changes."""
        return (await self._known())[1]

    async def _known(self) -> tuple[int, str]:
        if self._registered is None:
            row = await tables.find_tenant(self._name)
            if row is None:
                raise DecklogError(Code.INTERNAL, f"The tenant {self._name!r} is not registered.")
            self._registered = row.id, row.schema
        return self._registered
