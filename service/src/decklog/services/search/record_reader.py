"""Searching the records themselves: Postgres decides by columns, and the matcher the rest.

Each reading is bounded in rows, bytes and time. No transaction stays open between two readings.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from datetime import timedelta
from typing import TypeAlias

from decklog.domain.log import Span
from decklog.domain.records.record import StoredRecord
from decklog.domain.search.order import Place
from decklog.domain.search.query import Query
from decklog.domain.search.stats import BUCKETS_MAX, Bucket, Grouping, Key, Tally, too_many_buckets
from decklog.domain.store import READ_BYTES_MAX, RecordStore
from decklog.domain.tenant import Tenant
from decklog.services.budget import Budget, Held
from decklog.services.processor import Processor
from decklog.services.search.matching import Matcher, chars
from decklog.services.search.page import Page, memory_of
from decklog.services.search.question import Question

_SCAN_MIN, _SCAN_MAX = 100, 1_000
"""Rows of one reading while the matcher decides: few at first, as most pages are full soon."""
_WALK_SEQS = 100_000
"""Numbers that one statement of a walk may span, so that a rare match cannot make it long."""
_WALK_ROWS_MAX, _WALK_ROWS_MIN, _WALK_ROWS_FIRST = 2_000, 20, 500
"""Rows of one batch of a walk."""
SCAN_BYTES = 1024 * 1024
"""Content of one reading while the matcher decides: it is held until the processor has a slice for it."""
WALK_BYTES = 1024 * 1024
"""Content of one batch of a walk; its rows follow from the size of the rows before."""
_WALK_TIMEOUT = timedelta(seconds=30)
"""For one batch of a walk, which as a whole has no limit."""

Counts: TypeAlias = Counter[Key]


class RecordReader:
    """The records of one cell. `timeout` is in seconds, for one reading that has no deadline of its own."""

    def __init__(self, store: RecordStore, processor: Processor, budget: Budget, *, timeout: float) -> None:
        self._store = store
        self._processor = processor
        self._budget = budget
        self._timeout = timeout

    async def matching(self, tenant: Tenant, records: Sequence[StoredRecord], matcher: Matcher) -> list[StoredRecord]:
        """Return the records that match, in their order."""
        matched = await self._processor.map(tenant.id, matcher, records, chars=chars)
        return list(itertools.compress(records, matched))

    def _held(self, tenant: Tenant, records: Sequence[StoredRecord]) -> Held:
        """Return an account of the records that wait to be matched. Raises `overloaded`."""
        held = self._budget.account(tenant.id)
        held.take(memory_of(records))
        return held

    async def oldest(self, question: Question, end: int) -> int:
        """Return the number of the oldest record within retention, or `end` if there is none below."""
        tenant, log, *_ = question
        records, _ = await self._store.read(
            tenant, log, Span(0, end), query=Query(), limit=1, newest_first=False, timeout=self._timeout
        )
        return records[0].seq if records else end

    async def fill(self, question: Question, span: Span, page: Page, *, newest_first: bool) -> None:
        """Add the matching records of a span to a page, in the order of `seq`, until it is full.

        Raises:
            DecklogError: `search-unavailable` after the deadline.
        """
        tenant, log, query, *_ = question
        matcher = Matcher(query) if query.needs_content else None
        rows = max(page.wanting, _SCAN_MIN)
        while not span.empty and not page.full:
            limit = page.wanting if matcher is None else rows
            records, onwards = await self._store.read(
                tenant,
                log,
                span,
                query=query,
                limit=limit,
                newest_first=newest_first,
                timeout=question.deadline.left(),
                bytes_max=READ_BYTES_MAX if matcher is None else SCAN_BYTES,
            )
            if matcher is not None:
                with self._held(tenant, records):
                    records = await self.matching(tenant, records, matcher)
            page.add(records)
            if onwards is None:
                return
            span = Span(span.first, onwards) if newest_first else Span(onwards, span.end)
            rows = min(2 * rows, _SCAN_MAX)

    async def by_time(
        self, question: Question, span: Span, after: Place | None, wanting: int, *, newest_first: bool
    ) -> AsyncGenerator[tuple[Place, StoredRecord], None]:
        """Yield the matching records of a span after a place, in the order of `occurred_at`, with their places.

        `wanting` is the number of records that the caller has room for.

        Raises:
            DecklogError: `search-unavailable` after the deadline.
        """
        tenant, log, query, *_ = question
        matcher = Matcher(query) if query.needs_content else None
        rows, onwards = (wanting if matcher is None else max(wanting, _SCAN_MIN)), after
        while True:
            found, onwards = await self._store.read_by_time(
                tenant,
                log,
                span,
                query=query,
                after=onwards,
                limit=rows,
                newest_first=newest_first,
                timeout=question.deadline.left(),
                bytes_max=READ_BYTES_MAX if matcher is None else SCAN_BYTES,
            )
            records = [record for _, record in found]
            if matcher is not None:
                with self._held(tenant, records):
                    records = await self.matching(tenant, records, matcher)
            matching = {record.seq for record in records}
            for place, record in found:
                if record.seq in matching:
                    yield place, record
            if onwards is None:
                return
            rows = min(2 * rows, _SCAN_MAX)

    async def walk(self, question: Question, span: Span) -> AsyncGenerator[list[StoredRecord], None]:
        """Yield the matching records of a span, oldest first, in batches of a bounded size."""
        tenant, log, query, *_ = question
        matcher = Matcher(query) if query.needs_content else None
        timeout = _WALK_TIMEOUT.total_seconds()
        rows = _WALK_ROWS_FIRST
        first, end = span
        while first < end:
            until = min(end, first + _WALK_SEQS)
            records, onwards = await self._store.read(
                tenant,
                log,
                Span(first, until),
                query=query,
                limit=rows,
                newest_first=False,
                timeout=timeout,
                bytes_max=WALK_BYTES,
            )
            first = until if onwards is None else onwards
            if records:
                size = sum(len(record.content) for record in records) // len(records)
                rows = max(_WALK_ROWS_MIN, min(_WALK_ROWS_MAX, WALK_BYTES // size))
            if matcher is not None:
                records = await self.matching(tenant, records, matcher)
            if records:
                yield records

    async def fetch(
        self, question: Question, seqs: Sequence[int], *, newest_first: bool
    ) -> AsyncGenerator[list[StoredRecord], None]:
        """Yield the records with these numbers, which are in this order, in as many parts as readings are needed."""
        tenant, log, *_ = question
        while seqs and (records := await self._store.fetch(tenant, log, seqs, newest_first=newest_first)):
            yield records
            last = records[-1].seq
            seqs = [seq for seq in seqs if (seq < last if newest_first else seq > last)]

    async def count(self, question: Question, span: Span, tally: Tally) -> list[Counts]:
        """Return the counts of the matching records of a span, by the grouping and by each facet.

        Raises:
            DecklogError: `too-many-buckets`, and `search-unavailable` after the deadline.
        """
        tenant, log, query, *_ = question
        grouping, names = tally
        if span.empty:
            return [Counter() for _ in tally.groupings]
        if query.needs_content:
            return await self._count_matching(question, span, tally.groupings)
        counts = [
            await self._store.count(
                tenant, log, span, query=query, grouping=grouping, limit=BUCKETS_MAX, timeout=question.deadline.left()
            )
        ]
        if names:
            counts += await self._store.facets(
                tenant, log, span, query=query, names=names, limit=BUCKETS_MAX, timeout=question.deadline.left()
            )
        return [counts_of(buckets) for buckets in counts]

    async def _count_matching(self, question: Question, span: Span, groupings: Sequence[Grouping]) -> list[Counts]:
        tenant, log, query, *_ = question
        counts: list[Counts] = [Counter() for _ in groupings]
        matcher = Matcher(query)
        first = span.first
        onwards: int | None = span.end
        while onwards is not None and onwards > first:
            records, onwards = await self._store.read(
                tenant,
                log,
                Span(first, onwards),
                query=query,
                limit=_SCAN_MAX,
                newest_first=True,
                timeout=question.deadline.left(),
                bytes_max=SCAN_BYTES,
            )
            with self._held(tenant, records):
                found = await self._processor.map(tenant.id, matcher.terms, records, chars=chars)
            for counted, grouping in zip(counts, groupings, strict=True):
                counted.update(grouping.key(terms) for terms in found if terms is not None)
                check_buckets(counted)
        return counts


def counts_of(buckets: Iterable[Bucket]) -> Counts:
    """Return buckets of one engine as counts that can be added to those of another."""
    return Counter({(bucket.key, bucket.start): bucket.count for bucket in buckets})


def add_counts(counts: Sequence[Counts], others: Iterable[Counts]) -> None:
    """Add the counts of another part of the log to these."""
    for counted, more in zip(counts, others, strict=True):
        counted.update(more)


def check_buckets(counts: Counts) -> None:
    """Raise `too-many-buckets` if an answer cannot hold so many."""
    if len(counts) > BUCKETS_MAX:
        raise too_many_buckets(BUCKETS_MAX)
