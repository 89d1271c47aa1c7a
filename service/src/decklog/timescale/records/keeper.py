"""Maintenance that the least roles may do: create future partitions, drop those beyond retention, and check the database."""

from __future__ import annotations

from datetime import datetime

from decklog.domain.records.ageing import Aged
from decklog.timescale.connection import Pool
from decklog.timescale.statements import only_row, statement


class PostgresKeeper:
    """Creation and removal of partitions by SECURITY DEFINER functions; the worker's role itself can do neither."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def make_partitions_ahead(self) -> datetime | None:
        """Create the partitions of the coming days in all schemas, and delete what is over: rejected records, sessions and conversations.

        Returns the time up to which every schema has partitions, None if no schema has native ones.

        Raises:
            DecklogError: `storage-unavailable`.
        """
        async with self._pool.connection() as connection:
            await connection.execute("SELECT decklog.make_partitions()")
            await connection.execute("SELECT decklog.forget_rejected()")
            await connection.execute("SELECT decklog.forget_sessions()")
            await connection.execute("SELECT decklog.forget_conversations()")
            until: datetime | None = await connection.fetchval(statement("schemas.partitions_until"))
        return until

    async def schemas(self) -> list[str]:
        """Return the schemas with records. Raises `storage-unavailable`."""
        async with self._pool.connection() as connection:
            return [row["schema_name"] for row in await connection.fetch(statement("drops.schemas"))]

    async def drop_due(self, schema: str) -> Aged:
        """See `domain.records.ageing.Ageing`."""
        async with self._pool.connection() as connection:
            row = await only_row(connection, statement("drops.due"), schema)
        return Aged(row["dropped"], row["ended"], row["bytes"] or 0, row["waiting"], row["held"], row["archiving"])


class PostgresReadiness:
    """Check of the database for readiness: it answers, with the role and the durability that were checked at the start."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def check(self) -> None:
        """Return if the database is ready.

        Raises:
            DecklogError: `storage-unavailable`, `misconfigured`.
        """
        await self._pool.check()
