"""The worker as a whole, over surroundings in memory."""

from __future__ import annotations

import asyncio
import random
import socket
import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import pytest

from decklog.domain.consumers import FORGETTER, INDEXER, Cursor
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.store import SearchDocument, WakeUp
from decklog.domain.tenant import Limits, State, Tenant
from decklog.services.following.follow import Follower
from decklog.workers import dispatch, poll
from decklog.workers.consumers.indexer import Indexer
from decklog.workers.dispatch import Dispatcher
from decklog.workers.duties import keeper
from decklog.workers.poll import Pollers, Rotation
from tests.support.memory_index import MemoryIndex
from tests.support.memory_queue import MemoryQueue
from tests.support.memory_store import MemoryCursors
from tests.workers.worlds import MemoryService, running, settings, until

EVENTS, ACCESS = LogName.EVENTS, LogName.ACCESS
AWAY = DecklogError(Code.SEARCH_UNAVAILABLE, "away")


class GatedIndex(MemoryIndex):
    """Takes documents only while `gate` is set, and knows how many calls wait."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.inside = self.inside_max = 0

    async def add(self, tenant: Tenant, documents: Sequence[SearchDocument]) -> int:
        self.inside += 1
        self.inside_max = max(self.inside, self.inside_max)
        try:
            await self.gate.wait()
            return await super().add(tenant, documents)
        finally:
            self.inside -= 1


async def wake(service: MemoryService, tenant: Tenant, number: int, log: LogName = EVENTS) -> None:
    assert service.queue is not None
    await service.queue.send(tenant.queue, [WakeUp(tenant.id, log, number)])


async def test_message_makes_records_findable_and_is_deleted() -> None:
    queue = MemoryQueue()
    service = MemoryService("acme", queue=queue, index=MemoryIndex())
    (tenant,) = service.tenants
    async with running(service, settings()):
        for _ in range(3):
            number = await service.append(tenant, 5)
            await wake(service, tenant, number)
            await service.until_done(tenant, number)
            await until(lambda: queue.left(tenant.queue) == 0)


async def test_message_is_deleted_although_its_consumer_fails_and_the_sweep_retries_the_log() -> None:
    index, queue = MemoryIndex(), MemoryQueue()
    service = MemoryService("acme", queue=queue, index=index)
    (tenant,) = service.tenants
    index.failing = AWAY
    async with running(service, settings(sweep_seconds=0.02)):
        number = await service.append(tenant)
        await wake(service, tenant, number)
        await until(lambda: index.asked > 0 and queue.left(tenant.queue) == 0)
        assert await service.done(tenant) == 0
        index.failing = None
        await service.until_done(tenant, number)


async def test_consumer_that_is_down_keeps_no_message_of_another_consumer() -> None:
    index, down, queue = MemoryIndex(), MemoryIndex(), MemoryQueue()
    down.failing = AWAY
    service = MemoryService("acme", queue=queue, index=index)
    (tenant,) = service.tenants
    dispatchers = [
        Dispatcher(Follower(consumer, service.store, service.cursors, Indexer(each)), service.registry)
        for consumer, each in ((INDEXER, index), ("sink", down))
    ]
    await service.registry.start()
    polling = asyncio.create_task(Pollers(queue, service.registry, dispatchers, pollers=1).run())
    for _ in range(20):
        number = await service.append(tenant)
        await wake(service, tenant, number)
        await service.until_done(tenant, number)
        await until(lambda: queue.left(tenant.queue) == 0)
    assert down.asked > 0
    assert await service.cursors.next_seq("sink", tenant.id, EVENTS) == 0
    polling.cancel()
    await asyncio.gather(polling, *(dispatcher.stop() for dispatcher in dispatchers), return_exceptions=True)
    await service.registry.stop()


async def test_sweep_indexes_a_log_whose_worker_died_between_acknowledging_and_advancing() -> None:
    class Stalled(MemoryCursors):
        """No worker ever gets a lease, so that none begins to advance."""

        async def lease(self, consumer: str, tenant_id: int, log: LogName, *, owner: str, seconds: float) -> Cursor | None:
            await asyncio.Event().wait()
            return None

    queue = MemoryQueue()
    service = MemoryService("acme", queue=queue, index=MemoryIndex())
    (tenant,) = service.tenants
    number = await service.append(tenant, 3)
    cursors, service.cursors = service.cursors, Stalled(service.store)
    await service.registry.start()
    dispatcher = Dispatcher(
        Follower(INDEXER, service.store, service.cursors, Indexer(MemoryIndex())),
        service.registry,
    )
    polling = asyncio.create_task(Pollers(queue, service.registry, [dispatcher], pollers=1).run())
    await wake(service, tenant, number)
    await until(lambda: queue.left(tenant.queue) == 0)
    # The process dies here: nothing of it runs any more, and no message is left.
    for task in (polling, *dispatcher._active.values()):
        task.cancel()
    await asyncio.gather(polling, *dispatcher._active.values(), return_exceptions=True)
    await service.registry.stop()
    service.cursors = cursors
    assert await service.done(tenant) == 0
    async with running(service, settings(sweep_seconds=0.02)):
        await service.until_done(tenant, number)
    assert queue.received(tenant.queue) == 0


class BusyLog(MemoryIndex):
    """While documents go in, more records come, so that an advance of their log does not end before `calm`."""

    def __init__(self) -> None:
        super().__init__()
        self.service: MemoryService | None = None
        self.calm = False

    async def add(self, tenant: Tenant, documents: Sequence[SearchDocument]) -> int:
        refused = await super().add(tenant, documents)
        if self.service is not None and not self.calm:
            await self.service.append(tenant)
        return refused


async def test_message_is_deleted_while_its_log_grows_without_end() -> None:
    index, queue = BusyLog(), MemoryQueue()
    index.service = service = MemoryService("acme", queue=queue, index=index)
    (tenant,) = service.tenants
    async with running(service, settings()):
        await wake(service, tenant, await service.append(tenant))
        await until(lambda: index.asked > 0)
        number = (await service.store.head(tenant, EVENTS)).next_seq
        for named in (number, number, number + 1_000_000):  # the last one is of an earlier life of the log
            await wake(service, tenant, named)
            await until(lambda: queue.left(tenant.queue) == 0)
        await service.until_done(tenant, number)
        index.calm = True


async def test_worker_moves_the_floors_of_searches_although_one_tenant_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    service = MemoryService("acme", "beta", "rival", index=MemoryIndex())
    acme, beta, rival = service.tenants
    for tenant in (acme, beta):
        service.backing.add_tenant(msgspec.structs.replace(tenant, limits=Limits(search_days=1)))

    async def first_received(tenant: Tenant, log: LogName, *, days: int, timeout: float) -> int:
        if tenant.id == acme.id:
            raise AWAY
        return 2

    monkeypatch.setattr(service.store, "first_received", first_received)
    for tenant in service.tenants:
        await service.append(tenant, 3)
    async with running(service, settings()):
        await service.until_done(beta, 2, consumer=FORGETTER)
        assert await service.done(acme, consumer=FORGETTER) == await service.done(rival, consumer=FORGETTER) == 0


async def test_sweep_indexes_everything_without_messages() -> None:
    service = MemoryService("one", "two", index=MemoryIndex())
    async with running(service, settings(sweep_seconds=0.02)):
        for tenant in service.tenants:
            for log in LogName:
                await service.append(tenant, 3, log=log)
        for tenant in service.tenants:
            for log in LogName:
                await service.until_done(tenant, 3, log)


@pytest.mark.parametrize("seed", range(3))
async def test_worker_indexes_everything_when_messages_are_lost_doubled_and_reordered(seed: int) -> None:
    chance = random.Random(seed)
    queue = MemoryQueue(lose=0.5, double=0.3, shuffle=True, visibility=0.05, chance=chance)
    index = MemoryIndex()
    service = MemoryService("one", "two", "three", queue=queue, index=index)
    heads: dict[tuple[int, LogName], int] = {}
    async with running(service, settings(sweep_seconds=0.1)):
        for _ in range(120):
            tenant, log = chance.choice(service.tenants), chance.choice(list(LogName))
            heads[tenant.id, log] = await service.append(tenant, chance.randint(1, 5), log=log)
            await wake(service, tenant, chance.randint(0, 1_000), log)
            await asyncio.sleep(chance.choice([0, 0, 0.002]))
        for tenant in service.tenants:
            for log in LogName:
                await service.until_done(tenant, heads.get((tenant.id, log), 0), log)
    for tenant in service.tenants:
        for log in LogName:
            assert index.findable(tenant, log) == list(range(heads.get((tenant.id, log), 0)))


async def test_two_workers_share_the_logs_and_index_everything() -> None:
    queue = MemoryQueue(visibility=0.1)
    index = MemoryIndex()
    service = MemoryService("one", "two", queue=queue, index=index)
    other = MemoryService(queue=queue, index=index)
    other.backing, other.registry, other.store, other.cursors = service.backing, service.registry, service.store, service.cursors
    stop = asyncio.Event()
    async with running(service, settings(sweep_seconds=0.2)):
        second = asyncio.create_task(other.work(settings(sweep_seconds=0.2), stop))
        for _ in range(50):
            for tenant in service.tenants:
                await wake(service, tenant, await service.append(tenant))
            await asyncio.sleep(0.001)
        for tenant in service.tenants:
            await service.until_done(tenant, 50)
        stop.set()
        await second
    assert [index.findable(tenant, EVENTS) for tenant in service.tenants] == [list(range(50))] * 2


async def test_worker_follows_a_tenant_created_while_it_runs() -> None:
    queue = MemoryQueue()
    service = MemoryService("first", queue=queue, index=MemoryIndex())
    async with running(service, settings()):
        tenant = service.backing.add_tenant(
            msgspec.structs.replace(service.tenants[0], id=999, name="new", queue="q-new", index="i-new")
        )
        service.store.register(tenant)
        await until(lambda: service.registry.version == service.backing.version)
        await wake(service, tenant, await service.append(tenant))
        await service.until_done(tenant, 1)


async def test_message_of_a_deleted_tenant_is_deleted() -> None:
    queue = MemoryQueue()
    service = MemoryService("acme", queue=queue, index=MemoryIndex())
    (tenant,) = service.tenants
    async with running(service, settings()):
        await queue.send(tenant.queue, [WakeUp(4_711, EVENTS, 5)])
        await wake(service, tenant, await service.append(tenant))
        await service.until_done(tenant, 1)
        await until(lambda: queue.left(tenant.queue) == 0)


async def test_worker_indexes_records_of_a_suspended_tenant() -> None:
    service = MemoryService("acme", index=MemoryIndex())
    (tenant,) = service.tenants
    await service.append(tenant)
    service.backing.add_tenant(msgspec.structs.replace(tenant, state=State.SUSPENDED))
    async with running(service, settings(sweep_seconds=0.02)):
        await service.until_done(tenant, 1)


async def test_worker_advances_a_bounded_number_of_logs_and_each_only_once() -> None:
    index = GatedIndex()
    service = MemoryService(*(f"tenant-{number}" for number in range(10)), queue=MemoryQueue(), index=index)
    for tenant in service.tenants:
        await service.append(tenant)
    async with running(service, settings(sweep_seconds=0.02)):
        await until(lambda: index.inside == 4)
        for tenant in service.tenants:
            for _ in range(3):
                await wake(service, tenant, 1)
        await asyncio.sleep(0.2)
        assert index.inside == 4
        index.gate.set()
        for tenant in service.tenants:
            await service.until_done(tenant, 1)
    assert index.inside_max == 4
    assert index.added == 10


async def test_worker_fills_an_index_that_comes_back() -> None:
    index = MemoryIndex()
    index.failing = AWAY
    service = MemoryService("acme", index=index)
    (tenant,) = service.tenants
    async with running(service, settings(sweep_seconds=0.02)):
        number = await service.append(tenant, 3)
        await until(lambda: index.asked > 0)
        index.failing = None
        await service.until_done(tenant, number)


async def test_worker_waits_while_store_queue_and_registry_are_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poll, "FAILED_SECONDS", 0.02)
    monkeypatch.setattr(poll, "NOTHING_SECONDS", 0.02)
    queue = MemoryQueue(visibility=0.1)
    service = MemoryService("acme", queue=queue, index=MemoryIndex())
    (tenant,) = service.tenants
    async with running(service, settings(sweep_seconds=0.05)):
        number = await service.append(tenant)
        service.store.failing = DecklogError(Code.STORAGE_UNAVAILABLE, "away")
        await wake(service, tenant, number)
        queue.failing = DecklogError(Code.STORAGE_UNAVAILABLE, "away")
        service.backing.broken = True
        await asyncio.sleep(0.2)
        service.store.failing = None
        queue.failing = None
        service.backing.broken = False
        await service.until_done(tenant, number)
        await until(lambda: queue.left(tenant.queue) == 0)


async def test_worker_moves_cursors_and_releases_leases_when_it_stops() -> None:
    index = GatedIndex()
    service = MemoryService("acme", index=index)
    (tenant,) = service.tenants
    await service.append(tenant, 3)
    async with running(service, settings(sweep_seconds=0.02)) as stop:
        await until(lambda: index.inside == 1)
        stop.set()
        await asyncio.sleep(0)
        index.gate.set()
    assert await service.done(tenant) == 3
    assert all(lease.owner == "" for lease in service.cursors._leases.values())


async def test_worker_stops_although_an_effect_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "STOP_TIME_MAX", dispatch.STOP_TIME_MAX / 100)
    index = GatedIndex()
    service = MemoryService("acme", index=index)
    (tenant,) = service.tenants
    await service.append(tenant)
    async with running(service, settings(sweep_seconds=0.02)):
        await until(lambda: index.inside == 1)
    assert await service.done(tenant) == 0
    assert all(lease.owner == "" for lease in service.cursors._leases.values())


async def test_worker_without_search_creates_partitions_and_follows_nothing() -> None:
    queue = MemoryQueue()
    service = MemoryService("acme", queue=queue)
    (tenant,) = service.tenants
    async with running(service, settings(sweep_seconds=0.02)):
        await wake(service, tenant, await service.append(tenant))
        await until(lambda: service.keeper.calls == 1)
        await asyncio.sleep(0.1)
        assert queue.left(tenant.queue) == 1
    assert await service.done(tenant) == 0


async def test_keeper_retries_soon_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "AGAIN_AFTER", keeper.AGAIN_AFTER / 10_000)
    service = MemoryService()
    service.keeper.failing = DecklogError(Code.STORAGE_UNAVAILABLE, "away")
    async with running(service, settings()):
        await until(lambda: service.keeper.calls >= 3)
        service.keeper.failing = None
        calls = service.keeper.calls
        await until(lambda: service.keeper.calls == calls + 1)
        await asyncio.sleep(0.1)
        assert service.keeper.calls == calls + 1
        assert service.keeper.until is not None
        assert keeper.UNTIL._value.get() == service.keeper.until.timestamp()


async def test_keeper_drops_what_is_due_and_a_schema_that_fails_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "AGAIN_AFTER", keeper.AGAIN_AFTER / 10_000)
    monkeypatch.setattr(keeper, "DROPS_MAX", 2)
    days = [datetime(2026, 1, day, tzinfo=UTC) for day in range(1, 6)]
    service = MemoryService()
    service.keeper.kept = (3, 1)
    service.keeper.due = {"t_a": [None, days[0]], "t_b": [*days]}
    failures = keeper.FAILURES._value.get()
    async with running(service, settings()):
        await until(lambda: len(service.keeper.dropped) == 6)
        await until(lambda: keeper.DUE.labels("held")._value.get() == 6)
    assert [since for schema, since in service.keeper.dropped if schema == "t_b"] == days
    assert service.keeper.dropped.index(("t_a", days[0])) > service.keeper.dropped.index(("t_b", days[1]))
    assert keeper.FAILURES._value.get() == failures + 1
    assert keeper.DUE.labels("archiving")._value.get() == 2


async def test_worker_ends_when_a_duty_raises_an_unexpected_error() -> None:
    class Broken(MemoryService):
        async def broken(self) -> None:
            raise RuntimeError("a defect")

    service = Broken("acme")
    service.keeper.make_partitions_ahead = service.broken  # type: ignore[method-assign]
    await service.registry.start()
    async with asyncio.timeout(20):
        with pytest.raises(RuntimeError, match="a defect"):
            await service.work(settings(), asyncio.Event())
    await service.registry.stop()


def test_rotation_gives_each_queue_to_one_poller_in_turn() -> None:
    rotation = Rotation(2)
    assert rotation.take(0.0) is None
    rotation.update(["a", "b", "c"])
    taken = [rotation.take(0.0) for _ in range(4)]
    assert taken == ["a", "b", "c", None]
    rotation.give_back("b", 0.0)
    rotation.give_back("a", 5.0)
    assert [rotation.take(1.0), rotation.take(1.0), rotation.take(5.0)] == ["b", None, "a"]


def test_rotation_drops_removed_queues_and_adds_new_ones() -> None:
    rotation = Rotation(2)
    rotation.update(["a", "b"])
    assert rotation.take(0.0) == "a"
    rotation.update(["b", "c"])
    rotation.give_back("a", 0.0)
    assert {rotation.take(0.0), rotation.take(0.0)} == {"b", "c"}
    assert rotation.take(0.0) is None


async def test_pollers_serve_more_queues_than_pollers() -> None:
    queue = MemoryQueue()
    service = MemoryService(*(f"tenant-{number}" for number in range(9)), queue=queue, index=MemoryIndex())
    async with running(service, settings(pollers=2)):
        for tenant in service.tenants:
            await wake(service, tenant, await service.append(tenant))
        for tenant in service.tenants:
            await service.until_done(tenant, 1)


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def test_worker_serves_health_and_metrics_while_it_runs() -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    service = MemoryService("acme", index=MemoryIndex())
    (tenant,) = service.tenants
    async with running(service, settings(sweep_seconds=0.02, metrics_port=port)):
        await service.append(tenant, 3)
        await service.until_done(tenant, 3)
        assert (await asyncio.to_thread(get, port, "/healthz"))[0] == 200
        status, text = await asyncio.to_thread(get, port, "/metrics")
        assert status == 200
        for name in (
            "decklog_consumer_lag_seconds_bucket",
            "decklog_consumer_batches_total",
            "decklog_consumer_failures_total",
            "decklog_consumer_progress_timestamp_seconds",
            "decklog_consumer_behind_records",
        ):
            assert f'{name}{{consumer="indexer"' in text or name == "decklog_consumer_failures_total"
        assert "acme" not in text
        assert (await asyncio.to_thread(get, port, "/other"))[0] == 404
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(get, port, "/healthz")
