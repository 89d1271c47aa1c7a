"""Appending on real servers: one order per log, safe retries, exact limits, least rights."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName, Span
from decklog.domain.records.append import Appended, AppendRequest, Status
from decklog.domain.search.query import Query
from decklog.domain.tenancy.registered import HeadSettings
from decklog.domain.tenant import Isolation, State, Tenant
from decklog.timescale.connection import SERVICE_ROLE, WORKER_ROLE, Pool
from decklog.timescale.control.heads import ensure_heads, observe_heads
from decklog.timescale.records.keeper import PostgresKeeper
from decklog.timescale.records.records import PostgresRecords
from tests.support.examples import examples
from tests.support.memory_store import MemoryStore
from tests.support.records import prepared
from tests.support.stores import Database, freeze_clock

ISOLATIONS = list(Isolation)
TODAY = datetime.now(UTC).date()


async def one(store: PostgresRecords, request: AppendRequest) -> Appended:
    [result] = await store.append([request])
    assert isinstance(result, Appended), result
    return result


async def refusal(store: PostgresRecords, request: AppendRequest) -> DecklogError:
    [result] = await store.append([request])
    assert isinstance(result, DecklogError), result
    return result


def events(tenant: Tenant, *ids: str | None, **options: bool) -> AppendRequest:
    return AppendRequest(tenant, LogName.EVENTS, [prepared(id=key) for key in ids], **options)


async def stored(store: PostgresRecords, tenant: Tenant, log: LogName = LogName.EVENTS) -> list[int]:
    records, _ = await store.read(tenant, log, Span(0, 10**9), query=Query(), limit=10**6, newest_first=False, timeout=30)
    for record in records:
        assert hashlib.sha256(record.content.encode()).digest() == record.digest
    times = [record.received_at for record in records]
    assert times == sorted(times)
    return [record.seq for record in records]


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_concurrent_writers_of_one_log_assign_gapless_unique_numbers(database: Database, isolation: Isolation) -> None:
    tenants = [await database.tenant(isolation=isolation) for _ in range(3)]
    stores = [await database.records() for _ in range(4)]

    async def writer(number: int, store: PostgresRecords) -> list[tuple[int, int]]:
        places: list[tuple[int, int]] = []
        for turn in range(15):
            requests = [events(tenant, *[f"{number}-{turn}-{i}" for i in range(1 + turn % 4)]) for tenant in tenants[turn % 2 :]]
            for request, result in zip(requests, await store.append(requests), strict=True):
                assert isinstance(result, Appended)
                places += [(request.tenant.id, receipt.seq) for receipt in result.receipts]
        return places

    places = [place for some in await asyncio.gather(*[writer(n, store) for n, store in enumerate(stores)]) for place in some]
    assert len(places) == len(set(places))
    for tenant in tenants:
        seqs = sorted(seq for tenant_id, seq in places if tenant_id == tenant.id)
        assert seqs == list(range(len(seqs)))
        assert await stored(stores[0], tenant) == seqs
        assert (await stores[0].head(tenant, LogName.EVENTS)).next_seq == len(seqs)


async def test_concurrent_groups_over_many_schemas_with_retries_assign_gapless_numbers(
    database: Database,
) -> None:
    """Groups with and without stored ids take different functions, which lock the same heads."""
    tenants = [await database.tenant(isolation=isolation) for _ in range(3) for isolation in ISOLATIONS]
    stores = [await database.records() for _ in range(4)]

    async def writer(number: int, store: PostgresRecords) -> list[tuple[int, str, int]]:
        places: list[tuple[int, str, int]] = []
        for turn in range(20):
            ids = {tenant.id: [f"{number}-{turn}", f"common-{(turn + tenant.id) // 3}"] for tenant in tenants}
            for tenant, result in zip(tenants, await store.append([events(t, *ids[t.id]) for t in tenants]), strict=True):
                assert isinstance(result, Appended), result
                places += [(tenant.id, key, r.seq) for key, r in zip(ids[tenant.id], result.receipts, strict=True)]
        return places

    places = {place for some in await asyncio.gather(*[writer(n, store) for n, store in enumerate(stores)]) for place in some}
    for tenant in tenants:
        seqs = sorted(seq for tenant_id, _, seq in places if tenant_id == tenant.id)
        assert seqs == list(range(len(seqs)))  # each id has one number, and each number one id
        assert await stored(stores[0], tenant) == seqs


KEYS = st.none() | st.sampled_from(["a", "b", "c"])
GROUPS = st.lists(
    st.lists(
        st.tuples(
            st.integers(0, 7),
            st.lists(
                st.tuples(KEYS, st.sampled_from(["as before", "other"])),
                min_size=1,
                max_size=4,
                unique_by=lambda item: item[0] or id(item),
            ),
            st.booleans(),
        ),
        min_size=1,
        max_size=8,
    ),
    min_size=1,
    max_size=4,
)


async def test_group_over_many_schemas_has_the_results_of_the_memory_store(database: Database) -> None:
    """Tenants of both isolations: one with a burst of two, one with a day quota, one with used up storage, and an unknown one.

    Later groups repeat ids.
    """
    store = await database.records()
    tenants = [await database.tenant(isolation=isolation) for _ in range(2) for isolation in ISOLATIONS]
    tenants += [await database.tenant(burst=2), await database.tenant(events_per_day=12)]
    tenants.append(await database.tenant(storage_used_up=True))

    async def same(groups: list[list[tuple[int, list[tuple[str | None, str]], bool]]]) -> None:
        await database.empty(tenants)
        memory = MemoryStore()
        for tenant in tenants[:7]:
            burst, per_day = 2 if tenant is tenants[4] else 1_000_000, 12 if tenant is tenants[5] else 0
            full = tenant is tenants[6]
            memory.register(tenant, events_per_second=1_000_000, burst=burst, events_per_day=per_day, storage_used_up=full)
        for group in groups:
            requests: list[AppendRequest] = []
            taken: set[tuple[int, str]] = set()
            for number, items, atomic in group:
                fresh = [(key, message) for key, message in items if key is None or (number, key) not in taken]
                taken |= {(number, key) for key, _ in fresh if key is not None}
                if fresh:
                    records = [prepared(id=key, message=message) for key, message in fresh]
                    requests.append(AppendRequest(tenants[number], LogName.EVENTS, records, atomic=atomic))
            if requests:
                assert told(await store.append(requests)) == told(await memory.append(requests))

    @settings(deadline=None, max_examples=examples(60), suppress_health_check=[HealthCheck.too_slow])
    @given(GROUPS)
    def law(groups: list[list[tuple[int, list[tuple[str | None, str]], bool]]]) -> None:
        asyncio.run_coroutine_threadsafe(same(groups), loop).result(timeout=120)

    tenants.append(msgspec.structs.replace(tenants[0], id=10**9, name="nobody"))
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(law)


def told(results: Sequence[Appended | DecklogError]) -> list[object]:
    """Return results without times."""
    return [
        result.code
        if isinstance(result, DecklogError)
        else (result.stored, [(r.status, r.seq if result.stored else None) for r in result.receipts])
        for result in results
    ]


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_retry_returns_the_first_position_and_other_content_is_a_conflict(database: Database, isolation: Isolation) -> None:
    tenant, store = await database.tenant(isolation=isolation), await database.records()
    first = (await one(store, events(tenant, "a"))).receipts[0]
    again = await one(store, AppendRequest(tenant, LogName.EVENTS, [prepared(id="a"), prepared(id="b"), prepared(id="a2")]))
    assert [r.status for r in again.receipts] == [Status.DUPLICATE, Status.STORED, Status.STORED]
    assert (again.receipts[0].seq, again.receipts[0].received_at, again.receipts[0].digest) == (
        0,
        first.received_at,
        first.digest,
    )
    other = await one(store, AppendRequest(tenant, LogName.EVENTS, [prepared(id="a", message="different"), prepared(id="c")]))
    assert [(r.status, r.seq) for r in other.receipts] == [(Status.CONFLICT, 0), (Status.STORED, 3)]
    assert await stored(store, tenant) == [0, 1, 2, 3]


async def test_id_is_independent_in_each_log_and_tenant(database: Database) -> None:
    store = await database.records()
    a, b = await database.tenant(isolation=Isolation.SHARED), await database.tenant(isolation=Isolation.SHARED)
    requests = [events(a, "x"), events(b, "x"), AppendRequest(a, LogName.ACCESS, [prepared(id="x")], metered=False)]
    for result in await store.append(requests):
        assert isinstance(result, Appended)
        assert (result.receipts[0].status, result.receipts[0].seq) == (Status.STORED, 0)


async def test_atomic_request_stores_nothing_on_a_conflict(database: Database) -> None:
    tenant, store = await database.tenant(), await database.records()
    await one(store, events(tenant, "a"))
    request = AppendRequest(tenant, LogName.EVENTS, [prepared(id="n"), prepared(id="a", message="other")], atomic=True)
    result = await one(store, request)
    assert not result.stored
    assert result.receipts[1].status is Status.CONFLICT
    assert await stored(store, tenant) == [0]
    retry = await one(store, AppendRequest(tenant, LogName.EVENTS, [prepared(id="n"), prepared(id="a")], atomic=True))
    assert (retry.stored, [r.status for r in retry.receipts]) == (True, [Status.STORED, Status.DUPLICATE])


async def test_id_is_free_again_after_the_dedup_window(database: Database) -> None:
    tenant, store = await database.tenant(dedup_seconds=60), await database.records()
    await one(store, events(tenant, "a"))
    await shift_clock(database, "59 seconds")
    assert (await one(store, events(tenant, "a"))).receipts[0].status is Status.DUPLICATE
    await shift_clock(database, "61 seconds")
    assert (await one(store, events(tenant, "a"))).receipts[0].status is Status.STORED


async def test_rate_limit_is_exact_across_writers(database: Database) -> None:
    tenant = await database.tenant(per_second=1, burst=10)
    await freeze_clock(database)
    stores = [await database.records() for _ in range(3)]
    results = await asyncio.gather(*[store.append([events(tenant, None)]) for store in stores for _ in range(6)])
    taken = [result for [result] in results if isinstance(result, Appended)]
    refused = [result for [result] in results if isinstance(result, DecklogError)]
    assert len(taken) == 10
    assert {error.code for error in refused} == {Code.RATE_LIMITED}
    assert all(error.retry_after == pytest.approx(1.0) for error in refused)
    access = await one(stores[0], AppendRequest(tenant, LogName.ACCESS, [prepared()], metered=False))
    assert access.receipts[0].status is Status.STORED
    assert (await refusal(stores[0], events(tenant, *[None] * 11))).code is Code.BATCH_EXCEEDS_BURST


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_day_quota_is_exact_across_writers_and_restarts_at_midnight(database: Database, isolation: Isolation) -> None:
    tenant, other = [await database.tenant(isolation=isolation, events_per_day=20) for _ in range(2)]
    stores = [await database.records() for _ in range(4)]
    await freeze_clock(database, f"{TODAY} 23:59:30+00")

    async def writer(number: int, store: PostgresRecords) -> list[Appended | DecklogError]:
        found: list[Appended | DecklogError] = []
        for turn in range(12):
            group = [events(tenant, f"{number}-{turn}" if turn % 2 else None)]
            found.append((await store.append([*group, *([events(other, None)] if turn % 3 else [])]))[0])
        return found

    results = [result for some in await asyncio.gather(*map(writer, range(4), stores)) for result in some]
    refused = [result for result in results if isinstance(result, DecklogError)]
    assert len(results) - len(refused) == 20
    assert {(error.code, error.retry_after) for error in refused} == {(Code.QUOTA_EXCEEDED, 30.0)}
    assert await stored(stores[0], tenant) == list(range(20))
    assert (await stores[0].head(other, LogName.EVENTS)).next_seq == 20
    await freeze_clock(database, f"{TODAY + timedelta(days=1)} 00:00:00+00")
    assert (await one(stores[1], events(tenant, *[None] * 20))).receipts[-1].seq == 39
    assert (await refusal(stores[2], events(tenant, None))).retry_after == 86_400


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_used_up_storage_stops_every_writer_but_answers_retries(database: Database, isolation: Isolation) -> None:
    per_day = 1_000  # more than the writers store before the flag is set
    tenant = await database.tenant(isolation=isolation, events_per_day=per_day)
    stores = [await database.records() for _ in range(3)]
    quotas = HeadSettings(State.ACTIVE, 1_000_000, 1_000_000, 86_400, events_per_day=per_day)
    await freeze_clock(database)
    await one(stores[0], events(tenant, "a", "b"))

    async def writer(store: PostgresRecords) -> None:
        while isinstance((await store.append([events(tenant, None)]))[0], Appended):
            pass

    connection = await asyncpg.connect(database.owner_dsn)
    try:
        writers = [asyncio.create_task(writer(store)) for store in stores]
        await ensure_heads(connection, tenant.id, tenant.schema, msgspec.structs.replace(quotas, storage_used_up=True))
        end = (await stores[0].head(tenant, LogName.EVENTS)).next_seq
        await asyncio.gather(*writers)
        assert (await stores[0].head(tenant, LogName.EVENTS)).next_seq == end
        assert (await one(stores[1], events(tenant, "a", "b"))).receipts[1].status is Status.DUPLICATE
        for refused in (events(tenant, "a", "new"), events(tenant, None)):
            assert (await refusal(stores[2], refused)).code is Code.QUOTA_EXCEEDED
        await ensure_heads(connection, tenant.id, tenant.schema, quotas)
    finally:
        await connection.close()
    # Records that were stored earlier on this day still count.
    assert (await one(stores[0], events(tenant, *[None] * (per_day - end)))).receipts[-1].seq == per_day - 1
    assert "2026" in (await refusal(stores[1], events(tenant, None))).detail


async def test_unknown_refusal_of_a_newer_version_is_an_internal_error(database: Database) -> None:
    tenant, store = await database.tenant(), await database.records()
    await database.execute(
        "CREATE OR REPLACE FUNCTION decklog.admission(present boolean, state smallint, received_at timestamptz, burst integer,"
        " tokens float8, storage_used_up boolean, per_day bigint, today bigint, metered boolean, conflict boolean, counted integer,"
        " fresh integer, at timestamptz) RETURNS smallint LANGUAGE sql AS 'SELECT 99::smallint'"
    )
    error = await refusal(store, events(tenant, None))
    assert (error.code, "code 99" in error.detail) == (Code.INTERNAL, True)


async def test_day_quota_counts_by_receipt_day_when_the_clock_goes_back(database: Database) -> None:
    tenant, store = await database.tenant(events_per_day=3), await database.records()
    await freeze_clock(database, f"{TODAY} 00:01:00+00")
    await one(store, events(tenant, None, None))
    await freeze_clock(database, f"{TODAY - timedelta(days=1)} 23:58:00+00")
    assert (await one(store, events(tenant, None))).receipts[0].received_at.date() == TODAY
    assert (await refusal(store, events(tenant, None))).retry_after == 86_400 - 60


async def test_query_limit_is_exact_across_writers(database: Database) -> None:
    tenant = await database.tenant(queries_per_minute=6)
    await freeze_clock(database)
    stores = [await database.records() for _ in range(4)]
    query = AppendRequest(tenant, LogName.ACCESS, [prepared()])
    results = [result for [result] in await asyncio.gather(*[store.append([query]) for store in stores for _ in range(5)])]
    refused = [result for result in results if isinstance(result, DecklogError)]
    assert len(results) - len(refused) == 6
    assert {error.code for error in refused} == {Code.RATE_LIMITED}
    assert all(error.retry_after == pytest.approx(10.0) for error in refused)
    assert await stored(stores[0], tenant, LogName.ACCESS) == list(range(6))


async def test_head_settings_are_observed_as_set_and_a_new_bucket_is_full(database: Database) -> None:
    tenant, store = await database.tenant(), await database.records()
    query = AppendRequest(tenant, LogName.ACCESS, [prepared()])
    assert (await one(store, query)).rate is None
    connection = await asyncpg.connect(database.owner_dsn)
    try:
        for made in (
            HeadSettings(State.ACTIVE, 7, 9, 60, events_per_day=11, queries_per_minute=7),
            HeadSettings(State.SUSPENDED, 1, 1, 1),
            HeadSettings(State.ACTIVE, 7, 9, 60, events_per_day=11, storage_used_up=True),
            HeadSettings(State.ACTIVE, 7, 9, 60, storage_used_up=True),
            HeadSettings(State.ACTIVE, 1_000, 10_000, 86_400, queries_per_minute=1_000_000),
        ):
            await ensure_heads(connection, tenant.id, tenant.schema, made)
            assert await observe_heads(connection, [tenant.id]) == {tenant.id: made}
        rate = (await one(store, query)).rate
        assert rate is not None
        assert rate.remaining == 999_999
        await database.execute("UPDATE decklog.heads SET per_day = 5 WHERE tenant_id = $1 AND log = 1", tenant.id)
        assert await observe_heads(connection, [tenant.id]) == {}
    finally:
        await connection.close()


async def test_suspended_or_unknown_tenant_is_refused_without_its_group(database: Database) -> None:
    store = await database.records()
    good, suspended, gone = [await database.tenant(isolation=Isolation.SHARED) for _ in range(3)]
    await database.execute("UPDATE decklog.heads SET state = 1 WHERE tenant_id = $1", suspended.id)
    await database.execute("DELETE FROM decklog.heads WHERE tenant_id = $1", gone.id)
    a, b, c = await store.append([events(gone, "1"), events(good, "1"), events(suspended, "1")])
    assert isinstance(a, DecklogError)
    assert a.code is Code.NOT_FOUND
    assert isinstance(b, Appended)
    assert isinstance(c, DecklogError)
    assert c.code is Code.TENANT_SUSPENDED


async def test_access_log_accepts_records_of_a_suspended_or_retained_tenant(database: Database) -> None:
    tenant, store = await database.tenant(), await database.records()
    access = AppendRequest(tenant, LogName.ACCESS, [prepared()], metered=False)
    query = AppendRequest(tenant, LogName.ACCESS, [prepared()])
    for state, code in ((1, Code.TENANT_SUSPENDED), (2, Code.NOT_FOUND)):
        await database.execute("UPDATE decklog.heads SET state = $2 WHERE tenant_id = $1", tenant.id, state)
        assert (await refusal(store, events(tenant, None))).code is code
        assert (await refusal(store, query)).code is code
        assert (await one(store, access)).receipts[0].status is Status.STORED


async def test_receipt_time_never_decreases_when_the_clock_goes_back(database: Database) -> None:
    tenant, store = await database.tenant(), await database.records()
    before = (await one(store, events(tenant, "a"))).receipts[0].received_at
    await shift_clock(database, "-4 minutes")
    assert (await one(store, events(tenant, "b"))).receipts[0].received_at == before
    await shift_clock(database, "-6 minutes")
    assert (await refusal(store, events(tenant, "c"))).code is Code.CLOCK_BEHIND
    await shift_clock(database, "1 second")
    assert (await one(store, events(tenant, "c"))).receipts[0].seq == 2
    assert await stored(store, tenant) == [0, 1, 2]


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_append_creates_a_missing_partition(database: Database, isolation: Isolation) -> None:
    tenant, store = await database.tenant(isolation=isolation), await database.records()
    await one(store, events(tenant, "a"))
    await shift_clock(database, "40 days")
    result = await one(store, events(tenant, "b"))
    assert (result.receipts[0].status, result.receipts[0].seq) == (Status.STORED, 1)


async def test_new_tenant_creates_partitions_of_its_schema_only(database: Database) -> None:
    relation = (await database.tenant(isolation=Isolation.SHARED)).schema + ".records"

    async def last() -> str:
        [row] = await database.execute(
            "SELECT max(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = $1::text::regclass", relation
        )
        return str(row[0])

    before = await last()
    await database.execute(f"DROP TABLE {before}")
    await database.tenant(isolation=Isolation.DEDICATED)
    assert await last() < before
    await database.execute("SELECT decklog.make_partitions()")
    assert await last() == before


async def test_keeper_returns_the_time_up_to_which_all_schemas_have_partitions(database: Database) -> None:
    pool = Pool(database.worker_dsn, size_max=2, role=WORKER_ROLE)
    await pool.open()
    try:
        keeper = PostgresKeeper(pool)
        assert await keeper.make_partitions_ahead() is None
        await database.tenant(isolation=Isolation.SHARED)
        [row] = await database.execute("SELECT max(partition_days) AS days FROM decklog.relations WHERE NOT hypertable")
        assert row["days"] == 1
        until = await keeper.make_partitions_ahead()
        assert until is not None
        assert timedelta(days=7) < until - datetime.now(UTC) <= timedelta(days=8)
        assert until == datetime.combine(until.date(), datetime.min.time(), UTC)
        await shift_clock(database, "3 days")
        assert await keeper.make_partitions_ahead() == until + timedelta(days=3)
    finally:
        await pool.close()


async def test_failure_of_one_tenant_does_not_affect_its_group(database: Database) -> None:
    store = await database.records()
    good, broken = await database.tenant(), await database.tenant()
    await database.execute(f'DROP TABLE "{broken.schema}".records CASCADE')
    a, b = await store.append([events(broken, "1"), events(good, "1")])
    assert isinstance(a, DecklogError)
    assert a.code is Code.STORAGE_UNAVAILABLE
    assert isinstance(b, Appended)
    assert await stored(store, good) == [0]


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_service_role_can_neither_change_nor_delete_records(database: Database, isolation: Isolation) -> None:
    tenant, store = await database.tenant(isolation=isolation), await database.records()
    await one(store, events(tenant, "a"))
    connection = await asyncpg.connect(database.service_dsn)
    try:
        await connection.execute("SELECT set_config('decklog.tenants', $1, false)", str(tenant.id))
        assert await connection.fetchval(f'SELECT count(*) FROM "{tenant.schema}".records WHERE tenant_id = $1', tenant.id) == 1
        for sql in (
            f"UPDATE \"{tenant.schema}\".records SET action = 'x'",
            f'DELETE FROM "{tenant.schema}".records',
            f'TRUNCATE "{tenant.schema}".records',
            f'DROP TABLE "{tenant.schema}".records',
            f'ALTER TABLE "{tenant.schema}".records DISABLE ROW LEVEL SECURITY',
            "DELETE FROM decklog.heads",
            "INSERT INTO decklog.heads (tenant_id, log, per_second, burst, tokens, dedup_window) VALUES (0, 0, 1, 1, 1, '1d')",
            "SELECT decklog.make_partition_of(relations, now()) FROM decklog.relations",
            "SELECT decklog.make_partitions_of(relations) FROM decklog.relations",
            "CREATE TABLE decklog.mine (x int)",
        ):
            with pytest.raises(asyncpg.exceptions.InsufficientPrivilegeError):
                await connection.execute(sql)
    finally:
        await connection.close()


async def test_row_level_security_hides_other_tenants_of_a_shared_relation(database: Database) -> None:
    store = await database.records()
    a, b = await database.tenant(isolation=Isolation.SHARED), await database.tenant(isolation=Isolation.SHARED)
    assert a.schema == b.schema
    await store.append([events(a, "1"), events(b, "1", "2")])
    connection = await asyncpg.connect(database.service_dsn)
    try:
        count = f'SELECT count(*) FROM "{a.schema}".records'
        assert await connection.fetchval(count) == 0
        await connection.execute("SELECT set_config('decklog.tenants', $1, false)", str(a.id))
        assert await connection.fetchval(count) == 1
        with pytest.raises(asyncpg.exceptions.InsufficientPrivilegeError):
            await connection.execute(
                f'INSERT INTO "{a.schema}".records (tenant_id, seq, received_at, occurred_at, epoch, log, severity, outcome, action,'
                " actor_id, digest, content) VALUES ($1, 9, now(), now(), 1, 0, 0, 0, 'x', 'x', '', '{}')",
                b.id,
            )
    finally:
        await connection.close()


async def test_partitions_cannot_be_read_directly(database: Database) -> None:
    store = await database.records()
    tenant = await database.tenant(isolation=Isolation.SHARED)
    await store.append([events(tenant, "1")])
    parts = await database.execute(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = $1::text::regclass",
        f'"{tenant.schema}".records',
    )
    assert parts
    connection = await asyncpg.connect(database.service_dsn)
    try:
        for part in parts:
            with pytest.raises(asyncpg.exceptions.InsufficientPrivilegeError):
                await connection.fetch(f"SELECT * FROM {part['name']}")
    finally:
        await connection.close()


async def test_pool_refuses_a_role_with_other_rights_than_it_needs(database: Database) -> None:
    """The API refuses the worker's role, and a worker that of the API."""
    every = {database.admin_dsn, database.owner_dsn, database.service_dsn, database.worker_dsn}
    for role, own in ((SERVICE_ROLE, database.service_dsn), (WORKER_ROLE, database.worker_dsn)):
        for dsn in every - {own}:
            pool = Pool(dsn, size_max=2, role=role)
            with pytest.raises(DecklogError, match=f"Connect as '{role}'"):
                await pool.open()
            await pool.close()
        pool = Pool(own, size_max=2, role=role)
        await pool.check()
        await pool.close()


async def test_pool_refuses_a_server_without_durable_commits(database: Database) -> None:
    await database.execute(f"ALTER DATABASE {database.name} SET synchronous_commit = off")
    pool = Pool(database.service_dsn, size_max=2)
    with pytest.raises(DecklogError, match="synchronous_commit is off"):
        await pool.open()
    await pool.close()


async def shift_clock(database: Database, by: str) -> None:
    await database.execute(
        "CREATE OR REPLACE FUNCTION decklog.clock() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE"
        f" AS $$ SELECT clock_timestamp() + interval '{by}' $$"
    )
