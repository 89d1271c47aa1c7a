"""Tenants in the database as they are: rows, relations, partitions, heads, keys, archives, sizes.

It only reads. Any number of tenants takes as many statements as one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import NamedTuple

import asyncpg

from decklog.domain.archive.manifest import ARCHIVER, ArchivePlace, ArchiveSeen
from decklog.domain.index_generation import GenerationRow, GenerationState
from decklog.domain.log import LogName
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.names import schema_name
from decklog.domain.tenancy.registered import DatabaseSeen, Row, Stored
from decklog.domain.tenancy.spec import DeletionPolicy
from decklog.domain.tenancy.status import Rejected
from decklog.domain.tenant import Isolation
from decklog.timescale.control import schema, tables
from decklog.timescale.control.errors import translated
from decklog.timescale.control.heads import Counted, count_records, observe_heads
from decklog.timescale.control.piccolo_engine import borrowed
from decklog.timescale.statements import only_row, quoted, statement

_SIZE_SECONDS = {Isolation.DEDICATED: 5.0, Isolation.SHARED: 60.0}
"""Maximum age of a measured size. Tenants of one schema share its size; a visit that repeats its observation needs a fresh one."""
_SIZES_MAX = 256
"""Schemas whose size is remembered."""
_SAMPLE_RECORDS = 50
"""Records of each log that are sampled."""
_ROW_BYTES = 500
"""Bytes of a record beside its content: the other columns, and its entries in the indexes."""
_PARTITIONS_AHEAD = "3 days"
"""Partitions are made a week ahead or more, and again once fewer days than this are left."""
_ARCHIVE_SILENCE_MAX = "5 minutes"
"""Workers report their archive every minute; an older report does not count."""


class Sizes:
    """Bytes and records of whole schemas, measured now and then.

    A thousand visits to tenants of one class do not measure it a thousand times.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, int, int]] = {}
        self._events: dict[int, tuple[float, float]] = {}

    async def share(self, connection: asyncpg.Connection, row: Row, records: int) -> int:
        """Return the bytes that the tenant takes: all of its own schema, or the share of `records` in a shared one."""
        now = time.monotonic()
        measured_at, size, counted = self._known.get(row.schema, (-math.inf, 0, 0))
        if now - measured_at > _SIZE_SECONDS[row.isolation]:
            found = await only_row(connection, statement("schemas.size"), row.schema)
            size, counted = found["bytes"], found["records"]
            self._known[row.schema] = (now, size, counted)
            while len(self._known) > _SIZES_MAX:
                del self._known[next(iter(self._known))]
        if row.isolation is Isolation.DEDICATED:
            return size
        return size * min(records, counted) // max(counted, 1)

    async def events_share(self, connection: asyncpg.Connection, row: Row) -> float:
        """Return the share of a tenant's bytes that its events log takes, from 0 to 1, by a sample of the records of each log.

        A sum of the sizes of all records would read them all. The sample is random, so that a tenant cannot prepare for it.
        """
        now = time.monotonic()
        measured_at, share = self._events.get(row.id, (-math.inf, 1.0))
        if now - measured_at > _SIZE_SECONDS[row.isolation]:
            weights = dict.fromkeys(LogName, 0.0)
            async with connection.transaction():
                await connection.execute("SELECT set_config('decklog.tenants', $1, true)", str(row.id))
                sample = statement("schemas.sample").replace("{schema}", quoted(row.schema))
                for found in await connection.fetch(sample, row.id, _SAMPLE_RECORDS):
                    weights[LogName(found["log"])] = found["records"] * (found["content_bytes"] + _ROW_BYTES)
            total = sum(weights.values())
            share = weights[LogName.EVENTS] / total if total else 1.0
            self._events[row.id] = (now, share)
            while len(self._events) > _SIZES_MAX:
                del self._events[next(iter(self._events))]
        return share


class Relations(NamedTuple):
    """State of a schema."""

    missing: tuple[str, ...]
    """Names of objects that are absent or differ from the template."""
    ahead: bool
    """Whether there are enough future partitions."""


