"""The archiver's side of the database: tenants to archive, their records, finished parts and manifests, the archive's place.

It uses the worker's role, which removes nothing. Provisioning removes a tenant, after it has compared manifest and heads under
their locks.
"""

from __future__ import annotations

import msgspec

from decklog.domain.archive.manifest import ARCHIVER, ArchivePlace, Part, ToArchive
from decklog.domain.consumers import Cursor
from decklog.domain.log import LogName
from decklog.domain.records.record import StoredRecord
from decklog.domain.tenancy.removal import STOP_SECONDS
from decklog.domain.tenancy.spec import DeletionPolicy
from decklog.domain.tenant import State, Tenant
from decklog.timescale.connection import Pool
from decklog.timescale.control.registry import tenant_of
from decklog.timescale.statements import quoted, statement

_DUE = statement("archives.due")
_ADD = statement("archives.add")
_PARTS = statement("archives.parts")
_FINISH = statement("archives.finish")
_REPORT_PLACE = statement("archives.report_place")


class PostgresArchives:
    """`Archives` over a pool; see the protocol for what each method promises."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def due(self, *, limit: int) -> list[ToArchive]:
        """See the protocol."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(_DUE, int(State.DELETED), DeletionPolicy.ARCHIVE.value, STOP_SECONDS, limit)
        return [ToArchive(tenant_of(row), row["keep_days"]) for row in rows]

    async def read(self, tenant: Tenant, log: LogName, *, first: int, limit: int) -> list[StoredRecord]:
        """See the protocol."""
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
        """See the protocol."""
        async with self._pool.connection() as connection:
            value: int | None = await connection.fetchval(
                "SELECT next_seq FROM decklog.heads WHERE tenant_id = $1 AND log = $2", tenant.id, log.value
            )
        return value

    async def add(self, cursor: Cursor, part: Part, *, seconds: float) -> Cursor | None:
        """See the protocol."""
        noted = msgspec.json.encode(part).decode()
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(_ADD, *_held(cursor), part.last_seq + 1, seconds, part.first_seq, noted)
        return None if row is None else msgspec.structs.replace(cursor, epoch=row["epoch"], next_seq=row["next_seq"])

    async def parts(self, tenant: Tenant, log: LogName) -> list[Part]:
        """See the protocol."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(_PARTS, ARCHIVER, tenant.id, log.value)
        return [msgspec.json.decode(row[0], type=Part) for row in rows]

    async def finish(self, cursor: Cursor, manifest: str, next_seqs: dict[LogName, int]) -> bool:
        """See the protocol."""
        logs, numbers = [log.value for log in next_seqs], list(next_seqs.values())
        async with self._pool.connection() as connection:
            return bool(await connection.fetchval(_FINISH, *_held(cursor), logs, numbers, manifest))

    async def tell(self, place: ArchivePlace) -> None:
        """See the protocol."""
        async with self._pool.connection() as connection:
            await connection.execute(_REPORT_PLACE, place.place, place.locked, place.reason, place.message)


def _held(cursor: Cursor) -> tuple[str, int, int, str, int]:
    """Return the first five parameters of statements that need the lease of this cursor."""
    return cursor.consumer, cursor.tenant_id, cursor.log.value, cursor.owner, cursor.next_seq
