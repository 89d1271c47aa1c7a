"""Binding of the keys of bulks to their content, over one connection that nothing else uses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg

from decklog.domain.records.idempotency import KeyBinding
from decklog.timescale.connection import LOST, connect_writer, unavailable

_BIND = "SELECT decklog.bind_bulk_keys($1, $2, $3)"


class BulkKeys:
    """Binds keys. A binding may be repeated, so a lost connection leaves no doubt."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: asyncpg.Connection | None = None
        self._busy = asyncio.Lock()

    def close(self) -> None:
        """Drop the connection. The next key opens a new one."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.terminate()

    async def bind(self, bindings: Sequence[KeyBinding]) -> list[bool]:
        """See `RecordStore.bind_keys`."""
        # Rows are locked in this order by every process, so writers wait and never deadlock.
        order = sorted(range(len(bindings)), key=lambda i: (bindings[i].tenant_id, bindings[i].key))
        chosen = [bindings[i] for i in order]
        async with self._busy:
            try:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await connect_writer(self._dsn)
                bound = await self._connection.fetchval(
                    _BIND, [each.tenant_id for each in chosen], [each.key for each in chosen], [each.content for each in chosen]
                )
            except LOST as error:
                self.close()
                raise unavailable(error) from error
            except asyncpg.exceptions.PostgresError as error:
                raise unavailable(error) from error
            except asyncio.CancelledError:
                self.close()  # the statement may still run on the server
                raise
        results = dict(zip(order, bound, strict=True))
        return [results[i] for i in range(len(bindings))]