async def observe(
    connection: asyncpg.Connection, asked: Sequence[tuple[Manifest, str]], sizes: Sizes, relations: dict[str, Relations]
) -> list[DatabaseSeen]:
    """Return the state of each of these tenants, in order.

    Args:
        connection: As the owner.
        asked: Manifests, each with the name of the tenant's index.
        sizes: Sizes measured before.
        relations: Schemas observed before, by name; they are not observed again. New ones are added.

    Raises:
        DecklogError: As `translated`.
    """
    manifests = [manifest for manifest, _ in asked]
    async with translated(), borrowed(connection):
        rows = await tables.find_tenants([manifest.name for manifest in manifests])
        ids = [row.id for row in rows.values()]
        schemas = {m.name: rows[m.name].schema if m.name in rows else schema_name(m.name, m.spec) for m in manifests}
        if unknown := sorted(set(schemas.values()) - relations.keys()):
            relations |= await _relations(connection, unknown)
        generations, beginnings = await _generations(connection, sorted({index for _, index in asked}))
        heads = await observe_heads(connection, ids) if ids else {}
        keys = await tables.issued_keys(ids) if ids else {}
        limited = {rows[m.name].id for m in manifests if m.spec.quotas.storage_gib and m.name in rows}
        stored = await _stored(connection, list(rows.values()), sizes, limited) if ids else {}
        archives = await _archives(connection, manifests, rows)
        new_dedicated = any(m.name not in rows and m.spec.isolation is Isolation.DEDICATED for m in manifests)
        dedicated = await tables.count_dedicated() if new_dedicated else 0
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
                generations=generations.get(index, ()),
                indexed_from=beginnings.get(index),
                stored=stored.get(row.id) if row else None,
                archive=archives.get(manifest.name),
            )
        )
    return found


async def _relations(connection: asyncpg.Connection, schemas: Sequence[str]) -> dict[str, Relations]:
    missing = await schema.relations_missing(connection, schemas)
    rows = await connection.fetch(statement("schemas.partitions"), schemas, _PARTITIONS_AHEAD)
    partitions = {row["schema"]: row for row in rows}
    found: dict[str, Relations] = {}
    for name in schemas:
        parts = partitions.get(name)
        found[name] = Relations((*missing[name], *(parts["gaps"] if parts else ())), bool(parts and parts["ahead"]))
    return found


async def _generations(
    connection: asyncpg.Connection, indices: Sequence[str]
) -> tuple[dict[str, tuple[GenerationRow, ...]], dict[str, date]]:
    """Return the generations of each index, and the day before which no tenant of it has received a record."""
    found: dict[str, tuple[GenerationRow, ...]] = {}
    for row in await connection.fetch(statement("generations.of_indices"), indices):
        each = GenerationRow(row["generation"], GenerationState(row["state"]), tuple(row["starts"]), tuple(row["uuids"]))
        found[row["index"]] = (*found.get(row["index"], ()), each)
    beginnings = await connection.fetch(statement("generations.indexed_from"), indices)
    return found, {row["index"]: row["day"] for row in beginnings}


async def _archives(connection: asyncpg.Connection, asked: Sequence[Manifest], rows: Mapping[str, Row]) -> dict[str, ArchiveSeen]:
    """Return the archive's state for each tenant whose deletion policy asks for one, by name."""
    names = [manifest.name for manifest in asked if manifest.spec.deletion_policy is DeletionPolicy.ARCHIVE]
    if not names:
        return {}
    reported = await connection.fetchrow(statement("archives.place"), _ARCHIVE_SILENCE_MAX)
    place = None if reported is None else ArchivePlace(*reported)
    ids = [rows[name].id for name in names if name in rows]
    progress = {row["id"]: row for row in await connection.fetch(statement("archives.progress"), ids, ARCHIVER)}
    found = dict.fromkeys(names, ArchiveSeen(place))
    for name in names:
        if name in rows and (row := progress.get(rows[name].id)):
            manifest = row["manifest"] if row["complete"] and row["manifest"] else ""
            found[name] = ArchiveSeen(place, row["records"], row["archived"], manifest)
    return found


async def _stored(
    connection: asyncpg.Connection, rows: Sequence[Row], sizes: Sizes, limited: Collection[int]
) -> dict[int, Stored]:
    """Return what each tenant has stored, by tenant; for those with a storage quota, which `limited` names, also by log."""
    counted = await count_records(connection, [row.id for row in rows])
    found: dict[int, Stored] = {}
    for row in rows:
        records, unindexed, rejected = counted.get(row.id, Counted(0, 0, Rejected()))
        size = await sizes.share(connection, row, records)
        events = int(size * await sizes.events_share(connection, row)) if size and row.id in limited else None
        found[row.id] = Stored(records, unindexed, size, events, rejected)
    return found
