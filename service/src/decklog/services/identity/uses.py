"""The last use of each API key: noted in memory, and written once a minute.

A use is lost where the process is killed before it is written. Nothing is decided by it: it shows which key nobody uses any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import structlog
from prometheus_client import Counter

from decklog.domain.errors import DecklogError
from decklog.services.identity.identity import USED_MAX, Identity

INTERVAL_SECONDS = 60.0
"""Between two writings: the least grain of a last use."""
_STOP_SECONDS_MAX = 2.0

_written = Counter("decklog_keys_used_total", "Uses of API keys that were handed to the database, one for each key and interval.")
_failures = Counter("decklog_keys_used_failures_total", "Failed attempts to write the last uses of API keys.")
_log = structlog.get_logger(__name__)


class StoresUses(Protocol):
    """Where the last uses of keys are stored."""

    async def note_uses(self, ids: Sequence[str]) -> None:
        """Set the last use of these keys, at most `USED_MAX`, to now; it never moves back. Raises `storage-unavailable`."""
        ...


class KeyUses:
    """Writes the keys that a process has accepted, once in each interval."""

    def __init__(self, identity: Identity, store: StoresUses, *, interval: float = INTERVAL_SECONDS) -> None:
        self._identity = identity
        self._store = store
        self._interval = interval
        self._unwritten: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name="last uses of keys")

    async def stop(self) -> None:
        """Write what is noted, for a bounded time."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with suppress(TimeoutError, DecklogError):
            async with asyncio.timeout(_STOP_SECONDS_MAX):
                await self.write()

    async def write(self) -> None:
        """Write what was noted since the last time. Raises `storage-unavailable`; a later call writes it then."""
        self._unwritten |= self._identity.take_used()
        ids = sorted(self._unwritten)[:USED_MAX]
        if not ids:
            return
        try:
            await self._store.note_uses(ids)
        except DecklogError:
            _failures.inc()
            self._unwritten = set(ids)  # bounded while the database is away
            raise
        _written.inc(len(ids))
        self._unwritten.clear()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.write()
            except DecklogError as error:
                _log.warning("last uses of keys cannot be written", code=error.code.value)
