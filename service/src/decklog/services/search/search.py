"""Lists, counts and walks of one log: the index finds sequence numbers, and Postgres answers with the records.

An index may be absent, late or away; the answer is the same. Records that it does not cover yet are searched in Postgres, and so is
the whole log while it does not answer. An answer is whole, or it is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable
from math import inf

import msgspec

from decklog.domain.log import LogName, Span, microseconds
from decklog.domain.records.record import StoredRecord
from decklog.domain.search.coverage import OPENSEARCH, POSTGRES, Coverage
from decklog.domain.search.order import NEWEST_FIRST, Order
from decklog.domain.search.query import Query
from decklog.domain.search.stats import TOP_DEFAULT, Bucket, Facet, Grouping, Tally
from decklog.domain.store import RecordStore, SearchIndex
from decklog.domain.tenant import Tenant
from decklog.services.budget import Budget, Held
from decklog.services.processor import Processor
from decklog.services.search.filling import Filled, Filling, Listed, beyond_the_index, start_after
from decklog.services.search.first_answer import first_answer
from decklog.services.search.index_reader import IndexAwayError, IndexReader, ReadsCursors
from decklog.services.search.page import READING, READING_BYTES_MAX, Page, Start, within
from decklog.services.search.question import Question
from decklog.services.search.record_reader import Counts, RecordReader, add_counts, check_buckets, counts_of

_WALK_FOUND = 500
"""Numbers that a walk takes from the index at once."""
_TOTAL = Grouping()


class Found(msgspec.Struct, frozen=True):
    """Records, and where the next page begins (None after the last page)."""

    items: list[StoredRecord]
    next: Start | None
    coverage: Coverage


class Counted(msgspec.Struct, frozen=True):
    """Exact counts, ordered by time, then by descending count."""

    buckets: list[Bucket]
    total: int
    coverage: Coverage
    facets: list[Facet] = []


class Search:
    """The searches of one cell.

    Args:
        store: The records.
        index: The search index, or None where Postgres answers everything.
        cursors: The cursors of the index's consumers; given exactly if `index` is.
        timeout: Seconds for one page or count.
        processor: The slices in which records are matched; None for ones of its own.
        budget: Accounts for records that wait to be matched; None for one of its own.
    """

    def __init__(
        self,
        store: RecordStore,
        *,
        index: SearchIndex | None = None,
        cursors: ReadsCursors | None = None,
        timeout: float = 5.0,
        processor: Processor | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._store = store
        self._index = IndexReader(index, cursors, timeout=timeout)
        budget = budget or Budget(READING_BYTES_MAX, of=READING)
        self._records = RecordReader(store, processor or Processor(), budget, timeout=timeout)
        self._filling = Filling(store, self._index, self._records)
        self._timeout = timeout

    async def wait(self, tenant: Tenant, log: LogName, seq: int) -> None:
        """Return when the index finds the record `seq`, and after a bounded time at the latest."""
        await self._index.wait(tenant, log, seq)

    async def page(
        self,
        tenant: Tenant,
        log: LogName,
        query: Query,
        *,
        limit: int,
        order: Order = NEWEST_FIRST,
        start: Start | None = None,
        held: Held | None = None,
    ) -> Found:
        """Return at most `limit` matching records in this order, those after `start` (None: from the beginning).

        A page has fewer records where they are large. It ends before the records that the index has forgotten if Postgres cannot
        search them for this query; the next page is then refused.

        `held` accounts for the memory of the page's records; the caller gives it back.

        Raises:
            DecklogError: `search-unavailable` after the timeout, `invalid-cursor` for a start in another epoch, `overloaded`.
        """
        question = await self._question(tenant, log, query, self._timeout)
        head = await self._store.head(tenant, log)
        covered = await self._index.covered(tenant, log, head)
        listed = Listed(order, head, covered, *within(head, order, start))

        def by_postgres() -> Awaitable[Filled]:
            return self._filling.by_postgres(question.again(self._timeout), listed, Page(limit, held))

        def by_index() -> Awaitable[Filled]:
            return self._filling.by_index(question, listed, Page(limit, held))

        if not self._index.present or (query.empty and not order.by_time):
            filled = await by_postgres()
        else:
            filled = await first_answer(question, by_index, by_postgres, late=lambda: self._index.late(tenant))
        items, last = filled.page.end()
        onwards = None if last is None else start_after(last, listed, filled.times)
        if onwards is None and filled.left_out is not None:
            onwards = Start(filled.left_out.epoch, filled.left_out.received_at, filled.left_out.seq)
        return Found(items, onwards, Coverage(head, *covered, filled.engine))

    async def count(
        self,
        tenant: Tenant,
        log: LogName,
        query: Query,
        grouping: Grouping = _TOTAL,
        *,
        facets: tuple[str, ...] = (),
        top: int = TOP_DEFAULT,
        end: int | None = None,
    ) -> Counted:
        """Return how many records below `end` match (None: below the head), and the `top` values of each facet.

        Raises:
            DecklogError: `too-many-buckets`, and `search-unavailable` after the timeout.
        """
        question = await self._question(tenant, log, query, self._timeout)
        head = await self._store.head(tenant, log)
        covered = await self._index.covered(tenant, log, head)
        tally = Tally(grouping, facets)
        found, engine = await self._counts(question, tally, head.next_seq if end is None else end, covered)
        for each in found:
            check_buckets(each)
        counts = found[0]
        buckets = [Bucket(key, start, count) for (key, start), count in counts.items()]
        buckets.sort(key=lambda item: (microseconds(item.start) if item.start else 0, -item.count, [p or "" for p in item.key]))
        named = [Facet.of(name, each, top) for name, each in zip(facets, found[1:], strict=True)]
        return Counted(buckets, counts.total(), Coverage(head, *covered, engine), named)

    async def walk(
        self, tenant: Tenant, log: LogName, query: Query, *, end: int, start: int = 0
    ) -> AsyncGenerator[list[StoredRecord], None]:
        """Yield every matching record from `start` to below `end`, oldest first, in batches of a bounded size.

        A walk as a whole has no time limit. An error of the store ends it; the batches before are then not all.
        """
        question = await self._question(tenant, log, query, inf)
        first = max(start, await self._records.oldest(question, end))
        if query.needs_content and self._index.present:
            head = await self._store.head(tenant, log)
            limit = min((await self._index.covered(tenant, log, head)).end, end)
            while first < limit:
                # Read anew each time: documents below the floor are removed an hour after it moves.
                floor = min((await self._index.covered(tenant, log, head)).first, limit)
                if first < floor:
                    async for records in self._records.walk(question, Span(first, floor)):
                        yield records
                    first = floor
                    continue
                try:
                    # Each question has a patience of its own: a walk has many.
                    seqs = await self._index.find(question.again(inf), Span(first, limit), _WALK_FOUND, newest_first=False)
                except IndexAwayError:
                    break  # Postgres continues below
                async for fetched in self._records.fetch(question, seqs, newest_first=False):
                    if records := await self._filling.verified(question, head, fetched):
                        yield records
                first = seqs[-1] + 1 if len(seqs) == _WALK_FOUND else limit
        async for records in self._records.walk(question, Span(first, end)):
            yield records

    async def _question(self, tenant: Tenant, log: LogName, query: Query, seconds: float) -> Question:
        """Return a question whose time begins now, with the numbers of its receipt times where an index needs them."""
        if not query.receipts or not self._index.present:
            return Question.within(tenant, log, query, seconds)
        seqs = {at: await self._store.first_since(tenant, log, at, timeout=self._timeout) for at in query.receipts}
        return Question.within(tenant, log, query, seconds, numbered=query.numbered(seqs))

    async def _counts(self, question: Question, tally: Tally, end: int, covered: Span) -> tuple[list[Counts], str]:
        """Return the counts below `end`, and the engine."""
        covered = Span(min(covered.first, end), min(covered.end, end))

        async def by_postgres() -> tuple[list[Counts], str]:
            return await self._records.count(question.again(self._timeout), Span(0, end), tally), POSTGRES

        async def by_index() -> tuple[list[Counts], str]:
            counts = await self._counts_by_index(question, tally, covered)
            add_counts(counts, await self._records.count(question, Span(covered.end, end), tally))
            return counts, OPENSEARCH

        if not self._index.present or covered.empty:
            return await by_postgres()
        return await first_answer(question, by_index, by_postgres, late=lambda: self._index.late(question.tenant))

    async def _counts_by_index(self, question: Question, tally: Tally, covered: Span) -> list[Counts]:
        """Return the counts below the index's end: by the index, and by Postgres for what is older. Raises IndexAwayError."""
        oldest = await self._records.oldest(question, covered.end)
        if oldest >= covered.end:
            return [Counter() for _ in tally.groupings]
        if oldest < covered.first and question.unbounded:
            raise beyond_the_index()
        first = max(oldest, covered.first)
        counts = [counts_of(buckets) for buckets in await self._index.count(question, Span(first, covered.end), tally)]
        add_counts(counts, await self._records.count(question, Span(oldest, first), tally))
        return counts
