"""Schedules which logs a consumer advances: each log at most once at a time, a bounded number at once, first come first served.

What is scheduled is kept in memory only. A log that a crash forgets is found again by the sweep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from prometheus_client import Gauge

from decklog.domain.consumers import LogKey
from decklog.domain.errors import DecklogError
from decklog.domain.log import LogName
from decklog.domain.tenant import Tenant
from decklog.services.following.follow import Follower
from decklog.services.following.lines import Ended
from decklog.services.identity.registry import RegistryCache
from decklog.services.outage import Outage

ACTIVE_MAX = 2_000
"""Logs being advanced: they are leased, and those of one place advance together."""
AGAIN_AFTER = timedelta(milliseconds=500)
"""Pause before a log is tried again whose lease another worker holds: that worker may have looked for the last time."""
STOP_TIME_MAX = timedelta(seconds=5)
"""Time that advances get to end by themselves when the worker stops."""

ACTIVE = Gauge("decklog_worker_active_logs", "Logs being advanced.", ["consumer"])


class Dispatcher:
    """Advances logs for one consumer. All methods must be called in the event loop.

    `of` returns the tenant as the consumer sees it; None where the consumer has nothing to do in its logs.
    """

    def __init__(
        self,
        follower: Follower,
        registry: RegistryCache,
        *,
        of: Callable[[Tenant], Tenant | None] = lambda tenant: tenant,
    ) -> None:
        self._follower = follower
        self._registry = registry
        self._of = of
        self._waiting: dict[LogKey, None] = {}
        self._active: dict[LogKey, asyncio.Task[None]] = {}
        self._again: dict[LogKey, asyncio.TimerHandle] = {}
        self._stopped = False
        self._gauge = ACTIVE.labels(follower.consumer)
        self._outage = Outage("registry", "the tenant of a log could not be read")

    @property
    def consumer(self) -> str:
        """Name of the consumer whose logs are advanced."""
        return self._follower.consumer

    def wake(self, tenant_id: int, log: LogName) -> None:
        """Schedule an advance of this log that begins after this call. Returns at once; a stopped dispatcher ignores it."""
        if not self._stopped:
            self._waiting[tenant_id, log] = None
            self._start()

    def _start(self) -> None:
        room = ACTIVE_MAX - len(self._active)
        if room <= 0 or not self._waiting:
            return
        for key in [key for key in self._waiting if key not in self._active][:room]:
            del self._waiting[key]
            self._active[key] = asyncio.create_task(self._advance(key), name=f"advance {key[0]} {key[1].text}")
        self._gauge.set(len(self._active))

    async def _advance(self, key: LogKey) -> None:
        tenant_id, log = key
        try:
            tenant = await self._registry.tenant(tenant_id)
            tenant = None if tenant is None else self._of(tenant)
            # A tenant that is not in the registry was deleted, or is so new that the sweep will find its logs.
            self._outage.well()
            ended = Ended.DONE if tenant is None else await self._follower.advance(tenant, log)
            if ended is Ended.MORE:
                self.wake(*key)
            if ended is Ended.HELD and key not in self._again:
                self._again[key] = asyncio.get_running_loop().call_later(AGAIN_AFTER.total_seconds(), self._wake_again, key)
        except DecklogError as error:
            self._outage.failed(error, tenant_id=str(tenant_id), log=log.text)
        finally:
            del self._active[key]
            if not self._stopped:
                self._start()

    def _wake_again(self, key: LogKey) -> None:
        del self._again[key]
        self.wake(*key)

    async def stop(self) -> None:
        """Start nothing new, give running advances `STOP_TIME_MAX` to end, then cancel them, which releases their leases."""
        self._stopped = True
        self._follower.stop()
        self._waiting.clear()
        for timer in self._again.values():
            timer.cancel()
        tasks = list(self._active.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_TIME_MAX.total_seconds())
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
