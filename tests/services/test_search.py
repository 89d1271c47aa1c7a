"""Search: lists, counts and walks agree for a complete, late, absent and failing index."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, date, datetime, timedelta

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from decklog.domain.consumers import FORGETTER
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.append import AppendRequest
from decklog.domain.records.record import Prepared, StoredRecord
from decklog.domain.search.calendar import HALF_HOUR_ZONES, INTERVALS, midnight, start_of, starts_from, zone_of
from decklog.domain.search.fields import COUNTABLE
from decklog.domain.search.order import NEWEST_FIRST, OLDEST_FIRST, SORTS, Order, parse_order
from decklog.domain.search.query import Query, matches, parse
from decklog.domain.search.stats import Bucket, Grouping, zero_filled
from decklog.domain.store import READ_BYTES_MAX
from decklog.services.search import index_reader
from decklog.services.search.matching import Matcher
from decklog.services.search.page import ListQuery, Start, read_cursor, write_cursor
from decklog.services.search.search import Found, Search
from tests.support.desk import REQUEST, Desk, desk
from tests.support.examples import examples
from tests.support.memory_index import interval_start
from tests.support.strategies import CHANGES, TIMES, ZONES, cases, records, terms_of

EVENTS = LogName.EVENTS
FACETS = ("actor", "outcome", "resource_type")
ORDERS = [parse_order(sort, None) for sort in SORTS]
AWAY = DecklogError(Code.SEARCH_UNAVAILABLE, "The index is away.")
properties = settings(
    deadline=None,
    max_examples=examples(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


def asked(*parameters: tuple[str, str]) -> Query:
    return parse(parameters)[1]


def seqs(found: Found | list[StoredRecord]) -> list[int]:
    return [record.seq for record in (found.items if isinstance(found, Found) else found)]


@contextmanager
def refused(code: Code, text: str | None = None) -> Iterator[None]:
    with pytest.raises(DecklogError, match=text) as error:
        yield
    assert error.value.code is code


async def pages_of(at: Desk, search: Search, query: Query, *, limit: int, order: Order = NEWEST_FIRST) -> AsyncIterator[Found]:
    """All pages of a search."""
    start: Start | None = None
    while True:
        found = await search.page(at.acme, EVENTS, query, limit=limit, order=order, start=start)
        assert len(found.items) <= limit
        yield found
        start = found.next
        if start is None:
            return


async def everything(at: Desk, search: Search, query: Query, *, limit: int, order: Order = NEWEST_FIRST) -> list[int]:
    """The numbers on all pages of a search."""
    return [number async for page in pages_of(at, search, query, limit=limit, order=order) for number in seqs(page)]


async def until_refused(at: Desk, query: Query, *, limit: int) -> list[int]:
    """The numbers on all pages before the one that is refused."""
    numbers: list[int] = []
    with refused(Code.SEARCH_UNAVAILABLE, "searchDays"):
        async for page in pages_of(at, at.search, query, limit=limit):
            numbers += seqs(page)
            assert page.next is not None
    return numbers


async def forget(at: Desk, below: int) -> None:
    """Move the floor to a number and drop the documents below, as the worker does."""
    cursor = await at.cursors.lease(FORGETTER, at.acme.id, EVENTS, owner="w", seconds=1)
    assert cursor is not None
    await at.cursors.move(cursor, below, seconds=1)
    at.index.drop(at.acme, EVENTS, below)


async def walked(at: Desk, query: Query, *, end: int = 10**9) -> list[int]:
    head = await at.store.head(at.acme, EVENTS)
    return [record.seq async for batch in at.search.walk(at.acme, EVENTS, query, end=min(end, head.next_seq)) for record in batch]


@asynccontextmanager
async def filled_by(at: Desk, room: int) -> AsyncIterator[None]:
    """Readings and pages end with the record that fills so many bytes or characters."""
    at.store.bytes_max = room
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("decklog.services.search.page.PAGE_BYTES_MAX", room)
        yield


async def store(at: Desk, made: list[Prepared]) -> None:
    await at.store.append([AppendRequest(at.acme, EVENTS, made)])


# -- engines


async def test_page_contains_every_record_with_a_receipt() -> None:
    async with desk() as at:
        await at.put({"message": "indexed needle"}, {"message": "hay"})
        await at.index_all()
        await at.put({"message": "fresh needle"})
        found = await at.search.page(at.acme, EVENTS, asked(("q", "needle")), limit=10)
        assert seqs(found) == [2, 0]
        assert (found.coverage.indexed, found.coverage.head.next_seq, found.coverage.engine) == (2, 3, "opensearch")


async def test_page_uses_postgres_without_a_filter() -> None:
    async with desk() as at:
        await at.put({}, {})
        await at.index_all()
        at.index.failing = AWAY
        found = await at.search.page(at.acme, EVENTS, Query(), limit=10)
        assert (seqs(found), found.coverage.engine) == ([1, 0], "postgres")


async def test_page_uses_postgres_without_an_index() -> None:
    async with desk(indexed=False) as at:
        await at.put({"message": "needle"}, {"metadata": {"k": "v"}})
        for query, numbers in [(asked(("q", "needle")), [0]), (asked(("metadata.k", "v")), [1]), (Query(), [1, 0])]:
            found = await at.search.page(at.acme, EVENTS, query, limit=10)
            assert (seqs(found), found.coverage.engine, found.coverage.indexed) == (numbers, "postgres", 2)


async def test_page_is_the_same_when_the_index_is_away() -> None:
    async with desk() as at:
        await at.put({"actor": {"id": "a"}}, {"actor": {"id": "b"}}, {"actor": {"id": "a"}})
        await at.index_all()
        query = asked(("actor", "a"))
        before = await at.search.page(at.acme, EVENTS, query, limit=10)
        at.index.failing = AWAY
        after = await at.search.page(at.acme, EVENTS, query, limit=10)
        assert (seqs(before), before.coverage.engine) == ([2, 0], "opensearch")
        assert (seqs(after), after.coverage.engine) == ([2, 0], "postgres")
        assert (await at.search.count(at.acme, EVENTS, query)).coverage.engine == "postgres"


async def test_full_text_needs_a_time_range_when_the_index_is_away() -> None:
    async with desk() as at:
        await at.put({"message": "needle", "occurred_at": "2026-02-01T00:00:00Z"})
        await at.index_all()
        at.index.failing = AWAY
        for filter_ in (("q", "needle"), ("metadata.a", "b")):
            with refused(Code.SEARCH_UNAVAILABLE, "from"):
                await at.search.page(at.acme, EVENTS, asked(filter_), limit=10)
            with refused(Code.SEARCH_UNAVAILABLE, "from"):
                await at.search.count(at.acme, EVENTS, asked(filter_))
        bounded = asked(("q", "needle"), ("from", "2026-01-01T00:00:00Z"))
        found = await at.search.page(at.acme, EVENTS, bounded, limit=10)
        assert (seqs(found), found.coverage.engine) == ([0], "postgres")


async def test_failed_index_gets_no_request_for_a_moment() -> None:
    async with desk() as at:
        await at.put({})
        await at.index_all()
        at.index.failing = AWAY
        asked_before = at.index.asked
        for _ in range(5):
            await at.search.page(at.acme, EVENTS, asked(("actor", "tester")), limit=10)
        assert at.index.asked == asked_before + 1


async def test_unexpected_error_of_the_index_is_raised() -> None:
    async with desk() as at:
        await at.put({})
        await at.index_all()
        at.index.failing = DecklogError(Code.INTERNAL, "A bug.")
        with refused(Code.INTERNAL):
            await at.search.page(at.acme, EVENTS, asked(("actor", "tester")), limit=10)


@pytest.mark.parametrize("parameters", [[("q", "needle")], [("actor", "tester")]])
async def test_slow_search_is_refused_with_advice(parameters: list[tuple[str, str]]) -> None:
    async with desk(indexed=False, timeout=0.05) as at:
        await at.put({"message": "needle"})
        at.store.seconds_per_read = 1.0
        for ask in (
            at.search.page(at.acme, EVENTS, asked(*parameters), limit=10),
            at.search.count(at.acme, EVENTS, asked(*parameters)),
        ):
            with refused(Code.SEARCH_UNAVAILABLE, "Narrow the time range"):
                await ask


async def test_readings_of_one_search_share_a_deadline() -> None:
    async with desk(indexed=False, timeout=0.1) as at:
        await at.put(*[{"message": "hay"} for _ in range(50)])
        at.store.scan_max, at.store.seconds_per_read = 1, 0.02
        with refused(Code.SEARCH_UNAVAILABLE):
            await at.search.page(at.acme, EVENTS, asked(("q", "needle")), limit=10)
        assert at.store.reads < 50


async def test_unavailable_storage_is_reported() -> None:
    async with desk() as at:
        at.store.failing = DecklogError(Code.STORAGE_UNAVAILABLE, "Away.")
        with refused(Code.STORAGE_UNAVAILABLE):
            await at.search.page(at.acme, EVENTS, Query(), limit=10)


async def test_records_beyond_retention_are_neither_found_nor_counted() -> None:
    async with desk() as at:
        await at.put(*[{"actor": {"id": "a"}} for _ in range(3)])
        at.now.forward(days=20)
        await at.put({"actor": {"id": "a"}}, {"actor": {"id": "b"}})
        await at.index_all()
        at.now.forward(days=15)
        query = asked(("actor", "a"))
        assert await everything(at, at.search, query, limit=1) == [3]
        assert (await at.search.count(at.acme, EVENTS, query)).total == 1
        assert await walked(at, asked(("metadata.a", "b"))) == []


async def test_lost_records_of_a_restored_log_are_not_found() -> None:
    async with desk() as at:
        await at.put({"actor": {"id": "a"}}, {"actor": {"id": "lost"}}, {"actor": {"id": "lost"}})
        await at.index_all()
        at.store.restore(at.acme, EVENTS, 1)
        await at.put({"actor": {"id": "new"}}, {"actor": {"id": "a"}})
        assert seqs(await at.search.page(at.acme, EVENTS, asked(("actor", "lost")), limit=10)) == []
        assert seqs(await at.search.page(at.acme, EVENTS, asked(("actor", "a")), limit=10)) == [0]


async def test_search_never_finds_records_of_another_tenant() -> None:
    async with desk() as at:
        await at.put({"message": "needle"}, tenant=at.rival)
        await at.index_all(at.rival)
        await at.put({"message": "hay"})
        await at.index_all()
        for query, count in ((Query(), 1), (asked(("q", "needle")), 0), (asked(("actor", "tester")), 1)):
            found = await at.search.page(at.acme, EVENTS, query, limit=10)
            assert ["hay" in record.content for record in found.items] == [True] * count


# -- agreement of engines


@given(
    case=cases(12),
    known=st.tuples(st.just(0) | st.integers(0, 12), st.integers(0, 12)),
    limit=st.integers(1, 5),
    reading=st.tuples(st.none() | st.integers(1, 4), st.just(READ_BYTES_MAX) | st.integers(1, 2_000)),
    grouping=st.tuples(
        st.lists(st.sampled_from(list(COUNTABLE)), max_size=2, unique=True), st.none() | st.sampled_from(INTERVALS)
    ),
)
@properties
async def test_pages_counts_and_walks_agree_with_the_matcher_for_any_coverage(
    case: tuple[list[Prepared], Query],
    known: tuple[int, int],
    limit: int,
    reading: tuple[int | None, int],
    grouping: tuple[list[str], str | None],
) -> None:
    (made, query), (by, interval), (floor, indexed), (scan_max, room) = case, grouping, known, reading
    wanted = [number for number, record in enumerate(made) if matches(query, terms_of(record))]
    async with desk() as at, filled_by(at, room):
        at.store.scan_max = scan_max
        if made[:indexed]:
            await store(at, made[:indexed])
        await at.index_all()
        if made[indexed:]:
            await store(at, made[indexed:])
        floor = min(floor, indexed, len(made))
        await forget(at, floor)
        alone = Search(at.store)
        assert await everything(at, alone, query, limit=limit) == wanted[::-1]
        assert await walked(at, query) == wanted
        if floor and query.needs_content and query.since is None:
            # Postgres refuses the records below the floor, after the pages with all others.
            assert await until_refused(at, query, limit=limit) == [number for number in wanted[::-1] if number >= floor]
            return
        assert await everything(at, at.search, query, limit=limit) == wanted[::-1]
        times = {number: (terms_of(made[number]).occurred_at, number) for number in wanted}
        for order in ORDERS:
            key = times.__getitem__ if order.by_time else None
            ordered = sorted(wanted, key=key, reverse=order.newest_first)
            for search in (at.search, alone):
                assert await everything(at, search, query, limit=limit, order=order) == ordered, order
        asked_for = Grouping(tuple(by), interval, "America/New_York")
        counts = [await search.count(at.acme, EVENTS, query, asked_for, facets=FACETS, top=2) for search in (at.search, alone)]
        assert counts[0].buckets == counts[1].buckets
        assert counts[0].total == counts[1].total == len(wanted)
        assert len({(bucket.key, bucket.start) for bucket in counts[0].buckets}) == len(counts[0].buckets)
        assert counts[0].facets == counts[1].facets
        for facet in counts[0].facets:
            values = Counter(getattr(terms_of(made[number]), COUNTABLE[facet.field].term) for number in wanted)
            assert facet.missing == values.pop(None, 0)
            assert facet.values == sorted(values.items(), key=lambda item: (-item[1], item[0]))[:2]
            assert facet.other == values.total() - sum(count for _, count in facet.values)


@given(made=st.lists(records(), min_size=1, max_size=4), case=cases())
@settings(deadline=None, max_examples=examples(300), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_quick_check_of_a_record_never_loses_a_match(made: list[Prepared], case: tuple[list[Prepared], Query]) -> None:
    matcher = Matcher(case[1])
    for number, record in enumerate([*made, *case[0]]):
        stored = StoredRecord(1, number, datetime.now(UTC), record.digest, record.content.decode())
        assert matcher(stored) is matches(case[1], terms_of(record))


MOMENTS = st.sampled_from([datetime.fromisoformat(text) for text in TIMES] + list(CHANGES))
SECONDS = st.integers(0, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


@given(MOMENTS | SECONDS, st.sampled_from(INTERVALS), st.sampled_from(ZONES))
@settings(deadline=None, max_examples=examples(500))
def test_start_of_returns_the_beginning_of_each_interval(moment: datetime, interval: str, tz: str) -> None:
    assume(interval != "hour" or tz not in HALF_HOUR_ZONES)  # refused
    zone = zone_of(tz)
    start = start_of(interval, moment, zone)
    assert start <= moment
    assert start_of(interval, start, zone) == start
    if tz == "UTC":
        assert start == interval_start(moment, interval)
    if interval in ("day", "week", "month") and moment.year > 1969:
        first, before = start.astimezone(zone), (start - timedelta(microseconds=1)).astimezone(zone)
        assert first.date() > before.date()
        assert (first.day == 1) or interval != "month"
        assert (first.weekday() == 0) or interval != "week"


@given(st.sampled_from(CHANGES), st.sampled_from(INTERVALS), st.sampled_from(ZONES), st.integers(0, 4_000))
@settings(deadline=None, max_examples=examples(300))
def test_each_moment_is_in_the_last_interval_that_begins_before_it(first: datetime, interval: str, tz: str, minutes: int) -> None:
    assume(interval != "hour" or tz not in HALF_HOUR_ZONES)  # refused
    zone, moment = zone_of(tz), first + timedelta(minutes=minutes)
    starts = list(itertools.takewhile(lambda start: start <= moment, starts_from(interval, first, zone)))
    assert starts == sorted(set(starts))
    assert starts[-1] == start_of(interval, moment, zone)


def test_a_day_on_which_clocks_change_has_23_or_25_hours() -> None:
    zone = zone_of("Europe/Amsterdam")
    for month, day, hours in ((3, 29, 23), (10, 25, 25), (6, 1, 24)):
        begins, ends = midnight(date(2026, month, day), zone), midnight(date(2026, month, day + 1), zone)
        found = list(itertools.islice(starts_from("hour", begins, zone), hours + 1))
        assert found[-1] == ends


def test_zone_of_refuses_what_is_no_zone() -> None:
    for name in ("", "Mars/Olympus", "europe/amsterdam", "../etc/passwd", "posix/UTC", "+02:00", "x" * 1_000):
        with refused(Code.INVALID_PARAMETER):
            zone_of(name)


def test_zero_filled_adds_an_interval_for_each_without_records() -> None:
    days = [datetime(2026, 1, day, tzinfo=UTC) for day in range(1, 8)]
    grouping = Grouping((), "day")
    buckets = [Bucket((), days[1], 5), Bucket((), days[4], 2)]
    inner = zero_filled(buckets, grouping, None, None, limit=100)
    assert [(bucket.start, bucket.count) for bucket in inner] == list(zip(days[1:5], (5, 0, 0, 2), strict=True))
    whole = zero_filled(buckets, grouping, days[0], days[6], limit=100)
    assert [bucket.count for bucket in whole] == [0, 5, 0, 0, 2, 0]
    assert [bucket.count for bucket in zero_filled([], grouping, days[0], days[2], limit=100)] == [0, 0]
    assert zero_filled([], grouping, None, None, limit=100) == []
    by_action = [Bucket(("a",), days[0], 1), Bucket(("b",), days[1], 1)]
    filled = zero_filled(by_action, Grouping(("action",), "day"), None, None, limit=100)
    assert [(bucket.key, bucket.count) for bucket in filled] == [(("a",), 1), (("b",), 0), (("a",), 0), (("b",), 1)]
    with refused(Code.TOO_MANY_BUCKETS):
        zero_filled(buckets, Grouping((), "minute"), days[0], days[6], limit=100)


# -- pages and cursors


async def test_pages_are_stable_while_records_arrive() -> None:
    async with desk() as at:
        await at.put(*[{"actor": {"id": "a" if number % 2 else "b"}} for number in range(20)])
        await at.index_all()
        query = asked(("actor", "a"))
        first = await at.search.page(at.acme, EVENTS, query, limit=4)
        await at.put(*[{"actor": {"id": "a"}} for _ in range(5)])
        second = await at.search.page(at.acme, EVENTS, query, limit=4, start=first.next)
        await at.index_all()
        third = await at.search.page(at.acme, EVENTS, query, limit=4, start=second.next)
        assert seqs(first) + seqs(second) + seqs(third) == [19, 17, 15, 13, 11, 9, 7, 5, 3, 1]
        assert third.next is None


@pytest.mark.parametrize("away", [False, True])
async def test_places_are_found_by_the_index_and_beside_it(away: bool) -> None:
    async with desk() as at:
        for _ in range(4):
            await at.put(*[{"metadata": {"k": "v"}}] * 5)
            await at.index_all()
            at.now.forward(minutes=1)
        await at.put(*[{"metadata": {"k": "v"}}] * 2)
        times = [record.received_at for record in (await at.search.page(at.acme, EVENTS, Query(), limit=50)).items][::-1]
        at.index.failing = AWAY if away else None
        moment = times[7].isoformat()
        for text, expected in (
            ("seq:[3 TO 5]", range(3, 6)),
            ("(metadata.k:v NOT seq:<20) received_at:>2020-01-01", range(20, 22)),
            (f"received_at:>={moment}", [seq for seq, time in enumerate(times) if time >= times[7]]),
            (f"received_at:<{moment} metadata.k:v received_at:>2020-01-01", [s for s, t in enumerate(times) if t < times[7]]),
            (f"(NOT received_at:>={moment} seq:>2) OR seq:21", [*(s for s, t in enumerate(times) if t < times[7] and s > 2), 21]),
        ):
            query = asked(("q", text))
            assert await everything(at, at.search, query, limit=3, order=OLDEST_FIRST) == list(expected), text
            assert (await at.search.count(at.acme, EVENTS, query)).total == len(list(expected)), text
            assert await walked(at, query) == list(expected), text


async def test_last_page_has_no_next_even_when_full() -> None:
    async with desk() as at:
        await at.put({}, {})
        assert (await at.search.page(at.acme, EVENTS, Query(), limit=2)).next is None
        assert (await at.search.page(at.acme, EVENTS, Query(), limit=1)).next is not None


@pytest.mark.parametrize("indexed", [0, 7, 12])
@pytest.mark.parametrize("text", [(), (("q", "needle"),)])
async def test_page_of_large_records_is_short_and_the_next_pages_hold_the_rest(
    indexed: int, text: tuple[tuple[str, str], ...]
) -> None:
    async with desk() as at, filled_by(at, 2_500):
        large = [{"message": "needle", "metadata": "x" * 1_000} for _ in range(12)]
        if large[:indexed]:
            await at.put(*large[:indexed])
        await at.index_all()
        if large[indexed:]:
            await at.put(*large[indexed:])
        query = asked(*text, ("from", "2000-01-01T00:00:00Z"))
        pages = [seqs(page) async for page in pages_of(at, at.search, query, limit=10)]
        assert [number for page in pages for number in page] == list(range(12))[::-1]
        # Three records fill a page; up to two may precede the reading from the index that fills it.
        assert {len(page) for page in pages if page} <= {1, 2, 3, 5}


async def test_page_refuses_a_position_of_an_earlier_epoch() -> None:
    async with desk() as at:
        await at.put({}, {}, {})
        before = (await at.search.page(at.acme, EVENTS, Query(), limit=1)).next
        at.store.restore(at.acme, EVENTS, 1)
        with refused(Code.INVALID_CURSOR):
            await at.search.page(at.acme, EVENTS, Query(), limit=1, start=before)


async def test_pages_in_the_order_of_events_hold_no_record_that_came_after_the_first_page() -> None:
    async with desk() as at:
        await at.put(*[{"occurred_at": f"2026-02-01T00:00:{number:02}Z"} for number in range(10)])
        await at.index_all()
        order = parse_order("-occurred_at", None)
        first = await at.search.page(at.acme, EVENTS, Query(), limit=4, order=order)
        await at.put({"occurred_at": "2026-02-01T00:00:03.5Z"}, {"occurred_at": "2026-02-02T00:00:00Z"})
        second = await at.search.page(at.acme, EVENTS, Query(), limit=10, order=order, start=first.next)
        assert seqs(first) + seqs(second) == list(range(10))[::-1]


async def test_ascending_pages_go_on_with_records_that_arrive() -> None:
    async with desk() as at:
        await at.put(*[{} for _ in range(5)])
        first = await at.search.page(at.acme, EVENTS, Query(), limit=3, order=OLDEST_FIRST)
        await at.put({}, {})
        second = await at.search.page(at.acme, EVENTS, Query(), limit=10, order=OLDEST_FIRST, start=first.next)
        assert seqs(first) + seqs(second) == list(range(7))


async def test_times_of_lost_records_do_not_order_those_of_a_restored_log() -> None:
    async with desk() as at:
        await at.put(*[{"occurred_at": f"2026-02-0{day}T00:00:00Z"} for day in (1, 2, 3)])
        await at.index_all()
        at.store.restore(at.acme, EVENTS, 1)
        await at.put({"occurred_at": "2026-02-08T00:00:00Z"}, {"occurred_at": "2026-02-09T00:00:00Z"})
        await at.index_all()
        query = asked(("actor", "tester"))
        assert await everything(at, at.search, query, limit=2, order=parse_order("-occurred_at", None)) == [2, 1, 0]


@pytest.mark.parametrize(
    ("sort", "order", "text"),
    [
        (None, None, "-received_at"),
        (None, "desc", "-received_at"),
        (None, "asc", "received_at"),
        ("occurred_at", None, "occurred_at"),
        ("occurred_at", "desc", "-occurred_at"),
        ("-occurred_at", None, "-occurred_at"),
    ],
)
def test_sort_and_order_name_the_field_and_the_direction(sort: str | None, order: str | None, text: str) -> None:
    assert str(parse_order(sort, order)) == text


@pytest.mark.parametrize(
    ("sort", "order"), [("seq", None), ("", None), ("occurred_at", "up"), ("-occurred_at", "asc"), (None, "")]
)
def test_sort_and_order_refuse_what_they_do_not_know(sort: str | None, order: str | None) -> None:
    with refused(Code.INVALID_PARAMETER):
        parse_order(sort, order)


async def test_cursor_is_valid_for_its_own_list_only() -> None:
    async with desk() as at:
        query = asked(("actor", "a"), ("q", "x y"))
        start = Start(3, datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC), 2**40, 2**41)
        mine = ListQuery(at.acme, EVENTS, query)
        token = write_cursor(start, mine)
        assert token.isascii()
        assert read_cursor(token, mine) == start
        others = [
            msgspec.structs.replace(mine, tenant=at.rival),
            msgspec.structs.replace(mine, log=LogName.ACCESS),
            msgspec.structs.replace(mine, query=Query()),
            msgspec.structs.replace(mine, query=asked(("actor", "b"), ("q", "x y"))),
            msgspec.structs.replace(mine, order=OLDEST_FIRST),
            msgspec.structs.replace(mine, after="5"),
        ]
        for other in others:
            with refused(Code.INVALID_CURSOR, "other filters"):
                read_cursor(token, other)


@given(
    st.one_of(
        st.text(max_size=60),
        st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", min_size=50, max_size=50),
    )
)
@settings(deadline=None)
def test_read_cursor_rejects_other_texts(token: str) -> None:
    at = Desk()
    with refused(Code.INVALID_CURSOR):
        read_cursor(token, ListQuery(at.acme, EVENTS, Query()))


# -- counting


async def test_buckets_are_ordered_by_time_then_by_count() -> None:
    async with desk(indexed=False) as at:
        await at.put(
            *[
                {"action": action, "occurred_at": f"2026-01-0{day}T00:00:00Z"}
                for action, day in [("b", 2), ("a", 1), ("b", 1), ("b", 1)]
            ]
        )
        counted = await at.search.count(at.acme, EVENTS, Query(), Grouping(("action",), "day"))
        assert [(bucket.key, bucket.start and bucket.start.day, bucket.count) for bucket in counted.buckets] == [
            (("b",), 1, 2),
            (("a",), 1, 1),
            (("b",), 2, 1),
        ]
        assert counted.total == 4


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("parameters", [[], [("q", "happened")]])
async def test_count_refuses_too_many_buckets(
    monkeypatch: pytest.MonkeyPatch, indexed: bool, parameters: list[tuple[str, str]]
) -> None:
    for module in ("index_reader", "record_reader"):
        monkeypatch.setattr(f"decklog.services.search.{module}.BUCKETS_MAX", 3)
    async with desk(indexed=indexed) as at:
        await at.put(*[{"action": f"happened.{number}"} for number in range(3)])
        await at.index_all()
        assert (await at.search.count(at.acme, EVENTS, asked(*parameters), Grouping(("action",)))).total == 3
        await at.put({"action": "happened.more"})  # three buckets by the index and one by Postgres
        with refused(Code.TOO_MANY_BUCKETS):
            await at.search.count(at.acme, EVENTS, asked(*parameters), Grouping(("action",)))


# -- walking


async def test_walk_ends_at_its_bound_while_records_arrive() -> None:
    async with desk() as at:
        await at.put(*[{} for _ in range(5)])
        found: list[int] = []
        async for batch in at.search.walk(at.acme, EVENTS, Query(), end=5):
            found += seqs(batch)
            await at.put({})
        assert found == [0, 1, 2, 3, 4]


async def test_walk_continues_in_postgres_when_the_index_goes_away() -> None:
    async with desk() as at:
        await at.put(*[{"message": "needle" if number % 2 else "hay"} for number in range(2_100)])
        await at.index_all()
        found: list[int] = []
        async for batch in at.search.walk(at.acme, EVENTS, asked(("q", "needle")), end=2_100):
            found += seqs(batch)
            at.index.failing = AWAY
        assert found == list(range(1, 2_100, 2))


async def test_walk_yields_small_batches_of_large_records() -> None:
    async with desk(indexed=False) as at:
        for _ in range(10):
            await at.put(*[{"metadata": "x" * 60_000} for _ in range(100)])
        sizes = [len(batch) async for batch in at.search.walk(at.acme, EVENTS, Query(), end=1_000)]
        assert sum(sizes) == 1_000
        assert all(size <= 40 for size in sizes[1:])


async def test_wait_ends_when_the_index_finds_the_record_or_after_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_reader, "WAIT_SECONDS_MAX", 0.3)
    async with desk() as at:
        await at.put({}, {})
        waiting = asyncio.create_task(at.search.wait(at.acme, EVENTS, 1))
        await asyncio.sleep(0)
        assert not waiting.done()
        await at.index_all()
        await asyncio.wait_for(waiting, 5)
        await at.search.wait(at.acme, EVENTS, 0)
        asked = (("wait", "7"), ("actor", "tester"))
        _, _, page = await at.reading.list(at.principal(), REQUEST, asked)
        assert [record.seq for record in page.items] == [1, 0]
        assert (await at.reading.stats(at.principal(), REQUEST, asked)).total == 2
        with refused(Code.INVALID_PARAMETER, "wait"):
            await at.reading.list(at.principal(), REQUEST, (("wait", "soon"),))
        await Search(at.store).wait(at.acme, EVENTS, 10**9)


async def test_waits_are_bounded_by_tenant_and_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_reader, "WAITS_PER_TENANT_MAX", 2)
    monkeypatch.setattr(index_reader, "WAITS_MAX", 3)
    async with desk() as at:
        waiting = [
            asyncio.create_task(at.search.wait(tenant, EVENTS, 5)) for tenant in (at.acme, at.acme, at.acme, at.rival, at.rival)
        ]
        done, pending = await asyncio.wait(waiting, timeout=0.2)
        assert (len(done), len(pending)) == (2, 3)
        for each in pending:
            each.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        assert at.search._index._waiting.total() == 0
