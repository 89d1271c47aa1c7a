"""Filters of terms in PostgreSQL: reading with them finds what reading without them finds, and reads less."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decklog.domain.consumers import FILTERER
from decklog.domain.errors import DecklogError
from decklog.domain.log import LogName, Span
from decklog.domain.records.append import Appended, AppendRequest
from decklog.domain.records.record import Prepared
from decklog.domain.search import term_filters as domain
from decklog.domain.search.query import Query, matches, parse
from decklog.domain.search.term_filters import TermFilter
from decklog.domain.tenant import Isolation, Tenant
from decklog.services.following.follow import Follower
from decklog.services.following.lines import Ended
from decklog.services.search.search import Search
from decklog.timescale.connection import WORKER_ROLE, Pool
from decklog.timescale.records import term_filters
from decklog.timescale.records.extents import Window
from decklog.timescale.records.records import PostgresRecords
from decklog.timescale.records.term_filters import PostgresTermFilters
from decklog.workers.consumers.filterer import Filterer
from tests.support.examples import examples
from tests.support.records import prepared
from tests.support.stores import VARIANTS, Database, drop_database, new_database
from tests.support.strategies import cases, terms_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
EVENTS = LogName.EVENTS
KINDS = [(variant, isolation) for variant in VARIANTS for isolation in Isolation]


class World:
    """A database with a tenant, its store, and the consumer that makes filters."""

    def __init__(self, database: Database, isolation: Isolation, store: PostgresRecords, pool: Pool) -> None:
        self.database = database
        self.isolation = isolation
        self.store = store
        self.filters = PostgresTermFilters(pool)
        self.kept: Tenant | None = None

    async def tenant(self) -> Tenant:
        """A new tenant; a Shared one beside the earlier ones."""
        return await self.database.tenant(isolation=self.isolation)

    async def put(self, tenant: Tenant, *found: Prepared) -> int:
        """Append records and return the first number."""
        [result] = await self.store.append([AppendRequest(tenant, EVENTS, found)])
        assert isinstance(result, Appended)
        return result.receipts[0].seq

    async def follow(self, tenant: Tenant, *, batch: int = 1_000) -> None:
        cursors = await self.database.cursors()
        follower = Follower(FILTERER, self.store, cursors, Filterer(self.filters), batch_records_max=batch)
        assert await follower.advance(tenant, EVENTS) is Ended.DONE

    async def found(self, tenant: Tenant, query: Query, *, newest_first: bool = True, limit: int = 50) -> list[int]:
        search = Search(self.store, timeout=60)
        head = await self.store.head(tenant, EVENTS)
        if newest_first:
            page = await search.page(tenant, EVENTS, query, limit=limit)
            return [record.seq for record in page.items]
        return [item.seq async for part in search.walk(tenant, EVENTS, query, end=head.next_seq) for item in part]

    async def parts(self, tenant: Tenant, query: Query, span: Span) -> list[Span]:
        """The parts of a span that filters do not exclude, newest first."""
        windows = self.filters.narrowed(
            tenant, EVENTS, query, [Window(span, None, None)], newest_first=True, ends_at=time.monotonic() + 60
        )
        return [part async for window in windows for part in (window.parts or (window.span,))]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1].value}")
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    variant, isolation = request.param
    database = await new_database(request.getfixturevalue(f"{variant}_server"))
    yield World(database, isolation, await database.records(), await database.pool(WORKER_ROLE))
    await drop_database(database)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look filters up for the shortest span, in many statements, and make small blocks."""
    monkeypatch.setattr(term_filters, "_WORTH", 0)
    monkeypatch.setattr(term_filters, "_NEAR", 0)
    monkeypatch.setattr(term_filters, "_ROWS_FIRST", 1)
    monkeypatch.setattr(domain, "BLOCK_RECORDS_MAX", 2)


def words(*texts: str) -> list[Prepared]:
    return [prepared(message=text) for text in texts]


def q(text: str, **others: str) -> Query:
    return parse([("q", text), *others.items()])[1]


@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(case=cases(most=8), covered=st.integers(0, 8), batch=st.integers(1, 4))
async def test_search_with_filters_finds_what_the_matcher_decides(
    world: World, always: None, case: tuple[list[Prepared], Query], covered: int, batch: int
) -> None:
    """Some records have filters, and the newest have none yet."""
    tenant = world.kept = world.kept or await world.tenant()
    made, query = case
    if made[:covered]:
        await world.put(tenant, *made[:covered])
    await world.follow(tenant, batch=batch)
    if made[covered:]:
        await world.put(tenant, *made[covered:])
    head = (await world.store.head(tenant, EVENTS)).next_seq
    first = head - len(made)
    expected = [first + number for number, item in enumerate(made) if matches(query, terms_of(item))]
    found = await world.found(tenant, query, limit=len(made))
    assert [seq for seq in found if seq >= first] == expected[::-1]
    assert [seq for seq in await world.found(tenant, query, newest_first=False) if seq >= first] == expected


