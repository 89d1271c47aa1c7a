"""The end of partitions in PostgreSQL: those beyond retention go a day later, with a note, unless something holds them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName, Span
from decklog.domain.records.ageing import Aged
from decklog.domain.search.query import Query
from decklog.domain.tenancy.parts.database import partition_days
from decklog.domain.tenant import Isolation, Tenant
from decklog.timescale.connection import WORKER_ROLE
from decklog.timescale.records.drops import PostgresDrops
from decklog.timescale.records.keeper import PostgresKeeper
from decklog.timescale.records.records import PostgresRecords
from decklog.workers.duties.keeper import drop_partitions
from decklog.workers.periodic import Turn
from tests.support.control import Control, installation
from tests.support.vaults import MemoryVault
from tests.timescale.test_append import shift_clock

KINDS = [("postgres", Isolation.SHARED), ("timescale", Isolation.DEDICATED)]
"""Native partitions of a class, and chunks: TimescaleDB has native partitions for classes too."""
OLD, YOUNG = 40, 35
"""Days ago of the records that are beyond a retention of 30 days."""


class Aging:
    """An installation with tenants that keep records for 30 days, and its worker's keeper."""

    def __init__(self, control: Control, isolation: Isolation, keeper: PostgresKeeper, drops: PostgresDrops) -> None:
        self.control = control
        self.isolation = isolation
        self.keeper = keeper
        self.drops = drops
        self.store: PostgresRecords

    async def days_ago(self, days: float) -> None:
        await shift_clock(self.control.database, f"{-days * 24} hours")

    async def set(self, name: str = "acme", *, generation: int = 1, **spec: object) -> Tenant:
        """Apply a tenant's manifest."""
        manifest = self.control.manifest(
            name, uid=f"uid-{name}", generation=generation, isolation=self.isolation.value, deletionProtection=False, **spec
        )
        await self.control.provisioner().reconcile(manifest, MemoryVault())
        return await self.control.tenant(name)

    async def append(self, ago: float, records: int = 1, name: str = "acme") -> None:
        await self.days_ago(ago)
        for _ in range(records):
            await self.control.append(name)

    async def fill(self) -> Tenant:
        """Make acme with three old records, two young ones that are beyond retention too, and one of today."""
        await self.days_ago(OLD)
        tenant = await self.set()
        await self.append(OLD, 3)
        await self.append(YOUNG, 2)
        await self.append(0)
        return tenant

    async def look(self, tenant: Tenant, *, later: float = 0) -> Aged:
        """Take one step of the keeper, so many days from now."""
        await self.days_ago(-later)
        return await self.keeper.drop_due(tenant.schema)

    async def kept(self, tenant: Tenant) -> list[int]:
        found, _ = await self.store.read(
            tenant, LogName.EVENTS, Span(0, 100), query=Query(), limit=100, newest_first=False, timeout=10
        )
        return [record.seq for record in found]

    async def stored(self, tenant: Tenant) -> list[int]:
        """Return the numbers that are in storage, readable or not."""
        rows = await self.control.database.execute(
            f'SELECT seq FROM "{tenant.schema}".records WHERE tenant_id = $1 AND log = 0 ORDER BY seq', tenant.id
        )
        return [row["seq"] for row in rows]


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1].value}")
async def aging(request: pytest.FixtureRequest) -> AsyncIterator[Aging]:
    variant, isolation = request.param
    async with installation(request.getfixturevalue(f"{variant}_server")) as control:
        keeper = PostgresKeeper(await control.database.pool(WORKER_ROLE))
        made = Aging(control, isolation, keeper, PostgresDrops(await control.database.pool()))
        made.store = await control.database.records()
        yield made


async def test_partitions_go_a_day_after_retention_and_their_ranges_are_noted(aging: Aging) -> None:
    tenant = await aging.fill()
    assert await aging.stored(tenant) == [0, 1, 2, 3, 4, 5]
    first = await aging.look(tenant)
    assert first.since is None
    assert first.waiting > 0
    assert await aging.look(tenant, later=0.9) == first
    assert await aging.stored(tenant) == [0, 1, 2, 3, 4, 5]

    gone = await aging.look(tenant, later=1.1)
    assert gone.since is not None
    assert gone.until is not None
    assert gone.until - gone.since == timedelta(days=partition_days(30))
    assert abs(gone.since - (datetime.now(UTC) - timedelta(days=OLD))) < timedelta(days=1.1)
    assert gone.bytes > 8_192
    assert await aging.stored(tenant) == [3, 4, 5]
    assert await drop_partitions(aging.keeper) is Turn.DONE
    assert await aging.stored(tenant) == [5]
    assert await aging.kept(tenant) == [5]

    ranges = await aging.drops.of_log(tenant, LogName.EVENTS, 10)
    assert [(each.first_seq, each.end_seq) for each in ranges] == [(3, 5), (0, 3)]
    unrecorded = await aging.drops.unrecorded(10)
    assert {each for each in unrecorded if each.log is LogName.EVENTS} == set(ranges)
    assert any(each.log is LogName.ACCESS for each in unrecorded)  # the provisioning of that day
    await aging.drops.note_recorded(unrecorded)
    assert await aging.drops.unrecorded(10) == []
    assert len(await aging.drops.of_log(tenant, LogName.EVENTS, 10)) == 2

    await aging.append(-1.2)
    assert await aging.kept(tenant) == [5, 6]


