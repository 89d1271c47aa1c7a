"""`Drops` in memory."""

from __future__ import annotations

from collections.abc import Sequence

from decklog.domain.errors import DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.ageing import DroppedRange
from decklog.domain.tenant import Tenant


class MemoryDrops:
    """Ranges that went, in the order in which they went. `failing` is raised by every call while it is set."""

    def __init__(self) -> None:
        self.ranges: list[DroppedRange] = []
        self.recorded: set[DroppedRange] = set()
        self.failing: DecklogError | None = None

    async def unrecorded(self, limit: int) -> list[DroppedRange]:
        self._answer()
        return [each for each in self.ranges if each not in self.recorded][:limit]

    async def note_recorded(self, ranges: Sequence[DroppedRange]) -> None:
        self._answer()
        self.recorded |= set(ranges)

    async def of_log(self, tenant: Tenant, log: LogName, limit: int) -> list[DroppedRange]:
        self._answer()
        found = [each for each in self.ranges if (each.tenant_id, each.log) == (tenant.id, log)]
        return sorted(found, key=lambda each: each.since, reverse=True)[:limit]

    def _answer(self) -> None:
        if self.failing is not None:
            raise self.failing
