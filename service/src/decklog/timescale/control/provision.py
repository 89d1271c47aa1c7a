"""A tenant in the database: its row, keys, relations, heads and partitions, observed and put right by the owning role.

One visit works on one connection and holds an advisory lock on the tenant's name, so that two provisioners never undo
each other; whatever is done at once is done in one transaction.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import NamedTuple

import asyncpg

from decklog.domain.archive.manifest import ARCHIVER, ArchivePlace, ArchiveSeen
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.log import LogName
from decklog.domain.records.append import AppendRequest
from decklog.domain.records.record import RecordInput, prepare
from decklog.domain.store import INDEXER
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.names import schema_name
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
from decklog.domain.tenancy.parts.search import RewindIndexer
from decklog.domain.tenancy.registered import DatabaseSeen, Row, Stopped, Stored
from decklog.domain.tenancy.spec import DeletionPolicy
from decklog.domain.tenancy.status import Condition
from decklog.domain.tenant import PLATFORM_TENANT, Isolation, State, Tenant
from decklog.timescale.connection import LOST, Pool, unavailable
from decklog.timescale.control import schema
from decklog.timescale.control import tables as control
from decklog.timescale.control.piccolo_engine import borrowed, on
from decklog.timescale.records.append import append_on
from decklog.timescale.statements import only_row

VISITS_MAX = 12
"""Tenants that one process looks after at once, as far as the database is concerned."""
CONNECTIONS_MAX = VISITS_MAX + 1
"""One per visit, which holds it to its end, and one for what is looked up between visits."""
_NO_RETRIES = b""
"""Key of fingerprints, which only records with an id have; ours have none."""
_LOCK_WAIT = "20s"
"""How long a visit waits for another one to the same tenant."""
_SIZE_SECONDS = {Isolation.DEDICATED: 5.0, Isolation.SHARED: 60.0}
"""How old a measured size may be: those who share a schema share its size, and a visit that looks again and again needs one."""
_SIZES_MAX = 256
"""Schemas whose size is remembered."""
_PARTITIONS_AHEAD = "3 days"
"""Partitions are made a week ahead or more, and made again when fewer days than this are left."""

# Of native partitions: TimescaleDB makes its chunks inside the insert that needs one. `ahead` tells whether there are
# enough, `gaps` which of them are missing between others: time only asks for more of them at their end.
_PARTITIONS = """
WITH bounds AS (
    SELECT schema, substring(bound FROM $q$FROM \\('([^']+)'\\)$q$)::timestamptz AS starts,
           substring(bound FROM $q$ TO \\('([^']+)'\\)$q$)::timestamptz AS ends
      FROM (SELECT schema, pg_get_expr(part.relpartbound, part.oid) AS bound
              FROM unnest($1::text[]) AS schema JOIN pg_inherits ON inhparent = to_regclass(format('%I.records', schema))
              JOIN pg_class AS part ON part.oid = inhrelid) AS parts
), ends AS (
    SELECT schema, max(starts) AS starts, max(ends) AS ends FROM bounds GROUP BY schema
), spans AS (
    SELECT relation.*, to_timestamp((floor(extract(epoch FROM decklog.clock()) / span) + n) * span) AS starts
      FROM (SELECT schema_name AS schema, hypertable, partition_days * 86400 AS span
              FROM decklog.relations WHERE schema_name = ANY($1)) AS relation,
           generate_series(0, 7) AS n
)
SELECT schema, bool_or(hypertable) OR coalesce(max(ends.ends) > decklog.clock() + $2::text::interval, false) AS ahead,
       coalesce(array_agg('partition records_' || to_char(spans.starts AT TIME ZONE 'UTC', 'YYYYMMDD') ORDER BY spans.starts)
                FILTER (WHERE NOT hypertable AND spans.starts < ends.starts
                          AND NOT EXISTS (SELECT FROM bounds WHERE bounds.schema = spans.schema
                                           AND bounds.starts <= spans.starts AND spans.starts < bounds.ends)),
                '{}') AS gaps
  FROM spans LEFT JOIN ends USING (schema) GROUP BY schema"""

_STORED = """
SELECT head.tenant_id, sum(head.next_seq)::bigint AS records,
       sum(greatest(head.next_seq - coalesce(cursor.next_seq, 0), 0))::bigint AS unindexed
  FROM decklog.heads AS head
  LEFT JOIN decklog.cursors AS cursor ON cursor.consumer = $2 AND cursor.tenant_id = head.tenant_id AND cursor.log = head.log
 WHERE head.tenant_id = ANY($1::bigint[]) GROUP BY head.tenant_id"""

_STOPPED = """
SELECT extract(epoch FROM clock_timestamp() - tenant.deleted_at)::float8 AS seconds,
       (SELECT max(received_at) FROM decklog.heads AS head WHERE head.tenant_id = tenant.id AND head.next_seq > 0) AS last_received
  FROM decklog.tenants AS tenant WHERE name = $1 AND state = $2 AND deleted_at IS NOT NULL"""

# A log that is gone was removed by who compared it before; see `_LACKING`.
_ARCHIVED = """
SELECT tenant.id, coalesce(sum(head.next_seq), 0)::bigint AS records,
       coalesce(sum(least(coalesce(cursor.next_seq, 0), head.next_seq)), 0)::bigint AS archived,
       bool_and(head.next_seq IS NOT DISTINCT FROM archive.next_seq) AS complete,
       (SELECT max(manifest) FROM decklog.archives WHERE tenant_id = tenant.id) AS manifest
  FROM unnest($1::bigint[]) AS tenant (id)
  LEFT JOIN decklog.heads AS head ON head.tenant_id = tenant.id
  LEFT JOIN decklog.archives AS archive ON archive.tenant_id = head.tenant_id AND archive.log = head.log
  LEFT JOIN decklog.cursors AS cursor ON cursor.consumer = $2 AND cursor.tenant_id = head.tenant_id AND cursor.log = head.log
 GROUP BY tenant.id"""

_ARCHIVE_PLACE = """
SELECT place, locked, reason, message FROM decklog.archive_place WHERE told_at > clock_timestamp() - $1::text::interval"""
_ARCHIVE_SILENCE_MAX = "5 minutes"
"""Workers tell of their archive every minute; one that nobody tells of is none."""

_LACKING = """
SELECT count(*) FROM (SELECT * FROM decklog.heads WHERE tenant_id = $1 ORDER BY log FOR UPDATE) AS head
  LEFT JOIN decklog.archives AS archive USING (tenant_id, log)
 WHERE (head.next_seq, $2::text) IS DISTINCT FROM (archive.next_seq, archive.manifest)"""

# In the order in which every writer locks them.
_BEGIN_EPOCHS = """
UPDATE decklog.heads AS head SET epoch = head.epoch + 1
  FROM (SELECT tenant_id, log FROM decklog.heads ORDER BY tenant_id, log FOR UPDATE) AS locked
 WHERE (head.tenant_id, head.log) = (locked.tenant_id, locked.log) RETURNING head.tenant_id"""

_SIZE = """
SELECT (SELECT coalesce(sum(pg_total_relation_size(part)), 0)
          FROM (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass(format('%I.records', $1::text))
                UNION ALL SELECT to_regclass(format('%I.records', $1::text))) AS parts (part))::bigint AS bytes,
       (SELECT coalesce(sum(head.next_seq), 0) FROM decklog.heads AS head JOIN decklog.tenants AS tenant ON tenant.id = head.tenant_id
         WHERE tenant.schema = $1)::bigint AS records"""

_REWIND = """
UPDATE decklog.cursors SET next_seq = 0, owner = NULL, leased_until = 'epoch'
 WHERE consumer = $2 AND tenant_id IN (SELECT id FROM decklog.tenants WHERE index = $1)"""


class _Sizes:
    """Bytes of whole schemas and the records that were taken in there, looked up now and then: a thousand visits to tenants
    of one class do not measure it a thousand times."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, int, int]] = {}

    async def share(self, connection: asyncpg.Connection, row: Row, records: int) -> int:
        """The bytes that so many records of the tenant take; all there are where the schema is its own."""
        now = time.monotonic()
        measured_at, size, counted = self._known.get(row.schema, (-math.inf, 0, 0))
        if now - measured_at > _SIZE_SECONDS[row.isolation]:
            found = await only_row(connection, _SIZE, row.schema)
            size, counted = found["bytes"], found["records"]
            self._known[row.schema] = (now, size, counted)
            while len(self._known) > _SIZES_MAX:
                del self._known[next(iter(self._known))]
        if row.isolation is Isolation.DEDICATED:
            return size
        return size * min(records, counted) // max(counted, 1)


