"""A connection for one kind of statement that nothing else may delay: it opens with the first statement, and again after it was lost."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from decklog.timescale.connection import LOST, connect_writer, unavailable


class OwnConnection:
    """Runs one statement at a time. After a lost connection it is unknown whether its statement was committed."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: asyncpg.Connection | None = None
        self._busy = asyncio.Lock()

    def close(self) -> None:
        """Drop the connection. The next statement opens a new one."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.terminate()

    async def value(self, query: str, *arguments: object) -> Any:
        """Return the first value of the first row. Raises `storage-unavailable`."""
        async with self._busy:
            try:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await connect_writer(self._dsn)
                return await self._connection.fetchval(query, *arguments)
            except LOST as error:
                self.close()
                raise unavailable(error) from error
            except asyncpg.exceptions.PostgresError as error:
                raise unavailable(error) from error
            except asyncio.CancelledError:
                self.close()  # the statement may still run on the server
                raise
