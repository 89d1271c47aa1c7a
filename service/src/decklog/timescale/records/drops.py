"""Ranges of logs that went with their partition, as the API's role reads them and notes that they are recorded."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from decklog.domain.log import LogName
from decklog.domain.records.ageing import DroppedRange
from decklog.domain.tenant import Tenant
from decklog.timescale.connection import Pool
from decklog.timescale.statements import statement


class PostgresDrops:
    """`Drops` over a pool of the API's role."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def unrecorded(self, limit: int) -> list[DroppedRange]:
        """See the protocol."""
        async with self._pool.connection() as connection:
            return [_range(row) for row in await connection.fetch(statement("drops.unrecorded"), limit)]

    async def note_recorded(self, ranges: Sequence[DroppedRange]) -> None:
        """See the protocol."""
        keys = [each.tenant_id for each in ranges], [each.log.value for each in ranges], [each.since for each in ranges]
        async with self._pool.connection() as connection:
            await connection.execute(statement("drops.note"), *keys)

    async def of_log(self, tenant: Tenant, log: LogName, limit: int) -> list[DroppedRange]:
        """See the protocol."""
        async with self._pool.connection() as connection:
            return [_range(row) for row in await connection.fetch(statement("drops.of_log"), tenant.id, log.value, limit)]


def _range(row: asyncpg.Record) -> DroppedRange:
    return DroppedRange(
        row["tenant_id"], LogName(row["log"]), row["starts"], row["ends"], row["first_seq"], row["end_seq"], row["dropped_at"]
    )
