"""The retention of a log over the API: which ranges of its records are readable, until when, and which went. Each request is recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec

from decklog.domain.errors import unknown_parameter
from decklog.domain.identity.access import Principal, RequestContext
from decklog.domain.log import LogName
from decklog.domain.records.ageing import DroppedRange, Drops
from decklog.domain.records.retained import RANGES_MAX, Partitions, RetainedRange, retained
from decklog.domain.tenant import Tenant
from decklog.services.records.access_log import RETENTION_READ, AccessLog
from decklog.services.records.list_options import Parameters, choice
from decklog.services.turns import Turns

_TURN_SECONDS = 5.0


class Retained(msgspec.Struct, frozen=True):
    """The ranges of one log of a tenant, and those that were dropped, newest first."""

    tenant: Tenant
    log: LogName
    ranges: list[RetainedRange]
    dropped: Sequence[DroppedRange]


class Retention:
    """The retention of logs. `turns` are those at the database; `now` returns the time in UTC."""

    def __init__(
        self,
        partitions: Partitions,
        drops: Drops,
        access_log: AccessLog,
        turns: Turns,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._partitions = partitions
        self._drops = drops
        self._access_log = access_log
        self._turns = turns
        self._now = now

    async def of_log(self, principal: Principal, request: RequestContext, parameters: Parameters) -> Retained:
        """Return the ranges of a log, after the request was recorded. Raises `forbidden`, and `unknown-parameter` for all but `log`."""
        tenant = self._access_log.admit(principal, parameters)
        for name, _ in parameters:
            if name != "log":
                raise unknown_parameter(name, "log")
        log = LogName.parse(choice(parameters, "log", [each.text for each in LogName]) or LogName.EVENTS.text)
        async with self._turns.turn(tenant.id, seconds=_TURN_SECONDS):
            found = await self._partitions.partitions(tenant, log)
            dropped = await self._drops.of_log(tenant, log, RANGES_MAX)
        ranges = retained(found, tenant.retention_days, self._now())
        details = {"log": log.text, "ranges": len(ranges)}
        await self._access_log.write(principal, request, RETENTION_READ, resource=("log", log.text), details=details)
        return Retained(tenant, log, ranges, dropped)
