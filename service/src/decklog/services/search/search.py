"""Lists, counts and walks of one log: the index finds sequence numbers, and Postgres answers with the records.

An index may be absent, late or away; the answer is the same. Records that it does not cover yet are searched in Postgres, and so is
the whole log while it does not answer. An answer is whole, or it is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from math import inf
from typing import NamedTuple

import msgspec

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import Head, LogName, Position, Span, microseconds
from decklog.domain.records.record import StoredRecord
from decklog.domain.search.coverage import OPENSEARCH, POSTGRES, Coverage
from decklog.domain.search.query import Query
from decklog.domain.search.stats import Bucket, Grouping
from decklog.domain.store import RecordStore, SearchIndex
from decklog.domain.tenant import Tenant
from decklog.services.budget import Budget, Held
from decklog.services.processor import Processor
from decklog.services.search.first_answer import first_answer
from decklog.services.search.index_reader import IndexAwayError, IndexReader, ReadsCursors
from decklog.services.search.matching import Matcher
from decklog.services.search.page import READING, READING_BYTES_MAX, Page, end_before
from decklog.services.search.question import Question
from decklog.services.search.record_reader import Counts, RecordReader, check_buckets, counts_of

_WALK_FOUND = 500
"""Numbers that a walk takes from the index at once."""
_FIRST_EPOCH = 1
_TOTAL = Grouping()


class Found(msgspec.Struct, frozen=True):
    """Records, newest first, and the position before which the next page begins (None after the last page)."""

    items: list[StoredRecord]
    next: Position | None
    coverage: Coverage


class _Filled(NamedTuple):
    """A page with its records, the engine that found them, and the position before which the records were not searched."""

    page: Page
    engine: str
    left_out: Position | None


@contextmanager
def _cleared_on_error(page: Page) -> Iterator[Page]:
    """Clear the page, and so give its bytes back, where the block raises or is cancelled."""
    try:
        yield page
    except BaseException:
        page.clear()
        raise


class Counted(msgspec.Struct, frozen=True):
    """Exact counts, ordered by time, then by descending count."""

    buckets: list[Bucket]
    total: int
    coverage: Coverage


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
        self._timeout = timeout

    async def page(
        self,
        tenant: Tenant,
        log: LogName,
        query: Query,
        *,
        limit: int,
        before: Position | None = None,
        held: Held | None = None,
    ) -> Found:
        """Return at most `limit` matching records before a position (None: before the head), newest first.

        A page has fewer records where they are large. It ends before the records that the index has forgotten if Postgres cannot
        search them for this query; the next page is then refused.

        `held` accounts for the memory of the page's records; the caller gives it back.

        Raises:
            DecklogError: `search-unavailable` after the timeout, `invalid-cursor` for a position of another epoch, `overloaded`.
        """
        question = Question.within(tenant, log, query, self._timeout)
        head = await self._store.head(tenant, log)
        end = end_before(head, before)
        covered = await self._index.covered(tenant, log, head)

        async def by_postgres() -> _Filled:
            with _cleared_on_error(Page(limit, held)) as page:
                await self._records.newest(question.again(self._timeout), Span(0, end), page)
                return _Filled(page, POSTGRES, None)

        async def by_index() -> _Filled:
            with _cleared_on_error(Page(limit, held)) as page:
                return _Filled(page, *await self._fill(question, head, covered, end, page))

        if query.empty or not self._index.present:
            page, engine, left_out = await by_postgres()
        else:
            page, engine, left_out = await first_answer(question, by_index, by_postgres, late=lambda: self._index.late(tenant))
        items, onwards = page.end()
        return Found(items, onwards or left_out, Coverage(head, *covered, engine))

    async def count(self, tenant: Tenant, log: LogName, query: Query, grouping: Grouping = _TOTAL) -> Counted:
        """Return how many records match.

        Raises:
            DecklogError: `too-many-buckets`, and `search-unavailable` after the timeout.
        """
        question = Question.within(tenant, log, query, self._timeout)
        head = await self._store.head(tenant, log)
        covered = await self._index.covered(tenant, log, head)
        counts, engine = await self._counts(question, grouping, head, covered)
        check_buckets(counts)
        buckets = [Bucket(key, start, count) for (key, start), count in counts.items()]
        buckets.sort(key=lambda item: (microseconds(item.start) if item.start else 0, -item.count, [p or "" for p in item.key]))
        return Counted(buckets, counts.total(), Coverage(head, *covered, engine))

    async def walk(self, tenant: Tenant, log: LogName, query: Query, *, end: int) -> AsyncGenerator[list[StoredRecord], None]:
        """Yield every matching record below `end`, oldest first, in batches of a bounded size.

        A walk as a whole has no time limit. An error of the store ends it; the batches before are then not all.
        """
        question = Question.within(tenant, log, query, inf)
        first = await self._records.oldest(question, end)
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
                    if records := await self._verified(question, head, fetched):
                        yield records
                first = seqs[-1] + 1 if len(seqs) == _WALK_FOUND else limit
        async for records in self._records.walk(question, Span(first, end)):
            yield records

    async def _fill(self, question: Question, head: Head, covered: Span, end: int, page: Page) -> tuple[str, Position | None]:
        """Fill a page from what is newer than the index, from the index, and from what is older, in this order.

        Returns the engine, and the position before which the records begin that could not be searched (None: there are none).
        Raises IndexAwayError.
        """
        floor, engine = covered.first, POSTGRES
        indexed = min(covered.end, end)
        await self._records.newest(question, Span(indexed, end), page)
        if not page.full and floor < indexed:
            await self._fill_by_index(question, head, Span(floor, indexed), page)
            engine = OPENSEARCH
        if not page.full and floor:
            left_out = await self._left_out(question, floor, end)
            if left_out is not None:
                return engine, left_out
            await self._records.newest(question, Span(0, min(floor, end)), page)
        return engine, None

    async def _fill_by_index(self, question: Question, head: Head, span: Span, page: Page) -> None:
        """Add the matching records of a span to a page, newest first."""
        first, end = span
        while not page.full:
            asked, last = page.wanting, -1
            seqs = await self._index.find(question, Span(first, end), asked, newest_first=True)
            async with aclosing(self._records.fetch(question, seqs, newest_first=True)) as parts:
                async for records in parts:
                    page.add(await self._verified(question, head, records))
                    last = records[-1].seq
                    if page.full:
                        return
            # The index may hold records beyond retention. They are the oldest, so below the first of them are only more.
            if len(seqs) < asked or last != seqs[-1]:
                return
            end = last

    async def _left_out(self, question: Question, floor: int, end: int) -> Position | None:
        """Return the position at which the records end that neither engine can search for this question, or None.

        Raises:
            DecklogError: `search-unavailable` if the page could only hold such records.
        """
        if not question.unbounded or await self._records.oldest(question, min(floor, end)) == min(floor, end):
            return None
        first = await self._store.fetch(question.tenant, question.log, [floor]) if floor < end else []
        if not first:
            raise _beyond_the_index()
        return Position(first[0].epoch, first[0].received_at, floor)

    async def _verified(self, question: Question, head: Head, records: list[StoredRecord]) -> list[StoredRecord]:
        """Return the records that match: in a restored log the index may still find by what was lost."""
        if head.epoch == _FIRST_EPOCH:
            return records
        return await self._records.matching(question.tenant, records, Matcher(question.query))

    async def _counts(self, question: Question, grouping: Grouping, head: Head, covered: Span) -> tuple[Counts, str]:
        """Return the counts of the whole log, and the engine."""

        async def by_postgres() -> tuple[Counts, str]:
            again = question.again(self._timeout)
            return await self._records.count(again, Span(0, head.next_seq), grouping), POSTGRES

        async def by_index() -> tuple[Counts, str]:
            counts = await self._counts_by_index(question, grouping, covered)
            counts.update(await self._records.count(question, Span(covered.end, head.next_seq), grouping))
            return counts, OPENSEARCH

        if not self._index.present or covered.empty:
            return await by_postgres()
        return await first_answer(question, by_index, by_postgres, late=lambda: self._index.late(question.tenant))

    async def _counts_by_index(self, question: Question, grouping: Grouping, covered: Span) -> Counts:
        """Return the counts below the index's end: by the index, and by Postgres for what is older. Raises IndexAwayError."""
        oldest = await self._records.oldest(question, covered.end)
        if oldest >= covered.end:
            return Counter()
        if oldest < covered.first and question.unbounded:
            raise _beyond_the_index()
        first = max(oldest, covered.first)
        buckets = await self._index.count(question, Span(first, covered.end), grouping)
        counts = counts_of(buckets)
        counts.update(await self._records.count(question, Span(oldest, first), grouping))
        return counts


def _beyond_the_index() -> DecklogError:
    return DecklogError(
        Code.SEARCH_UNAVAILABLE,
        "The search index no longer holds the older records (spec.retention.searchDays). For them, `q` and `metadata` filters need a "
        "time range: give `from`, and `to` if you can.",
    )
