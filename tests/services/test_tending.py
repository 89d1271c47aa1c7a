"""The life of search indices: ranges are made ahead and dropped, generations are built, switched and removed."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from msgspec.structs import replace

from decklog.domain.consumers import FORGETTER
from decklog.domain.errors import Code, DecklogError
from decklog.domain.index_generation import RANGES_MAX, GenerationState, IndexGeneration
from decklog.domain.log import LogName
from decklog.domain.tenant import Limits
from decklog.services.search.forgetting import Forgetting
from decklog.services.search.rebuilding import rebuild
from decklog.services.search.tending import LAG_MAX, LEFT_FOR, LOOK_EVERY, Tending, as_building
from tests.support.desk import Desk, desk
from tests.support.memory import MemoryRegistry, make_tenant
from tests.support.memory_generations import MemoryGenerations, MemoryRanges

LIVE, BUILDING, RETIRED = GenerationState.LIVE, GenerationState.BUILDING, GenerationState.RETIRED
DAY = timedelta(days=1)


class World:
    """One index of one tenant, and what tends it. Its clock is the desk's."""

    def __init__(self, at: Desk, *, kept_days: int = 8) -> None:
        self.at = at
        self.today = at.now().date()
        self.generations = MemoryGenerations(at.acme.index, kept_days=kept_days, today=self.today)
        self.ranges = MemoryRanges()
        self.registry = MemoryRegistry()
        self.registry.add_tenant(at.acme)
        self.seconds = 0.0
        self.tending = Tending(
            self.generations,
            self.ranges,
            self.registry,
            Forgetting(at.store, at.cursors),
            now=at.now,
            clock=lambda: self.seconds,
        )

    async def first(self, *starts: date) -> IndexGeneration:
        """Record the first generation, as provisioning does."""
        generation = IndexGeneration(self.at.acme.index, "v3-1", starts or (self.today,))
        for name in generation.range_indices:
            self.ranges.there[name] = f"uuid of {name}"
        assert await self.generations.record(
            generation, [self.ranges.there[name] for name in generation.range_indices], at_once=True
        )
        return generation

    def forward(self, days: int) -> None:
        self.at.now.forward(days=days)
        self.today = self.generations.today = self.at.now().date()
        self.seconds += days * 86_400

    async def tend(self, times: int = 1) -> None:
        for _ in range(times):
            assert await self.tending.tend() == {}

    def starts(self, name: str = "v3-1") -> tuple[date, ...]:
        return self.generations.rows[name].starts

    def whole(self) -> None:
        """Every recorded range of a generation in use must be there, with its uuid."""
        for row in self.generations.rows.values():
            if row.state is not RETIRED:
                names = IndexGeneration(self.at.acme.index, row.name, row.starts).range_indices
                assert [self.ranges.there.get(name) for name in names] == list(row.uuids)


async def test_ranges_are_made_ahead_and_old_ones_dropped_and_removed_while_days_pass() -> None:
    async with desk() as at:
        world = World(at)
        first = await world.first()
        await at.put({}, {})
        for _ in range(60):
            await world.tend()
            world.whole()
            world.forward(1)
            await at.put({})
        await world.tend(times=20)
        world.seconds += LOOK_EVERY.total_seconds() + 1
        await world.tend()
        starts = world.starts()
        assert starts[-1] >= world.today + DAY
        assert starts[0] < world.today - timedelta(days=world.generations.kept_days) <= starts[1]
        assert len(starts) <= RANGES_MAX + 6
        names = IndexGeneration(at.acme.index, "v3-1", starts).range_indices
        assert set(world.ranges.there) == set(names)
        assert first.range_indices[0] not in world.ranges.there


async def test_floor_is_above_a_range_before_it_is_dropped() -> None:
    async with desk(tenant=Limits(search_days=8)) as at:
        world = World(at)
        await world.first(world.today, world.today + DAY)
        await at.put({}, {})
        world.forward(1)
        await at.put({}, log=LogName.EVENTS)
        world.forward(9)
        assert await at.cursors.next_seq(FORGETTER, at.acme.id, LogName.EVENTS) == 0
        # Another worker's pass is under way: nothing is dropped before it has ended.
        held = await at.cursors.lease(FORGETTER, at.acme.id, LogName.EVENTS, owner="another", seconds=60)
        assert held is not None
        before = world.starts()
        await world.tend()
        assert world.starts()[0] == before[0]
        await at.cursors.release(held)
        await world.tend()
        assert world.starts()[0] == before[1]
        assert await at.cursors.next_seq(FORGETTER, at.acme.id, LogName.EVENTS) >= 2


