"""Follows logs for one consumer: logs of one place advance together, and those that fail wait before they are tried again.

A place is what one statement reads and one request writes: the logs of a class, or those of one Dedicated tenant.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from prometheus_client import Counter

from decklog.domain.consumers import Cursors, LogKey
from decklog.domain.index_generation import IndexGeneration
from decklog.domain.log import LogName
from decklog.domain.store import FollowedStore
from decklog.domain.tenant import Tenant
from decklog.services.following.advance import Advance
from decklog.services.following.consumer import BATCH_RECORDS_MAX, Consumer
from decklog.services.following.effects import BatchTraces, Effect
from decklog.services.following.failures import BACKOFF_SECONDS, Failures
from decklog.services.following.leases import LEASE_SECONDS
from decklog.services.following.lines import Ended, Line
from decklog.services.outage import Outage

ADVANCE_SECONDS_MAX = 60.0
"""An advance ends after this, and goes on with what the registry then says of the tenant. Under load it would never end."""

FAILURES = Counter("decklog_consumer_failures_total", "Failed advances of a log, which are tried again.", ["consumer"])


class _Place(NamedTuple):
    """The properties that logs which advance together share."""

    schema: str
    cursor: str
    of_index: str
    live: IndexGeneration | None


class Follower:
    """One consumer of one process. `advance` may be called for many logs at once; a second call for one log waits.

    `cursor_of` names the consumer's cursor in the logs of a tenant; None: it has the name of the consumer. The others are those of
    `Consumer`.
    """

    def __init__(
        self,
        consumer: str,
        store: FollowedStore,
        cursors: Cursors,
        effect: Effect,
        *,
        cursor_of: Callable[[Tenant], str] | None = None,
        slots: int = 4,
        lease_seconds: float = LEASE_SECONDS,
        batch_records_max: int = BATCH_RECORDS_MAX,
        backoff_seconds: tuple[float, float] = BACKOFF_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        traces: BatchTraces | None = None,
    ) -> None:
        self.consumer = consumer
        self._of = Consumer(
            consumer,
            store,
            cursors,
            effect,
            slots=slots,
            lease_seconds=lease_seconds,
            records_max=batch_records_max,
            clock=clock,
            traces=traces,
        )
        self._cursor_of = cursor_of or (lambda _: consumer)
        self._failures = Failures(clock, backoff_seconds)
        self._advances: dict[_Place, Advance] = {}
        self._busy: dict[LogKey, asyncio.Event] = {}
        self._outage = Outage(consumer, "a log could not be advanced", clock=clock)

    def stop(self) -> None:
        """Let every advance end after its current batch, with its cursor moved. Later advances do nothing."""
        self._of.stopping = True

    async def advance(self, tenant: Tenant, log: LogName) -> Ended:
        """Work until the consumer has done every record of the log, but not much longer than `ADVANCE_SECONDS_MAX`.

        Logs of one place that are advanced at the same time are read, applied and moved together. Errors of the store, the cursors and
        the effect are logged and counted, and end as `FAILED`.
        """
        key = (tenant.id, log)
        while (before := self._busy.get(key)) is not None:
            await before.wait()
        ended = self._busy[key] = asyncio.Event()
        try:
            return await self._advance(tenant, log)
        finally:
            del self._busy[key]
            ended.set()

    async def _advance(self, tenant: Tenant, log: LogName) -> Ended:
        key = (tenant.id, log)
        if self._failures.waits(key):
            return Ended.WAITING
        for_all = self._failures.tries(key)
        try:
            line = await self._follow(tenant, log)
        finally:
            if for_all:
                self._failures.tried()
        ended = line.ended.result()
        if line.moved:
            self._failures.succeeded(key)
            self._outage.well()
        if ended is Ended.FAILED:
            FAILURES.labels(self.consumer).inc()
            self._failures.failed(key, alone=line.alone)
            if line.error is not None:
                self._outage.failed(line.error, tenant=tenant.name, log=log.text)
        return ended

    async def _follow(self, tenant: Tenant, log: LogName) -> Line:
        """Return a log after its advance with the others of its place."""
        records_max = self._of.records_max
        # A failed log is tried again in small batches, one at a time, which grow with each that succeeds.
        cap = max(1, records_max >> 2 * self._failures.count((tenant.id, log)))
        line = Line(tenant, log, cap=cap, records_max=records_max, until=self._of.clock() + ADVANCE_SECONDS_MAX)
        advance = self._joined(tenant, line)
        try:
            await asyncio.wait((line.ended,))
        except asyncio.CancelledError:
            await advance.leave(line)
            raise
        return line

    def _joined(self, tenant: Tenant, line: Line) -> Advance:
        place = _Place(tenant.schema, self._cursor_of(tenant), tenant.index, tenant.live)
        advance = self._advances.get(place)
        if advance is None:
            advance = self._advances[place] = Advance(self._of, place.cursor, over=lambda: self._over(place, advance))
        advance.join(line)
        return advance

    def _over(self, place: _Place, advance: Advance | None) -> None:
        if self._advances.get(place) is advance:
            del self._advances[place]
