"""The consumer `filterer`: makes the filters of terms by which searches in Postgres leave out blocks of records.

It runs where no search index is configured. Postgres then searches every log, and reads what has no filter yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from decklog.domain.consumers import LogRecords
from decklog.domain.log import LogName
from decklog.domain.records.record import StoredRecord
from decklog.domain.search.term_filters import TermFilter, filters, hashes
from decklog.domain.tenant import Tenant
from decklog.workers.consumers.record_terms import record_terms

PART_TERMS_MAX = 400_000
"""Hashes that are held at once, about 40 MB of memory."""


class TermFilters(Protocol):
    """Where filters are stored."""

    async def add(self, tenant: Tenant, log: LogName, made: Sequence[TermFilter]) -> None:
        """Store filters; storing one again changes nothing. Raises `storage-unavailable`."""
        ...


class Filterer:
    """The effect of the consumer `filterer`."""

    parallel = 1

    def __init__(self, filters: TermFilters) -> None:
        self._filters = filters

    async def apply(self, batch: Sequence[LogRecords]) -> None:
        """Store the filters of these records. No filter covers a damaged record without terms. Raises `storage-unavailable`."""
        for each in batch:
            await self._apply(each.tenant, each.log, each.records)

    async def _apply(self, tenant: Tenant, log: LogName, records: Sequence[StoredRecord]) -> None:
        hashed: list[tuple[int, set[int]]] = []
        held = 0
        async for record, found in record_terms(tenant, log, records, hashes):
            hashed.append((record.seq, found))
            held += len(found)
            if held >= PART_TERMS_MAX:
                await self._filters.add(tenant, log, filters(hashed))
                hashed, held = [], 0
        if hashed:
            await self._filters.add(tenant, log, filters(hashed))

    async def settle(self, tenants: Sequence[Tenant]) -> None:
        """Return at once: filters are stored when `apply` returns."""