async def test_index_of_a_dropped_range_stays_while_a_search_may_read_it() -> None:
    async with desk() as at:
        world = World(at)
        generation = await world.first(world.today, world.today + DAY)
        world.forward(10)
        world.generations.idle_seconds = LEFT_FOR.total_seconds() - 1
        await world.tend()
        assert world.starts()[0] == generation.starts[1]
        assert generation.range_indices[0] in world.ranges.there
        world.generations.idle_seconds = LEFT_FOR.total_seconds() + 1
        await world.tend()
        assert generation.range_indices[0] not in world.ranges.there


async def test_rebuilt_generation_is_read_once_it_is_nearly_full_and_the_old_one_removed() -> None:
    async with desk() as at:
        world = World(at)
        old = await world.first()
        world.ranges.there[at.acme.index] = "uuid of versions before generations"
        [index] = await world.generations.all()
        built = await rebuild(index, world.generations, world.ranges)
        assert built is not None
        assert (built.name, built.starts) == ("v3-2", old.starts)
        world.whole()
        # Again, as after a crash: it is the same one.
        [index] = await world.generations.all()
        assert await rebuild(index, world.generations, world.ranges) == built
        world.generations.lag, world.generations.idle_seconds = LAG_MAX + 1, 0
        await world.tend()
        assert {name: row.state for name, row in world.generations.rows.items()} == {"v3-1": LIVE, "v3-2": BUILDING}
        world.generations.lag = LAG_MAX
        await world.tend(times=2)
        world.seconds += LOOK_EVERY.total_seconds() + 1
        assert {name: row.state for name, row in world.generations.rows.items()} == {"v3-1": RETIRED, "v3-2": LIVE}
        assert set(old.range_indices) < set(world.ranges.there)
        world.generations.idle_seconds = LEFT_FOR.total_seconds() + 1
        await world.tend()
        assert set(world.generations.rows) == {"v3-2"}
        assert set(world.ranges.there) == set(IndexGeneration(at.acme.index, "v3-2", world.starts("v3-2")).range_indices)


async def test_full_range_is_followed_by_one_that_begins_early() -> None:
    async with desk() as at:
        world = World(at, kept_days=365)
        generation = await world.first()
        world.ranges.full.add(generation.range_indices[0])
        await world.tend(times=3)
        assert world.starts() == (world.today, world.today + 2 * DAY)
        world.whole()


async def test_building_generation_gets_ranges_ahead_too() -> None:
    async with desk() as at:
        world = World(at)
        await world.first()
        [index] = await world.generations.all()
        await rebuild(index, world.generations, world.ranges)
        world.generations.lag = LAG_MAX + 1
        world.forward(1)
        await world.tend(times=3)
        assert len(world.starts("v3-2")) == len(world.starts("v3-1")) > 1
        world.whole()


async def test_generation_of_another_mapping_is_not_touched() -> None:
    async with desk() as at:
        world = World(at)
        await world.first()
        world.ranges.version = 4
        world.forward(1)
        await world.tend()
        assert len(world.starts()) == 1
        [index] = await world.generations.all()
        assert await rebuild(index, world.generations, world.ranges) is None


async def test_index_that_is_not_recorded_yet_is_left_alone() -> None:
    async with desk() as at:
        world = World(at)
        await world.first()
        new = IndexGeneration(at.acme.index, "v3-2", (world.today,)).range_indices[0]
        world.ranges.there[new] = "uuid"
        strange = f"{at.acme.index}.something-else"
        world.ranges.there[strange] = "uuid"
        await world.tend()
        assert {new, strange} <= set(world.ranges.there)


async def test_interrupted_steps_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async with desk() as at:
        world = World(at)
        await world.first()
        world.forward(1)
        # Killed after the index was made, before it was recorded.
        killed = DecklogError(Code.STORAGE_UNAVAILABLE, "Killed.")
        with monkeypatch.context() as broken:

            async def fails(*_: object) -> bool:
                raise killed

            broken.setattr(world.generations, "add_range", fails)
            assert await world.tending.tend() == {at.acme.index: killed}
        assert len(world.ranges.there) == 2
        await world.tend()
        world.whole()
        assert len(world.ranges.there) >= 2
        world.ranges.failing = killed
        world.forward(30)
        assert await world.tending.tend() == {at.acme.index: killed}
        world.ranges.failing = None
        await world.tend(times=20)
        world.whole()


def test_as_building_returns_the_tenant_with_the_generation_that_is_built() -> None:
    generation = IndexGeneration("decklog-t-acme", "v3-2", (date(2026, 1, 1),))
    acme = make_tenant("acme")
    assert as_building(acme) is None
    built = as_building(replace(acme, building=generation))
    assert built is not None
    assert built.live == generation
