"""The usage of a tenant, as the service's role reads it for the API."""

from __future__ import annotations

from decklog.domain.log import LogName
from decklog.domain.tenancy.status import Rejected, StoredUsage
from decklog.domain.tenant import Isolation
from decklog.timescale.connection import Pool
from decklog.timescale.statements import statement

_PLACE = statement("usage.place")
_HEADS = statement("usage.heads")
_SIZE = statement("schemas.size")
_REJECTED = statement("usage.rejected")


class PostgresUsages:
    """`Usages` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def usage(self, name: str) -> StoredUsage | None:
        """See the protocol."""
        async with self._pool.connection() as connection:
            place = await connection.fetchrow(_PLACE, name)
        if place is None:
            return None
        async with self._pool.reading(place["id"]) as connection:
            counted = {LogName(row["log"]): row["next_seq"] for row in await connection.fetch(_HEADS, place["id"])}
            rejected = await connection.fetchrow(_REJECTED, place["id"])
            alone = place["isolation"] == Isolation.DEDICATED.value
            size = (await connection.fetchval(_SIZE, place["schema"])) if alone else None
        events, access = (counted.get(log, 0) for log in (LogName.EVENTS, LogName.ACCESS))
        return StoredUsage(events, access, size, Rejected() if rejected is None else Rejected(*rejected))
