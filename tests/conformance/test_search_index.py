"""`SearchIndex`: the real index and the one in memory find and count what `domain.search.query.matches` decides."""

from __future__ import annotations

import itertools
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName, Span
from decklog.domain.records.record import Prepared
from decklog.domain.search.calendar import HALF_HOUR_ZONES, INTERVALS, start_of, zone_of
from decklog.domain.search.fields import COUNTABLE, FIELDS, Field
from decklog.domain.search.order import Place
from decklog.domain.search.query import Query, matches, parse
from decklog.domain.search.stats import Bucket, Grouping
from decklog.domain.search.terms import Terms, parse_network
from decklog.domain.store import SearchIndex
from decklog.domain.tenant import Isolation, State, Tenant
from decklog.opensearch.client import connect
from decklog.opensearch.search import OpenSearchIndex
from decklog.settings import Search
from tests.backends import OpenSearchServer
from tests.support.asked import asked
from tests.support.documents import documents, made
from tests.support.examples import examples
from tests.support.fields import example
from tests.support.generations import generation, living, make_indices, remove_indices
from tests.support.memory_index import MemoryIndex, bucket_of
from tests.support.strategies import CHANGES, NETWORKS, NOW, ZONES, cases, terms_of

EVERYTHING = Query()
EVENTS = LogName.EVENTS
STARTS = (date(2026, 1, 1), date(2026, 3, 1), date(2026, 5, 1))
_numbers = itertools.count(1)


class Indices:
    """One shared index with isolated tenants."""

    def __init__(self, index: SearchIndex, name: str) -> None:
        self.index = index
        self.name = name

    def tenant(self) -> Tenant:
        number = next(_numbers)
        made = Tenant(number, f"tenant-{number}", Isolation.SHARED, "shared_30", self.name, self.name, 30, State.ACTIVE)
        return living(made, *STARTS)

    async def holding(self, *records: Terms, log: LogName = EVENTS) -> Tenant:
        """A new tenant whose index holds these records, findable."""
        tenant = self.tenant()
        await self.index.add(tenant, documents(tenant, records, log=log))
        await self.index.refresh(tenant)
        return tenant

    async def find(self, tenant: Tenant, query: Query = EVERYTHING, **changes: Any) -> list[int]:
        asked = {"limit": 100, "newest_first": False, **changes}
        span = Span(asked.pop("first", 0), asked.pop("end", 1_000_000))
        return await self.index.find(tenant, asked.pop("log", EVENTS), span, query=query, **asked)

    async def count(
        self,
        tenant: Tenant,
        query: Query = EVERYTHING,
        *,
        by: tuple[str, ...] = (),
        interval: str | None = None,
        tz: str = "UTC",
        limit: int = 1_000,
    ) -> list[Bucket]:
        return await self.index.count(
            tenant, EVENTS, Span(0, 1_000_000), query=query, grouping=Grouping(by, interval, tz), limit=limit
        )


@pytest.fixture(params=["memory", "opensearch"])
async def indices(request: pytest.FixtureRequest) -> AsyncIterator[Indices]:
    name = f"decklog-test-{uuid.uuid4().hex}"
    if request.param == "memory":
        yield Indices(MemoryIndex(), name)
        return
    server: OpenSearchServer = request.getfixturevalue("opensearch_server")
    async with AsyncExitStack() as stack:
        client = connect(Search(url=server.url))
        stack.push_async_callback(client.close)
        await make_indices(client, generation(name, *STARTS))
        stack.push_async_callback(remove_indices, client, name)
        yield Indices(OpenSearchIndex(client), name)


LAWS = settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@LAWS
@given(case=cases(most=12), newest_first=st.booleans())
async def test_find_agrees_with_the_matcher(indices: Indices, case: tuple[list[Prepared], Query], newest_first: bool) -> None:
    records, query = [terms_of(record) for record in case[0]], case[1]
    tenant = await indices.holding(*records)
    expected = [seq for seq, item in enumerate(records) if matches(query, item)]
    found = await indices.find(tenant, query, newest_first=newest_first)
    assert found == (expected[::-1] if newest_first else expected)


