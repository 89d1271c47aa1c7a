"""Piccolo's engine on a connection that its caller holds.

Piccolo has one engine per process. This one never connects, so a process can work on several databases, and statements of Piccolo
share the connection, locks and transaction of hand-written ones.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from piccolo.engine.postgres import PostgresEngine


class BorrowingEngine(PostgresEngine):
    """An engine that runs statements only inside `on` or `borrowed`."""

    async def get_version(self) -> float:
        """Return 0: Piccolo asks during imports, before there is a server."""
        return 0.0

    async def prep_database(self) -> None:
        """Do nothing; `bootstrap` creates the extensions."""

    async def get_new_connection(self) -> Any:
        """Raise, because no caller has lent a connection."""
        raise RuntimeError("a control table was used outside `piccolo_engine.on`")


ENGINE = BorrowingEngine(config={})


@asynccontextmanager
async def on(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Open a transaction on this connection that includes this task's Piccolo statements."""
    async with connection.transaction(), borrowed(connection):
        yield


@asynccontextmanager
async def borrowed(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Run this task's Piccolo statements on this connection, each in autocommit.

    It saves two round trips where one statement changes something, or where all only read.
    """
    taking_part = ENGINE.transaction()
    taking_part.connection = connection
    token = ENGINE.current_transaction.set(taking_part)
    try:
        yield
    finally:
        ENGINE.current_transaction.reset(token)
