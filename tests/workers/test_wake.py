"""Wake-ups from API processes: coalesced, never in the way, and nothing when the queue is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.store import WakeUp
from decklog.services.following import wake
from decklog.services.following.wake import Waker
from tests.support.memory import make_tenant
from tests.support.memory_queue import MemoryQueue

EVENTS, ACCESS = LogName.EVENTS, LogName.ACCESS


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.005)


async def test_waker_sends_one_message_with_the_highest_number_for_many_wake_ups() -> None:
    queue = MemoryQueue()
    waker = Waker(queue, interval=timedelta(hours=1))
    tenant = make_tenant("acme")
    for number in (3, 9, 5):
        waker.wake(tenant, EVENTS, number)
    waker.wake(tenant, ACCESS, 1)
    await until(lambda: bool(queue.sent))
    assert queue.sent == [WakeUp(tenant.id, EVENTS, 9), WakeUp(tenant.id, ACCESS, 1)]
    for number in range(10, 50):
        waker.wake(tenant, EVENTS, number)
        await asyncio.sleep(0)
    assert len(queue.sent) == 2
    await waker.stop()
    assert queue.sent[2:] == [WakeUp(tenant.id, EVENTS, 49)]


async def test_waker_sends_again_after_the_interval() -> None:
    queue = MemoryQueue()
    waker = Waker(queue, interval=timedelta(milliseconds=10))
    tenant = make_tenant("acme")
    for number in range(1, 4):
        waker.wake(tenant, EVENTS, number)
        await until(lambda number=number: queue.sent[-1:] == [WakeUp(tenant.id, EVENTS, number)])  # type: ignore[misc]
    await waker.stop()
    assert len(queue.sent) == 3


async def test_waker_delays_no_request_and_no_other_queue_when_one_hangs() -> None:
    class Stuck(MemoryQueue):
        async def send(self, queue: str, wake_ups: Sequence[WakeUp]) -> None:
            if queue == stuck.queue:
                await asyncio.Event().wait()
            await super().send(queue, wake_ups)

    stuck, well = make_tenant("stuck"), make_tenant("well")
    queue = Stuck()
    waker = Waker(queue)
    waker.wake(stuck, EVENTS, 1)
    await asyncio.sleep(0)
    waker.wake(stuck, EVENTS, 2)
    waker.wake(well, EVENTS, 3)
    await until(lambda: queue.sent == [WakeUp(well.id, EVENTS, 3)])
    for task in waker._sending.values():
        task.cancel()


async def test_waker_counts_and_drops_wake_ups_when_the_queue_fails() -> None:
    queue = MemoryQueue()
    queue.failing = DecklogError(Code.STORAGE_UNAVAILABLE, "away")
    waker = Waker(queue, interval=timedelta(0))
    tenant = make_tenant("acme")
    failed = wake.FAILED._value.get()
    waker.wake(tenant, EVENTS, 1)
    await until(lambda: wake.FAILED._value.get() == failed + 1)
    queue.failing = None
    waker.wake(tenant, EVENTS, 2)
    await until(lambda: queue.sent == [WakeUp(tenant.id, EVENTS, 2)])
    await waker.stop()


async def test_waker_tries_one_message_for_all_queues_while_several_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake, "AWAY", timedelta(milliseconds=20))
    queue = MemoryQueue()
    calls = 0
    send = queue.send

    async def counted(name: str, wake_ups: Sequence[WakeUp]) -> None:
        nonlocal calls
        calls += 1
        await send(name, wake_ups)

    monkeypatch.setattr(queue, "send", counted)
    queue.failing = DecklogError(Code.STORAGE_UNAVAILABLE, "away")
    waker = Waker(queue, interval=timedelta(milliseconds=1))
    tenants = [make_tenant(f"tenant-{number}") for number in range(50)]
    failed = wake.FAILED._value.get()
    for tenant in tenants[: wake.AWAY_QUEUES]:
        waker.wake(tenant, EVENTS, 1)
    await until(lambda: calls == wake.AWAY_QUEUES)
    for tenant in tenants:
        waker.wake(tenant, EVENTS, 2)
    await until(lambda: wake.FAILED._value.get() >= failed + wake.AWAY_QUEUES + 40)
    assert calls <= wake.AWAY_QUEUES + 5
    queue.failing = None
    await until(lambda: waker.wake(tenants[-1], EVENTS, 3) or bool(queue.sent))  # type: ignore[func-returns-value]
    await waker.stop()


async def test_waker_drops_wake_ups_beyond_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake, "WAITING_MAX", 3)
    queue = MemoryQueue()
    waker = Waker(queue)
    dropped = wake.DROPPED._value.get()
    for number in range(5):
        waker.wake(make_tenant(f"tenant-{number}"), EVENTS, 1)
    assert wake.DROPPED._value.get() == dropped + 2
    await until(lambda: len(queue.sent) == 3)
    waker.wake(make_tenant("one-more"), EVENTS, 1)
    await until(lambda: len(queue.sent) == 4)
    await waker.stop()


async def test_waker_ignores_wake_ups_after_stop() -> None:
    queue = MemoryQueue()
    waker = Waker(queue)
    await waker.stop()
    waker.wake(make_tenant("acme"), EVENTS, 1)
    await asyncio.sleep(0.01)
    assert queue.sent == []
