"""Announcements of new records between processes, by LISTEN and NOTIFY.

An append never sends NOTIFY, because it takes a lock that serialises all commits. Announcements are collected for 10 ms, while more
follow for 40 ms, and sent in one statement of their own. They may be lost; processes also poll heads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from decklog.domain.errors import DecklogError
from decklog.domain.log import LogName
from decklog.timescale.connection import Pool
from decklog.timescale.listening import RECONNECT_SECONDS, listen

CHANNEL = "decklog"
"""Channel of NOTIFY. A payload is `tenant:log:next_seq`, all numbers."""
COALESCE_SECONDS = 0.01
"""Time to collect announcements before they are sent."""
BUSY_SECONDS = 0.04
"""The same while the last ones were sent a moment ago: a statement for each group of records would cost 6 % of an append."""

_log = structlog.get_logger("decklog.timescale")
Heard = Callable[[int, LogName, int], None]


class PostgresAnnouncements:
    """`Announcements` between all processes of a cell. Subscribers in this process are called at once, others after NOTIFY."""

    def __init__(self, dsn: str, pool: Pool) -> None:
        self._dsn = dsn
        self._pool = pool
        self._subscribers: list[Heard] = []
        self._pending: dict[tuple[int, LogName], int] = {}
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start the tasks that send and listen."""
        listening = listen(self._dsn, CHANNEL, self._received, of="announcements")
        self._tasks = [asyncio.create_task(self._send(), name="announce"), asyncio.create_task(listening, name="listen")]

    async def stop(self) -> None:
        """Stop both tasks. Collected announcements are lost."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def announce(self, tenant_id: int, log: LogName, next_seq: int) -> None:
        """See the protocol."""
        key = (tenant_id, log)
        self._pending[key] = max(next_seq, self._pending.get(key, 0))
        self._wake.set()
        self._tell(tenant_id, log, next_seq)

    def subscribe(self, heard: Heard) -> Callable[[], None]:
        """See the protocol."""
        self._subscribers.append(heard)

        def stop() -> None:
            with suppress(ValueError):
                self._subscribers.remove(heard)

        return stop

    def _tell(self, tenant_id: int, log: LogName, next_seq: int) -> None:
        for heard in tuple(self._subscribers):
            heard(tenant_id, log, next_seq)

    async def _send(self) -> None:
        loop, sent_at = asyncio.get_running_loop(), 0.0
        while True:
            await self._wake.wait()
            await asyncio.sleep(max(COALESCE_SECONDS, sent_at + BUSY_SECONDS - loop.time()))
            self._wake.clear()
            sent_at = loop.time()
            pending, self._pending = self._pending, {}
            payloads = [f"{tenant_id}:{log.value}:{next_seq}" for (tenant_id, log), next_seq in pending.items()]
            try:
                async with self._pool.connection() as connection:
                    await connection.execute(
                        "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload", CHANNEL, payloads
                    )
            except DecklogError:
                # These announcements are lost; polling finds the records. The pool has logged the cause.
                await asyncio.sleep(RECONNECT_SECONDS)

    def _received(self, payload: str) -> None:
        try:
            tenant_id, log, next_seq = map(int, payload.split(":"))
            self._tell(tenant_id, LogName(log), next_seq)
        except ValueError:
            _log.warning("an announcement could not be read", payload=payload[:100])
