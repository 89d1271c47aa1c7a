"""`Generations`: those of PostgreSQL and those in memory change alike, and the registry follows those of PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import pytest

from decklog.domain.consumers import indexer_of
from decklog.domain.index_generation import Generations, GenerationState, IndexGeneration
from decklog.domain.log import LogName
from decklog.timescale.connection import WORKER_ROLE
from decklog.timescale.control.generations import PostgresGenerations
from tests.support.control import Control, control, installation
from tests.support.memory_generations import MemoryGenerations
from tests.support.vaults import MemoryVault

__all__ = ["control"]

BUILDING, LIVE, RETIRED = GenerationState.BUILDING, GenerationState.LIVE, GenerationState.RETIRED
DAY = timedelta(days=1)
TODAY = datetime.now(UTC).date()


@pytest.fixture(params=["memory", "postgres"])
async def generations(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Generations, str]]:
    """The generations of an index of one tenant, without any."""
    if request.param == "memory":
        yield MemoryGenerations("decklog-t-acme", today=TODAY), "decklog-t-acme"
        return
    async with installation(request.getfixturevalue("postgres_server")) as control:
        status = await control.provisioner().reconcile(control.manifest(), MemoryVault())
        yield PostgresGenerations(await control.database.pool(WORKER_ROLE)), status.index


async def states(of: Generations) -> dict[str, GenerationState]:
    return {row.name: row.state for index in await of.all() for row in index.generations}


async def starts(of: Generations, name: str) -> tuple[date, ...]:
    [row] = [row for index in await of.all() for row in index.generations if row.name == name]
    assert len(row.starts) == len(row.uuids)
    return row.starts


async def test_new_generation_is_live_or_built_and_one_of_each_is_in_use(generations: tuple[Generations, str]) -> None:
    of, index = generations
    one, two, three, four = (IndexGeneration(index, f"v3-{build}", (TODAY,)) for build in (1, 2, 3, 4))
    assert await of.all() == []
    assert await of.record(one, ["a"], at_once=False)
    assert not await of.record(one, ["b"], at_once=True)
    assert await states(of) == {"v3-1": LIVE}
    assert await of.record(two, ["b"], at_once=False)
    assert await states(of) == {"v3-1": LIVE, "v3-2": BUILDING}
    assert await of.record(three, ["c"], at_once=False)
    assert await states(of) == {"v3-1": LIVE, "v3-2": RETIRED, "v3-3": BUILDING}
    assert await of.record(four, ["d"], at_once=True)
    assert await states(of) == {"v3-1": RETIRED, "v3-2": RETIRED, "v3-3": RETIRED, "v3-4": LIVE}
    assert not await of.forget(four)
    for gone in (one, two, three):
        assert await of.forget(gone)
        assert not await of.forget(gone)
    assert await states(of) == {"v3-4": LIVE}
    assert (await of.progress(one)).state is None


async def test_ranges_are_added_behind_the_last_in_the_future_and_dropped_from_the_first(
    generations: tuple[Generations, str],
) -> None:
    of, index = generations
    first = IndexGeneration(index, "v3-1", (TODAY - 3 * DAY, TODAY))
    await of.record(first, ["a", "b"], at_once=True)
    for refused in (TODAY - DAY, TODAY):
        assert not await of.add_range(first, refused, "c")
    assert await of.add_range(first, TODAY + DAY, "c")
    assert not await of.add_range(first, TODAY + DAY, "c")
    assert await starts(of, "v3-1") == (TODAY - 3 * DAY, TODAY, TODAY + DAY)
    assert not await of.drop_range(first, TODAY)
    assert await of.drop_range(first, TODAY - 3 * DAY)
    assert await of.drop_range(first, TODAY)
    assert not await of.drop_range(first, TODAY + DAY)
    assert await starts(of, "v3-1") == (TODAY + DAY,)


async def test_switch_waits_for_records_that_the_new_generation_lacks(control: Control) -> None:
    await control.provisioner().reconcile(control.manifest(), MemoryVault())
    of = PostgresGenerations(await control.database.pool(WORKER_ROLE))
    tenant = await control.tenant()
    assert (tenant.live, tenant.building) == (None, None)
    one, two = (IndexGeneration(tenant.index, f"v3-{build}", (TODAY,)) for build in (1, 2))
    await of.record(one, ["a"], at_once=False)
    await of.record(two, ["b"], at_once=False)
    tenant = await control.tenant()
    assert (tenant.live, tenant.building) == (one, two)
    await control.database.execute("UPDATE decklog.heads SET next_seq = 100 WHERE tenant_id = $1", tenant.id)
    assert not await of.switch(two, lag_max=50)
    cursors = await control.database.cursors()
    for log in LogName:
        held = await cursors.lease("indexer.v3-2", tenant.id, log, owner="w", seconds=60)
        assert held is not None
        assert await cursors.move(held, 60, seconds=60)
    found = await of.progress(two)
    assert (found.state, found.done, found.records) == (BUILDING, 120, 200)
    assert not await of.switch(one, lag_max=50)
    assert await of.switch(two, lag_max=50)
    assert not await of.switch(two, lag_max=50)
    assert await states(of) == {"v3-1": RETIRED, "v3-2": LIVE}
    tenant = await control.tenant()
    assert (tenant.live, tenant.building, indexer_of(tenant)) == (two, None, "indexer.v3-2")


async def test_every_process_learns_of_a_change_by_the_registry(control: Control) -> None:
    for name in ("acme", "beta"):
        await control.provisioner().reconcile(control.manifest(name, uid=name, isolation="Shared"), MemoryVault())
    registry, of = await control.registry(), PostgresGenerations(await control.database.pool(WORKER_ROLE))
    tenants = [await control.tenant(name) for name in ("acme", "beta")]
    before = (await registry.changes(None)).version
    await of.record(IndexGeneration(tenants[0].index, "v3-1", (TODAY,)), ["a"], at_once=True)
    changes = await registry.changes(before)
    assert changes.complete
    assert changes.tenants == {tenant.id for tenant in tenants}
    assert [tenant.name for tenant in await registry.of_index(tenants[0].index, after=0, limit=9)] == ["acme", "beta"]
    assert [tenant.name for tenant in await registry.of_index(tenants[0].index, after=tenants[0].id, limit=9)] == ["beta"]
