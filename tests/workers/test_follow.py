"""The laws of following a log, whatever workers, effects and leases do meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decklog.domain.consumers import Cursor, LogRecords
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.tenant import Tenant
from decklog.services.following.follow import Follower
from decklog.services.following.lines import Ended
from tests.support.examples import examples
from tests.support.memory import make_tenant
from tests.support.memory_store import MemoryCursors, MemoryStore, fill

EVENTS = LogName.EVENTS
LAWS = settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Clock:
    """Time for leases, moved by hand."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Done:
    """What effects have done so far, of all workers together."""

    def __init__(self) -> None:
        self.applied: list[int] = []
        self.settled: set[int] = set()


class Recording:
    """An effect of one worker. It fails as often as `failing` says, at any point; `gate` holds it up."""

    def __init__(self, done: Done, *, failing: float = 0.0, chance: random.Random | None = None, parallel: int = 1) -> None:
        self._done = done
        self.parallel = parallel
        self.failing = failing
        self._chance = chance or random.Random(1)
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self._mine: set[int] = set()

    async def apply(self, batch: Sequence[LogRecords]) -> None:
        self.entered.set()
        await self.gate.wait()
        records = [record for each in batch for record in each.records]
        for record in records:
            if self._chance.random() < self.failing / len(records):
                raise self._failure()
            self._done.applied.append(record.seq)
        for _ in range(self._chance.randrange(6)):
            await asyncio.sleep(0)
        if self._chance.random() < self.failing:
            raise self._failure()
        self._mine.update(record.seq for record in records)

    async def settle(self, tenants: Sequence[Tenant]) -> None:
        seen = set(self._mine)
        for _ in range(self._chance.randrange(4)):
            await asyncio.sleep(0)
        if self._chance.random() < self.failing:
            raise self._failure()
        self._done.settled |= seen

    def _failure(self) -> Exception:
        return DecklogError(Code.SEARCH_UNAVAILABLE, "on purpose")


class WatchedCursors(MemoryCursors):
    """Checks with each move that the cursor goes forward and over nothing that is not settled."""

    def __init__(self, store: MemoryStore, done: Done, clock: Clock) -> None:
        super().__init__(store, now=clock)
        self._done = done
        self.moves: list[int] = []

    async def move(self, cursor: Cursor, to: int, *, seconds: float) -> Cursor | None:
        moved = await super().move(cursor, to, seconds=seconds)
        if moved is not None:
            assert to > cursor.next_seq
            assert set(range(cursor.next_seq, to)) <= self._done.settled
            self.moves.append(to)
        return moved


class World:
    """A log, its cursors, and workers that follow it."""

    def __init__(self) -> None:
        self.tenant = make_tenant("acme")
        self.clock = Clock()
        self.done = Done()
        self.store = MemoryStore(self.tenant)
        self.cursors = WatchedCursors(self.store, self.done, self.clock)

    def worker(self, effect: Recording, *, batch: int = 7, lease_seconds: float = 30.0) -> Follower:
        return Follower(
            "test",
            self.store,
            self.cursors,
            effect,
            lease_seconds=lease_seconds,
            batch_records_max=batch,
            backoff_seconds=(0.0, 0.0),
        )

    async def append(self, count: int) -> None:
        await fill(self.store, self.tenant, *({} for _ in range(count)))

    async def cursor(self) -> int:
        return await self.cursors.next_seq("test", self.tenant.id, EVENTS)

    async def head(self) -> int:
        return (await self.store.head(self.tenant, EVENTS)).next_seq


@LAWS
@given(count=st.integers(0, 60), batch=st.integers(1, 20), start=st.integers(0, 60))
async def test_follower_applies_every_record_once_in_order(count: int, batch: int, start: int) -> None:
    world = World()
    await world.append(min(start, count))
    worker = world.worker(Recording(world.done), batch=batch)
    assert await worker.advance(world.tenant, EVENTS) is Ended.DONE
    await world.append(count - min(start, count))
    assert await worker.advance(world.tenant, EVENTS) is Ended.DONE
    assert world.done.applied == list(range(count))
    assert await world.cursor() == count
    assert world.cursors.moves == sorted(world.cursors.moves)


async def advance_until_done(world: World, worker: Follower) -> None:
    async with asyncio.timeout(30):
        while await world.cursor() < await world.head():
            await worker.advance(world.tenant, EVENTS)
            await asyncio.sleep(0)


@LAWS
@given(
    count=st.integers(1, 60),
    workers=st.integers(1, 3),
    parallel=st.integers(1, 3),
    failing=st.floats(0, 0.6),
    seed=st.integers(0, 2**32),
)
async def test_followers_leave_nothing_out_when_effects_fail_and_workers_compete(
    *, count: int, workers: int, parallel: int, failing: float, seed: int
) -> None:
    world = World()
    chance = random.Random(seed)
    effects = [Recording(world.done, failing=failing, chance=chance, parallel=parallel) for _ in range(workers)]
    followers = [world.worker(effect, batch=chance.randint(1, 9)) for effect in effects]

    async def writing() -> None:
        for _ in range(count):
            await world.append(1)
            for _ in range(chance.randrange(5)):
                await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(writing())
        for follower in followers:
            group.create_task(advance_until_done(world, follower))
    for effect in effects:
        effect.failing = 0.0
    await advance_until_done(world, followers[0])
    assert await world.cursor() == count
    assert world.done.settled == set(range(count))
    assert world.cursors.moves == sorted(set(world.cursors.moves))


