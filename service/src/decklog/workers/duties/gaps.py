"""Compares the index with the records: below its cursor it must hold every one. What it lacks is written again, and counted.

Numbers have no gaps, so a span of a log has as many documents as numbers. One count compares a whole log; only where it differs are
smaller spans counted. A log is checked by one worker, once in `CHECK_SECONDS`.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import NoReturn

import structlog
from msgspec.structs import replace
from prometheus_client import Counter

from decklog.domain.consumers import FORGETTER, Cursors, LogRecords, indexer_of
from decklog.domain.errors import DecklogError
from decklog.domain.index_generation import Generations, GenerationState, IndexGeneration
from decklog.domain.log import LogName, Span
from decklog.domain.search.query import Query
from decklog.domain.search.stats import Grouping
from decklog.domain.store import RecordStore, Registry, SearchIndex
from decklog.domain.tenant import State, Tenant
from decklog.services.following.effects import Effect
from decklog.services.following.leases import leased
from decklog.workers.periodic import Pace, Turn, repeat

CHECKER = "checker"
"""The name of the leases. Its cursor never moves."""
EVERY = timedelta(minutes=30)
"""Pause between two rounds over all logs, before jitter."""
CHECK_SECONDS = 3_600.0
"""Interval between two checks of a log, for all workers: one count, and three statements."""
SPAN_MIN = 1_000
"""Numbers of the smallest span that is counted, and written again where documents lack."""
SPANS_MAX = 200
"""Spans of a log that one check counts. The rest of a larger gap is found by the next one."""
PAGE_TENANTS = 500
READ_SECONDS_MAX = 20.0

CHECKS = Counter("decklog_search_gap_checks_total", "Logs whose documents were compared with their records.")
MISSING = Counter(
    "decklog_search_gap_records_total", "Records that the search index lacked below its cursor, found by the comparison."
)
UNREPAIRED = Counter(
    "decklog_search_gap_unrepaired_spans_total",
    "Spans that had another number of documents than of records after they were written again.",
)
FAILURES = Counter("decklog_search_gap_check_failures_total", "Failed comparisons, which are tried again.")

_log = structlog.get_logger("decklog.worker")


class GapCheck:
    """The comparison of one worker."""

    def __init__(
        self,
        generations: Generations,
        registry: Registry,
        *,
        store: RecordStore,
        cursors: Cursors,
        index: SearchIndex,
        indexer: Effect,
    ) -> None:
        self._generations = generations
        self._registry = registry
        self._store = store
        self._cursors = cursors
        self._index = index
        self._indexer = indexer

    async def check_all(self) -> None:
        """Check every log that is due. Raises `storage-unavailable`; a log whose check fails is due again in the next round."""
        async for tenant in self._tenants():
            for log in LogName:
                try:
                    await self.check(tenant, log)
                except DecklogError as error:
                    FAILURES.inc()
                    _log.warning("an index could not be compared", tenant=tenant.name, log=log.text, reason=str(error))

    async def check(self, tenant: Tenant, log: LogName) -> bool:
        """Compare one log if it is due, and repair it; return whether it was due. Raises `search-` and `storage-unavailable`."""
        owner = uuid.uuid4().hex
        async with leased(
            self._cursors, CHECKER, tenant, [log], owner=owner, seconds=CHECK_SECONDS, release_on_success=False
        ) as held:
            if held is None:
                return False
            floor, end = await self._cursors.next_seqs((FORGETTER, indexer_of(tenant)), tenant.id, log)
            kept = await self._store.first_received(tenant, log, days=tenant.retention_days, timeout=READ_SECONDS_MAX)
            await self._compare(tenant, log, Span(max(floor, kept), end))
        CHECKS.inc()
        return True

    async def _compare(self, tenant: Tenant, log: LogName, whole: Span) -> None:
        """Count spans, halve those that differ, and write the smallest ones again."""
        spans, counted = [whole], 0
        while spans and counted < SPANS_MAX:
            span = spans.pop()
            numbers = span.end - span.first
            counted += 1
            if numbers <= 0 or (documents := await self._count(tenant, log, span)) == numbers:
                continue
            if numbers > SPAN_MIN:
                middle = span.first + numbers // 2
                spans += [Span(middle, span.end), Span(span.first, middle)]
                continue
            MISSING.inc(max(0, numbers - documents))
            _log.warning(
                "the index differs from the records",
                tenant=tenant.name,
                log=log.text,
                first=span.first,
                end=span.end,
                lacks=numbers - documents,
            )
            await self._repair(tenant, log, span)

    async def _count(self, tenant: Tenant, log: LogName, span: Span) -> int:
        buckets = await self._index.count(tenant, log, span, query=Query(), grouping=Grouping(()), limit=1)
        return sum(bucket.count for bucket in buckets)

    async def _repair(self, tenant: Tenant, log: LogName, span: Span) -> None:
        first: int | None = span.first
        while first is not None and first < span.end:
            records, first = await self._store.read(
                tenant, log, Span(first, span.end), query=Query(), limit=SPAN_MIN, newest_first=False, timeout=READ_SECONDS_MAX
            )
            await self._indexer.apply([LogRecords(tenant, log, records)])
        await self._indexer.settle([tenant])
        if await self._count(tenant, log, span) != span.end - span.first:
            UNREPAIRED.inc()

    async def _tenants(self) -> AsyncIterator[Tenant]:
        """Yield tenants with the live generation of their index."""
        for index in await self._generations.all():
            live = next((row for row in index.generations if row.state is GenerationState.LIVE), None)
            if live is None:
                continue
            generation, after = IndexGeneration(index.name, live.name, live.starts), 0
            while page := await self._registry.of_index(index.name, after=after, limit=PAGE_TENANTS):
                for tenant in page:
                    if tenant.state is not State.DELETED and self._index.covers(found := replace(tenant, live=generation)):
                        yield found
                after = page[-1].id


async def keep_comparing(check: GapCheck) -> NoReturn:
    """Check all logs again and again, until cancelled."""

    async def turn() -> Turn:
        await check.check_all()
        return Turn.DONE

    await repeat(turn, Pace.every(EVERY), failures=FAILURES, failed="indices could not be compared")
