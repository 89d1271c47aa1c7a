"""Receives wake-ups from any number of queues by few pollers, each of which blocks a thread."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence

from prometheus_client import Counter, Histogram

from decklog.domain.errors import DecklogError
from decklog.domain.pauses import jittered
from decklog.domain.store import WakeQueue, WakeUp
from decklog.services.identity.registry import RegistryCache
from decklog.services.outage import Outage
from decklog.workers.dispatch import Dispatcher

WAIT_SECONDS_MAX = 20.0
"""Wait of one long poll, where there are not more queues than pollers."""
ROUND_SECONDS = 1.0
"""Between two polls of an empty queue, where there are more queues than pollers: polls do not wait then, and each costs money."""
FAILED_SECONDS = 10.0
"""Pause of a queue that could not be polled, before jitter."""
NOTHING_SECONDS = 0.3
"""Pause, before jitter, while no queue is due or the registry cannot be read."""

QUEUES_SECONDS_MIN = 2.0
"""Between two reads of the queues of all tenants. Until a new queue is polled, the sweep finds its logs."""

RECEIVED = Counter("decklog_worker_wake_ups_total", "Wake-ups received.")
WAITED = Histogram(
    "decklog_worker_wake_up_age_seconds",
    "Seconds from sending a wake-up to its receipt by a worker.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1_800, 7_200),
)
POLL_FAILURES = Counter("decklog_worker_poll_failures_total", "Failed polls of a queue.")


class Rotation:
    """The order of polls: one poller at a time for each queue, and the queue that has waited longest first."""

    def __init__(self, pollers: int) -> None:
        self._pollers = pollers
        self._turns: deque[tuple[str, float]] = deque()
        self._known: set[str] = set()

    def update(self, queues: Iterable[str]) -> None:
        """Set the queues. A removed queue that is being polled leaves when it is given back."""
        names = set(queues)
        self._turns = deque(turn for turn in self._turns if turn[0] in names)
        self._turns.extend((name, 0.0) for name in sorted(names - self._known))
        self._known = names

    def take(self, now: float) -> str | None:
        """Return the next queue to poll, or None where every queue is being polled or paused."""
        for _ in range(len(self._turns)):
            name, not_before = self._turns.popleft()
            if not_before <= now:
                return name
            self._turns.append((name, not_before))
        return None

    def give_back(self, name: str, not_before: float) -> None:
        """End the turn of a poller. The queue is not polled again before `not_before`, by the clock of `take`."""
        if name in self._known and all(turn[0] != name for turn in self._turns):
            self._turns.append((name, not_before))

    @property
    def crowded(self) -> bool:
        """True where there are more queues than pollers."""
        return len(self._known) > self._pollers


class Pollers:
    """Polls the queues of all tenants and wakes the dispatchers.

    A message is deleted once every dispatcher has scheduled its log: messages only wake. A log that fails afterwards, or
    that a crash forgets, is found by the sweep, so one consumer that is down sends no message to the dead-letter queue.
    """

    def __init__(
        self,
        queue: WakeQueue,
        registry: RegistryCache,
        dispatchers: Sequence[Dispatcher],
        *,
        pollers: int,
    ) -> None:
        self._queue = queue
        self._registry = registry
        self._dispatchers = dispatchers
        self._pollers = pollers
        self._rotation = Rotation(pollers)
        self._seen: int | None = None
        self._look_at = 0.0
        self._outage = Outage("queue", "a queue could not be polled")
        self._deletions = Outage("queue-deletions", "messages could not be deleted and will be received again")
        self._registry_outage = Outage("registry", "no queue can be polled")

    async def run(self) -> None:
        """Poll until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._pollers):
                group.create_task(self._poll(), name=f"poller {number}")

    async def _poll(self) -> None:
        while True:
            try:
                await self._update_queues()
            except DecklogError as error:
                self._registry_outage.failed(error)
                await asyncio.sleep(NOTHING_SECONDS)
                continue
            self._registry_outage.well()
            name = self._rotation.take(time.monotonic())
            if name is None:
                await asyncio.sleep(jittered(NOTHING_SECONDS, 0.6))
            else:
                await self._poll_one(name)

    async def _update_queues(self) -> None:
        """Take over the queues where a tenant has changed, at most every `QUEUES_SECONDS_MIN`.

        Raises:
            DecklogError: `registry-stale`, `storage-unavailable`.
        """
        version = self._registry.tenants_version
        if version == self._seen or time.monotonic() < self._look_at:
            return
        before, self._seen, self._look_at = self._seen, version, time.monotonic() + QUEUES_SECONDS_MIN
        try:
            self._rotation.update(await self._registry.queues())
        except BaseException:
            self._seen = before
            raise

    async def _poll_one(self, queue: str) -> None:
        not_before = 0.0
        try:
            wake_ups = await self._queue.receive(queue, wait=0.0 if self._rotation.crowded else WAIT_SECONDS_MAX)
            if wake_ups:
                self._wake(wake_ups)
                await self._delete(queue, wake_ups)
            elif self._rotation.crowded:
                not_before = time.monotonic() + ROUND_SECONDS
            self._outage.well()
        except DecklogError as error:
            POLL_FAILURES.inc()
            self._outage.failed(error, queue=queue)
            not_before = time.monotonic() + jittered(FAILED_SECONDS, 0.5)
        finally:
            self._rotation.give_back(queue, not_before)

    def _wake(self, wake_ups: Sequence[WakeUp]) -> None:
        """Schedule each log once for each consumer, however many messages name it."""
        RECEIVED.inc(len(wake_ups))
        for wake_up in wake_ups:
            if wake_up.waited is not None:
                WAITED.observe(wake_up.waited)
        for tenant_id, log in dict.fromkeys((wake_up.tenant_id, wake_up.log) for wake_up in wake_ups):
            for dispatcher in self._dispatchers:
                dispatcher.wake(tenant_id, log)

    async def _delete(self, queue: str, wake_ups: Sequence[WakeUp]) -> None:
        """Delete what one poll received, in one request."""
        try:
            await self._queue.delete(queue, wake_ups)
        except DecklogError as error:
            self._deletions.failed(error, queue=queue)
        else:
            self._deletions.well()
