"""What the service may ask of storage beyond reading and appending: partitions ahead of time, and whether it is well."""

from __future__ import annotations

from datetime import datetime

from decklog.timescale.connection import Pool, check_role

_UNTIL = """
SELECT min(until) FROM (
    SELECT (max(to_date(right(partition.relname, 8), 'YYYYMMDD')) + relation.partition_days)::timestamp AT TIME ZONE 'UTC' AS until
      FROM decklog.relations AS relation
      JOIN pg_namespace AS schema ON schema.nspname = relation.schema_name
      JOIN pg_class AS parent ON parent.relnamespace = schema.oid AND parent.relname = 'records'
      JOIN pg_inherits AS inherits ON inherits.inhparent = parent.oid
      JOIN pg_class AS partition ON partition.oid = inherits.inhrelid
     WHERE NOT relation.hypertable
     GROUP BY relation.schema_name, relation.partition_days
) AS schemas"""
"""A native partition has the day of its beginning in its name; TimescaleDB makes chunks when they are needed."""


class PostgresKeeper:
    """Calls narrow functions of the database; the service's own role could do none of this."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def make_partitions_ahead(self) -> datetime | None:
        """Partitions of the coming days for all relations, and until when those of each reach. Raises `storage-unavailable`."""
        async with self._pool.connection() as connection:
            await connection.execute("SELECT decklog.make_partitions()")
            until: datetime | None = await connection.fetchval(_UNTIL)
        return until


class PostgresReadiness:
    """Whether the database answers, as the role and with the durability that were checked at the start."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def check(self) -> None:
        """Raises `storage-unavailable` and `misconfigured`."""
        async with self._pool.connection() as connection:
            await check_role(connection)