async def test_follower_waits_for_another_workers_lease_to_expire() -> None:
    world = World()
    await world.append(3)
    assert await world.cursors.lease("test", world.tenant.id, EVENTS, owner="somebody", seconds=10) is not None
    worker = world.worker(Recording(world.done))
    assert await worker.advance(world.tenant, EVENTS) is Ended.HELD
    assert world.done.applied == []
    world.clock.pass_seconds(11)
    assert await worker.advance(world.tenant, EVENTS) is Ended.DONE
    assert world.done.applied == [0, 1, 2]


async def test_follower_with_an_expired_lease_does_not_move_the_cursor() -> None:
    world = World()
    await world.append(5)
    slow, quick = Recording(world.done), Recording(world.done)
    slow.gate.clear()
    stalled = asyncio.create_task(world.worker(slow).advance(world.tenant, EVENTS))
    await slow.entered.wait()
    world.clock.pass_seconds(31)
    await world.append(4)
    assert await world.worker(quick).advance(world.tenant, EVENTS) is Ended.DONE
    moves = list(world.cursors.moves)
    slow.gate.set()
    assert await stalled is Ended.LOST
    assert world.cursors.moves == moves
    assert await world.cursor() == 9


async def test_follower_renews_its_lease_during_long_work() -> None:
    world = World()
    await world.append(2)
    slow = Recording(world.done)
    slow.gate.clear()
    working = asyncio.create_task(world.worker(slow, lease_seconds=0.09).advance(world.tenant, EVENTS))
    await slow.entered.wait()
    for _ in range(5):
        # Each time more of the lease is used up than is left without a renewal in between.
        until = world.cursors._leases["test", world.tenant.id, EVENTS].until
        world.clock.pass_seconds(0.06)
        async with asyncio.timeout(10):
            while world.cursors._leases["test", world.tenant.id, EVENTS].until == until:
                await asyncio.sleep(0.01)
        assert await world.worker(Recording(world.done)).advance(world.tenant, EVENTS) is Ended.HELD
    slow.gate.set()
    assert await working is Ended.DONE
    assert await world.cursor() == 2


async def test_follower_cancels_its_effect_when_another_worker_takes_the_lease() -> None:
    world = World()
    await world.append(2)
    stuck = Recording(world.done)
    stuck.gate.clear()
    working = asyncio.create_task(world.worker(stuck, lease_seconds=0.09).advance(world.tenant, EVENTS))
    await stuck.entered.wait()
    world.cursors._leases["test", world.tenant.id, EVENTS].owner = "somebody"
    world.clock.pass_seconds(-1)
    async with asyncio.timeout(10):
        assert await working is Ended.LOST
    assert world.done.applied == []
    assert world.cursors._leases["test", world.tenant.id, EVENTS].owner == "somebody"


async def test_follower_releases_the_lease_and_backs_off_after_a_failure() -> None:
    world = World()
    await world.append(2)
    seconds = 0.0
    effect = Recording(world.done, failing=1.0)
    worker = Follower("test", world.store, world.cursors, effect, backoff_seconds=(10.0, 40.0), clock=lambda: seconds)
    waits = []
    for _ in range(6):
        asked_at = seconds
        while await worker.advance(world.tenant, EVENTS) is Ended.WAITING:
            seconds += 1.0
        waits.append(seconds - asked_at)
        assert world.cursors._leases["test", world.tenant.id, EVENTS].owner == ""
        assert await world.cursor() == 0
    # The first comes at once; then they double from 10 to 40 seconds, each between a half and one and a half of that.
    assert waits[0] == 0
    assert 5 <= waits[1] <= 16
    assert all(20 <= wait <= 61 for wait in waits[3:])
    effect.failing = 0.0
    seconds += 100.0
    assert await worker.advance(world.tenant, EVENTS) is Ended.DONE


async def test_follower_limits_an_unexpected_error_of_an_effect_to_its_log() -> None:
    class Broken(Recording):
        def _failure(self) -> Exception:
            return RuntimeError("a defect")

    world = World()
    await world.append(1)
    effect = Broken(world.done, failing=1.0)
    worker = world.worker(effect)
    assert await worker.advance(world.tenant, EVENTS) is Ended.FAILED
    assert await worker.advance(world.tenant, LogName.ACCESS) is Ended.DONE
    effect.failing = 0.0
    assert await worker.advance(world.tenant, EVENTS) is Ended.DONE


