"""The registry as every process caches it: at most two seconds old, or not used at all.

Suspension, deletion and revocation act through this cache, so a process whose copy is too old stops serving
(`registry-stale`). Its poll is no duty of `workers.periodic`: a poll must neither back off nor wait longer than the age limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import structlog

from decklog.domain.errors import Code, DecklogError
from decklog.domain.store import Registry, Snapshot
from decklog.domain.tenant import Tenant
from decklog.services.coalescing import Coalescing, shared

REFRESH_SECONDS_MIN = 0.2
"""Between two reads that unknown keys can cause, so that guessing keys does not become database load."""

_log = structlog.get_logger(__name__)


class RegistryCache:
    """One process's copy of the registry, kept fresh by polling.

    `max_age` and `interval` are in seconds; the age counts from the moment a successful read began.
    """

    def __init__(self, registry: Registry, *, max_age: float = 2.0, interval: float = 0.5) -> None:
        self._registry = registry
        self._max_age = max_age
        self._interval = interval
        self._snapshot: Snapshot | None = None
        self._by_name: dict[str, Tenant] = {}
        self._as_of = float("-inf")
        self._refreshed = float("-inf")
        self._failing = False
        self._changed = asyncio.Event()
        self._loads: Coalescing[None, None] = Coalescing(shared(self._load))
        self._refreshes: Coalescing[None, None] = Coalescing(shared(self._refresh))
        self._poll: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the registry once and begin to poll it in the background. Raises `storage-unavailable`."""
        await self._loads(None)
        self._poll = asyncio.create_task(self._keep_fresh(), name="registry-poll")

    async def stop(self) -> None:
        """End the poll."""
        poll, self._poll = self._poll, None
        if poll is not None:
            poll.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await poll

    @property
    def fresh(self) -> bool:
        """True while the snapshot is within its age limit."""
        return self._snapshot is not None and time.monotonic() - self._as_of <= self._max_age

    @property
    def snapshot(self) -> Snapshot:
        """The registry as it was at some moment of the last `max_age` seconds. Raises `registry-stale`."""
        if self._snapshot is None or not self.fresh:
            raise DecklogError(
                Code.REGISTRY_STALE,
                f"This process could not read the registry for {self._max_age:g} seconds, so permissions are unknown. Try again.",
                retry_after=1,
            )
        return self._snapshot

    def tenant(self, name: str) -> Tenant | None:
        """Return the tenant of this name, or None. Raises `registry-stale`."""
        return self._by_name.get(name) if self.snapshot else None

    def changed(self) -> asyncio.Event:
        """Return an event that is set when the registry next changes. Each change needs a new event."""
        return self._changed

    async def refresh(self) -> None:
        """Read the registry now, or wait for a read that was asked for a moment ago. Raises `storage-unavailable`."""
        await self._refreshes(None)

    async def _refresh(self, _: None) -> None:
        if time.monotonic() - self._refreshed >= REFRESH_SECONDS_MIN:
            self._refreshed = time.monotonic()
            await self._loads(None)

    async def current(self) -> Snapshot:
        """Return the snapshot, read again where it is too old although no read failed.

        In that case this process was suspended and the database is well, so the first request afterwards need not be
        refused. Raises `registry-stale`.
        """
        if not self.fresh and not self._failing:
            with contextlib.suppress(Exception):
                await self.refresh()
        return self.snapshot

    async def _load(self, _: None) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._max_age):
                loaded = await self._registry.load(self._snapshot.version if self._snapshot else None)
        except Exception as error:
            self._failing = True
            if isinstance(error, TimeoutError):
                raise DecklogError(Code.STORAGE_UNAVAILABLE, "The registry did not answer in time.", retry_after=1) from None
            raise
        self._failing = False
        self._as_of = began
        if loaded is not None:
            self._snapshot = loaded
            self._by_name = {tenant.name: tenant for tenant in loaded.tenants.values()}
            before, self._changed = self._changed, asyncio.Event()
            before.set()

    async def _keep_fresh(self) -> None:
        failing = False
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self._loads(None)
            except Exception as error:  # noqa: BLE001 - a poll that ended would refuse every request for ever
                if not failing:
                    _log.warning("registry cannot be read", cause=repr(error))
                failing = True
            else:
                if failing:
                    _log.info("registry can be read again")
                failing = False
