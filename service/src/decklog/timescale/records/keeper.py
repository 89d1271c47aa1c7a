"""What the service may ask of storage beyond reading and appending: partitions ahead of time, and whether it is well."""

from __future__ import annotations

from datetime import datetime

from decklog.timescale.connection import Pool, check_role
from decklog.timescale.statements import statement


class PostgresKeeper:
    """Calls narrow functions of the database; the service's own role could do none of this."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def make_partitions_ahead(self) -> datetime | None:
        """Partitions of the coming days for all relations, and until when those of each reach. Raises `storage-unavailable`."""
        async with self._pool.connection() as connection:
            await connection.execute("SELECT decklog.make_partitions()")
            until: datetime | None = await connection.fetchval(statement("schemas.partitions_until"))
        return until


class PostgresReadiness:
    """Whether the database answers, as the role and with the durability that were checked at the start."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def check(self) -> None:
        """Raises `storage-unavailable` and `misconfigured`."""
        async with self._pool.connection() as connection:
            await check_role(connection)
