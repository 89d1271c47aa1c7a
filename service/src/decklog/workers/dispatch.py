"""Which logs are to be advanced now: each at most once at a time, a bounded number at once, the rest in order of asking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import structlog
from prometheus_client import Gauge

from decklog.domain.errors import DecklogError
from decklog.domain.log import LogName
from decklog.services.follow import Ended, Follower
from decklog.services.registry import RegistryCache

ACTIVE_PER_SLOT = 16
"""Logs being advanced for each that is worked on: most wait for a refresh, which serves many of one index at once."""
AGAIN_AFTER = timedelta(milliseconds=500)
"""Where another worker has the lease it may just have looked for the last time; then nobody would, until the next sweep."""
STOP_TIME_MAX = timedelta(seconds=5)
"""For what is being advanced to come to an end by itself."""

ACTIVE = Gauge("decklog_worker_active_logs", "Logs being advanced.", ["consumer"])

Key = tuple[int, LogName]
Finished = Callable[[bool], None]
"""Called with whether the log was advanced, by us or by another worker."""

_log = structlog.get_logger("decklog.worker")


class Dispatcher:
    """Advances logs for one follower. All methods are called in the event loop."""

    def __init__(self, follower: Follower, registry: RegistryCache, *, concurrency: int) -> None:
        self._follower = follower
        self._registry = registry
        self._active_max = concurrency * ACTIVE_PER_SLOT
        self._waiting: dict[Key, list[Finished]] = {}
        self._active: dict[Key, asyncio.Task[None]] = {}
        self._again: dict[Key, asyncio.TimerHandle] = {}
        self._stopped = False
        self._gauge = ACTIVE.labels(follower.consumer)

    @property
    def consumer(self) -> str:
        return self._follower.consumer

    def wake(self, tenant_id: int, log: LogName, finished: Finished | None = None) -> None:
        """There is something to do in this log, or may be. `finished` is called when an advance that begins from now on
        has ended, unless the worker stops before."""
        if self._stopped:
            return
        self._waiting.setdefault((tenant_id, log), []).extend([finished] if finished else [])
        self._start()

    def _start(self) -> None:
        if len(self._active) >= self._active_max:
            return
        for key in [key for key in self._waiting if key not in self._active][: self._active_max - len(self._active)]:
            callbacks = self._waiting.pop(key)
            self._active[key] = asyncio.create_task(self._advance(key, callbacks), name=f"advance {key[0]} {key[1].text}")
        self._gauge.set(len(self._active))

    async def _advance(self, key: Key, callbacks: list[Finished]) -> None:
        advanced = False
        try:
            tenant = self._registry.snapshot.tenants.get(key[0])
            # Who is not in the registry was deleted, or is so new that the sweeper will find it.
            ended = Ended.DONE if tenant is None else await self._follower.advance(tenant, key[1])
            advanced = ended not in (Ended.FAILED, Ended.WAITING)
            if ended is Ended.HELD and key not in self._again:
                self._again[key] = asyncio.get_running_loop().call_later(AGAIN_AFTER.total_seconds(), self._wake_again, key)
        except DecklogError as error:
            _log.warning("a log could not be advanced", tenant_id=key[0], log=key[1].text, reason=str(error))
        finally:
            del self._active[key]
            if not self._stopped:
                for finished in callbacks:
                    finished(advanced)
                self._start()

    def _wake_again(self, key: Key) -> None:
        del self._again[key]
        self.wake(*key)

    async def stop(self) -> None:
        """Take nothing new, give what runs a few seconds, then end it (its leases are released)."""
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