class _Relations(NamedTuple):
    """What was seen of a schema."""

    missing: tuple[str, ...]
    ahead: bool
    """Whether there are enough partitions for what is to come."""


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """Database errors as `storage-unavailable`, `misconfigured` or `internal`. What PostgreSQL says of definitions and
    rights names no data of anybody, so it is passed on."""
    try:
        yield
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError) as error:
        raise DecklogError(Code.MISCONFIGURED, "The database lacks the tables of this version. Run: decklog migrate.") from error
    except asyncpg.LockNotAvailableError as error:
        raise DecklogError(
            Code.STORAGE_UNAVAILABLE,
            "Another process is working on this tenant, or holds a lock in the database. Try again.",
            retry_after=5,
        ) from error
    except LOST as error:
        raise unavailable(error) from error
    except asyncpg.PostgresError as error:
        raise DecklogError(
            Code.INTERNAL, f"PostgreSQL refused ({error.sqlstate}): {str(error.args[0] if error.args else '')[:200]}."
        ) from error


async def _observed(
    connection: asyncpg.Connection, asked: Sequence[tuple[Manifest, str]], sizes: _Sizes, relations: dict[str, _Relations]
) -> list[DatabaseSeen]:
    """Any number of tenants takes as many statements as one. What is in `relations` is not looked at, and what is looked at is
    put there. Raises as `_translated` does."""
    async with _translated(), borrowed(connection):
        rows = await control.find_tenants([manifest.name for manifest, _ in asked])
        ids = [row.id for row in rows.values()]
        schemas = {
            manifest.name: rows[manifest.name].schema if manifest.name in rows else schema_name(manifest.name, manifest.spec)
            for manifest, _ in asked
        }
        if unknown := sorted(set(schemas.values()) - relations.keys()):
            relations |= await _relations(connection, unknown)
        uuids = await control.index_uuids(sorted({index for _, index in asked}))
        heads = await schema.observe_heads(connection, ids) if ids else {}
        keys = await control.issued_keys(ids) if ids else {}
        stored = await _stored(connection, list(rows.values()), sizes) if ids else {}
        archives = await _archives(connection, [manifest for manifest, _ in asked], rows)
        one_more = any(m.name not in rows and m.spec.isolation is Isolation.DEDICATED for m, _ in asked)
        dedicated = await control.count_dedicated() if one_more else 0
        found: list[DatabaseSeen] = []
        for manifest, index in asked:
            row, there = rows.get(manifest.name), relations[schemas[manifest.name]]
            found.append(
                DatabaseSeen(
                    row=row,
                    missing=there.missing,
                    partitions=there.ahead,
                    heads=heads.get(row.id) if row else None,
                    keys=keys.get(row.id, ()) if row else (),
                    dedicated=dedicated,
                    index_uuid=uuids.get(index),
                    stored=stored.get(row.id) if row else None,
                    archive=archives.get(manifest.name),
                )
            )
        return found