@LAWS
@given(case=cases(most=12), limit=st.integers(1, 5), newest_first=st.booleans())
async def test_find_by_time_orders_as_the_matcher_and_continues_after_a_place(
    indices: Indices, case: tuple[list[Prepared], Query], limit: int, newest_first: bool
) -> None:
    records, query = [terms_of(record) for record in case[0]], case[1]
    tenant = await indices.holding(*records)
    wanted = [Place(item.occurred_at, seq) for seq, item in enumerate(records) if matches(query, item)]
    found: list[Place] = []
    while len(found) % limit == 0:
        after = found[-1] if found else None
        page = await indices.index.find_by_time(
            tenant, EVENTS, Span(0, 100), query=query, after=after, limit=limit, newest_first=newest_first
        )
        found += page
        if not page:
            break
    assert found == sorted(wanted, reverse=newest_first)


@LAWS
@given(
    case=cases(most=12),
    by=st.lists(st.sampled_from(list(COUNTABLE)), max_size=2, unique=True).map(tuple),
    interval=st.one_of(st.none(), st.sampled_from(INTERVALS)),
)
async def test_count_agrees_with_the_matcher(
    indices: Indices, case: tuple[list[Prepared], Query], by: tuple[str, ...], interval: str | None
) -> None:
    records, query = [terms_of(record) for record in case[0]], case[1]
    tenant = await indices.holding(*records)
    expected = Counter(bucket_of(item, Grouping(by, interval)) for item in records if matches(query, item))
    buckets = await indices.count(tenant, query, by=by, interval=interval)
    assert {(bucket.key, bucket.start): bucket.count for bucket in buckets} == expected
    assert len(buckets) == len(expected)


@pytest.mark.parametrize("tz", ZONES)
async def test_count_by_intervals_of_a_time_zone_agrees_with_the_calendar(indices: Indices, tz: str) -> None:
    tenant = await indices.holding(*(made(occurred_at=moment.isoformat()) for moment in CHANGES))
    for interval in (each for each in INTERVALS if each != "hour" or tz not in HALF_HOUR_ZONES):
        expected = Counter(start_of(interval, moment, zone_of(tz)) for moment in CHANGES)
        buckets = await indices.count(tenant, interval=interval, tz=tz)
        assert {bucket.start: bucket.count for bucket in buckets} == expected, interval