async def test_follower_tries_a_failed_log_in_small_batches_that_grow() -> None:
    world = World()
    await world.append(64)
    sizes: list[int] = []

    class Noting(Recording):
        async def apply(self, batch: Sequence[LogRecords]) -> None:
            sizes.append(sum(len(each.records) for each in batch))
            await super().apply(batch)

    effect = Noting(world.done, failing=1.0)
    worker = Follower("test", world.store, world.cursors, effect, batch_records_max=32, backoff_seconds=(0.0, 0.0))
    for _ in range(4):
        assert await worker.advance(world.tenant, EVENTS) is Ended.FAILED
    assert (sizes[0], sizes[-1]) == (32, 1)
    effect.failing = 0.0
    sizes.clear()
    assert await worker.advance(world.tenant, EVENTS) is Ended.DONE
    assert sizes[:3] == [1, 2, 4]


async def test_follower_tries_one_log_for_all_while_several_fail() -> None:
    world = World()
    await world.append(1)
    seconds = 0.0
    effect = Recording(world.done, failing=1.0)
    worker = Follower("test", world.store, world.cursors, effect, backoff_seconds=(1.0, 1.0), clock=lambda: seconds)
    others = [make_tenant(f"other-{number}") for number in range(20)]
    for other in others:
        world.store.register(other)
        await fill(world.store, other, {})
    world.store.failing = DecklogError(Code.STORAGE_UNAVAILABLE, "away")
    tenants = [world.tenant, *others]
    assert {await worker.advance(tenant, EVENTS) for tenant in tenants} == {Ended.FAILED}
    seconds = 2.0
    ends = [await worker.advance(tenant, EVENTS) for tenant in tenants]
    assert (ends[0], set(ends[1:])) == (Ended.FAILED, {Ended.WAITING})
    world.store.failing, effect.failing = None, 0.0
    seconds = 4.0
    assert await worker.advance(world.tenant, EVENTS) is Ended.DONE
    assert Ended.WAITING not in [await worker.advance(tenant, EVENTS) for tenant in tenants]


async def test_follower_returns_failed_when_the_store_is_down() -> None:
    world = World()
    await world.append(1)
    world.store.failing = DecklogError(Code.STORAGE_UNAVAILABLE, "away")
    worker = world.worker(Recording(world.done))
    assert await worker.advance(world.tenant, EVENTS) is Ended.FAILED
    world.store.failing = None
    assert await worker.advance(world.tenant, EVENTS) is Ended.DONE


async def test_follower_skips_records_beyond_retention() -> None:
    world = World()
    await world.append(10)
    world.store.drop_before(world.tenant, EVENTS, 6)
    world.done.settled |= set(range(6))
    assert await world.worker(Recording(world.done), batch=3).advance(world.tenant, EVENTS) is Ended.DONE
    assert world.done.applied == [6, 7, 8, 9]
    world.store.drop_before(world.tenant, EVENTS, 20)
    await world.append(3)
    world.store.drop_before(world.tenant, EVENTS, 20)
    world.done.settled |= set(range(13))
    assert await world.worker(Recording(world.done)).advance(world.tenant, EVENTS) is Ended.DONE
    assert await world.cursor() == 13


async def test_follower_second_advance_of_a_log_waits_for_the_first() -> None:
    world = World()
    await world.append(2)
    effect = Recording(world.done)
    effect.gate.clear()
    worker = world.worker(effect)
    first = asyncio.create_task(worker.advance(world.tenant, EVENTS))
    await effect.entered.wait()
    second = asyncio.create_task(worker.advance(world.tenant, EVENTS))
    await asyncio.sleep(0.01)
    assert not second.done()
    effect.gate.set()
    assert (await first, await second) == (Ended.DONE, Ended.DONE)
    assert world.done.applied == [0, 1]


async def test_follower_releases_its_lease_when_cancelled() -> None:
    world = World()
    await world.append(2)
    effect = Recording(world.done)
    effect.gate.clear()
    working = asyncio.create_task(world.worker(effect).advance(world.tenant, EVENTS))
    await effect.entered.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert await world.worker(Recording(world.done)).advance(world.tenant, EVENTS) is Ended.DONE


async def test_follower_ends_after_its_batch_with_the_cursor_moved_when_it_stops() -> None:
    world = World()
    await world.append(30)
    effect = Recording(world.done)
    effect.gate.clear()
    worker = world.worker(effect, batch=10)
    working = asyncio.create_task(worker.advance(world.tenant, EVENTS))
    await effect.entered.wait()
    worker.stop()
    effect.gate.set()
    assert await working is Ended.DONE
    assert world.done.applied == list(range(10))
    assert await world.cursor() == 10


async def test_follower_reads_smaller_batches_when_records_are_large() -> None:
    world = World()
    sizes: list[int] = []

    class Measuring(Recording):
        async def apply(self, batch: Sequence[LogRecords]) -> None:
            sizes.append(sum(len(each.records) for each in batch))
            await super().apply(batch)

    await fill(world.store, world.tenant, *({"metadata": "x" * 200_000} for _ in range(260)))
    assert await world.worker(Measuring(world.done), batch=1_000).advance(world.tenant, EVENTS) is Ended.DONE
    assert sum(sizes) == 260
    assert max(sizes[1:]) * 200_000 <= 5 * 1024 * 1024