async def _relations(connection: asyncpg.Connection, schemas: Sequence[str]) -> dict[str, _Relations]:
    missing = await schema.relations_missing(connection, schemas)
    partitions = {row["schema"]: row for row in await connection.fetch(_PARTITIONS, schemas, _PARTITIONS_AHEAD)}
    found: dict[str, _Relations] = {}
    for name in schemas:
        parts = partitions.get(name)
        found[name] = _Relations((*missing[name], *(parts["gaps"] if parts else ())), bool(parts and parts["ahead"]))
    return found


async def _archives(connection: asyncpg.Connection, asked: Sequence[Manifest], rows: Mapping[str, Row]) -> dict[str, ArchiveSeen]:
    """How the archive is of those that ask for one, by name."""
    names = [manifest.name for manifest in asked if manifest.spec.deletion_policy is DeletionPolicy.ARCHIVE]
    if not names:
        return {}
    told = await connection.fetchrow(_ARCHIVE_PLACE, _ARCHIVE_SILENCE_MAX)
    place = None if told is None else ArchivePlace(told["place"], told["locked"], told["reason"], told["message"])
    ids = [rows[name].id for name in names if name in rows]
    counted = {row["id"]: row for row in await connection.fetch(_ARCHIVED, ids, ARCHIVER)}
    found = dict.fromkeys(names, ArchiveSeen(place))
    for name in names:
        if name in rows and (row := counted.get(rows[name].id)):
            manifest = row["manifest"] if row["complete"] and row["manifest"] else ""
            found[name] = ArchiveSeen(place, row["records"], row["archived"], manifest)
    return found


async def _stored(connection: asyncpg.Connection, rows: Sequence[Row], sizes: _Sizes) -> dict[int, Stored]:
    """What each tenant has stored, by its number."""
    counted = {row["tenant_id"]: row for row in await connection.fetch(_STORED, [row.id for row in rows], INDEXER)}
    found: dict[int, Stored] = {}
    for row in rows:
        records, unindexed = (counted[row.id]["records"], counted[row.id]["unindexed"]) if row.id in counted else (0, 0)
        found[row.id] = Stored(records, unindexed, await sizes.share(connection, row, records))
    return found