async def test_legal_hold_keeps_partitions_until_it_is_lifted(aging: Aging) -> None:
    tenant = await aging.fill()
    await aging.look(tenant)
    await aging.days_ago(0)
    await aging.set(generation=2, legalHold=True)
    await aging.days_ago(-1.1)
    await drop_partitions(aging.keeper)  # partitions without records of the tenant go
    assert (await aging.keeper.drop_due(tenant.schema)).held == 2
    assert await aging.stored(tenant) == [0, 1, 2, 3, 4, 5]
    await aging.set(generation=3, legalHold=False)
    assert await drop_partitions(aging.keeper) is Turn.DONE
    assert await aging.stored(tenant) == [5]


@pytest.mark.parametrize("aging", KINDS[:1], indirect=True)
async def test_hold_of_one_tenant_keeps_what_others_have_in_the_same_partition_only(aging: Aging) -> None:
    tenant = await aging.fill()
    await aging.days_ago(YOUNG)
    await aging.set("rival")
    await aging.append(YOUNG, 1, "rival")
    await aging.days_ago(0)
    await aging.set("rival", generation=2, legalHold=True)
    await aging.look(tenant)
    await aging.days_ago(-1.1)
    await drop_partitions(aging.keeper)
    assert await aging.stored(tenant) == [3, 4, 5]


async def test_partition_stays_until_the_archive_of_a_deleted_tenant_is_complete(aging: Aging) -> None:
    tenant = await aging.fill()
    await aging.look(tenant)
    await aging.control.database.execute(
        "UPDATE decklog.tenants SET state = 2, spec = jsonb_set(spec, '{deletionPolicy}', '\"Archive\"') WHERE id = $1", tenant.id
    )
    await aging.days_ago(-1.1)
    while (aged := await aging.keeper.drop_due(tenant.schema)).since is not None:
        pass
    assert aged.archiving == 2
    assert await aging.stored(tenant) == [0, 1, 2, 3, 4, 5]
    await aging.control.database.execute(
        "INSERT INTO decklog.archives (tenant_id, log, next_seq, manifest) SELECT tenant_id, log, next_seq, 'm' FROM decklog.heads"
        " WHERE tenant_id = $1",
        tenant.id,
    )
    await drop_partitions(aging.keeper)
    assert await aging.stored(tenant) == [5]


async def test_longer_retention_and_a_clock_that_was_put_right_keep_partitions(aging: Aging) -> None:
    tenant = await aging.fill()
    ahead = await aging.look(tenant, later=400)  # the clock jumps
    assert ahead.since is None
    assert ahead.waiting > 2
    back = await aging.look(tenant)
    assert 0 < back.waiting < ahead.waiting
    await aging.control.database.execute("UPDATE decklog.tenants SET retention_days = 50 WHERE id = $1", tenant.id)
    assert await aging.look(tenant, later=1.1) == Aged(None, None, 0, 0, 0, 0)
    await aging.control.database.execute("UPDATE decklog.tenants SET retention_days = 30 WHERE id = $1", tenant.id)
    assert (await aging.look(tenant, later=1.2)).since is None  # the day begins anew
    assert await aging.stored(tenant) == [0, 1, 2, 3, 4, 5]


async def test_hold_that_is_being_set_comes_first(aging: Aging) -> None:
    tenant = await aging.fill()
    await aging.look(tenant)
    await aging.days_ago(-1.1)
    owner = await asyncpg.connect(aging.control.database.owner_dsn)
    try:
        setting = owner.transaction()
        await setting.start()
        await owner.execute("UPDATE decklog.tenants SET spec = jsonb_set(spec, '{legalHold}', 'true') WHERE id = $1", tenant.id)
        with pytest.raises(DecklogError) as refused:
            await aging.keeper.drop_due(tenant.schema)
        assert refused.value.code is Code.STORAGE_UNAVAILABLE
        await setting.commit()
    finally:
        await owner.close()
    await drop_partitions(aging.keeper)
    assert await aging.stored(tenant) == [0, 1, 2, 3, 4, 5]


async def test_workers_at_once_drop_each_partition_once(aging: Aging) -> None:
    tenant = await aging.fill()
    due = (await aging.look(tenant)).waiting
    await aging.days_ago(-1.1)
    steps = await asyncio.gather(*(aging.keeper.drop_due(tenant.schema) for _ in range(due + 3)))
    begun = [step.since for step in steps if step.since is not None]
    assert len(begun) == len(set(begun)) >= due
    assert await aging.stored(tenant) == [5]
