"""Piccolo's engine without an address: it works on the connection that its caller holds.

Piccolo knows one engine per process. This one borrows, so a process may look after several databases, and statements
of Piccolo and of our own share a connection, its locks and its transaction.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from piccolo.engine.postgres import PostgresEngine


class BorrowingEngine(PostgresEngine):
    """Runs only inside `on`; it never connects by itself."""

    async def get_version(self) -> float:
        return 0.0  # Piccolo asks while modules are imported, when there is no server to ask

    async def prep_database(self) -> None:
        """Nothing to prepare: extensions are made by bootstrap."""

    async def get_new_connection(self) -> Any:
        raise RuntimeError("a control table was used outside `piccolo_engine.on`")


ENGINE = BorrowingEngine(config={})


@asynccontextmanager
async def on(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """A transaction of this connection, in which this task's Piccolo statements take part."""
    async with connection.transaction(), borrowed(connection):
        yield


@asynccontextmanager
async def borrowed(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """This task's Piccolo statements go over this connection, each by itself: for one that changes something, or any number
    that look, which a transaction would only cost two round trips more."""
    taking_part = ENGINE.transaction()
    taking_part.connection = connection
    token = ENGINE.current_transaction.set(taking_part)
    try:
        yield
    finally:
        ENGINE.current_transaction.reset(token)