async def test_search_for_a_rare_word_reads_few_records(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = await world.tenant()
    chance = random.Random(5)
    texts = [f"seen {chance.getrandbits(64):x} {chance.getrandbits(64):x}" for _ in range(3_000)]
    texts[17] += " needle"
    texts[1_500] += " needle"
    await world.put(tenant, *words(*texts))
    spans: list[int] = []
    read = PostgresRecords._read_window

    async def counting(self: Any, tenant: Tenant, log: LogName, query: Query, window: Window, *args: Any, **kw: Any) -> Any:
        spans.append(sum(part.end - part.first for part in window.parts or (window.span,)))
        return await read(self, tenant, log, query, window, *args, **kw)

    monkeypatch.setattr(PostgresRecords, "_read_window", counting)
    assert await world.found(tenant, q("needle")) == [1_500, 17]
    assert sum(spans) >= 3_000
    await world.follow(tenant)
    for query, expected in ((q("needle"), [1_500, 17]), (q("needle seen"), [1_500, 17]), (q("needle absent"), []), (q("kk"), [])):
        spans.clear()
        assert await world.found(tenant, query) == expected
        assert sum(spans) <= 600, f"{spans} for {query.text}"
        assert await world.found(tenant, query, newest_first=False) == expected[::-1]
    spans.clear()
    assert await world.found(tenant, q("seen"), limit=20) == list(range(2_999, 2_979, -1))
    assert len(spans) == 1


async def test_search_does_not_leave_out_what_no_filter_of_this_version_covers(
    world: World, always: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = await world.tenant()
    await world.put(tenant, *words(*["other"] * 20))
    await world.follow(tenant)
    assert await world.parts(tenant, q("needle"), Span(0, 20)) == []
    relation = f'"{tenant.schema}".term_filters'
    await world.database.execute(f"DELETE FROM {relation} WHERE tenant_id = $1 AND first_seq IN (0, 8, 10)", tenant.id)
    await world.database.execute(f"UPDATE {relation} SET version = 0 WHERE tenant_id = $1 AND first_seq = 16", tenant.id)
    assert await world.parts(tenant, q("needle"), Span(0, 20)) == [Span(16, 18), Span(8, 12), Span(0, 2)]
    assert await world.parts(tenant, q("needle"), Span(1, 17)) == [Span(16, 17), Span(8, 12), Span(1, 2)]
    assert await world.parts(tenant, q("needle"), Span(2, 8)) == []
    assert await world.parts(tenant, q("needle"), Span(2, 30)) == [Span(20, 30), Span(16, 18), Span(8, 12)]
    # A second time from the first record on, as after a loss: in other batches, so with other blocks.
    await world.database.execute("UPDATE decklog.cursors SET next_seq = 0 WHERE tenant_id = $1", tenant.id)
    await world.follow(tenant, batch=3)
    assert await world.parts(tenant, q("needle"), Span(0, 20)) == []
    assert len(await world.parts(tenant, q("other"), Span(0, 20))) >= 1
    blocks = await world.database.execute(f"SELECT first_seq, end_seq FROM {relation} WHERE tenant_id = $1 ORDER BY 1", tenant.id)
    assert [seq for block in blocks for seq in range(*block)] == list(range(20))


async def test_filters_of_a_tenant_are_out_of_reach_of_others_and_of_statements(world: World, always: None) -> None:
    tenant, other = await world.tenant(), await world.tenant()
    for each in (tenant, other):
        await world.put(each, *words("one", "two"))
        await world.follow(each)
    relation = f'"{tenant.schema}".term_filters'
    with pytest.raises(DecklogError) as refused:
        await PostgresTermFilters(await world.database.pool()).add(tenant, EVENTS, [_filter(0, 1)])
    assert isinstance(refused.value.__cause__, asyncpg.InsufficientPrivilegeError), "the API must not hide records"
    service = await asyncpg.connect(world.database.service_dsn)
    try:
        if world.isolation is Isolation.SHARED:
            assert await service.fetchval(f"SELECT count(*) FROM {relation}") == 0
            await service.execute("SELECT set_config('decklog.tenants', $1, false)", str(tenant.id))
            assert {row[0] for row in await service.fetch(f"SELECT tenant_id FROM {relation}")} == {tenant.id}
        for statement in (
            f"DELETE FROM {relation}",
            f"UPDATE {relation} SET end_seq = end_seq",
            f"INSERT INTO {relation} SELECT * FROM {relation}",
            f"TRUNCATE {relation}",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await service.execute(statement)
    finally:
        await service.close()


def _filter(first: int, end: int) -> TermFilter:
    return TermFilter(first, end, 1, bytes(16))


@pytest.mark.parametrize("made", [[_filter(0, 3)], [_filter(5, 6)], [_filter(-1, 1)], [_filter(1, 1)]], ids=str)
async def test_filters_of_records_that_do_not_exist_are_refused(world: World, always: None, made: Sequence[TermFilter]) -> None:
    tenant = await world.tenant()
    await world.put(tenant, *words("one", "two"))
    with pytest.raises(Exception, match="database") as refused:
        await world.filters.add(tenant, EVENTS, made)
    assert isinstance(refused.value.__cause__, asyncpg.InvalidParameterValueError | asyncpg.CheckViolationError)
    assert await world.found(tenant, q("two")) == [1]


async def test_search_goes_on_in_a_schema_without_the_relation(world: World, always: None) -> None:
    tenant = await world.tenant()
    await world.put(tenant, *words("one", "two"))
    await world.database.execute(f'ALTER TABLE "{tenant.schema}".term_filters RENAME TO elsewhere')
    try:
        assert await world.found(tenant, q("two")) == [1]
    finally:
        await world.database.execute(f'ALTER TABLE "{tenant.schema}".elsewhere RENAME TO term_filters')
