"""Rejected records in PostgreSQL: `RejectedStore`. They are written by functions of the owner, over a connection of its own."""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec

from decklog.domain.records.rejected import RejectedBatch, RejectedRecord, Rejections
from decklog.timescale.connection import Pool
from decklog.timescale.records.own_connection import OwnConnection

_KEEP = "SELECT decklog.keep_rejected($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
_READ_SECONDS_MAX = 5.0
_COLUMNS = "id, rejected_at, code, detail, record_id, recorder, request_id, size, content IS NOT NULL AS has_content"
_LIST = (
    f"SELECT {_COLUMNS} FROM decklog.rejected_records WHERE tenant_id = $1 AND id < coalesce($2::bigint, 9223372036854775807)"
    " ORDER BY id DESC LIMIT $3"
)
_GET = f"SELECT {_COLUMNS}, content FROM decklog.rejected_records WHERE tenant_id = $1 AND id = $2"
_COUNTS = "SELECT rejected, unkept, dropped, kept, bytes, last_at, last_code FROM decklog.rejections WHERE tenant_id = $1"


class PostgresRejected:
    """Rejected records of one cell. Readings go through `pool`, where row-level security confines them to one tenant."""

    def __init__(self, dsn: str, pool: Pool) -> None:
        self._connection = OwnConnection(dsn)
        self._pool = pool

    def close(self) -> None:
        """Drop the connection that writes."""
        self._connection.close()

    async def keep(self, batch: RejectedBatch) -> None:
        """See the protocol."""
        await self._connection.value(
            _KEEP,
            batch.tenant_id,
            batch.days,
            batch.rejected,
            batch.unkept,
            batch.last_at,
            batch.last_code,
            *_columns(batch),
        )

    async def delete(self, tenant_id: int, number: int) -> bool:
        """See the protocol."""
        gone: bool = await self._connection.value("SELECT decklog.delete_rejected($1, $2)", tenant_id, number)
        return gone

    async def list(self, tenant_id: int, *, before: int | None, limit: int) -> list[RejectedRecord]:
        """See the protocol."""
        async with self._pool.reading(tenant_id, timeout=_READ_SECONDS_MAX) as connection:
            return [_record(row) for row in await connection.fetch(_LIST, tenant_id, before, limit)]

    async def get(self, tenant_id: int, number: int) -> RejectedRecord | None:
        """See the protocol."""
        async with self._pool.reading(tenant_id, timeout=_READ_SECONDS_MAX) as connection:
            row = await connection.fetchrow(_GET, tenant_id, number)
        return None if row is None else _record(row)

    async def counts(self, tenant_id: int) -> Rejections:
        """See the protocol."""
        async with self._pool.reading(tenant_id, timeout=_READ_SECONDS_MAX) as connection:
            row = await connection.fetchrow(_COUNTS, tenant_id)
        return Rejections() if row is None else Rejections(*row)


def _columns(batch: RejectedBatch) -> tuple[list[Any], ...]:
    kept = batch.kept
    return (
        [each.at for each in kept],
        [each.code for each in kept],
        [each.detail.replace("\0", "\ufffd") for each in kept],
        [each.record_id for each in kept],
        [each.recorder for each in kept],
        [each.request_id for each in kept],
        [each.size for each in kept],
        [None if each.content is None else each.content.decode() for each in kept],
    )


def _record(row: asyncpg.Record) -> RejectedRecord:
    values = dict(row)
    return RejectedRecord(recorded_by=msgspec.Raw(values.pop("recorder").encode()), **values)
