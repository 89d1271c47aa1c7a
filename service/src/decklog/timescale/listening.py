"""Listening to a channel of NOTIFY on a connection of its own, which is made again after a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg
import structlog

from decklog.timescale.connection import LOST, connect_listener

RECONNECT_SECONDS = 1.0
"""Wait after a failure."""

_log = structlog.get_logger("decklog.timescale")


async def listen(
    dsn: str, channel: str, received: Callable[[str], None], *, of: str, began: Callable[[], None] = lambda: None
) -> None:
    """Call `received` with the payload of each notice, until cancelled. Notices that nobody listened to are lost.

    Args:
        dsn: The database.
        channel: Name of the channel.
        received: Takes a payload; must not raise.
        of: The notices, as the log names them.
        began: Called whenever listening begins, as notices may have been lost before.
    """
    while True:
        connection: asyncpg.Connection | None = None
        try:
            connection = await connect_listener(dsn)
            gone = asyncio.Event()
            connection.add_termination_listener(lambda _, gone=gone: gone.set())
            await connection.add_listener(channel, lambda _connection, _pid, _channel, payload: received(str(payload)))
            began()
            await gone.wait()
        except (*LOST, asyncpg.exceptions.PostgresError) as error:
            _log.info(f"not listening for {of}", error=type(error).__name__)
        finally:
            if connection is not None:
                connection.terminate()
        await asyncio.sleep(RECONNECT_SECONDS)