class PostgresProvisioning:
    """Where tenants are made in one database. `owner_pool` connects as `decklog_owner`, with `CONNECTIONS_MAX`."""

    def __init__(self, owner_pool: Pool) -> None:
        self._pool = owner_pool
        self._visits = asyncio.Semaphore(VISITS_MAX)
        self._sizes = _Sizes()

    @asynccontextmanager
    async def visit(self, name: str) -> AsyncIterator[PostgresVisit]:
        """Work on the tenant of this name, alone. Raises `storage-unavailable`."""
        async with self._visits, self._pool.connection() as connection:
            async with _translated():
                await connection.execute(f"SET lock_timeout = '{_LOCK_WAIT}'")
                # Held by the session: no transaction stays open while other systems are called. Given back with the
                # connection, however the visit ends.
                await connection.execute("SELECT pg_advisory_lock(hashtextextended('decklog.tenant.' || $1, 0))", name)
            yield PostgresVisit(connection, name, self._sizes)

    async def observe(self, asked: Sequence[tuple[Manifest, str]]) -> list[DatabaseSeen]:
        """What is there of each of these tenants and is known of its index, held by nobody: others may be at work on it.
        Raises `storage-unavailable` and `misconfigured`."""
        async with self._pool.connection() as connection:
            return await _observed(connection, asked, self._sizes, {})

    async def installation(self) -> str | None:
        """The uid of the reserved tenant, None before there is one. Raises `storage-unavailable` and `misconfigured`."""
        async with self._pool.connection() as connection, _translated(), borrowed(connection):
            row = await control.find_tenant(PLATFORM_TENANT)
        return row.uid if row else None

    async def begin_epochs(self, entry: RecordInput) -> int:
        """Let every log begin a new epoch, and put `entry` into the platform's access log; gives the number of logs. Raises
        `storage-unavailable` and `misconfigured`."""
        async with self.visit(PLATFORM_TENANT) as visit:
            return await visit.begin_epochs(entry)

    async def find(self, name: str) -> Row | None:
        """The registry's row of this name. Raises `storage-unavailable` and `misconfigured`."""
        async with self._pool.connection() as connection, _translated(), borrowed(connection):
            return await control.find_tenant(name)


