"""Conformance of `RecordStore`, `Cursors` and `Announcements`: in memory, and on both servers in both isolations.

What columns decide of a query is what `domain.search.query.matches` decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decklog.domain.consumers import Cursors
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName, Span
from decklog.domain.records.append import Appended, AppendRequest, Status
from decklog.domain.records.idempotency import KeyBinding
from decklog.domain.records.record import Prepared, StoredRecord
from decklog.domain.search.calendar import HALF_HOUR_ZONES, INTERVALS, start_of, zone_of
from decklog.domain.search.fields import COUNTABLE, FIELDS, Field
from decklog.domain.search.query import Query, matches, parse
from decklog.domain.search.stats import Grouping
from decklog.domain.search.terms import Terms, terms
from decklog.domain.store import READ_BYTES_MAX, Announcements, FollowedStore, Reading
from decklog.domain.tenant import Isolation, Tenant
from tests.support.examples import examples
from tests.support.fields import example, without_content
from tests.support.memory import make_tenant
from tests.support.memory_index import bucket_of
from tests.support.memory_store import MemoryAnnouncements, MemoryCursors, MemoryStore
from tests.support.stores import VARIANTS, Database, drop_database, new_database
from tests.support.strategies import CHANGES, ZONES, cases, prepared, records, terms_of

EVENTS, ACCESS = LogName.EVENTS, LogName.ACCESS
EVERYTHING = Query()
END = 10**12
KINDS = ("memory", *(f"{variant}-{isolation.value}" for variant in VARIANTS for isolation in Isolation))

pytestmark = pytest.mark.asyncio(loop_scope="module")
slow_examples = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
)


class Cell:
    """A store with its cursors, announcements and a factory of tenants.

    `used`: schemas of the running test's tenants. `free`: schemas of earlier tests, given to new tenants because relations take long to
    create.
    """

    def __init__(
        self,
        store: FollowedStore,
        cursors: Cursors,
        announcements: Callable[[], Awaitable[Announcements]],
        tenant: Callable[..., Awaitable[Tenant]],
    ) -> None:
        self.store = store
        self.cursors = cursors
        self.announcements = announcements
        self.tenant = tenant
        self.used: list[str] = []
        self.free: list[str] = []
        self._kept: Tenant | None = None

    async def kept_tenant(self) -> Tenant:
        """Return one tenant for all examples of a property: each appends after those before it."""
        if self._kept is None:
            self._kept = await self.tenant()
            self.used.clear()
        return self._kept

    async def put(self, tenant: Tenant, *found: Prepared, log: LogName = EVENTS, **options: Any) -> Appended:
        """Append records that must be accepted."""
        [result] = await self.store.append([AppendRequest(tenant, log, found, **options)])
        assert isinstance(result, Appended), result
        return result

    async def refused(self, tenant: Tenant, *found: Prepared, log: LogName = EVENTS, **options: Any) -> DecklogError:
        [result] = await self.store.append([AppendRequest(tenant, log, found, **options)])
        assert isinstance(result, DecklogError), result
        return result

    async def refusal(self, tenant: Tenant, *found: Prepared, **options: Any) -> Code:
        return (await self.refused(tenant, *found, **options)).code

    async def read(self, tenant: Tenant, **changes: Any) -> tuple[list[StoredRecord], int | None]:
        asked = {"query": EVERYTHING, "limit": 1_000, "newest_first": False, "timeout": 30.0, **changes}
        span = Span(asked.pop("first", 0), asked.pop("end", END))
        return await self.store.read(tenant, asked.pop("log", EVENTS), span, **asked)

    async def read_all(self, tenant: Tenant, **changes: Any) -> list[StoredRecord]:
        """Return all records, over as many continuations as the store needs."""
        found: list[StoredRecord] = []
        while True:
            some, onwards = await self.read(tenant, **changes)
            found += some
            if onwards is None:
                return found
            changes["end" if changes.get("newest_first") else "first"] = onwards

    async def count(self, tenant: Tenant, **changes: Any) -> dict[tuple[tuple[str | None, ...], datetime | None], int]:
        asked = {"query": EVERYTHING, "limit": 1_000, "timeout": 30.0, **changes}
        span = Span(asked.pop("first", 0), asked.pop("end", END))
        grouping = Grouping(asked.pop("by", ()), asked.pop("interval", None), asked.pop("tz", "UTC"))
        found = await self.store.count(tenant, asked.pop("log", EVENTS), span, grouping=grouping, **asked)
        assert len({(bucket.key, bucket.start) for bucket in found}) == len(found)
        return {(bucket.key, bucket.start): bucket.count for bucket in found}


def _memory() -> Cell:
    store, announcements = MemoryStore(scan_max=7), MemoryAnnouncements()

    async def tenant(**options: Any) -> Tenant:
        made = make_tenant(f"tenant-{id(object())}")
        per_second, burst = options.get("per_second"), options.get("burst", 0)
        window = timedelta(seconds=options.get("dedup_seconds", 86_400))
        quotas = {name: options[name] for name in ("events_per_day", "queries_per_minute", "storage_used_up") if name in options}
        store.register(made, events_per_second=per_second, burst=burst, dedup_window=window, **quotas)
        return made

    async def same() -> Announcements:
        return announcements

    return Cell(store, MemoryCursors(store), same, tenant)


async def _real(database: Database, isolation: Isolation) -> Cell:
    free: list[str] = []
    used: list[str] = []

    async def tenant(**options: Any) -> Tenant:
        made = await database.tenant(isolation=isolation, schema=free.pop() if free else None, **options)
        used.append(made.schema)
        return made

    real = Cell(await database.records(), await database.cursors(), database.announcements, tenant)
    real.free, real.used = free, used
    return real


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def kind(request: pytest.FixtureRequest) -> AsyncIterator[Cell | None]:
    """The real store on each server for each isolation, with pools that its tests share; None for the store in memory."""
    if request.param == "memory":
        yield None
        return
    variant, _, isolation = request.param.partition("-")
    database = await new_database(request.getfixturevalue(f"{variant}_server"))
    yield await _real(database, Isolation(isolation))
    await drop_database(database)


@pytest.fixture
def cell(kind: Cell | None) -> Iterator[Cell]:
    """A store for new tenants. Those of earlier tests may have used the same relations."""
    if kind is None:
        yield _memory()
        return
    yield kind
    kind.free += dict.fromkeys(kind.used)
    kind.used.clear()


def record(**fields: Any) -> Prepared:
    return prepared({"action": "a", "actor": {"id": "alice"}, "occurred_at": "2026-01-01T00:00:00Z", **fields})


def seqs(found: list[StoredRecord]) -> list[int]:
    return [item.seq for item in found]


def stored_terms(item: StoredRecord) -> Terms:
    return terms(msgspec.json.decode(item.content))


def filtered(*parameters: tuple[str, str]) -> Query:
    return parse(parameters)[1]


@contextmanager
def refused(code: Code) -> Iterator[None]:
    with pytest.raises(DecklogError) as error:
        yield
    assert error.value.code is code


# -- appending


async def test_new_log_has_an_empty_head(cell: Cell) -> None:
    tenant = await cell.tenant()
    head = await cell.store.head(tenant, EVENTS)
    assert (head.epoch, head.next_seq) == (1, 0)
    assert head.received_at <= datetime.now(UTC)


async def test_records_are_read_back_unchanged_in_gapless_order(cell: Cell) -> None:
    tenant = await cell.tenant()
    made = [record(action=f"a{number}", metadata={"big": 2**70, "n": number, "\u212a": "\U0001f984"}) for number in range(20)]
    first = await cell.put(tenant, *made[:13])
    second = await cell.put(tenant, *made[13:])
    receipts = [*first.receipts, *second.receipts]
    assert [receipt.status for receipt in receipts] == [Status.STORED] * 20
    assert [receipt.seq for receipt in receipts] == list(range(20))
    found = await cell.read_all(tenant)
    assert [item.content.encode() for item in found] == [item.content for item in made]
    for item, receipt in zip(found, receipts, strict=True):
        assert (item.epoch, item.seq, item.received_at, item.digest) == (
            receipt.epoch,
            receipt.seq,
            receipt.received_at,
            receipt.digest,
        )
        assert hashlib.sha256(item.content.encode()).digest() == item.digest
    times = [item.received_at for item in found]
    assert times == sorted(times)
    head = await cell.store.head(tenant, EVENTS)
    assert (head.next_seq, head.received_at) == (20, times[-1])


async def test_each_log_of_each_tenant_has_its_own_numbers(cell: Cell) -> None:
    one, other = await cell.tenant(), await cell.tenant()
    requests = sorted(
        [(tenant, log) for tenant in (one, other) for log in (EVENTS, ACCESS)], key=lambda item: (item[0].id, item[1])
    )
    results = await cell.store.append(
        [AppendRequest(tenant, log, [record(action=f"{tenant.id}-{log.text}")]) for tenant, log in requests]
    )
    assert all(isinstance(result, Appended) and result.receipts[0].seq == 0 for result in results)
    for tenant, log in requests:
        (found,) = await cell.read_all(tenant, log=log)
        assert f'"action":"{tenant.id}-{log.text}"' in found.content
        assert seqs(await cell.store.fetch(tenant, log, [0, 1, 2])) == [0]


async def test_same_id_with_same_content_returns_the_first_record(cell: Cell) -> None:
    tenant = await cell.tenant()
    first = (await cell.put(tenant, record(id="x", message="same"))).receipts[0]
    await cell.put(tenant, record(id="y"))
    again = (await cell.put(tenant, record(id="x", message="same"))).receipts[0]
    assert again.status is Status.DUPLICATE
    assert (again.epoch, again.seq, again.received_at, again.digest) == (first.epoch, first.seq, first.received_at, first.digest)
    assert (await cell.store.head(tenant, EVENTS)).next_seq == 2


async def test_same_id_with_other_content_is_a_conflict(cell: Cell) -> None:
    tenant = await cell.tenant()
    first = (await cell.put(tenant, record(id="x", message="one"))).receipts[0]
    other = await cell.put(tenant, record(id="x", message="two"), record(id="z"))
    assert [receipt.status for receipt in other.receipts] == [Status.CONFLICT, Status.STORED]
    assert (other.receipts[0].seq, other.receipts[0].digest) == (first.seq, first.digest)
    assert len(await cell.read_all(tenant)) == 2


async def test_id_is_independent_in_each_log_and_tenant(cell: Cell) -> None:
    tenant, other = await cell.tenant(), await cell.tenant()
    await cell.put(tenant, record(id="x", message="one"))
    assert (await cell.put(tenant, record(id="x", message="two"), log=ACCESS)).receipts[0].status is Status.STORED
    assert (await cell.put(other, record(id="x", message="three"))).receipts[0].status is Status.STORED


async def test_id_is_free_again_after_the_dedup_window(cell: Cell) -> None:
    tenant = await cell.tenant(dedup_seconds=0)
    await cell.put(tenant, record(id="x", message="one"))
    assert (await cell.put(tenant, record(id="x", message="two"))).receipts[0].status is Status.STORED


def bound(tenant: Tenant, key: str, content: str) -> KeyBinding:
    return KeyBinding(tenant.id, key.encode().rjust(16), content.encode().rjust(16))


async def test_key_of_a_bulk_belongs_to_its_first_content_per_tenant(cell: Cell) -> None:
    tenant, other = await cell.tenant(), await cell.tenant()
    asked = [bound(tenant, "b", "one"), bound(other, "b", "two"), bound(tenant, "a", "two")]
    assert await cell.store.bind_keys(asked) == [True, True, True]
    assert await cell.store.bind_keys([bound(tenant, "b", "two"), *asked, bound(tenant, "a", "one")]) == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert await cell.store.bind_keys([bound(make_tenant("unknown"), "b", "one")]) == [True]


async def test_key_of_a_bulk_belongs_to_one_of_many_contents_at_once(cell: Cell) -> None:
    tenant = await cell.tenant()
    found = await asyncio.gather(*(cell.store.bind_keys([bound(tenant, "k", f"{n % 3}")]) for n in range(12)))
    assert sum(each == [True] for each in found) == 4


async def test_atomic_request_with_a_conflict_stores_nothing_and_leaves_no_gap(cell: Cell) -> None:
    tenant = await cell.tenant()
    await cell.put(tenant, record(id="x", message="one"))
    made = [record(id="p"), record(id="x", message="two"), record(id="q")]
    failed = await cell.put(tenant, *made, atomic=True)
    assert not failed.stored
    assert failed.receipts[1].status is Status.CONFLICT
    assert failed.receipts[1].seq == 0
    assert (await cell.put(tenant, record(id="p"))).receipts[0].seq == 1
    assert len(await cell.read_all(tenant)) == 2


async def test_more_than_the_burst_is_refused_and_access_records_are_exempt(cell: Cell) -> None:
    tenant = await cell.tenant(per_second=1, burst=3)
    assert await cell.refusal(tenant, *[record() for _ in range(4)]) is Code.BATCH_EXCEEDS_BURST
    done = await cell.put(tenant, *[record() for _ in range(3)])
    assert done.rate is not None
    assert done.rate.burst == 3
    assert done.rate.remaining < 1
    assert await cell.refusal(tenant, record(), record()) is Code.RATE_LIMITED
    assert len((await cell.put(tenant, *[record() for _ in range(9)], log=ACCESS, metered=False)).receipts) == 9
    assert (await cell.store.head(tenant, EVENTS)).next_seq == 3


async def test_day_quota_counts_new_records_only(cell: Cell) -> None:
    tenant = await cell.tenant(events_per_day=4)
    await cell.put(tenant, record(id="x"), record(id="y"))
    await cell.put(tenant, record(id="x"), record(id="y"), record(id="z"))
    error = await cell.refused(tenant, record(), record())
    assert error.code is Code.QUOTA_EXCEEDED
    assert error.retry_after is not None
    assert 0 < error.retry_after <= 86_400
    await cell.put(tenant, record())
    assert await cell.refusal(tenant, record()) is Code.QUOTA_EXCEEDED
    assert await cell.refusal(tenant, record(id="x"), record(id="new")) is Code.QUOTA_EXCEEDED
    assert (await cell.put(tenant, record(id="x"))).receipts[0].status is Status.DUPLICATE
    assert len((await cell.put(tenant, *[record() for _ in range(9)], log=ACCESS)).receipts) == 9
    assert (await cell.store.head(tenant, EVENTS)).next_seq == 4


async def test_first_since_returns_the_first_of_a_receipt_time_or_the_next_number(cell: Cell) -> None:
    tenant = await cell.tenant()
    long_ago, later = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
    assert [await cell.store.first_since(tenant, EVENTS, at, timeout=30) for at in (long_ago, later)] == [0, 0]
    for count in (3, 1, 4):
        await cell.put(tenant, *[record() for _ in range(count)])
    found, _ = await cell.store.read(tenant, EVENTS, Span(0, 8), query=Query(), limit=9, newest_first=False, timeout=30)
    times = [each.received_at for each in found]
    for moment in {moment + timedelta(microseconds=step) for moment in times for step in (-1, 0, 1)} | {long_ago, later}:
        expected = next((number for number, time in enumerate(times) if time >= moment), 8)
        assert await cell.store.first_since(tenant, EVENTS, moment, timeout=30) == expected


async def test_first_received_returns_the_oldest_of_these_days_or_the_next_number(cell: Cell) -> None:
    tenant = await cell.tenant()
    for number in (0, 3):
        assert [await cell.store.first_received(tenant, EVENTS, days=days, timeout=30) for days in (0, 1)] == [number, 0]
        await cell.put(tenant, record(), record(), record())
    assert await cell.store.first_received(tenant, ACCESS, days=1, timeout=30) == 0


@pytest.mark.parametrize("per_day", [0, 4])
async def test_used_up_storage_refuses_events_but_not_access_records(cell: Cell, per_day: int) -> None:
    full, free = await cell.tenant(storage_used_up=True, events_per_day=per_day), await cell.tenant()
    for ids in ((None, None), ("x", "y"), (None, "z"), ("w", None)):
        requests = [AppendRequest(full, EVENTS, [record(id=ids[0])]), AppendRequest(free, EVENTS, [record(id=ids[1])])]
        of_full, of_free = await cell.store.append(requests)
        assert isinstance(of_free, Appended)
        assert isinstance(of_full, DecklogError)
        assert of_full.code is Code.QUOTA_EXCEEDED
        assert "spec.quotas.storageGiB" in of_full.detail
        assert of_full.retry_after == 300
    assert await cell.refusal(full, record(), record()) is Code.QUOTA_EXCEEDED
    for metered in (True, False):
        assert (await cell.put(full, record(), log=ACCESS, metered=metered)).receipts[0].status is Status.STORED
    assert (await cell.store.head(full, EVENTS)).next_seq == 0
    assert (await cell.store.head(free, EVENTS)).next_seq == 4


async def test_full_day_of_one_tenant_does_not_affect_its_group(cell: Cell) -> None:
    full, free = await cell.tenant(events_per_day=1), await cell.tenant()
    await cell.put(full, record(id="x"))
    for ids in ((None, None), ("x", "y"), ("z", "w")):
        requests = [AppendRequest(full, EVENTS, [record(id=ids[0])]), AppendRequest(free, EVENTS, [record(id=ids[1])])]
        of_full, of_free = await cell.store.append(requests)
        assert isinstance(of_free, Appended)
        if ids[0] == "x":
            assert isinstance(of_full, Appended)
            assert of_full.receipts[0].status is Status.DUPLICATE
        else:
            assert isinstance(of_full, DecklogError)
            assert of_full.code is Code.QUOTA_EXCEEDED
    assert (await cell.store.head(full, EVENTS)).next_seq == 1
    assert (await cell.store.head(free, EVENTS)).next_seq == 3


async def test_queries_have_their_own_bucket_and_other_access_records_none(cell: Cell) -> None:
    tenant = await cell.tenant(queries_per_minute=2, per_second=1_000, burst=1_000)
    other = await cell.tenant(per_second=1, burst=1)
    for left in (1, 0):
        rate = (await cell.put(tenant, record(), log=ACCESS)).rate
        assert rate is not None
        assert (rate.of, rate.burst, int(rate.remaining)) == ("query", 2, left)
    error = await cell.refused(tenant, record(), log=ACCESS)
    assert error.code is Code.RATE_LIMITED
    assert "2 queries per minute" in error.detail
    assert error.retry_after is not None
    assert 0 < error.retry_after <= 30
    assert (await cell.put(tenant, *[record() for _ in range(9)], log=ACCESS, metered=False)).rate is None
    assert (await cell.put(tenant, *[record() for _ in range(9)])).rate is not None
    assert (await cell.put(other, *[record() for _ in range(9)], log=ACCESS)).rate is None


async def test_refused_request_does_not_affect_its_group(cell: Cell) -> None:
    limited, free = await cell.tenant(per_second=1, burst=1), await cell.tenant()
    requests = [AppendRequest(limited, EVENTS, [record(), record()]), AppendRequest(free, EVENTS, [record()])]
    refusal, result = await cell.store.append(sorted(requests, key=lambda item: item.tenant.id))
    assert isinstance(refusal, DecklogError)
    assert isinstance(result, Appended)
    assert await cell.read_all(limited) == []
    assert len(await cell.read_all(free)) == 1


async def test_unknown_tenant_has_no_log(cell: Cell) -> None:
    unknown = msgspec.structs.replace(await cell.tenant(), id=9_000_000)
    assert await cell.refusal(unknown, record()) is Code.NOT_FOUND
    with refused(Code.NOT_FOUND):
        await cell.store.head(unknown, EVENTS)


@given(made=st.lists(records(), min_size=1, max_size=8))
@settings(slow_examples, max_examples=examples(25))
async def test_generated_records_are_read_back_with_their_digests(cell: Cell, made: list[Prepared]) -> None:
    tenant = await cell.kept_tenant()
    appended = await cell.put(tenant, *made)
    first = appended.receipts[0].seq
    found = await cell.read_all(tenant, first=first)
    assert [(item.content.encode(), item.digest) for item in found] == [(item.content, item.digest) for item in made]


# -- reading


@pytest.mark.parametrize("newest_first", [False, True])
async def test_read_keeps_to_its_range_and_continues(cell: Cell, newest_first: bool) -> None:
    tenant = await cell.tenant()
    await cell.put(tenant, *[record(severity="ERROR" if number % 3 == 0 else "INFO") for number in range(40)])
    wanted = [number for number in range(5, 33) if number % 3 == 0]
    found = await cell.read_all(
        tenant, first=5, end=33, limit=4, newest_first=newest_first, query=filtered(("severity", "ERROR"))
    )
    assert seqs(found) == (wanted[::-1] if newest_first else wanted)


@pytest.mark.parametrize("newest_first", [False, True])
async def test_read_ends_with_the_record_that_fills_it(cell: Cell, newest_first: bool) -> None:
    tenant = await cell.tenant()
    large = [record(metadata={"large": "ä" * 100_000}) for _ in range(20)]  # twice as many bytes
    for start in range(0, 60, 20):
        await cell.put(tenant, *large, *([record()] if start == 20 else []))
    numbers = list(range(61))[:: -1 if newest_first else 1]
    fetched = await cell.store.fetch(tenant, EVENTS, numbers[::-1], newest_first=newest_first)
    assert seqs(fetched) == numbers[: len(fetched)]
    held = [len(each.content.encode()) for each in fetched]
    assert sum(held[:-1]) < READ_BYTES_MAX <= sum(held)
    assert await cell.read_all(tenant, newest_first=newest_first) == await fetched_all(cell, tenant, numbers)
    if not isinstance(cell.store, MemoryStore):  # which reads only a few rows at once
        assert (await cell.read(tenant, newest_first=newest_first))[0] == fetched


async def fetched_all(cell: Cell, tenant: Tenant, numbers: list[int]) -> list[StoredRecord]:
    return [found for number in numbers for found in await cell.store.fetch(tenant, EVENTS, [number])]


@given(
    times=st.lists(st.integers(0, 5), min_size=1, max_size=20),
    limit=st.integers(1, 7),
    newest_first=st.booleans(),
    room=st.just(READ_BYTES_MAX) | st.integers(1, 1_000),
)
@settings(slow_examples, max_examples=examples(60))
async def test_read_by_time_orders_by_the_time_of_the_event_and_then_by_number(
    cell: Cell, times: list[int], limit: int, newest_first: bool, room: int
) -> None:
    tenant = await cell.kept_tenant()
    made = [record(occurred_at=f"2026-01-01T00:00:00.00000{time}Z", severity="ERROR" if time % 2 else "INFO") for time in times]
    first = (await cell.put(tenant, *made)).receipts[0].seq
    query = filtered(("severity", "ERROR"))
    wanted = sorted((time, first + number) for number, time in enumerate(times) if time % 2)
    span, found, after = Span(first, first + len(made)), [], None
    while True:
        placed, after = await cell.store.read_by_time(
            tenant,
            EVENTS,
            span,
            query=query,
            after=after,
            limit=limit,
            newest_first=newest_first,
            timeout=20,
            bytes_max=room,
        )
        assert len(placed) <= limit
        assert all(place.seq == item.seq for place, item in placed)
        found += [(place.occurred_at.microsecond, place.seq) for place, _ in placed]
        if after is None:
            break
    assert found == wanted[:: -1 if newest_first else 1]


async def test_read_of_an_empty_range_has_no_continuation(cell: Cell) -> None:
    tenant = await cell.tenant()
    await cell.put(tenant, record())
    assert await cell.read(tenant, first=1) == ([], None)
    assert await cell.read(tenant, first=1, end=1) == ([], None)
    assert await cell.read(tenant, end=0, newest_first=True) == ([], None)
    assert await cell.count(tenant, first=1) == {}


async def test_fetch_ignores_numbers_without_records(cell: Cell) -> None:
    tenant = await cell.tenant()
    await cell.put(tenant, record(), record(), record())
    assert seqs(await cell.store.fetch(tenant, EVENTS, [2, 0, 99, 10**15])) == [2, 0]
    assert seqs(await cell.store.fetch(tenant, EVENTS, [2, 0, 99], newest_first=False)) == [0, 2]
    assert await cell.store.fetch(tenant, EVENTS, []) == []


@given(case=cases())
@settings(slow_examples, max_examples=examples(120))
async def test_read_decides_queries_as_the_matcher(cell: Cell, case: tuple[list[Prepared], Query]) -> None:
    made, query = case
    tenant = await cell.kept_tenant()
    first = (await cell.put(tenant, *made)).receipts[0].seq
    wanted = [first + number for number, item in enumerate(made) if matches(query, terms_of(item))]
    for newest_first in (False, True):
        found = await cell.read_all(tenant, query=query, first=first, end=first + len(made), newest_first=newest_first)
        if not query.needs_content:
            assert seqs(found) == (wanted[::-1] if newest_first else wanted)
        # Words and fields only narrow the result; the matcher decides the rest.
        decided = [item.seq for item in found if matches(query, stored_terms(item))]
        assert decided == (wanted[::-1] if newest_first else wanted)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.parameter)
async def test_store_finds_the_example_of_each_field(cell: Cell, field: Field) -> None:
    tenant = await cell.kept_tenant()
    query, found, other = example(field)
    place = (await cell.put(tenant, other, found)).receipts[1].seq
    read = await cell.read_all(tenant, query=query, first=place - 1)
    assert [item.seq for item in read if matches(query, stored_terms(item))] == [place]
    if not query.needs_content:
        assert seqs(read) == [place]
        assert await cell.count(tenant, query=query, first=place - 1) == {((), None): 1}


LONG = "x" * 600
WIDE = "\u20ac" * 700
"""More bytes than a column keeps as a whole."""


@pytest.mark.parametrize(
    ("value", "parameter", "found"),
    [
        ({"actor": {"id": LONG}}, ("actor", LONG), True),
        ({"actor": {"id": LONG}}, ("actor", LONG[:512]), False),
        ({"actor": {"id": LONG}}, ("actor", LONG + "y"), False),
        ({"actor": {"id": WIDE}}, ("actor", WIDE), True),
        ({"actor": {"id": WIDE}}, ("actor", WIDE[:-1] + "$"), False),
        ({"resource": {"type": "t", "id": LONG}}, ("resource_id", LONG[:550]), False),
        ({"session_id": LONG}, ("session_id", LONG[:550]), False),
        ({"correlation_id": LONG}, ("correlation_id", LONG[:550]), False),
        ({"action": "user.\U0010ffff\U0010ffff!"}, ("action", "user.*"), True),
        ({"action": "user.\U0010ffff"}, ("action", "user.\U0010ffff*"), True),
        ({"action": "user%login"}, ("action", "user_*"), False),
        ({"action": "User.login"}, ("action", "user.*"), False),
        ({"action": "anything"}, ("action", "*"), True),
        ({"source": {"ip": "::ffff:192.0.2.9"}}, ("ip", "192.0.2.0/24"), True),
        ({"source": {"ip": "192.0.2.9"}}, ("ip", "::ffff:192.0.2.0/120"), True),
        ({"source": {"ip": "192.0.2.9"}}, ("ip", "::/0"), False),
        ({"source": {"ip": "2001:db8::1"}}, ("ip", "0.0.0.0/0"), False),
        ({"source": {"ip": "fe80::1%eth0"}}, ("ip", "fe80::/10"), True),
        ({"source": {"ip": "075.050.255.67"}}, ("ip", "75.50.255.67"), False),
        ({"occurred_at": "2026-01-01T00:00:00.000001Z"}, ("from", "2026-01-01T00:00:00.000001Z"), True),
        ({"occurred_at": "2026-01-01T00:00:00.000001Z"}, ("to", "2026-01-01T00:00:00.000001Z"), False),
        ({"metadata": {"a": {"b": [{"c": 2**70}]}}}, ("metadata.a.b.c", str(2**70)), True),
        ({"metadata": {"a": 1.0}}, ("metadata.a", "1"), True),
        ({"metadata": {"a": True}}, ("metadata.a", "true"), True),
        ({"metadata": {"a": 'say "no"\n\\'}}, ("metadata.a", 'say "no"\n\\'), True),
        ({"metadata": {"password": "hunter2"}}, ("metadata.password", "hunter2"), False),
        ({"message": "Stra\u00dfe \u212a9"}, ("q", "stra\u00dfe K9"), True),
        ({"message": "\u0391\u03a3"}, ("q", "\u03b1\u03c2"), True),
        ({"message": "\n\u03a3"}, ("q", "\u03c3"), True),
        ({"message": "a\u0130b"}, ("q", "a\u0130B"), True),
        ({"message": "w" * 70}, ("q", "w" * 70), True),
        ({"message": "w" * 70}, ("q", "w" * 64), False),
    ],
)
async def test_read_handles_the_traps_of_each_engine(
    cell: Cell, value: dict[str, Any], parameter: tuple[str, str], found: bool
) -> None:
    tenant = await cell.kept_tenant()
    made, query = record(**value), filtered(parameter)
    assert matches(query, terms_of(made)) is found
    place = (await cell.put(tenant, made)).receipts[0].seq
    read = await cell.read_all(tenant, query=query, first=place)
    assert [item.seq for item in read if matches(query, stored_terms(item))] == ([place] if found else [])
    if not query.needs_content:
        assert seqs(read) == ([place] if found else [])
        assert await cell.count(tenant, query=query, first=place) == ({((), None): 1} if found else {})


async def test_count_groups_long_values_as_a_whole(cell: Cell) -> None:
    tenant = await cell.tenant()
    await cell.put(tenant, record(actor={"id": LONG}), record(actor={"id": LONG + "y"}), record(actor={"id": LONG[:511]}))
    assert await cell.count(tenant, by=("actor",)) == {((LONG,), None): 1, ((LONG + "y",), None): 1, ((LONG[:511],), None): 1}


@pytest.mark.parametrize(
    "bounds",
    [
        [("from", "0001-01-01T00:00:00Z")],
        [("from", "0001-01-01T00:00:00+14:00")],
        [("to", "9999-12-31T23:59:59-14:00")],
        [("from", "0001-01-01T00:00:00Z"), ("to", "9999-12-31T23:59:59.999999999Z")],
    ],
)
async def test_read_accepts_the_ends_of_time_as_bounds(cell: Cell, bounds: list[tuple[str, str]]) -> None:
    tenant = await cell.tenant()
    await cell.put(tenant, record(occurred_at="0002-01-01T00:00:00Z"), record())
    assert seqs(await cell.read_all(tenant, query=filtered(*bounds))) == [0, 1]


async def test_read_and_count_are_refused_after_their_timeout(cell: Cell) -> None:
    tenant = await cell.tenant()
    for _ in range(4):
        await cell.put(tenant, *[record(metadata={"text": "lorem ipsum " * 500}) for _ in range(300)])
    if isinstance(cell.store, MemoryStore):
        cell.store.seconds_per_read = 1.0
    with refused(Code.SEARCH_UNAVAILABLE):
        await cell.read(tenant, query=filtered(("q", "nothing-like-this")), timeout=0.001)
    with refused(Code.SEARCH_UNAVAILABLE):
        await cell.count(tenant, query=filtered(("q", "nothing-like-this")), by=("action",), timeout=0.0001)


# -- counting


@given(
    case=cases(),
    by=st.lists(st.sampled_from(list(COUNTABLE)), max_size=2, unique=True).map(tuple),
    interval=st.none() | st.sampled_from(INTERVALS),
)
@settings(slow_examples, max_examples=examples(80))
async def test_count_equals_counting_terms(
    cell: Cell, case: tuple[list[Prepared], Query], by: tuple[str, ...], interval: str | None
) -> None:
    made, query = case
    query = without_content(query)
    tenant = await cell.kept_tenant()
    first = (await cell.put(tenant, *made)).receipts[0].seq
    found = await cell.count(tenant, query=query, first=first, end=first + len(made), by=by, interval=interval)
    assert found == Counter(bucket_of(terms_of(item), Grouping(by, interval)) for item in made if matches(query, terms_of(item)))


@pytest.mark.parametrize("tz", ZONES)
async def test_count_by_intervals_of_a_time_zone_agrees_with_the_calendar(cell: Cell, tz: str) -> None:
    tenant = await cell.tenant()
    await cell.put(tenant, *(record(occurred_at=moment.isoformat()) for moment in CHANGES))
    for interval in (each for each in INTERVALS if each != "hour" or tz not in HALF_HOUR_ZONES):
        found = await cell.count(tenant, interval=interval, tz=tz)
        assert found == Counter(((), start_of(interval, moment, zone_of(tz))) for moment in CHANGES), interval


@given(case=cases(), names=st.lists(st.sampled_from(list(COUNTABLE)), min_size=1, unique=True))
@settings(slow_examples, max_examples=examples(40))
async def test_facets_equal_counting_terms(cell: Cell, case: tuple[list[Prepared], Query], names: list[str]) -> None:
    made, query = case
    query = without_content(query)
    tenant = await cell.kept_tenant()
    first = (await cell.put(tenant, *made)).receipts[0].seq
    span = Span(first, first + len(made))
    found = await cell.store.facets(tenant, EVENTS, span, query=query, names=names, limit=100, timeout=20)
    for name, buckets in zip(names, found, strict=True):
        matching = (terms_of(item) for item in made if matches(query, terms_of(item)))
        assert {(bucket.key, bucket.start): bucket.count for bucket in buckets} == Counter(
            bucket_of(item, Grouping((name,))) for item in matching
        )


async def test_facets_refuse_too_many_values(cell: Cell) -> None:
    tenant = await cell.tenant()
    await cell.put(tenant, *[record(action=f"a{number}") for number in range(5)])
    span = Span(0, 5)
    names = ["outcome", "action"]
    found = await cell.store.facets(tenant, EVENTS, span, query=Query(), names=names, limit=5, timeout=20)
    assert [len(buckets) for buckets in found] == [1, 5]
    with refused(Code.TOO_MANY_BUCKETS):
        await cell.store.facets(tenant, EVENTS, span, query=Query(), names=names, limit=4, timeout=20)


async def test_count_refuses_too_many_buckets(cell: Cell) -> None:
    tenant = await cell.tenant()
    await cell.put(tenant, *[record(action=f"a{number}") for number in range(5)])
    assert len(await cell.count(tenant, by=("action",), limit=5)) == 5
    with refused(Code.TOO_MANY_BUCKETS):
        await cell.count(tenant, by=("action",), limit=4)


async def test_count_without_grouping_is_one_number(cell: Cell) -> None:
    tenant = await cell.tenant()
    assert await cell.count(tenant) == {}
    await cell.put(tenant, record(), record())
    assert await cell.count(tenant) == {((), None): 2}


# -- cursors


async def test_cursor_begins_at_zero_and_moves_by_compare_and_set(cell: Cell) -> None:
    tenant = await cell.tenant()
    await cell.put(tenant, *(record() for _ in range(9)))  # no cursor passes its head
    assert await cell.cursors.next_seq("c", tenant.id, EVENTS) == 0
    cursor = await cell.cursors.lease("c", tenant.id, EVENTS, owner="me", seconds=30)
    assert cursor is not None
    assert (cursor.next_seq, cursor.owner, cursor.tenant_id, cursor.log) == (0, "me", tenant.id, EVENTS)
    moved = await cell.cursors.move(cursor, 5, seconds=30)
    assert moved is not None
    assert moved.next_seq == 5
    assert await cell.cursors.move(cursor, 9, seconds=30) is None  # the cursor has moved
    assert await cell.cursors.next_seq("c", tenant.id, EVENTS) == 5
    assert await cell.cursors.next_seq("other", tenant.id, EVENTS) == 0
    assert await cell.cursors.next_seq("c", tenant.id, ACCESS) == 0
    assert await cell.cursors.next_seqs(["other", "c"], tenant.id, EVENTS) == [0, 5]


async def test_lease_excludes_others_until_released_or_expired(cell: Cell) -> None:
    tenant = await cell.tenant()
    mine = await cell.cursors.lease("c", tenant.id, EVENTS, owner="me", seconds=30)
    assert mine is not None
    assert await cell.cursors.lease("c", tenant.id, EVENTS, owner="you", seconds=30) is None
    assert await cell.cursors.lease("c", tenant.id, EVENTS, owner="me", seconds=30) == mine
    await cell.cursors.release(mine)
    yours = await cell.cursors.lease("c", tenant.id, EVENTS, owner="you", seconds=0.0)
    assert yours is not None
    assert await cell.cursors.move(mine, 3, seconds=30) is None
    await cell.cursors.release(mine)  # no effect, the lease is not mine any more
    again = await cell.cursors.lease("c", tenant.id, EVENTS, owner="me", seconds=30)  # yours has expired
    assert again is not None
    assert again.next_seq == 0
    assert await cell.cursors.move(yours, 3, seconds=30) is None


async def test_behind_lists_unleased_logs_furthest_behind_first(cell: Cell) -> None:
    little, much = await cell.tenant(), await cell.tenant()
    await cell.put(little, record())
    await cell.put(much, *[record() for _ in range(5)])
    mine = {little.id, much.id}

    async def behind() -> list[tuple[int, LogName, int, int]]:
        found = await cell.cursors.behind("c", limit=1_000)
        return [(item.tenant_id, item.log, item.next_seq, item.head_seq) for item in found if item.tenant_id in mine]

    assert await behind() == [(much.id, EVENTS, 0, 5), (little.id, EVENTS, 0, 1)]
    assert len(await cell.cursors.behind("c", limit=1)) == 1
    cursor = await cell.cursors.lease("c", much.id, EVENTS, owner="me", seconds=30)
    assert cursor is not None
    assert await behind() == [(little.id, EVENTS, 0, 1)]
    moved = await cell.cursors.move(cursor, 2, seconds=30)
    assert moved is not None
    await cell.cursors.release(moved)
    assert await behind() == [(much.id, EVENTS, 2, 5), (little.id, EVENTS, 0, 1)]
    cursor = await cell.cursors.lease("c", much.id, EVENTS, owner="me", seconds=30)
    assert cursor is not None
    moved = await cell.cursors.move(cursor, 5, seconds=30)
    assert moved is not None
    await cell.cursors.release(moved)
    assert await behind() == [(little.id, EVENTS, 0, 1)]


async def test_lease_all_takes_what_is_behind_and_free(cell: Cell) -> None:
    mine, theirs, empty = await cell.tenant(), await cell.tenant(), await cell.tenant()
    await cell.put(mine, record(), record())
    await cell.put(mine, record(), log=ACCESS)
    await cell.put(theirs, record())
    assert await cell.cursors.lease("c", theirs.id, EVENTS, owner="you", seconds=30)
    logs = [(theirs.id, EVENTS), (mine.id, EVENTS), (mine.id, ACCESS), (empty.id, EVENTS), (2**40, EVENTS)]
    found = {standing.cursor.key: standing for standing in await cell.cursors.lease_all("c", logs, owner="me", seconds=30)}
    assert {key: (each.cursor.owner, each.cursor.next_seq, each.head_seq, each.behind) for key, each in found.items()} == {
        (theirs.id, EVENTS): ("", 0, 1, True),
        (mine.id, EVENTS): ("me", 0, 2, True),
        (mine.id, ACCESS): ("me", 0, 1, True),
        (empty.id, EVENTS): ("", 0, 0, False),
    }
    assert await cell.cursors.lease("c", mine.id, ACCESS, owner="you", seconds=30) is None
    assert await cell.cursors.lease("c", empty.id, EVENTS, owner="you", seconds=30)
    assert await cell.cursors.lease_all("c", [], owner="me", seconds=30) == []


async def test_move_all_moves_each_cursor_by_itself_and_ends_leases_at_the_head(cell: Cell) -> None:
    tenants = [await cell.tenant() for _ in range(4)]
    for tenant in tenants:
        await cell.put(tenant, record(), record(), record())
    standings = await cell.cursors.lease_all("c", [(tenant.id, EVENTS) for tenant in tenants], owner="me", seconds=30)
    cursors = {standing.cursor.tenant_id: standing.cursor for standing in standings}
    whole, part, stale, stolen = tenants
    assert await cell.cursors.move(cursors[stale.id], 1, seconds=30)
    await cell.cursors.release(cursors[stolen.id])
    assert await cell.cursors.lease("c", stolen.id, EVENTS, owner="you", seconds=30)
    moved = await cell.cursors.move_all([(cursors[tenant.id], 2 if tenant is part else 3) for tenant in tenants], seconds=30)
    assert {each.cursor.tenant_id: (each.cursor.next_seq, each.cursor.owner, each.head_seq) for each in moved} == {
        whole.id: (3, "", 3),
        part.id: (2, "me", 3),
    }
    assert [await cell.cursors.next_seq("c", tenant.id, EVENTS) for tenant in tenants] == [3, 2, 1, 0]
    assert await cell.cursors.lease("c", whole.id, EVENTS, owner="you", seconds=30)
    assert await cell.cursors.lease("c", part.id, EVENTS, owner="you", seconds=30) is None
    [cursor] = [each.cursor for each in moved if each.cursor.owner]
    [at_head] = await cell.cursors.move_all([(cursor, 3)], seconds=30)
    assert at_head.cursor.owner == ""


async def test_renew_all_and_release_all_affect_only_leases_that_are_still_held(cell: Cell) -> None:
    kept, lost = await cell.tenant(), await cell.tenant()
    for tenant in (kept, lost):
        await cell.put(tenant, record())
    standings = await cell.cursors.lease_all("c", [(kept.id, EVENTS), (lost.id, EVENTS)], owner="me", seconds=0.0)
    cursors = [standing.cursor for standing in standings]
    assert await cell.cursors.lease("c", lost.id, EVENTS, owner="you", seconds=30)
    assert await cell.cursors.renew_all(cursors, seconds=30) == {(kept.id, EVENTS)}
    assert await cell.cursors.lease("c", kept.id, EVENTS, owner="you", seconds=30) is None
    await cell.cursors.release_all(cursors)
    assert await cell.cursors.lease("c", kept.id, EVENTS, owner="you", seconds=30)
    assert await cell.cursors.lease("c", lost.id, EVENTS, owner="me", seconds=30) is None


# -- several logs at once


async def neighbours(cell: Cell, count: int) -> list[Tenant]:
    """Return tenants whose records are in one relation: one tenant where it has its own."""
    tenants = [await cell.tenant() for _ in range(count)]
    return [tenant for tenant in tenants if tenant.schema == tenants[0].schema]


async def test_read_logs_returns_the_records_of_each_log(cell: Cell) -> None:
    tenants = await neighbours(cell, 3)
    logs = [(tenant, log) for tenant in tenants for log in LogName]
    for number, (tenant, log) in enumerate(logs):
        await cell.put(tenant, *(record(action=f"{tenant.name}.{log.text}.{seq}") for seq in range(number * 3)), log=log)
    heads = await cell.store.heads([(tenant.id, log) for tenant, log in logs])
    wanted = [
        Reading(tenant, log, Span(min(2, 3 * n), heads[tenant.id, log].next_seq), 4) for n, (tenant, log) in enumerate(logs)
    ]
    found = await cell.store.read_logs(wanted, timeout=30)
    for reading, (some, onward) in zip(wanted, found, strict=True):
        end = min(reading.span.first + 4, reading.span.end)
        assert [each.seq for each in some] == list(range(reading.span.first, end))
        assert onward == end
        assert all(f"{reading.tenant.name}.{reading.log.text}.{each.seq}" in each.content for each in some)


async def test_read_logs_gives_every_log_a_record_before_any_gets_more(cell: Cell) -> None:
    [tenant, *others] = await neighbours(cell, 3)
    readings = [Reading(tenant, EVENTS, Span(0, 5), 5), Reading(tenant, ACCESS, Span(0, 2), 5)]
    await cell.put(tenant, *(record(message="x" * 5_000) for _ in range(5)))
    await cell.put(tenant, record(), record(), log=ACCESS)
    for other in others:
        await cell.put(other, record())
        readings.append(Reading(other, EVENTS, Span(0, 1), 5))

    async def numbers(bytes_max: int) -> list[tuple[int, int]]:
        found = await cell.store.read_logs(readings, timeout=30, bytes_max=bytes_max)
        return [(len(some), onward) for some, onward in found]

    # The first record of the first log fills the bytes by itself, and is returned anyway.
    assert await numbers(1) == [(1, 1), (0, 0), *[(0, 0)] * len(others)]
    assert await numbers(7_500) == [(2, 2), (1, 1), *[(1, 1)] * len(others)]
    assert await numbers(10**6) == [(5, 5), (2, 2), *[(1, 1)] * len(others)]


# -- announcements


async def test_announcement_reaches_every_process(cell: Cell) -> None:
    tenant = await cell.tenant()
    one, other = await cell.announcements(), await cell.announcements()
    heard: dict[str, set[tuple[int, LogName, int]]] = {"one": set(), "other": set()}
    news = asyncio.Event()

    def listener(name: str) -> Callable[[int, LogName, int], None]:
        def listen(tenant_id: int, log: LogName, next_seq: int) -> None:
            heard[name].add((tenant_id, log, next_seq))
            news.set()

        return listen

    one.subscribe(listener("one"))
    stop = other.subscribe(listener("other"))
    expected_news = (tenant.id, ACCESS, 7)
    async with asyncio.timeout(20):
        while not all(expected_news in found for found in heard.values()):
            # Announcements are lost while a listener connects, so repeat them.
            one.announce(*expected_news)
            news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), 0.5)
    stop()
    stop()  # harmless
