"""Finding and counting records of one log: the index finds numbers, the records are the answer.

The index may be missing, late or away, and the answer is the same: what it does not know yet is looked through in
Postgres, and so is everything where it cannot be asked. An answer is whole or a refusal, never a part.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import struct
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeAlias, TypeVar

import msgspec
import structlog

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import Head, LogName, Position, from_microseconds, microseconds
from decklog.domain.records.record import StoredRecord
from decklog.domain.search.fields import COUNTABLE
from decklog.domain.search.query import Query
from decklog.domain.store import FORGETTER, INDEXER, READ_BYTES_MAX, Bucket, Cursors, RecordStore, SearchIndex
from decklog.domain.tenant import Tenant
from decklog.services.search.matching import Matcher, terms_of

INTERVALS = ("minute", "hour", "day", "week", "month")
BUCKETS_MAX = 10_000
"""Buckets of one answer."""

POSTGRES = "postgres"
OPENSEARCH = "opensearch"

_SCAN_MIN, _SCAN_MAX = 100, 1_000
"""Rows of one reading while the matcher decides: few at first, as most pages are full soon."""
_MATCHED_AT_ONCE = 64
"""Records that are matched before other requests get a turn, a few milliseconds of work."""
PAGE_CHARS_MAX = READ_BYTES_MAX
"""Of the content of one page, which ends with the reading that fills it, however many records were asked for."""
_AWAY = timedelta(seconds=1)
"""How long an index that failed is not asked again, so that its silence does not delay every request."""
_WALK_SEQS = 100_000
"""Numbers that one statement of a walk may span, so that a rare match cannot make it long."""
_WALK_ROWS_MAX, _WALK_ROWS_MIN, _WALK_ROWS_FIRST = 2_000, 20, 500
_WALK_BYTES = 2 * 1024 * 1024
"""What a batch of a walk should hold; rows are many or few by the size of those before."""
_WALK_FOUND = 500
_WALK_TIMEOUT = timedelta(seconds=30)
"""For one batch of a walk, which as a whole may take as long as it takes."""

_CURSOR = re.compile(r"[A-Za-z0-9_-]{39}")
_CURSOR_FIELDS = struct.Struct(">BIqq8s")
_CURSOR_VERSION = 1
_FIRST_EPOCH = 1

_log = structlog.get_logger("decklog.search")
_Answer = TypeVar("_Answer")
_Counts: TypeAlias = Counter[tuple[tuple[str | None, ...], datetime | None]]


class Found(msgspec.Struct, frozen=True):
    """Records, newest first, and the position after which the next page goes on (None where this is the last).

    `indexed`: records below this number were findable by an index, those below `indexed_from` not any more; without an index
    all are. `engine` is who found.
    """

    items: list[StoredRecord]
    next: Position | None
    head: Head
    indexed_from: int
    indexed: int
    engine: str


class Counted(msgspec.Struct, frozen=True):
    """Exact counts, ordered by time, then the most first."""

    buckets: list[Bucket]
    total: int
    head: Head
    indexed_from: int
    indexed: int
    engine: str


class _IndexAwayError(Exception):
    """The index cannot be asked now."""


def start_of(interval: str, moment: datetime) -> datetime:
    """The beginning, in UTC, of the minute, hour, day, week (from Monday) or month that `moment` is in."""
    start = moment.astimezone(UTC).replace(second=0, microsecond=0)
    if interval == "minute":
        return start
    if interval == "hour":
        return start.replace(minute=0)
    start = start.replace(hour=0, minute=0)
    if interval == "day":
        return start
    return start - timedelta(days=start.weekday()) if interval == "week" else start.replace(day=1)


def _fingerprint(tenant: Tenant, log: LogName, query: Query) -> bytes:
    return hashlib.sha256(msgspec.json.encode((tenant.id, log, query))).digest()[:8]


def write_cursor(position: Position, tenant: Tenant, log: LogName, query: Query) -> str:
    """An opaque token: the page after `position` of exactly this search."""
    fields = (position.epoch, microseconds(position.received_at), position.seq, _fingerprint(tenant, log, query))
    return base64.urlsafe_b64encode(_CURSOR_FIELDS.pack(_CURSOR_VERSION, *fields)).decode().rstrip("=")


def read_cursor(token: str, tenant: Tenant, log: LogName, query: Query) -> Position:
    """Raises `invalid-cursor` for what is no cursor, or the cursor of another search."""
    if not _CURSOR.fullmatch(token):
        raise DecklogError(Code.INVALID_CURSOR, "cursor: this is not a cursor. Take it from `next` of the page before.")
    version, epoch, received_at, seq, fingerprint = _CURSOR_FIELDS.unpack(base64.urlsafe_b64decode(token + "="))
    try:
        position = Position(epoch, from_microseconds(received_at), seq)
    except OverflowError:
        version = None
    if version != _CURSOR_VERSION or seq < 0:
        raise DecklogError(Code.INVALID_CURSOR, "cursor: this is not a cursor. Take it from `next` of the page before.")
    if fingerprint != _fingerprint(tenant, log, query):
        raise DecklogError(
            Code.INVALID_CURSOR, "cursor: it belongs to a search with other filters. Keep the filters, or start without cursor."
        )
    return position


def _too_slow() -> DecklogError:
    return DecklogError(
        Code.SEARCH_UNAVAILABLE,
        "The search took too long. Narrow the time range with `from` and `to`, or give a filter by actor, action or resource.",
        retry_after=1,
    )


class _Deadline:
    def __init__(self, seconds: float) -> None:
        self._end = asyncio.get_running_loop().time() + seconds

    def left(self) -> float:
        """Seconds left. Raises `search-unavailable` where there are none."""
        left = self._end - asyncio.get_running_loop().time()
        if left <= 0:
            raise _too_slow()
        return left


async def _matching(records: Sequence[StoredRecord], matcher: Matcher) -> list[StoredRecord]:
    found: list[StoredRecord] = []
    for start in range(0, len(records), _MATCHED_AT_ONCE):
        found += filter(matcher, records[start : start + _MATCHED_AT_ONCE])
        await asyncio.sleep(0)
    return found


class _Question(NamedTuple):
    """What is searched, and where."""

    tenant: Tenant
    log: LogName
    query: Query


class _Grouping(NamedTuple):
    by: Sequence[str]
    interval: str | None


class _Page:
    """What a page of at most `limit` records holds so far, and one record more, which tells that there are others."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._chars = 0
        self._items: list[StoredRecord] = []

    @property
    def wanting(self) -> int:
        return self._limit + 1 - len(self._items)

    @property
    def full(self) -> bool:
        return self.wanting <= 0 or self._chars >= PAGE_CHARS_MAX

    def add(self, records: Sequence[StoredRecord]) -> None:
        """Further records, newest first."""
        taken = records[: self.wanting]
        self._items += taken
        self._chars += sum(len(record.content) for record in taken)

    def end(self) -> tuple[list[StoredRecord], Position | None]:
        """The records, and the position after which the next page goes on, where this one is full."""
        items = self._items[: self._limit]
        return items, Position(items[-1].epoch, items[-1].received_at, items[-1].seq) if self.full else None


