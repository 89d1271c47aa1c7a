"""Where consumers are, in `decklog.cursors`: leases by the database's clock and moves by compare-and-set."""

from __future__ import annotations

from collections.abc import Sequence

from decklog.domain.log import LogName
from decklog.domain.store import Behind, Cursor
from decklog.timescale.connection import Pool

_BEHIND = """
SELECT h.tenant_id, h.log, coalesce(c.next_seq, 0) AS next_seq, h.next_seq AS head_seq
  FROM decklog.heads AS h
  LEFT JOIN decklog.cursors AS c ON c.consumer = $1 AND c.tenant_id = h.tenant_id AND c.log = h.log
 WHERE h.next_seq > coalesce(c.next_seq, 0) AND (c.owner IS NULL OR c.leased_until <= clock_timestamp())
 ORDER BY h.next_seq - coalesce(c.next_seq, 0) DESC
 LIMIT $2"""

_LEASE = """
INSERT INTO decklog.cursors AS c (consumer, tenant_id, log, owner, leased_until)
VALUES ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5))
ON CONFLICT (consumer, tenant_id, log) DO UPDATE SET owner = excluded.owner, leased_until = excluded.leased_until
 WHERE c.owner IS NULL OR c.owner = excluded.owner OR c.leased_until <= clock_timestamp()
RETURNING c.epoch, c.next_seq"""

_MOVE = """
UPDATE decklog.cursors SET next_seq = $6, leased_until = clock_timestamp() + make_interval(secs => $7)
 WHERE consumer = $1 AND tenant_id = $2 AND log = $3 AND owner = $4 AND next_seq = $5
RETURNING epoch, next_seq"""

_RELEASE = """
UPDATE decklog.cursors SET owner = NULL, leased_until = 'epoch' WHERE consumer = $1 AND tenant_id = $2 AND log = $3 AND owner = $4"""


class PostgresCursors:
    """`Cursors` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def behind(self, consumer: str, *, limit: int) -> list[Behind]:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(_BEHIND, consumer, limit)
        return [Behind(row["tenant_id"], LogName(row["log"]), row["next_seq"], row["head_seq"]) for row in rows]

    async def lease(self, consumer: str, tenant_id: int, log: LogName, *, owner: str, seconds: float) -> Cursor | None:
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(_LEASE, consumer, tenant_id, log.value, owner, seconds)
        return None if row is None else Cursor(consumer, tenant_id, log, row["epoch"], row["next_seq"], owner)

    async def move(self, cursor: Cursor, to: int, *, seconds: float) -> Cursor | None:
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(
                _MOVE, cursor.consumer, cursor.tenant_id, cursor.log.value, cursor.owner, cursor.next_seq, to, seconds
            )
        if row is None:
            return None
        return Cursor(cursor.consumer, cursor.tenant_id, cursor.log, row["epoch"], row["next_seq"], cursor.owner)

    async def release(self, cursor: Cursor) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(_RELEASE, cursor.consumer, cursor.tenant_id, cursor.log.value, cursor.owner)

    async def next_seq(self, consumer: str, tenant_id: int, log: LogName) -> int:
        async with self._pool.connection() as connection:
            value: int | None = await connection.fetchval(
                "SELECT next_seq FROM decklog.cursors WHERE consumer = $1 AND tenant_id = $2 AND log = $3",
                consumer,
                tenant_id,
                log.value,
            )
        return value or 0

    async def next_seqs(self, consumers: Sequence[str], tenant_id: int, log: LogName) -> list[int]:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                "SELECT consumer, next_seq FROM decklog.cursors WHERE consumer = ANY($1::text[]) AND tenant_id = $2 AND log = $3",
                consumers,
                tenant_id,
                log.value,
            )
        found = {row["consumer"]: row["next_seq"] for row in rows}
        return [found.get(consumer, 0) for consumer in consumers]
