"""Logs of one place advance together: one of each statement for all of them, and none holds up the others."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from decklog.domain.consumers import Cursor, LogKey, LogRecords, Standing
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.record import StoredRecord
from decklog.domain.store import Reading
from decklog.domain.tenant import Isolation, Tenant
from decklog.services.following import advance
from decklog.services.following.advance import PROBES
from decklog.services.following.follow import Follower
from decklog.services.following.lines import TURN_RECORDS, Ended, Line, shares
from tests.support.examples import examples
from tests.support.memory import make_tenant
from tests.support.memory_store import MemoryCursors, MemoryStore, fill

EVENTS = LogName.EVENTS
AWAY = DecklogError(Code.SEARCH_UNAVAILABLE, "on purpose")
Place = tuple[int, LogName, int]


def shared_tenant(name: str) -> Tenant:
    return replace(make_tenant(name, isolation=Isolation.SHARED), schema="shared_30", index="decklog-shared-30")


class CountedStore(MemoryStore):
    """Counts readings of several logs, and knows which they were."""

    def __init__(self, *tenants: Tenant) -> None:
        super().__init__(*tenants)
        self.readings: list[list[int]] = []

    async def read_logs(
        self, readings: Sequence[Reading], *, timeout: float, bytes_max: int = 2**23
    ) -> list[tuple[list[StoredRecord], int]]:
        self.readings.append([each.tenant.id for each in readings])
        return await super().read_logs(readings, timeout=timeout, bytes_max=bytes_max)


class CheckedCursors(MemoryCursors):
    """Counts statements, and checks that no cursor goes back or passes what is not settled."""

    def __init__(self, store: MemoryStore, settled: set[Place]) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        super().__init__(store, now=lambda: self.now)
        self._settled = settled
        self.calls: Counter[str] = Counter()

    async def lease_all(self, consumer: str, logs: Sequence[LogKey], *, owner: str, seconds: float) -> list[Standing]:
        self.calls["lease"] += 1
        return await super().lease_all(consumer, logs, owner=owner, seconds=seconds)

    async def move_all(self, moves: Sequence[tuple[Cursor, int]], *, seconds: float) -> list[Standing]:
        self.calls["move"] += 1
        return await super().move_all(moves, seconds=seconds)

    async def release_all(self, cursors: Sequence[Cursor]) -> None:
        self.calls["release"] += 1
        await super().release_all(cursors)

    async def move(self, cursor: Cursor, to: int, *, seconds: float) -> Cursor | None:
        moved = await super().move(cursor, to, seconds=seconds)
        if moved is not None:
            assert to > cursor.next_seq
            assert {(*cursor.key, seq) for seq in range(cursor.next_seq, to)} <= self._settled
        return moved


class Noting:
    """An effect that notes what it is given. `refuses`: tenants whose records it does not take. `failing`: how often it fails anyway."""

    parallel = 3

    def __init__(self, settled: set[Place], *, chance: random.Random | None = None, failing: float = 0.0) -> None:
        self.batches: list[dict[int, int]] = []
        self.applied: list[Place] = []
        self.refuses: set[int] = set()
        self.settles = 0
        self.failing, self.settling_fails = failing, False
        self.gate = asyncio.Event()
        self.gate.set()
        self._chance = chance or random.Random(1)
        self._settled = settled
        self._mine: set[Place] = set()

    async def apply(self, batch: Sequence[LogRecords]) -> None:
        self.batches.append({each.tenant.id: len(each.records) for each in batch})
        await self.gate.wait()
        for _ in range(self._chance.randrange(4)):
            await asyncio.sleep(0)
        if self.refuses & self.batches[-1].keys() or self._chance.random() < self.failing:
            raise AWAY
        places = [(each.tenant.id, each.log, record.seq) for each in batch for record in each.records]
        self.applied += places
        self._mine.update(places)

    async def settle(self, tenants: Sequence[Tenant]) -> None:
        seen = set(self._mine)
        self.settles += 1
        await asyncio.sleep(0)
        if self.settling_fails or self._chance.random() < self.failing:
            raise AWAY
        self._settled |= seen


class World:
    """A class of tenants, with one worker."""

    def __init__(self, tenants: int) -> None:
        self.tenants = [shared_tenant(f"tenant-{number}") for number in range(tenants)]
        self.store = CountedStore(*self.tenants)
        self.settled: set[Place] = set()
        self.cursors = CheckedCursors(self.store, self.settled)
        self.effect = Noting(self.settled)
        self.seconds = 0.0
        self.worker = self.another(self.effect)

    def another(self, effect: Noting, *, batch: int = 1_000) -> Follower:
        return Follower(
            "test",
            self.store,
            self.cursors,
            effect,
            batch_records_max=batch,
            backoff_seconds=(1.0, 1.0),
            clock=lambda: self.seconds,
        )

    async def append(self, *tenants: Tenant, count: int = 1) -> None:
        for tenant in tenants or self.tenants:
            await fill(self.store, tenant, *({} for _ in range(count)))

    async def advance(self, *tenants: Tenant) -> list[Ended]:
        return await asyncio.gather(*(self.worker.advance(tenant, EVENTS) for tenant in tenants or self.tenants))

    async def cursor(self, tenant: Tenant) -> int:
        return await self.cursors.next_seq("test", tenant.id, EVENTS)


async def test_class_is_leased_read_applied_settled_and_moved_at_once() -> None:
    world = World(200)
    await world.append(count=3)
    assert set(await world.advance()) == {Ended.DONE}
    assert len(world.store.readings) == len(world.effect.batches) == world.effect.settles == 1
    assert world.cursors.calls == {"lease": 1, "move": 1}
    assert [await world.cursor(tenant) for tenant in world.tenants] == [3] * 200
    assert {lease.owner for lease in world.cursors._leases.values()} == {""}


async def test_logs_with_nothing_new_take_no_lease() -> None:
    world = World(3)
    assert await world.advance() == [Ended.DONE] * 3
    assert world.cursors.calls == {"lease": 1}
    assert world.cursors._leases == {}


async def test_dedicated_tenants_and_generations_advance_apart() -> None:
    world = World(2)
    world.tenants[1] = replace(world.tenants[1], schema="t_other")
    await world.append()
    assert await world.advance() == [Ended.DONE] * 2
    assert sorted(map(len, world.effect.batches)) == [1, 1]


async def test_log_that_fails_by_itself_holds_up_no_other_and_is_tried_alone_then() -> None:
    world = World(100)
    await world.append()
    bad, *others = world.tenants
    world.effect.refuses = {bad.id}
    assert Counter(await world.advance()) == {Ended.DONE: 99, Ended.FAILED: 1}
    assert await world.cursor(bad) == 0
    assert len(world.effect.batches) <= 30
    world.seconds = 10.0
    await world.append()
    tried = len(world.effect.batches)
    assert Counter(await world.advance()) == {Ended.DONE: 99, Ended.FAILED: 1}
    assert sorted(map(len, world.effect.batches[tried:])) == [1, 99]
    assert [await world.cursor(tenant) for tenant in others] == [2] * 99
    world.effect.refuses, world.seconds = set(), 20.0
    assert await world.advance(bad) == [Ended.DONE]


async def test_few_logs_are_tried_while_all_fail_and_the_first_success_frees_the_others() -> None:
    world = World(100)
    await world.append()
    world.effect.refuses = {tenant.id for tenant in world.tenants}
    assert set(await world.advance()) == {Ended.FAILED}
    assert sorted(map(len, world.effect.batches)) == [1] * PROBES + [100]
    world.seconds = 10.0
    tried = len(world.effect.batches)
    assert Counter(await world.advance()) == {Ended.WAITING: 99, Ended.FAILED: 1}
    assert len(world.effect.batches) == tried + 1
    world.effect.refuses, world.seconds = set(), 20.0
    ends = Counter(await world.advance())
    assert ends == {Ended.DONE: 1, Ended.WAITING: 99}
    assert set(await world.advance()) == {Ended.DONE}
    # Those that failed together with others are read together again.
    assert max(map(len, world.effect.batches[tried:])) >= 100 - PROBES - 2


async def test_failed_settling_moves_no_cursor_and_ends_every_lease() -> None:
    world = World(10)
    await world.append()
    world.effect.settling_fails = True
    assert set(await world.advance()) == {Ended.FAILED}
    assert {lease.owner for lease in world.cursors._leases.values()} == {""}
    assert {lease.next_seq for lease in world.cursors._leases.values()} == {0}


async def test_log_whose_cursor_was_moved_elsewhere_loses_only_itself() -> None:
    world = World(10)
    await world.append()
    world.effect.gate.clear()
    working = asyncio.create_task(world.advance())
    while not world.effect.batches:
        await asyncio.sleep(0)
    lost, *others = world.tenants
    world.settled.add((lost.id, EVENTS, 0))
    world.cursors._leases["test", lost.id, EVENTS].owner = "somebody"
    world.effect.gate.set()
    assert await working == [Ended.LOST, *[Ended.DONE] * 9]
    assert [await world.cursor(tenant) for tenant in others] == [1] * 9
    assert world.cursors._leases["test", lost.id, EVENTS].owner == "somebody"


async def test_log_of_another_worker_is_left_to_it() -> None:
    world = World(3)
    await world.append()
    theirs = world.tenants[1]
    assert await world.cursors.lease("test", theirs.id, EVENTS, owner="somebody", seconds=10)
    assert await world.advance() == [Ended.DONE, Ended.HELD, Ended.DONE]
    assert theirs.id not in {tenant for batch in world.effect.batches for tenant in batch}


async def test_small_logs_do_not_wait_for_a_large_one() -> None:
    world = World(51)
    large, *small = world.tenants
    await world.append(large, count=3_000)
    await world.append(*small)
    assert set(await world.advance()) == {Ended.DONE}
    first = world.effect.batches[0]
    assert set(first) == {tenant.id for tenant in world.tenants}
    assert first[large.id] == 1_000 - 50
    assert await world.cursor(large) == 3_000


async def test_log_joins_an_advance_of_its_place() -> None:
    world = World(2)
    first, second = world.tenants
    await world.append()
    world.effect.gate.clear()
    one = asyncio.create_task(world.worker.advance(first, EVENTS))
    while not world.effect.batches:
        await asyncio.sleep(0)
    other = asyncio.create_task(world.worker.advance(second, EVENTS))
    while len(world.effect.batches) < 2:
        await asyncio.sleep(0)
    world.effect.gate.set()
    assert (await one, await other) == (Ended.DONE, Ended.DONE)
    assert world.effect.settles <= 2


async def test_cancelled_caller_takes_its_log_out_and_leaves_the_others() -> None:
    world = World(3)
    await world.append()
    world.effect.gate.clear()
    tasks = [asyncio.create_task(world.worker.advance(tenant, EVENTS)) for tenant in world.tenants]
    while not world.effect.batches:
        await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.gather(tasks[0], return_exceptions=True)
    assert world.cursors._leases["test", world.tenants[0].id, EVENTS].owner == ""
    world.effect.gate.set()
    assert await asyncio.gather(*tasks[1:]) == [Ended.DONE] * 2
    assert await world.advance(world.tenants[0]) == [Ended.DONE]


async def test_effect_that_cancels_itself_counts_as_failed() -> None:
    world = World(1)
    await world.append()

    async def cancelled(batch: Sequence[LogRecords]) -> None:
        raise asyncio.CancelledError

    world.effect.apply = cancelled  # type: ignore[method-assign]
    assert await world.advance() == [Ended.FAILED]
    assert await world.cursor(world.tenants[0]) == 0


async def test_defect_of_the_cursors_ends_as_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(2)
    await world.append()

    async def broken(moves: object, *, seconds: float) -> list[Standing]:
        raise RuntimeError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(world.cursors, "move_all", broken)
        assert await world.advance() == [Ended.FAILED] * 2
    world.seconds = 10.0
    assert Ended.DONE in await world.advance()


async def test_advance_ends_with_more_after_its_time_and_the_cursor_moved() -> None:
    world = World(2)
    await world.append(count=50)

    async def late(batch: Sequence[LogRecords]) -> None:
        world.seconds = 100.0
        await Noting.apply(world.effect, batch)

    world.effect.apply = late  # type: ignore[method-assign]
    world.worker = world.another(world.effect, batch=10)
    assert await world.advance() == [Ended.MORE] * 2
    assert 0 < await world.cursor(world.tenants[0]) < 50


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=8),
    workers=st.integers(1, 3),
    failing=st.floats(0, 0.5),
    seed=st.integers(0, 2**32),
)
async def test_class_is_done_whatever_fails_and_however_many_workers_compete(
    counts: list[int], workers: int, failing: float, seed: int
) -> None:
    world = World(len(counts))
    chance = random.Random(seed)
    effects = [Noting(world.settled, chance=chance, failing=failing) for _ in range(workers)]
    followers = [world.another(effect, batch=chance.randint(1, 40)) for effect in effects]

    async def writing(tenant: Tenant, count: int) -> None:
        for _ in range(count):
            await world.append(tenant)
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)

    async def working(follower: Follower) -> None:
        while not await done():
            world.seconds += 1.0
            some = chance.sample(world.tenants, chance.randint(1, len(world.tenants)))
            await asyncio.gather(*(follower.advance(tenant, EVENTS) for tenant in some))
            await asyncio.sleep(0)

    async def done() -> bool:
        return all([await world.cursor(tenant) == count for tenant, count in zip(world.tenants, counts, strict=True)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(advance, "LOOK_AGAIN_SECONDS", 0.001)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for tenant, count in zip(world.tenants, counts, strict=True):
                group.create_task(writing(tenant, count))
            for follower in followers:
                group.create_task(working(follower))
    wanted = {(tenant.id, EVENTS, seq) for tenant, count in zip(world.tenants, counts, strict=True) for seq in range(count)}
    assert world.settled == wanted
    assert {lease.owner for lease in world.cursors._leases.values()} <= {""}


@given(unread=st.lists(st.integers(0, 300), max_size=40), records_max=st.integers(1, 200))
async def test_shares_use_the_whole_batch_and_give_every_log_a_turn(unread: list[int], records_max: int) -> None:
    lines = [line_of(count) for count in unread]
    found = shares(lines, records_max)
    assert sum(share for _, share in found) == min(records_max, sum(unread))
    assert all(0 < share <= line.unread for line, share in found)
    served = {id(line) for line, _ in found}
    waiting = [line for line in lines if line.unread and id(line) not in served]
    if waiting:
        assert max(share for _, share in found) <= TURN_RECORDS


def line_of(unread: int) -> Line:
    line = Line(make_tenant("any"), EVENTS, cap=100, records_max=100, until=0.0)
    line.end = unread
    return line


async def test_lease_that_is_lost_ends_only_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(2)
    await world.append()
    lost, kept = world.tenants
    world.effect.gate.clear()
    worker = Follower("test", world.store, world.cursors, world.effect, lease_seconds=0.06)
    working = [asyncio.create_task(worker.advance(tenant, EVENTS)) for tenant in world.tenants]
    while not world.effect.batches:
        await asyncio.sleep(0)
    world.cursors._leases["test", lost.id, EVENTS].owner = "somebody"
    async with asyncio.timeout(10):
        assert await working[0] is Ended.LOST
    world.cursors.now += timedelta(seconds=1)
    world.effect.gate.set()
    assert await working[1] is Ended.DONE
    assert await world.cursor(kept) == 1
