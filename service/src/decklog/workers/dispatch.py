"""Which logs are to be advanced now: each at most once at a time, a bounded number at once, the rest in order of asking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from math import inf
from typing import NamedTuple

import structlog
from prometheus_client import Gauge

from decklog.domain.errors import DecklogError
from decklog.domain.log import LogName
from decklog.services.following.follow import Ended, Follower
from decklog.services.identity.registry import RegistryCache

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


class _Wake(NamedTuple):
    """What somebody waits for: the cursor at `next_seq`, or the end of an advance that began after the asking."""

    next_seq: float
    finished: Finished | None


_log = structlog.get_logger("decklog.worker")


class Dispatcher:
    """Advances logs for one follower. All methods are called in the event loop."""

    def __init__(self, follower: Follower, registry: RegistryCache, *, concurrency: int) -> None:
        self._follower = follower
        self._registry = registry
        self._active_max = concurrency * ACTIVE_PER_SLOT
        self._waiting: dict[Key, list[_Wake]] = {}
        self._active: dict[Key, asyncio.Task[None]] = {}
        self._again: dict[Key, asyncio.TimerHandle] = {}
        self._stopped = False
        self._gauge = ACTIVE.labels(follower.consumer)

    @property
    def consumer(self) -> str:
        return self._follower.consumer

    def wake(self, tenant_id: int, log: LogName, finished: Finished | None = None, *, next_seq: float = inf) -> None:
        """There is something to do in this log, or may be. `finished` is called when the cursor has come to `next_seq`, or an
        advance that begins from now on has ended, whichever is first; never once the worker stops.

        A busy log's advance does not end: without the number its messages would be given again and again, and put aside at last.
        """
        if self._stopped:
            return
        self._waiting.setdefault((tenant_id, log), []).append(_Wake(next_seq, finished))
        self._start()

    def _start(self) -> None:
        if len(self._active) >= self._active_max:
            return
        for key in [key for key in self._waiting if key not in self._active][: self._active_max - len(self._active)]:
            wakes = self._waiting.pop(key)
            self._active[key] = asyncio.create_task(self._advance(key, wakes), name=f"advance {key[0]} {key[1].text}")
        self._gauge.set(len(self._active))

    async def _advance(self, key: Key, wakes: list[_Wake]) -> None:
        advanced = False

        def moved(next_seq: int) -> None:
            self._finish(wakes, next_seq)
            self._finish(waiting := self._waiting.get(key, []), next_seq)
            if not waiting:
                self._waiting.pop(key, None)

        try:
            tenant = self._registry.snapshot.tenants.get(key[0])
            # Who is not in the registry was deleted, or is so new that the sweeper will find it.
            ended = Ended.DONE if tenant is None else await self._follower.advance(tenant, key[1], moved)
            advanced = ended not in (Ended.FAILED, Ended.WAITING)
            if ended is Ended.HELD and key not in self._again:
                self._again[key] = asyncio.get_running_loop().call_later(AGAIN_AFTER.total_seconds(), self._wake_again, key)
        except DecklogError as error:
            _log.warning("a log could not be advanced", tenant_id=key[0], log=key[1].text, reason=str(error))
        finally:
            del self._active[key]
            self._finish(wakes, inf, advanced=advanced)
            if not self._stopped:
                self._start()

    def _finish(self, wakes: list[_Wake], next_seq: float, *, advanced: bool = True) -> None:
        """Tell those who waited for this number or a lower one, and forget them."""
        if self._stopped:
            return
        reached = [wake for wake in wakes if wake.next_seq <= next_seq]
        wakes[:] = [wake for wake in wakes if wake.next_seq > next_seq]
        for wake in reached:
            if wake.finished is not None:
                wake.finished(advanced)

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
