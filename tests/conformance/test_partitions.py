"""Conformance of `Partitions`: in memory, and on both servers in both isolations, each record within retention is in one partition."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.append import Appended, AppendRequest
from decklog.domain.records.retained import RangeState, retained
from decklog.domain.tenant import Isolation, Tenant
from decklog.timescale.records.records import PostgresRecords
from tests.support.memory import make_tenant
from tests.support.memory_store import MemoryStore
from tests.support.records import prepared
from tests.support.stores import VARIANTS, drop_database, new_database
from tests.timescale.test_append import shift_clock

DAY = timedelta(days=1)
KINDS = ("memory", *(f"{variant}-{isolation.value}" for variant in VARIANTS for isolation in Isolation))


class World(NamedTuple):
    """A store with a tenant that keeps records for 30 days in partitions of one day, and a way to set its clock."""

    store: MemoryStore | PostgresRecords
    tenant: Tenant
    days_ago: Callable[[int], Awaitable[None]]

    async def append(self, ago: int, records: int, log: LogName = LogName.EVENTS) -> None:
        """Append records that are received so many days ago."""
        await self.days_ago(ago)
        [result] = await self.store.append([AppendRequest(self.tenant, log, [prepared() for _ in range(records)])])
        assert isinstance(result, Appended)


@pytest.fixture(params=KINDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        ago = 0
        tenant = make_tenant("acme")

        async def set_days(days: int) -> None:
            nonlocal ago
            ago = days

        yield World(MemoryStore(tenant, now=lambda: datetime.now(UTC) - ago * DAY), tenant, set_days)
        return
    variant, isolation = request.param.split("-")
    database = await new_database(request.getfixturevalue(f"{variant}_server"))
    tenant = await database.tenant(isolation=Isolation(isolation), days=30)

    async def shift(days: int) -> None:
        await shift_clock(database, f"-{days} days")

    yield World(await database.records(), tenant, shift)
    await drop_database(database)


async def test_partitions_begin_with_the_first_record_within_retention_and_cover_all_later_ones(world: World) -> None:
    store, tenant = world.store, world.tenant
    assert await store.partitions(tenant, LogName.EVENTS) == []
    for ago, records in ((40, 5), (32, 1), (25, 3), (3, 2), (0, 4)):
        await world.append(ago, records)
    await world.append(0, 7, LogName.ACCESS)

    parts = await store.partitions(tenant, LogName.EVENTS)
    assert [(part.first_seq, part.end_seq) for part in parts] == [(6, 9), (9, 11), (11, 15)]
    today = datetime.now(UTC)
    for part, ago in zip(parts, (25, 3, 0), strict=True):
        assert part.until - part.since == DAY
        assert abs(part.since - (today - ago * DAY)) <= 1.5 * DAY
    assert all(earlier.until <= later.since for earlier, later in pairwise(parts))
    states = [each.state for each in retained(parts, tenant.retention_days, today)]
    assert states == [RangeState.HIDDEN, RangeState.CLOSED, RangeState.CLOSED, RangeState.OPEN]

    await world.append(0, 1)
    assert [part.end_seq for part in await store.partitions(tenant, LogName.EVENTS)] == [9, 11, 16]
    assert [(part.first_seq, part.end_seq) for part in await store.partitions(tenant, LogName.ACCESS)] == [(0, 7)]


async def test_size_of_a_partition_is_known_where_no_other_tenant_shares_it(world: World) -> None:
    for ago in (2, 0):
        await world.append(ago, 3)
    sizes = [part.bytes for part in await world.store.partitions(world.tenant, LogName.EVENTS)]
    alone = not isinstance(world.store, MemoryStore) and world.tenant.isolation is Isolation.DEDICATED
    assert [size is not None and size > 8_192 for size in sizes] == [alone, alone]


async def test_log_without_a_readable_record_has_the_partition_of_its_last_one(world: World) -> None:
    await world.append(50, 2)
    await world.append(40, 3)
    await world.days_ago(0)
    [part] = await world.store.partitions(world.tenant, LogName.EVENTS)
    assert (part.first_seq, part.end_seq) == (2, 5)
    assert [each.state for each in retained([part], world.tenant.retention_days, datetime.now(UTC))] == [RangeState.HIDDEN] * 2


async def test_log_that_does_not_exist_is_not_found(world: World) -> None:
    with pytest.raises(DecklogError) as refused:
        await world.store.partitions(make_tenant("nobody"), LogName.EVENTS)
    assert refused.value.code is Code.NOT_FOUND
