"""Sends wake-ups to workers when a log has grown: coalesced, best effort, and never awaited by a request.

A lost wake-up costs the delay of one sweep and nothing else, so failures are counted and not retried.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

from prometheus_client import Counter

from decklog.domain.errors import DecklogError
from decklog.domain.log import LogName
from decklog.domain.store import WakeQueue, WakeUp
from decklog.domain.tenant import Tenant
from decklog.services.outage import Outage

INTERVAL = timedelta(milliseconds=100)
"""Between two wake-ups for one log: about the time that a worker needs for one batch."""
WAITING_MAX = 10_000
"""Logs with a wake-up that is not sent yet. The sweep finds the logs beyond this bound."""
SEND_TIME_MAX = timedelta(seconds=10)
AWAY = timedelta(seconds=1)
"""How long a queue that failed gets no message, and how long no queue does while those of several tenants fail."""
AWAY_QUEUES = 3
"""Queues that fail without a success between them, after which one message is sent for all of them."""

SENT = Counter("decklog_wake_ups_sent_total", "Wake-ups sent to a queue.")
FAILED = Counter("decklog_wake_ups_failed_total", "Wake-ups that could not be sent; the sweep finds their logs.")
DROPPED = Counter("decklog_wake_ups_dropped_total", "Wake-ups dropped because too many were waiting; the sweep finds their logs.")


class Waker:
    """Sends at most one message per log and interval. Queues do not wait for each other."""

    def __init__(self, queue: WakeQueue, *, interval: timedelta = INTERVAL) -> None:
        self._queue = queue
        self._interval = interval.total_seconds()
        self._waiting: dict[str, dict[tuple[int, LogName], int]] = {}
        self._count = 0
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._stopped = False
        self._failing: set[str] = set()
        """Queues that failed after the last success of any queue."""
        self._try_at = 0.0
        self._outage = Outage("queue", "wake-ups were not sent; the sweep finds their logs")

    def wake(self, tenant: Tenant, log: LogName, next_seq: int) -> None:
        """Schedule a message that the log has reached `next_seq`.

        Returns at once and never fails. Must be called in the event loop.
        """
        if self._stopped:
            return
        waiting = self._waiting.setdefault(tenant.queue, {})
        key = (tenant.id, log)
        if key not in waiting:
            if self._count >= WAITING_MAX:
                DROPPED.inc()
                return
            self._count += 1
        waiting[key] = max(next_seq, waiting.get(key, 0))
        if tenant.queue not in self._sending:
            self._sending[tenant.queue] = asyncio.create_task(self._send(tenant.queue), name=f"wake {tenant.queue}")

    async def stop(self) -> None:
        """Send the waiting wake-ups once, within `SEND_TIME_MAX`, and ignore later ones."""
        self._stopped = True
        tasks = list(self._sending.values())
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(self._send_once(queue) for queue in tuple(self._waiting)))

    async def _send(self, queue: str) -> None:
        """Send the wake-ups of one queue, one round per interval, until none waits."""
        try:
            while self._waiting.get(queue):
                if self._may_send():
                    await self._send_once(queue)
                else:
                    self._drop(queue)
                await asyncio.sleep(AWAY.total_seconds() if queue in self._failing else self._interval)
        finally:
            self._sending.pop(queue, None)

    def _may_send(self) -> bool:
        """Return whether a message may be sent: while all queues fail, one for all of them at a time."""
        if len(self._failing) < AWAY_QUEUES:
            return True
        now = asyncio.get_running_loop().time()
        if now < self._try_at:
            return False
        self._try_at = now + SEND_TIME_MAX.total_seconds()
        return True

    def _take(self, queue: str) -> dict[tuple[int, LogName], int]:
        taken = self._waiting.pop(queue, {})
        self._count -= len(taken)
        return taken

    def _drop(self, queue: str) -> None:
        """Drop the wake-ups of a queue: the sweep finds their logs before they could be sent."""
        FAILED.inc(len(self._take(queue)))

    async def _send_once(self, queue: str) -> None:
        taken = self._take(queue)
        if not taken:
            return
        wake_ups = [WakeUp(tenant_id, log, next_seq) for (tenant_id, log), next_seq in taken.items()]
        try:
            async with asyncio.timeout(SEND_TIME_MAX.total_seconds()):
                await self._queue.send(queue, wake_ups)
        except (DecklogError, TimeoutError) as error:
            FAILED.inc(len(wake_ups))
            self._failing.add(queue)
            self._try_at = asyncio.get_running_loop().time() + AWAY.total_seconds()
            self._outage.failed(error, queue=queue)
        else:
            SENT.inc(len(wake_ups))
            self._failing.clear()
            self._outage.well()
