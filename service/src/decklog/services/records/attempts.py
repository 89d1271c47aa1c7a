"""Refused attempts that name a tenant, as access records in that tenant's log, however many there are.

The first attempt of a kind (tenant, code, credential) is recorded at once. Further ones are counted, and one record for each minute
says how many they were. One task writes them, so no request waits. The number of kinds is bounded, per tenant and in total.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Counts
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

import msgspec
import structlog
from prometheus_client import Counter

from decklog.domain.errors import DecklogError
from decklog.domain.identity.access import RequestContext
from decklog.domain.log import rfc3339
from decklog.domain.records.append import Receipt
from decklog.domain.records.record import Actor, Outcome, RecordInput, Resource, Source
from decklog.domain.records.recorder import storable
from decklog.domain.tenant import Tenant

REFUSED = "access.refused"
"""Action of the records of refused attempts."""
WINDOW_SECONDS = 60.0
"""Time between two records of one kind."""
KINDS_PER_TENANT_MAX = 20
"""Kinds of one tenant that are recorded by credential; the attempts of further credentials are counted together."""
KINDS_MAX = 2_000
"""Kinds of one process; attempts of further ones are counted in a metric only."""
OTHERS = "others"
"""Stands for all credentials beyond `KINDS_PER_TENANT_MAX`."""
_TICK_SECONDS = 1.0
_STOP_SECONDS_MAX = 5.0

_refused = Counter("decklog_refused_attempts_total", "Refused attempts that name a tenant.")
_unrecorded = Counter("decklog_refused_attempts_unrecorded_total", "Refused attempts of kinds that were too many to be recorded.")
_log = structlog.get_logger("decklog.attempts")


class Attempt(msgspec.Struct, frozen=True):
    """The kind of a refused attempt: code of the refusal, what was wrong with it, and the credential."""

    code: str
    reason: str
    kind: str
    subject: str
    issuer: str | None = None


class AppendsAccess(Protocol):
    """The part of `Ingest` that this module uses."""

    async def append_access(self, tenant: Tenant, record: RecordInput, *, query: bool = False) -> Receipt:
        """See `Ingest.append_access`."""
        ...


class _Kind:
    """Attempts of one kind that are not recorded yet."""

    __slots__ = ("attempt", "context", "count", "due_at", "since", "tenant")

    def __init__(self, tenant: Tenant, attempt: Attempt, context: RequestContext, now: datetime) -> None:
        self.tenant = tenant
        self.attempt = attempt
        self.context = context
        self.count = 0
        self.due_at = 0.0
        self.since = now

    def add(self, context: RequestContext, now: datetime) -> None:
        if self.count == 0:
            self.since = now
        self.count += 1
        self.context = context

    def record(self, now: datetime) -> RecordInput:
        attempt, context = self.attempt, self.context
        details = {"code": attempt.code, "reason": attempt.reason, "count": self.count}
        if self.count > 1:
            details |= {"since": rfc3339(self.since), "until": rfc3339(now)}
        if attempt.issuer:
            details["issuer"] = storable(attempt.issuer, 2_048)
        return RecordInput(
            action=REFUSED,
            actor=Actor(id=storable(attempt.subject, 1_024) or "unknown", type=attempt.kind),
            resource=Resource(type="tenant", id=self.tenant.name),
            outcome=Outcome.DENIED,
            source=Source(
                ip=storable(context.ip, 256) if context.ip else None,
                user_agent=storable(context.user_agent, 2_048) if context.user_agent else None,
            ),
            correlation_id=storable(context.request_id, 1_024) or None,
            metadata=details,
        )


class Attempts:
    """The refused attempts of one process. `monotonic` returns seconds, `now` the time of the records."""

    def __init__(
        self,
        ingest: AppendsAccess,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        tick: float = _TICK_SECONDS,
    ) -> None:
        self._ingest = ingest
        self._monotonic = monotonic
        self._now = now
        self._tick = tick
        self._kinds: dict[tuple[int, Attempt], _Kind] = {}
        self._by_tenant: Counts[int] = Counts()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start to write."""
        self._task = asyncio.create_task(self._run(), name="refused attempts")

    async def stop(self) -> None:
        """Write what is counted, for a bounded time. Must be called before ingest is stopped."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            async with asyncio.timeout(_STOP_SECONDS_MAX):
                for kind in self._kinds.values():
                    if kind.count:
                        await self._write(kind)
        except TimeoutError:
            _log.warning("refused attempts are not recorded", count=sum(kind.count for kind in self._kinds.values()))

    def note(self, tenant: Tenant, attempt: Attempt, context: RequestContext) -> None:
        """Count a refused attempt. It is recorded soon; this never waits."""
        _refused.inc()
        kind = self._kinds.get((tenant.id, attempt))
        if kind is None and self._by_tenant[tenant.id] >= KINDS_PER_TENANT_MAX:
            attempt = Attempt(attempt.code, attempt.reason, OTHERS, OTHERS)
            kind = self._kinds.get((tenant.id, attempt))
        if kind is None:
            if len(self._kinds) >= KINDS_MAX:
                _unrecorded.inc()
                return
            kind = self._kinds[tenant.id, attempt] = _Kind(tenant, attempt, context, self._now())
            self._by_tenant[tenant.id] += 1
            self._wake.set()
        kind.add(context, self._now())

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._tick if self._kinds else None):
                    await self._wake.wait()
            self._wake.clear()
            await self._write_due()

    async def _write_due(self) -> None:
        """Write the records of the kinds that are due, and forget the kinds that had no attempt since their last record."""
        now = self._monotonic()
        for key, kind in tuple(self._kinds.items()):
            if kind.due_at > now:
                continue
            if kind.count:
                kind.due_at = now + WINDOW_SECONDS
                await self._write(kind)
                continue
            del self._kinds[key]
            self._by_tenant[key[0]] -= 1
            if not self._by_tenant[key[0]]:
                del self._by_tenant[key[0]]

    async def _write(self, kind: _Kind) -> None:
        count, record = kind.count, kind.record(self._now())
        try:
            await self._ingest.append_access(kind.tenant, record)
        except DecklogError as error:
            _log.warning("refused attempts are not recorded yet", tenant=kind.tenant.name, count=count, code=error.code.value)
            return  # they stay counted for the next record
        kind.count -= count
        kind.since = self._now()