@pytest.mark.parametrize("tz", ZONES)
@pytest.mark.parametrize("ends", [False, True])
async def test_timeline_of_a_range_agrees_with_the_calendar(indices: Indices, tz: str, ends: bool) -> None:
    """The newest record occurs after now, so an open range ends where no interval is known."""
    later = datetime.now(UTC) + timedelta(days=40)
    for middle in CHANGES[:: len(CHANGES) // 3]:
        moments = [middle + timedelta(hours=hours) for hours in (-50, -25, -2, -1, 0, 1, 23, 47)]
        moments += [] if ends else [later]
        tenant = await indices.holding(*(replace(made(occurred_at=NOW.isoformat()), occurred_at=moment) for moment in moments))
        since, until = moments[1], moments[7] if ends else None
        query = parse([("from", since.isoformat()), *([("to", until.isoformat())] if until else [])])[1]
        for interval in (each for each in INTERVALS if each != "hour" or tz not in HALF_HOUR_ZONES):
            wanted = [moment for moment in moments if moment >= since and (until is None or moment < until)]
            expected = Counter(start_of(interval, moment, zone_of(tz)) for moment in wanted)
            buckets = await indices.count(tenant, query, interval=interval, tz=tz)
            assert {bucket.start: bucket.count for bucket in buckets} == expected, (interval, middle)


@LAWS
@given(case=cases(most=12))
async def test_facets_agree_with_the_matcher(indices: Indices, case: tuple[list[Prepared], Query]) -> None:
    records, query = [terms_of(record) for record in case[0]], case[1]
    tenant = await indices.holding(*records)
    names = tuple(COUNTABLE)
    found = await indices.index.facets(tenant, EVENTS, Span(0, 100), query=query, names=names, limit=100)
    for name, buckets in zip(names, found, strict=True):
        expected = Counter(bucket_of(item, Grouping((name,))) for item in records if matches(query, item))
        assert {(bucket.key, bucket.start): bucket.count for bucket in buckets} == expected


async def test_facets_refuse_more_values_than_the_limit(indices: Indices) -> None:
    tenant = await indices.holding(*(made(action=f"a{number}") for number in range(5)))
    for limit, complete in ((5, True), (4, False)):
        asked = indices.index.facets(tenant, EVENTS, Span(0, 100), query=EVERYTHING, names=("outcome", "action"), limit=limit)
        if complete:
            assert [len(buckets) for buckets in await asked] == [1, 5]
        else:
            with pytest.raises(DecklogError) as error:
                await asked
            assert error.value.code is Code.TOO_MANY_BUCKETS


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.parameter)
async def test_find_and_count_find_the_example_of_each_field(indices: Indices, field: Field) -> None:
    query, found, other = example(field)
    tenant = await indices.holding(terms_of(other), terms_of(found))
    assert await indices.find(tenant, query) == [1]
    assert await indices.count(tenant, query) == [Bucket((), None, 1)]


@LAWS
@given(
    count=st.integers(0, 40),
    limit=st.integers(1, 12),
    bounds=st.tuples(st.integers(0, 45), st.integers(0, 45)),
    down=st.booleans(),
)
async def test_find_returns_ordered_numbers_within_span_and_limit(
    indices: Indices, count: int, limit: int, bounds: tuple[int, int], down: bool
) -> None:
    tenant = await indices.holding(*[made()] * count)
    first, end = bounds
    within = list(range(first, min(end, count)))
    found = await indices.find(tenant, first=first, end=end, limit=limit, newest_first=down)
    assert found == (within[::-1] if down else within)[:limit]


@pytest.mark.parametrize("network", [network for network in NETWORKS if parse_network(network)])
async def test_find_by_network_agrees_with_the_matcher(indices: Indices, network: str) -> None:
    addresses = ("192.0.2.1", "::ffff:192.0.2.1", "::192.0.2.1", "2001:db8::1", "::1", "::", "fe80::1%eth0", "0.0.0.0", "no")
    records = [made(source={"ip": address}) for address in addresses] + [made()]
    tenant = await indices.holding(*records)
    query = asked(f"ip:{network}")
    assert await indices.find(tenant, query) == [seq for seq, item in enumerate(records) if matches(query, item)]


async def test_find_finds_every_leaf_of_a_record_with_very_many(indices: Indices) -> None:
    key, count = "k" * 200, 20_000
    tenant = await indices.holding(made(), made(metadata={key: list(range(count))}))
    for number, found in ((0, [1]), (count - 1, [1]), (count, [])):
        for parameter in ((f"metadata.{key}", str(number)), ("q", str(number))):
            assert await indices.find(tenant, parse([parameter])[1]) == found


async def test_find_never_returns_another_tenant_or_log(indices: Indices) -> None:
    one = await indices.holding(made(), made(), made())
    other = await indices.holding(made(outcome="denied"))
    await indices.index.add(one, documents(one, [made(outcome="failure")], log=LogName.ACCESS))
    await indices.index.refresh(one)
    assert await indices.find(one) == [0, 1, 2]
    assert await indices.find(one, log=LogName.ACCESS) == [0]
    assert await indices.find(other) == [0]
    assert await indices.count(other, by=("outcome",)) == [Bucket(("denied",), None, 1)]
    assert await indices.count(one) == [Bucket((), None, 3)]


