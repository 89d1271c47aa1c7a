"""Reading several logs at once, whenever their records were received, and only of the tenants that were asked for."""

from __future__ import annotations

import re

import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName, Span
from decklog.domain.records.append import AppendRequest
from decklog.domain.store import Reading
from decklog.domain.tenant import Isolation, Tenant
from decklog.timescale.connection import WORKER_ROLE
from decklog.timescale.records.records import PostgresRecords
from decklog.timescale.statements import quoted, statement
from tests.support.records import prepared
from tests.support.stores import Database

EVENTS = LogName.EVENTS
CLOCK = "CREATE OR REPLACE FUNCTION decklog.clock() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE AS 'SELECT {}'"


async def append(store: PostgresRecords, tenant: Tenant, count: int) -> None:
    [result] = await store.append([AppendRequest(tenant, EVENTS, [prepared() for _ in range(count)])])
    assert not isinstance(result, DecklogError)


@pytest.mark.parametrize("isolation", list(Isolation))
async def test_read_logs_finds_records_of_any_age_in_order(database: Database, isolation: Isolation) -> None:
    store = await database.records()
    tenants = [await database.tenant(isolation=isolation) for _ in range(3 if isolation is Isolation.SHARED else 1)]
    await database.execute(CLOCK.format("clock_timestamp() - interval ''5 days''"))
    await append(store, tenants[0], 30)
    await database.execute(CLOCK.format("clock_timestamp()"))
    for tenant in tenants:
        await append(store, tenant, 10)
    ends = [40, 10, 10][: len(tenants)]
    firsts = [0] * len(tenants)
    read: list[list[int]] = [[] for _ in tenants]
    while firsts != ends:
        wanted = [Reading(tenant, EVENTS, Span(first, end), 7) for tenant, first, end in zip(tenants, firsts, ends, strict=True)]
        found = await store.read_logs(wanted, timeout=30)
        assert any(onward > first for first, (_, onward) in zip(firsts, found, strict=True))
        for number, (records, onward) in enumerate(found):
            read[number] += [record.seq for record in records]
            firsts[number] = onward
    assert read == [list(range(end)) for end in ends]


async def test_read_logs_skips_what_is_beyond_the_retention_of_its_tenant(database: Database) -> None:
    store = await database.records()
    short, long = [await database.tenant(isolation=Isolation.SHARED, days=days) for days in (80, 90)]
    assert short.schema == long.schema
    await database.execute(CLOCK.format("clock_timestamp() - interval ''85 days''"))
    await database.execute("SELECT decklog.make_partition($1, decklog.clock())", short.schema)
    for tenant in (short, long):
        await append(store, tenant, 4)
    await database.execute(CLOCK.format("clock_timestamp()"))
    for tenant in (short, long):
        await append(store, tenant, 2)
    found = await store.read_logs([Reading(tenant, EVENTS, Span(0, 6), 10) for tenant in (short, long)], timeout=30)
    assert [[record.seq for record in records] for records, _ in found] == [[4, 5], [0, 1, 2, 3, 4, 5]]
    assert [onward for _, onward in found] == [6, 6]


async def test_read_logs_ends_after_its_time(database: Database) -> None:
    store = await database.records()
    tenant = await database.tenant()
    await append(store, tenant, 1)
    blocking = await database.owner()
    async with blocking.transaction():
        await blocking.execute(f"LOCK TABLE {quoted(tenant.schema)}.records IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DecklogError) as raised:
            await store.read_logs([Reading(tenant, EVENTS, Span(0, 1), 1)], timeout=0.2)
    assert raised.value.code is Code.SEARCH_UNAVAILABLE


async def test_rows_of_a_tenant_that_the_transaction_does_not_name_are_not_read(database: Database) -> None:
    store = await database.records()
    named, other = [await database.tenant(isolation=Isolation.SHARED) for _ in range(2)]
    for tenant in (named, other):
        await append(store, tenant, 2)
    pool = await database.pool(WORKER_ROLE)
    text = statement("records.of_logs").replace("{schema}", quoted(named.schema))
    arrays = ([named.id, other.id], [0, 0], [0, 0], [2, 2], [9, 9], [90, 90])
    async with pool.reading(named.id) as connection:
        rows = await connection.fetch(text, *arrays, await connection.fetchval("SELECT now() - interval '1 day'"), 10**6)
    assert [(row["place"], row["seq"]) for row in rows] == [(1, 0), (1, 1), (2, None)]


async def test_read_logs_uses_the_index_by_number_in_recent_partitions_alone(database: Database) -> None:
    store = await database.records()
    tenants = [await database.tenant(isolation=Isolation.SHARED) for _ in range(20)]
    await database.execute(CLOCK.format("clock_timestamp() - interval ''5 days''"))
    await append(store, tenants[0], 1)
    await database.execute(CLOCK.format("clock_timestamp()"))
    for tenant in tenants:
        await append(store, tenant, 20)
    pool = await database.pool(WORKER_ROLE)
    text = statement("records.of_logs").replace("{schema}", quoted(tenants[0].schema))
    ids = [tenant.id for tenant in tenants]
    arrays = (ids, [0] * 20, [0] * 20, [20] * 20, [9] * 20, [90] * 20)
    async with pool.reading(*ids, plan="force_custom_plan") as connection:
        [[since, old]] = await connection.fetch("SELECT now() - interval '1 day', to_char(now() - interval '5 days', 'YYYYMMDD')")
        plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {text}", *arrays, since, 10**6))
    scans = re.findall(r"(\w+ Scan) (?:using \w+ )?on (records_\w+)", plan)
    assert {kind for kind, _ in scans} == {"Index Scan"}, plan
    assert all(f"using {name}_number on" in plan for _, name in scans), plan
    assert f"records_{old}" not in plan
