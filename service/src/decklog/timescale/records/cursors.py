"""Cursors of consumers in `decklog.cursors`: leases by the database's clock, moves by compare-and-set."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from decklog.domain.consumers import INDEXER, REINDEXER, Behind, Cursor, LogKey, Standing
from decklog.domain.index_generation import GenerationState
from decklog.domain.log import LogName
from decklog.domain.tenant import State
from decklog.timescale.connection import Pool
from decklog.timescale.statements import statement

_BEHIND = statement("cursors.behind")
_BEHIND_OF_GENERATIONS = statement("cursors.behind_of_generations")
_GENERATIONS = {INDEXER: GenerationState.LIVE, REINDEXER: GenerationState.BUILDING}
"""The state of the generations that a consumer fills."""
_LEASE = statement("cursors.lease")
_MOVE = statement("cursors.move")
_RELEASE = statement("cursors.release")
_LEASE_ALL = statement("cursors.lease_all")
_RENEW_ALL = statement("cursors.renew_all")
_MOVE_ALL = statement("cursors.move_all")
_RELEASE_ALL = statement("cursors.release_all")


class PostgresCursors:
    """`Cursors` over a pool; see the protocol for what each method promises."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def behind(self, consumer: str, *, limit: int) -> list[Behind]:
        """See the protocol."""
        async with self._pool.connection() as connection:
            if consumer in _GENERATIONS:
                rows = await connection.fetch(_BEHIND_OF_GENERATIONS, _GENERATIONS[consumer].value, limit, State.DELETED.value)
            else:
                rows = await connection.fetch(_BEHIND, consumer, limit)
        return [Behind(row["tenant_id"], LogName(row["log"]), row["next_seq"], row["head_seq"]) for row in rows]

    async def lease(self, consumer: str, tenant_id: int, log: LogName, *, owner: str, seconds: float) -> Cursor | None:
        """See the protocol."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(_LEASE, consumer, tenant_id, log.value, owner, seconds)
        return None if row is None else Cursor(consumer, tenant_id, log, row["epoch"], row["next_seq"], owner)

    async def move(self, cursor: Cursor, to: int, *, seconds: float) -> Cursor | None:
        """See the protocol."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(
                _MOVE, cursor.consumer, cursor.tenant_id, cursor.log.value, cursor.owner, cursor.next_seq, to, seconds
            )
        if row is None:
            return None
        return Cursor(cursor.consumer, cursor.tenant_id, cursor.log, row["epoch"], row["next_seq"], cursor.owner)

    async def release(self, cursor: Cursor) -> None:
        """See the protocol."""
        async with self._pool.connection() as connection:
            await connection.execute(_RELEASE, cursor.consumer, cursor.tenant_id, cursor.log.value, cursor.owner)

    async def lease_all(self, consumer: str, logs: Sequence[LogKey], *, owner: str, seconds: float) -> list[Standing]:
        """See the protocol."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(_LEASE_ALL, consumer, *_arrays(logs), owner, seconds)
        return [_standing(row, consumer, owner) for row in rows]

    async def renew_all(self, cursors: Sequence[Cursor], *, seconds: float) -> set[LogKey]:
        """See the protocol."""
        consumer, owner = _common(cursors)
        async with self._pool.connection() as connection:
            rows = await connection.fetch(_RENEW_ALL, consumer, *_arrays([each.key for each in cursors]), owner, seconds)
        return {(row["tenant_id"], LogName(row["log"])) for row in rows}

    async def move_all(self, moves: Sequence[tuple[Cursor, int]], *, seconds: float) -> list[Standing]:
        """See the protocol."""
        cursors = [cursor for cursor, _ in moves]
        consumer, owner = _common(cursors)
        tenants, logs = _arrays([each.key for each in cursors])
        places = [each.next_seq for each in cursors], [to for _, to in moves]
        async with self._pool.connection() as connection:
            rows = await connection.fetch(_MOVE_ALL, consumer, tenants, logs, owner, *places, seconds)
        return [_standing(row, consumer, owner) for row in rows]

    async def release_all(self, cursors: Sequence[Cursor]) -> None:
        """See the protocol."""
        consumer, owner = _common(cursors)
        async with self._pool.connection() as connection:
            await connection.execute(_RELEASE_ALL, consumer, *_arrays([each.key for each in cursors]), owner)

    async def next_seq(self, consumer: str, tenant_id: int, log: LogName) -> int:
        """See the protocol."""
        async with self._pool.connection() as connection:
            value: int | None = await connection.fetchval(
                "SELECT next_seq FROM decklog.cursors WHERE consumer = $1 AND tenant_id = $2 AND log = $3",
                consumer,
                tenant_id,
                log.value,
            )
        return value or 0

    async def next_seqs(self, consumers: Sequence[str], tenant_id: int, log: LogName) -> list[int]:
        """See the protocol."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                "SELECT consumer, next_seq FROM decklog.cursors WHERE consumer = ANY($1::text[]) AND tenant_id = $2 AND log = $3",
                consumers,
                tenant_id,
                log.value,
            )
        found = {row["consumer"]: row["next_seq"] for row in rows}
        return [found.get(consumer, 0) for consumer in consumers]


def _common(cursors: Sequence[Cursor]) -> tuple[str, str]:
    """Return the consumer and the owner of cursors. Raises ValueError where there are several."""
    [common] = {(cursor.consumer, cursor.owner) for cursor in cursors}
    return common


def _arrays(logs: Sequence[LogKey]) -> tuple[list[int], list[int]]:
    return [tenant_id for tenant_id, _ in logs], [log.value for _, log in logs]


def _standing(row: asyncpg.Record, consumer: str, owner: str) -> Standing:
    held = owner if row["leased"] else ""
    return Standing(Cursor(consumer, row["tenant_id"], LogName(row["log"]), row["epoch"], row["next_seq"], held), row["head_seq"])