class PostgresVisit:
    """One tenant, held alone. Every method raises `storage-unavailable`, `misconfigured` and `internal`."""

    def __init__(self, connection: asyncpg.Connection, name: str, sizes: _Sizes) -> None:
        self._connection = connection
        self._name = name
        self._sizes = sizes
        self._number: int | None = None
        # What was seen in this visit, until something is done there: whose schema it shares is looked at by all others too.
        self._relations: dict[str, _Relations] = {}

    async def row(self) -> Row | None:
        """The registry's row of this tenant's name."""
        async with _translated(), borrowed(self._connection):
            return await control.find_tenant(self._name)

    async def observe(self, manifest: Manifest, index: str) -> DatabaseSeen:
        """What is there of this tenant and of what is known of its index."""
        [seen] = await _observed(self._connection, [(manifest, index)], self._sizes, self._relations)
        return seen

    async def apply(self, actions: Sequence[Action]) -> None:
        """All of these actions or none: in one transaction, in their order."""
        async with _translated(), on(self._connection):
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
                self._number = await control.insert_tenant(self._name, action.row)
            case UpdateTenant():
                await control.update_tenant(action.row, action.changes)
                if isinstance(action, AdoptTenant):  # it lives on: what is archived of it is not all any more
                    await connection.execute("DELETE FROM decklog.archives WHERE tenant_id = $1", action.row.id)
            case SetHeads(settings=settings):
                await schema.ensure_heads(connection, await self._id(), settings)
            case RewindIndexer():
                await control.set_index_uuid(action.index, action.index_uuid)
                await connection.execute(_REWIND, action.index, INDEXER)
            case _:
                raise TypeError(f"{type(action).__name__} is not for the database")

    async def take_revision(self, revision: int) -> None:
        """Take this revision for what is put into the vault next."""
        async with _translated(), borrowed(self._connection):
            await control.set_keys_revision(await self._id(), revision)

    async def issue(self, keys: Sequence[IssuedKey], action: IssueKeys) -> None:
        """Let these keys in from now on (within the two seconds that a registry cache may be old), and end those before
        them as the action says; all of it at once."""
        after = action.succession
        async with _translated(), on(self._connection):
            number = await self._id()
            await control.revoke_keys(number, after.revoked)
            if after.retired_until is not None:
                await control.retire_keys(number, after.retired, after.retired_until)
            await control.insert_keys(number, keys)
            await control.set_keys_request(number, action.request)

    async def revoke(self, ids: Sequence[str]) -> None:
        async with _translated(), on(self._connection):
            await control.revoke_keys(await self._id(), ids)

    async def save_conditions(self, conditions: Sequence[Condition], settled: Sequence[str]) -> None:
        async with _translated(), borrowed(self._connection):
            await control.set_conditions(await self._id(), conditions, settled)

    async def record(self, entry: RecordInput) -> None:
        """Put a record into the tenant's own access log, also where it is suspended or retained."""
        async with _translated(), on(self._connection):
            await self._record(self._name, entry)

    async def _record(self, name: str, entry: RecordInput) -> None:
        row = await control.find_tenant(name)
        if row is None:
            raise DecklogError(Code.INTERNAL, f"The tenant {name!r} is not registered.")
        tenant = Tenant(row.id, name, row.isolation, row.schema, row.index, row.queue, row.retention_days, row.state)
        prepared = prepare(entry, now=datetime.now(UTC), fingerprint_key=_NO_RETRIES)
        [result] = await append_on(self._connection, [AppendRequest(tenant, LogName.ACCESS, [prepared], metered=False)])
        if isinstance(result, DecklogError):
            raise result

    async def stopped(self) -> Stopped | None:
        """Since when the tenant is marked as deleted, by the database's clock; None where it is not."""
        async with _translated():
            found = await self._connection.fetchrow(_STOPPED, self._name, int(State.DELETED))
        return None if found is None else Stopped(found["seconds"], found["last_received"])

    async def remove(self, action: RemoveTenant, entry: RecordInput) -> None:
        """Take the tenant out of the database, with the relations that are its own, and put `entry` into the platform's access
        log, all at once but for partitions: those go before, some at a time, and a visit that ends meanwhile is gone on with."""
        row = action.row
        self._relations.clear()
        async with _translated():
            if action.archive:
                await self._close(row, action.archive)
            if row.isolation is Isolation.DEDICATED:
                await schema.drop_partitions(self._connection, row.schema)
            async with on(self._connection):
                if row.isolation is Isolation.DEDICATED:
                    await schema.drop_relations(self._connection, row.schema)
                    await control.forget_index(row.index)
                for table in ("cursors", "heads", "archives", "archive_parts"):
                    await self._connection.execute(f"DELETE FROM decklog.{table} WHERE tenant_id = $1", row.id)
                await control.delete_tenant(row.id)
                await self._record(PLATFORM_TENANT, entry)

    async def _close(self, row: Row, archive: str) -> None:
        """Take the heads away, so that nothing is appended any more, if this manifest holds all that they count. Raises
        `conflict`, and nothing is done, where a log grew after it was archived."""
        async with on(self._connection):
            if await self._connection.fetchval(_LACKING, row.id, archive):
                raise DecklogError(
                    Code.CONFLICT,
                    f"A log of {self._name!r} grew after it was archived. Nothing is removed before that is archived too.",
                )
            # Should somebody keep the tenant after all, its logs begin anew, and so does what is archived of them.
            for table in ("heads", "cursors", "archive_parts"):
                await self._connection.execute(f"DELETE FROM decklog.{table} WHERE tenant_id = $1", row.id)

    async def begin_epochs(self, entry: RecordInput) -> int:
        """See `PostgresProvisioning.begin_epochs`."""
        async with _translated(), on(self._connection):
            begun = await self._connection.fetch(_BEGIN_EPOCHS)
            await self._record(PLATFORM_TENANT, entry)
        return len(begun)

    async def platform_keys(self) -> tuple[IssuedKey, ...]:
        """The platform's keys; nothing ends one but its revocation."""
        async with _translated(), borrowed(self._connection):
            return await control.platform_keys()

    async def replace_platform_keys(self, key_id: str, key_hash: bytes, revoked: Sequence[str]) -> None:
        """Let a new key of the platform in, and revoke these."""
        async with _translated(), on(self._connection):
            await control.insert_keys(None, [IssuedKey(key_id, Role.PLATFORM, key_hash, datetime.now(UTC))])
            await control.revoke_keys(None, revoked)

    async def _id(self) -> int:
        """The tenant's number, which never changes."""
        if self._number is None:
            row = await control.find_tenant(self._name)
            if row is None:
                raise DecklogError(Code.INTERNAL, f"The tenant {self._name!r} is not registered.")
            self._number = row.id
        return self._number
