"""Filling the page of a list: which engine is asked for which part of the log, in which order.

The index answers for the records that it covers, and Postgres for newer and for older ones. In the order of receipt the parts follow
each other; in the order of `occurred_at` their records are merged.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from datetime import datetime
from typing import NamedTuple

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import Head, Position, Span
from decklog.domain.records.record import StoredRecord
from decklog.domain.search.coverage import OPENSEARCH, POSTGRES
from decklog.domain.search.order import Order, Place
from decklog.domain.store import RecordStore
from decklog.services.search.index_reader import IndexReader
from decklog.services.search.matching import Matcher, terms_of
from decklog.services.search.page import Page, Start
from decklog.services.search.question import Question
from decklog.services.search.record_reader import RecordReader

_FIRST_EPOCH = 1
_MERGED_AT_ONCE = 100
"""Records that the index finds at once in the order of `occurred_at`; their contents wait in memory until their place comes."""

_Placed = AsyncGenerator[tuple[Place, StoredRecord], None]


class Listed(NamedTuple):
    """What a page lists: the records of `span`, those after `place` where it is given, in this order. The index covers `covered`."""

    order: Order
    head: Head
    covered: Span
    span: Span
    place: Place | None = None


class Filled(NamedTuple):
    """A page with its records, and the engine that found them.

    `left_out` is the position before which the records begin that could not be searched (None: there are none). `times` has the
    `occurred_at` of the records by number, where it is their order.
    """

    page: Page
    engine: str
    left_out: Position | None = None
    times: dict[int, datetime] = {}  # noqa: RUF012 - never changed in place


class Filling:
    """Fills pages from both engines of one cell."""

    def __init__(self, store: RecordStore, index: IndexReader, records: RecordReader) -> None:
        self._store = store
        self._index = index
        self._records = records

    async def by_postgres(self, question: Question, listed: Listed, page: Page) -> Filled:
        """Fill a page by Postgres alone. Raises `search-unavailable` after the deadline."""
        with cleared_on_error(page):
            if listed.order.by_time:
                return await self._merge(question, listed, page, [self._placed(question, listed, listed.span, page)], POSTGRES)
            await self._records.fill(question, listed.span, page, newest_first=listed.order.newest_first)
            return Filled(page, POSTGRES)

    async def by_index(self, question: Question, listed: Listed, page: Page) -> Filled:
        """Fill a page by the index as far as it covers the log. Raises IndexAwayError."""
        with cleared_on_error(page):
            if listed.order.by_time:
                return await self._by_time(question, listed, page)
            return Filled(page, *await self._in_parts(question, listed, page))

    async def _in_parts(self, question: Question, listed: Listed, page: Page) -> tuple[str, Position | None]:
        """Fill a page from one part of the log after the other. Returns the engine, and what was left out."""
        newest_first, engine = listed.order.newest_first, POSTGRES
        parts = below, within, _ = _parts(listed)
        for part in reversed(parts) if newest_first else parts:
            if page.full or part.empty:
                continue
            if part is within:
                await self._fill_by_index(question, listed, part, page)
                engine = OPENSEARCH
                continue
            if part is below and (left_out := await self._left_out(question, listed)) is not None:
                return engine, left_out
            await self._records.fill(question, part, page, newest_first=newest_first)
        return engine, None

    async def _fill_by_index(self, question: Question, listed: Listed, span: Span, page: Page) -> None:
        """Add the matching records of a span to a page, in the order of `seq`."""
        newest_first = listed.order.newest_first
        while not page.full and not span.empty:
            asked, last = page.wanting, -1
            seqs = await self._index.find(question, span, asked, newest_first=newest_first)
            async with aclosing(self._records.fetch(question, seqs, newest_first=newest_first)) as parts:
                async for records in parts:
                    page.add(await self.verified(question, listed.head, records))
                    last = records[-1].seq
                    if page.full:
                        return
            # The index may hold records beyond retention. They are the oldest, so below the first of them are only more.
            if len(seqs) < asked or (newest_first and last != seqs[-1]):
                return
            span = Span(span.first, last) if newest_first else Span(seqs[-1] + 1, span.end)

    async def _left_out(self, question: Question, listed: Listed) -> Position | None:
        """Return the position at which the records end that neither engine can search for this question, or None.

        Raises:
            DecklogError: `search-unavailable` if the page could only hold such records, or would begin with them.
        """
        floor, end = listed.covered.first, listed.span.end
        if not question.unbounded or await self._records.oldest(question, min(floor, end)) == min(floor, end):
            return None
        descending = listed.order.newest_first and not listed.order.by_time
        first = await self._store.fetch(question.tenant, question.log, [floor]) if descending and floor < end else []
        if not first:
            raise beyond_the_index()
        return Position(first[0].epoch, first[0].received_at, floor)

    async def verified(self, question: Question, head: Head, records: list[StoredRecord]) -> list[StoredRecord]:
        """Return the records that match: the index may find more, and in a restored log it may still find by what was lost."""
        if head.epoch == _FIRST_EPOCH and question.query.index_decides and not question.doubted:
            return records
        return await self._records.matching(question.tenant, records, Matcher(question.query))

    async def _by_time(self, question: Question, listed: Listed, page: Page) -> Filled:
        """Fill a page in the order of `occurred_at`, from all parts of the log at once."""
        below, within, above = _parts(listed)
        if not below.empty:
            await self._left_out(question, listed)
        sources = [self._placed(question, listed, part, page) for part in (below, above) if not part.empty]
        if not within.empty:
            sources.append(self._placed_by_index(question, listed, within, page))
        return await self._merge(question, listed, page, sources, POSTGRES if within.empty else OPENSEARCH)

    async def _merge(self, question: Question, listed: Listed, page: Page, sources: Sequence[_Placed], engine: str) -> Filled:
        times: dict[int, datetime] = {}
        async with aclosing(_merged(sources, newest_first=listed.order.newest_first)) as merged:
            async for place, record in merged:
                page.add([record])
                times[record.seq] = place.occurred_at
                if page.full:
                    break
        return Filled(page, engine, None, times)

    def _placed(self, question: Question, listed: Listed, span: Span, page: Page) -> _Placed:
        """Yield the matching records of a span by Postgres, with their places."""
        return self._records.by_time(question, span, listed.place, page.wanting, newest_first=listed.order.newest_first)

    async def _placed_by_index(self, question: Question, listed: Listed, span: Span, page: Page) -> _Placed:
        """Yield the matching records of a span by the index, with their places."""
        place, asked = listed.place, min(page.wanting, _MERGED_AT_ONCE)
        while True:
            places = await self._index.find_by_time(question, span, place, asked, newest_first=listed.order.newest_first)
            found: dict[int, StoredRecord] = {}
            async for records in self._records.fetch(
                question, sorted((each.seq for each in places), reverse=True), newest_first=True
            ):
                found |= {record.seq: record for record in await self.verified(question, listed.head, records)}
            for each in places:
                record = found.get(each.seq)
                if record is not None and _is_at(each, record, listed.head):
                    yield each, record
            if len(places) < asked:
                return
            place = places[-1]


def _parts(listed: Listed) -> tuple[Span, Span, Span]:
    """Return the parts of the span below what the index covers, within it, and above it."""
    (first, end), (floor, indexed) = listed.span, listed.covered
    return Span(first, min(floor, end)), Span(max(first, floor), min(indexed, end)), Span(max(first, indexed), end)


def _is_at(place: Place, record: StoredRecord, head: Head) -> bool:
    """Return whether the record has this time: in a restored log the index may have that of a lost one."""
    return head.epoch == _FIRST_EPOCH or terms_of(record).occurred_at == place.occurred_at


async def _merged(sources: Sequence[_Placed], *, newest_first: bool) -> _Placed:
    """Yield the records of ordered sources in their common order. The sources are closed with this one."""
    try:
        heads = [(await anext(source, None), source) for source in sources]
        waiting = [(item, source) for item, source in heads if item is not None]
        while waiting:
            at = (max if newest_first else min)(range(len(waiting)), key=lambda number: waiting[number][0][0])
            item, source = waiting[at]
            yield item
            following = await anext(source, None)
            if following is None:
                del waiting[at]
            else:
                waiting[at] = following, source
    finally:
        for source in sources:
            await source.aclose()


@contextmanager
def cleared_on_error(page: Page) -> Iterator[None]:
    """Clear the page, and so give its bytes back, where the block raises or is cancelled."""
    try:
        yield
    except BaseException:
        page.clear()
        raise


def start_after(last: StoredRecord, listed: Listed, times: dict[int, datetime]) -> Start:
    """Return where the page after a record begins."""
    if not listed.order.by_time:
        return Start(last.epoch, last.received_at, last.seq)
    return Start(last.epoch, times[last.seq], last.seq, listed.span.end)


def beyond_the_index() -> DecklogError:
    """Return the refusal of a search of records that only Postgres has, and that it would have to match one by one."""
    return DecklogError(
        Code.SEARCH_UNAVAILABLE,
        "The search index no longer holds the older records (spec.retention.searchDays). For them, `q` and `metadata` filters need a "
        "time range: give `from`, and `to` if you can.",
    )