async def test_add_is_idempotent(indices: Indices) -> None:
    tenant = indices.tenant()
    same = documents(tenant, [made()] * 5)
    for part in (same, same[2:], same[:1]):
        await indices.index.add(tenant, part)
    await indices.index.refresh(tenant)
    assert await indices.find(tenant) == [0, 1, 2, 3, 4]
    assert await indices.count(tenant, by=("actor",)) == [Bucket(("alice",), None, 5)]


async def test_documents_of_all_ranges_are_found_and_older_ones_are_left_out(indices: Indices) -> None:
    tenant = indices.tenant()
    times = (*STARTS, STARTS[0] - timedelta(days=1), STARTS[1] - timedelta(days=1), date(2030, 1, 1))
    for seq, day in enumerate(times):
        moment = datetime(day.year, day.month, day.day, 23, 59, tzinfo=UTC)
        written = [replace(each, received_at=moment) for each in documents(tenant, [made()], first=seq)]
        await indices.index.add(tenant, written)
    await indices.index.refresh(tenant)
    assert await indices.find(tenant) == [0, 1, 2, 4, 5]
    assert await indices.count(tenant) == [Bucket((), None, 5)]


async def test_documents_are_findable_only_after_a_refresh(indices: Indices) -> None:
    tenant = await indices.holding(made())
    await indices.index.add(tenant, documents(tenant, [made()], first=1))
    assert await indices.find(tenant) == [0]
    await indices.index.refresh(tenant)
    assert await indices.find(tenant) == [0, 1]


async def test_count_refuses_more_buckets_than_the_limit(indices: Indices) -> None:
    tenant = await indices.holding(*(made(actor={"id": f"actor {number}"}) for number in range(7)))
    assert len(await indices.count(tenant, by=("actor",), limit=7)) == 7
    with pytest.raises(DecklogError) as refused:
        await indices.count(tenant, by=("actor",), limit=6)
    assert refused.value.code is Code.TOO_MANY_BUCKETS


async def test_time_bounds_are_exact_to_the_microsecond(indices: Indices) -> None:
    moment = datetime(2026, 1, 1, 12, 0, 0, 500_000, tzinfo=UTC)
    micro = timedelta(microseconds=1)
    tenant = await indices.holding(*(made(occurred_at=(moment + n * micro).isoformat()) for n in (-1, 0, 1)))
    assert await indices.find(tenant, asked(f"from:{moment.isoformat()}")) == [1, 2]
    assert await indices.find(tenant, asked(f"to:{moment.isoformat()}")) == [0]
    assert await indices.find(tenant, asked(f"from:{moment.isoformat()} to:{(moment + micro).isoformat()}")) == [1]


async def test_find_returns_more_numbers_than_one_page_of_the_server(indices: Indices) -> None:
    tenant, total = indices.tenant(), 10_050
    terms = made()
    await indices.index.add(tenant, documents(tenant, [terms] * total))
    await indices.index.refresh(tenant)
    assert await indices.find(tenant, limit=20_000) == list(range(total))
    assert await indices.find(tenant, limit=10_001, newest_first=True) == list(range(total - 1, total - 10_002, -1))


async def test_count_continues_over_pages_of_the_server(indices: Indices) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    tenant, total = indices.tenant(), 10_050
    one = made()
    many = [msgspec.structs.replace(one, occurred_at=start + timedelta(minutes=n // 2)) for n in range(2 * total)]
    await indices.index.add(tenant, documents(tenant, many))
    await indices.index.refresh(tenant)
    buckets = await indices.count(tenant, by=("severity",), interval="minute", limit=total)
    assert sorted(bucket.start for bucket in buckets if bucket.start) == [start + timedelta(minutes=n) for n in range(total)]
    assert {bucket.count for bucket in buckets} == {2}
