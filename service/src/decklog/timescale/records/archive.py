"""What the database knows of archives: who is to be archived, the records, the parts that are done, and where it all goes.

The service's least role reads and notes; who removes a tenant compares under the locks of its heads, see `provision.py`.
"""

from __future__ import annotations

import msgspec

from decklog.domain.archive.manifest import ARCHIVER, ArchivePlace, Part, ToArchive
from decklog.domain.log import LogName
from decklog.domain.records.record import StoredRecord
from decklog.domain.store import Cursor
from decklog.domain.tenancy.removal import STOP_SECONDS
from decklog.domain.tenancy.spec import DeletionPolicy
from decklog.domain.tenant import State, Tenant
from decklog.timescale.connection import Pool
from decklog.timescale.control.registry import tenant_of
from decklog.timescale.statements import quoted

_DUE = """
SELECT id, name, uid, isolation, schema, index, queue, retention_days, state, display_name,
       (spec #>> '{retention,archiveDays}')::integer AS keep_days
  FROM decklog.tenants AS tenant
 WHERE state = $1 AND spec ->> 'deletionPolicy' = $2 AND deleted_at <= clock_timestamp() - make_interval(secs => $3)
   AND EXISTS (SELECT FROM decklog.heads AS head LEFT JOIN decklog.archives AS archive USING (tenant_id, log)
                WHERE tenant_id = tenant.id AND head.next_seq IS DISTINCT FROM archive.next_seq)
 ORDER BY deleted_at, id LIMIT $4"""

_LEASED = "consumer = $1 AND tenant_id = $2 AND log = $3 AND owner = $4 AND next_seq = $5"

_ADD = f"""
WITH moved AS (
    UPDATE decklog.cursors SET next_seq = $6, leased_until = clock_timestamp() + make_interval(secs => $7)
     WHERE {_LEASED} RETURNING tenant_id, log, epoch, next_seq
), noted AS (
    INSERT INTO decklog.archive_parts (tenant_id, log, first_seq, part) SELECT tenant_id, log, $8, $9::jsonb FROM moved
    ON CONFLICT (tenant_id, log, first_seq) DO UPDATE SET part = excluded.part
)
SELECT epoch, next_seq FROM moved"""

_PARTS = """
SELECT part::text FROM decklog.archive_parts AS part JOIN decklog.cursors AS cursor USING (tenant_id, log)
 WHERE consumer = $1 AND tenant_id = $2 AND log = $3 AND first_seq < cursor.next_seq ORDER BY first_seq"""

_FINISH = f"""
INSERT INTO decklog.archives (tenant_id, log, next_seq, manifest)
SELECT $2, given.log, given.next_seq, $8 FROM unnest($6::smallint[], $7::bigint[]) AS given (log, next_seq)
 WHERE EXISTS (SELECT FROM decklog.cursors WHERE {_LEASED} FOR UPDATE)
ON CONFLICT (tenant_id, log) DO UPDATE SET next_seq = excluded.next_seq, manifest = excluded.manifest
RETURNING 1"""

_TELL = """
INSERT INTO decklog.archive_place (place, locked, reason, message) VALUES ($1, $2, $3, $4)
ON CONFLICT (id) DO UPDATE SET place = excluded.place, locked = excluded.locked, reason = excluded.reason,
    message = excluded.message, told_at = clock_timestamp()"""


class PostgresArchives:
    """`Archives` over a pool; see the protocol for what each method promises."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def due(self, *, limit: int) -> list[ToArchive]:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(_DUE, int(State.DELETED), DeletionPolicy.ARCHIVE.value, STOP_SECONDS, limit)
        return [ToArchive(tenant_of(row), row["keep_days"]) for row in rows]

    async def read(self, tenant: Tenant, log: LogName, *, first: int, limit: int) -> list[StoredRecord]:
        async with self._pool.reading(tenant.id) as connection:
            rows = await connection.fetch(
                f"SELECT epoch, seq, received_at, digest, content FROM {quoted(tenant.schema)}.records"
                " WHERE tenant_id = $1 AND log = $2 AND seq >= $3 ORDER BY seq LIMIT $4",
                tenant.id,
                log.value,
                first,
                limit,
            )
        return [StoredRecord(*row) for row in rows]

    async def head(self, tenant: Tenant, log: LogName) -> int | None:
        async with self._pool.connection() as connection:
            value: int | None = await connection.fetchval(
                "SELECT next_seq FROM decklog.heads WHERE tenant_id = $1 AND log = $2", tenant.id, log.value
            )
        return value

    async def add(self, cursor: Cursor, part: Part, *, seconds: float) -> Cursor | None:
        noted = msgspec.json.encode(part).decode()
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(_ADD, *_held(cursor), part.last_seq + 1, seconds, part.first_seq, noted)
        return None if row is None else msgspec.structs.replace(cursor, epoch=row["epoch"], next_seq=row["next_seq"])

    async def parts(self, tenant: Tenant, log: LogName) -> list[Part]:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(_PARTS, ARCHIVER, tenant.id, log.value)
        return [msgspec.json.decode(row[0], type=Part) for row in rows]

    async def finish(self, cursor: Cursor, manifest: str, next_seqs: dict[LogName, int]) -> bool:
        logs, numbers = [log.value for log in next_seqs], list(next_seqs.values())
        async with self._pool.connection() as connection:
            return bool(await connection.fetch(_FINISH, *_held(cursor), logs, numbers, manifest))

    async def tell(self, place: ArchivePlace) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(_TELL, place.place, place.locked, place.reason, place.message)


def _held(cursor: Cursor) -> tuple[str, int, int, str, int]:
    return cursor.consumer, cursor.tenant_id, cursor.log.value, cursor.owner, cursor.next_seq