class Search:
    """Searches in one cell. `timeout` is in seconds, for one page or count.

    Without `index` Postgres answers everything; with one, `cursors` tell how far it has come.
    """

    def __init__(
        self, store: RecordStore, *, index: SearchIndex | None = None, cursors: Cursors | None = None, timeout: float = 5.0
    ) -> None:
        if (index is None) is not (cursors is None):
            raise ValueError("an index needs the cursors that say how far it has come")
        self._store = store
        self._index = index
        self._cursors = cursors
        self._timeout = timeout
        self._away_until = float("-inf")

    async def page(self, tenant: Tenant, log: LogName, query: Query, *, limit: int, before: Position | None = None) -> Found:
        """At most `limit` records before a position (else from the head on), newest first, and fewer where they are large. Where
        Postgres cannot look for what is too old for the index, that is the next page, which is refused.

        Raises `search-unavailable` where it takes too long, and `invalid-cursor` for a position of another epoch.
        """
        question = _Question(tenant, log, query)
        deadline = _Deadline(self._timeout)
        head = await self._store.head(tenant, log)
        end = _end(head, before)
        floor, indexed = await self._indexed(tenant, log, head)
        page, engine = _Page(limit), POSTGRES
        left_out: Position | None = None
        if self._index is None or query.empty:
            await self._newest(question, 0, end, page, deadline)
        else:
            try:
                await self._newest(question, min(indexed, end), end, page, deadline)
                if not page.full and floor < min(indexed, end):
                    await self._found(question, head, floor, min(indexed, end), page)
                    engine = OPENSEARCH
                if not page.full and floor:
                    left_out = await self._left_out(question, floor, end)
                    if left_out is None:
                        await self._newest(question, 0, min(floor, end), page, deadline)
            except _IndexAwayError:
                _require_bounds(query)
                page = _Page(limit)
                await self._newest(question, 0, end, page, deadline)
        items, onwards = page.end()
        return Found(items, onwards or left_out, head, floor, indexed, engine)

    async def count(
        self, tenant: Tenant, log: LogName, query: Query, *, by: Sequence[str] = (), interval: str | None = None
    ) -> Counted:
        """How many records match, by up to two `COUNTABLE` fields and one of `INTERVALS`.

        Raises `search-unavailable` and `too-many-buckets`.
        """
        question, grouping = _Question(tenant, log, query), _Grouping(by, interval)
        deadline = _Deadline(self._timeout)
        head = await self._store.head(tenant, log)
        floor, indexed = await self._indexed(tenant, log, head)
        if self._index is None or floor == indexed:
            counts, engine = await self._counted(question, grouping, 0, head.next_seq, deadline), POSTGRES
        else:
            try:
                counts = await self._counted_by_index(question, grouping, floor, indexed, deadline)
                counts.update(await self._counted(question, grouping, indexed, head.next_seq, deadline))
                engine = OPENSEARCH
            except _IndexAwayError:
                _require_bounds(query)
                counts, engine = await self._counted(question, grouping, 0, head.next_seq, deadline), POSTGRES
        _check_buckets(counts)
        buckets = [Bucket(key, start, count) for (key, start), count in counts.items()]
        buckets.sort(key=lambda item: (microseconds(item.start) if item.start else 0, -item.count, [p or "" for p in item.key]))
        return Counted(buckets, counts.total(), head, floor, indexed, engine)

    async def walk(self, tenant: Tenant, log: LogName, query: Query, *, end: int) -> AsyncGenerator[list[StoredRecord], None]:
        """Every matching record below `end`, oldest first, in batches of a bounded size; takes as long as it takes.

        No transaction stays open between batches. Raises what the store raises; what was given by then is not all.
        """
        question = _Question(tenant, log, query)
        first = await self._oldest(question, end)
        if query.needs_content and self._index is not None:
            head = await self._store.head(tenant, log)
            limit = min((await self._indexed(tenant, log, head))[1], end)
            while first < limit:
                # Each time, as what is below the floor goes an hour after it was moved.
                floor = min((await self._indexed(tenant, log, head))[0], limit)
                if first < floor:
                    async for records in self._walk_records(question, first, floor):
                        yield records
                    first = floor
                    continue
                try:
                    seqs = await self._find(question, first, limit, _WALK_FOUND, newest_first=False)
                except _IndexAwayError:
                    break  # Postgres goes on from here
                async for fetched in self._fetched(question, seqs, newest_first=False):
                    if records := await self._verified(question, head, fetched):
                        yield records
                first = seqs[-1] + 1 if len(seqs) == _WALK_FOUND else limit
        async for records in self._walk_records(question, first, end):
            yield records

    # -- the index

    async def _indexed(self, tenant: Tenant, log: LogName, head: Head) -> tuple[int, int]:
        """From which number on, and below which one, the index is to be believed."""
        if self._cursors is None:
            return 0, head.next_seq
        floor, end = await self._cursors.next_seqs((FORGETTER, INDEXER), tenant.id, log)
        end = min(head.next_seq, end)
        return min(floor, end), end

    async def _ask(self, question: Callable[[SearchIndex], Awaitable[_Answer]]) -> _Answer:
        """The index's answer. Raises _IndexAwayError where there is none in time."""
        now = asyncio.get_running_loop().time
        if self._index is None or now() < self._away_until:
            raise _IndexAwayError
        try:
            async with asyncio.timeout(self._timeout):
                return await question(self._index)
        except (DecklogError, TimeoutError) as error:
            if isinstance(error, DecklogError) and error.code is not Code.SEARCH_UNAVAILABLE:
                raise
            self._away_until = now() + _AWAY.total_seconds()
            _log.warning("the index does not answer; Postgres searches", reason=str(error)[:300])
            raise _IndexAwayError from error

    async def _find(self, question: _Question, first: int, end: int, limit: int, *, newest_first: bool) -> list[int]:
        tenant, log, query = question
        return await self._ask(
            lambda index: index.find(tenant, log, query=query, first=first, end=end, limit=limit, newest_first=newest_first)
        )

    async def _left_out(self, question: _Question, floor: int, end: int) -> Position | None:
        """Where the records begin that are too old for the index and that Postgres cannot look through for this question; None
        where it can, or there are none. Raises `search-unavailable` where these were asked for and no others."""
        if not _unbounded(question.query) or await self._oldest(question, min(floor, end)) == min(floor, end):
            return None
        first = await self._store.fetch(question.tenant, question.log, [floor]) if floor < end else []
        if not first:
            raise _beyond_the_index()
        return Position(first[0].epoch, first[0].received_at, floor)

    async def _found(self, question: _Question, head: Head, first: int, end: int, page: _Page) -> None:
        """Matching records with `first <= seq < end` by the index, newest first."""
        while not page.full:
            asked, last = page.wanting, -1
            seqs = await self._find(question, first, end, asked, newest_first=True)
            async with aclosing(self._fetched(question, seqs, newest_first=True)) as parts:
                async for records in parts:
                    page.add(await self._verified(question, head, records))
                    last = records[-1].seq
                    if page.full:
                        return
            # The index may know records beyond retention. They are the oldest: below the first of them are only more.
            if len(seqs) < asked or last != seqs[-1]:
                return
            end = last

    async def _fetched(
        self, question: _Question, seqs: Sequence[int], *, newest_first: bool
    ) -> AsyncGenerator[list[StoredRecord], None]:
        """The records with these numbers, which are in this order, as many at a time as one reading gives."""
        while seqs and (records := await self._store.fetch(question.tenant, question.log, seqs, newest_first=newest_first)):
            yield records
            last = records[-1].seq
            seqs = [seq for seq in seqs if (seq < last if newest_first else seq > last)]

    async def _verified(self, question: _Question, head: Head, records: list[StoredRecord]) -> list[StoredRecord]:
        """In a log that was restored, the index may still know what was lost: there the record has the last word."""
        return records if head.epoch == _FIRST_EPOCH else await _matching(records, Matcher(question.query))

    async def _counted_by_index(
        self, question: _Question, grouping: _Grouping, floor: int, end: int, deadline: _Deadline
    ) -> _Counts:
        """Below `end`: by the index from `floor` on, and by Postgres what is older."""
        (tenant, log, query), (by, interval) = question, grouping
        oldest = await self._oldest(question, end)
        if oldest >= end:
            return Counter()
        if oldest < floor and _unbounded(query):
            raise _beyond_the_index()
        first = max(oldest, floor)
        buckets = await self._ask(
            lambda index: index.count(tenant, log, query=query, first=first, end=end, by=by, interval=interval, limit=BUCKETS_MAX)
        )
        counts = _counter(buckets)
        counts.update(await self._counted(question, grouping, oldest, first, deadline))
        return counts

    # -- Postgres

    async def _oldest(self, question: _Question, end: int) -> int:
        """The number of the oldest record within retention, or `end` where there is none."""
        records, _ = await self._store.read(
            question.tenant, question.log, query=Query(), first=0, end=end, limit=1, newest_first=False, timeout=self._timeout
        )
        return records[0].seq if records else end

    async def _newest(self, question: _Question, first: int, end: int, page: _Page, deadline: _Deadline) -> None:
        """Matching records with `first <= seq < end` by Postgres, newest first."""
        tenant, log, query = question
        matcher = Matcher(query) if query.needs_content else None
        rows = max(page.wanting, _SCAN_MIN)
        onwards: int | None = end
        while onwards is not None and onwards > first and not page.full:
            limit = page.wanting if matcher is None else rows
            records, onwards = await self._store.read(
                tenant, log, query=query, first=first, end=onwards, limit=limit, newest_first=True, timeout=deadline.left()
            )
            page.add(records if matcher is None else await _matching(records, matcher))
            rows = min(2 * rows, _SCAN_MAX)

    async def _walk_records(self, question: _Question, first: int, end: int) -> AsyncGenerator[list[StoredRecord], None]:
        tenant, log, query = question
        matcher = Matcher(query) if query.needs_content else None
        timeout = _WALK_TIMEOUT.total_seconds()
        rows = _WALK_ROWS_FIRST
        while first < end:
            until = min(end, first + _WALK_SEQS)
            records, onwards = await self._store.read(
                tenant, log, query=query, first=first, end=until, limit=rows, newest_first=False, timeout=timeout
            )
            first = until if onwards is None else onwards
            if records:
                size = sum(len(record.content) for record in records) // len(records)
                rows = max(_WALK_ROWS_MIN, min(_WALK_ROWS_MAX, _WALK_BYTES // size))
            if matcher is not None:
                records = await _matching(records, matcher)
            if records:
                yield records

    async def _counted(self, question: _Question, grouping: _Grouping, first: int, end: int, deadline: _Deadline) -> _Counts:
        (tenant, log, query), (by, interval) = question, grouping
        if first >= end:
            return Counter()
        if not query.needs_content:
            buckets = await self._store.count(
                tenant,
                log,
                query=query,
                first=first,
                end=end,
                by=by,
                interval=interval,
                limit=BUCKETS_MAX,
                timeout=deadline.left(),
            )
            return _counter(buckets)
        counts: _Counts = Counter()
        matcher = Matcher(query)
        onwards: int | None = end
        while onwards is not None and onwards > first:
            records, onwards = await self._store.read(
                tenant, log, query=query, first=first, end=onwards, limit=_SCAN_MAX, newest_first=True, timeout=deadline.left()
            )
            for record in await _matching(records, matcher):
                found = terms_of(record)
                key = tuple(getattr(found, COUNTABLE[name].term) for name in by)
                counts[key, start_of(interval, found.occurred_at) if interval else None] += 1
            _check_buckets(counts)
        return counts


def _end(head: Head, before: Position | None) -> int:
    if before is None:
        return head.next_seq
    if before.epoch != head.epoch or before.seq > head.next_seq:
        raise DecklogError(
            Code.INVALID_CURSOR, "cursor: the log has been restored since, and its numbers are used again. Start without cursor."
        )
    return before.seq


def _unbounded(query: Query) -> bool:
    """Whether the records themselves decide, and all of them would have to be looked through."""
    return query.needs_content and query.since is None


def _beyond_the_index() -> DecklogError:
    return DecklogError(
        Code.SEARCH_UNAVAILABLE,
        "The older records are not in the search index any more (spec.retention.searchDays). There `q` and `metadata` filters need a "
        "time range: give `from` and perhaps `to`.",
    )


def _require_bounds(query: Query) -> None:
    """Raises `search-unavailable` for what Postgres cannot look for in a whole log that is big enough to have an index."""
    if _unbounded(query):
        raise DecklogError(
            Code.SEARCH_UNAVAILABLE,
            "The search index does not answer. Without it, `q` and `metadata` filters need a time range: give `from` and "
            "perhaps `to`, or try again.",
            retry_after=5,
        )


def _counter(buckets: Iterable[Bucket]) -> _Counts:
    return Counter({(bucket.key, bucket.start): bucket.count for bucket in buckets})


def _check_buckets(counts: _Counts) -> None:
    if len(counts) > BUCKETS_MAX:
        raise DecklogError(
            Code.TOO_MANY_BUCKETS, f"There are more than {BUCKETS_MAX} buckets. Narrow the filters or take a longer interval."
        )
