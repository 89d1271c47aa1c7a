"""Turns and slices: tenants in rotation, none beyond its share, and no turn lost however requests end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.errors import Code, DecklogError
from decklog.domain.search.query import parse
from decklog.domain.search.terms import Terms
from decklog.services import processor, turns
from decklog.services.processor import Processor
from decklog.services.records import feeds
from decklog.services.search.matching import terms_of
from decklog.services.turns import Turns
from tests.support.desk import REQUEST, desk
from tests.support.examples import examples

LONG = 60.0


async def rounds(number: int = 5) -> None:
    """Let every task run until it waits for something else."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_turns_pass_between_tenants_in_rotation_however_many_requests_one_has() -> None:
    at, order = Turns(1, each=1, of="test"), list[int]()

    async def work(tenant: int) -> None:
        async with at.turn(tenant, seconds=LONG):
            order.append(tenant)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for tenant in (*[1] * 20, 2, 2, 3):
            group.create_task(work(tenant))
    assert order[:7] == [1, 2, 3, 1, 2, 1, 1]
    assert Counter(order) == {1: 20, 2: 2, 3: 1}


async def test_busy_tenants_leave_turns_for_one_that_has_none() -> None:
    at = Turns(10, each=3, spare=2, of="test")
    busy = [asyncio.create_task(at.take(tenant, seconds=LONG)) for tenant in (1, 2, 3, 4) for _ in range(10)]
    await rounds()
    assert at.free == 0 or at.waiting
    held = sum(task.done() for task in busy)
    assert held == 9  # three, three, two and one: the last turns are for tenants without any
    await asyncio.wait_for(at.take(5, seconds=0), 1)
    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)


async def test_request_is_refused_when_no_turn_comes_in_time_and_leaves_none_behind() -> None:
    at = Turns(1, each=1, of="test")
    await at.take(1, seconds=0)
    with pytest.raises(DecklogError) as caught:
        await at.take(1, seconds=0.01)
    assert (caught.value.code, caught.value.retry_after) == (Code.OVERLOADED, 2)
    at.give(1)
    assert (at.free, at.waiting) == (1, 0)


async def test_waiting_requests_of_a_tenant_are_bounded_and_never_keep_another_tenant_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "WAITING_PER_TENANT_MAX", 3)
    monkeypatch.setattr(turns, "WAITING_MAX", 2)
    at = Turns(1, each=1, of="test")
    await at.take(9, seconds=0)
    waiting = [asyncio.create_task(at.take(1, seconds=LONG)) for _ in range(2)]
    await rounds()
    with pytest.raises(DecklogError) as caught:
        await at.take(1, seconds=LONG)
    assert (caught.value.code, caught.value.retry_after) == (Code.OVERLOADED, 5)
    other = asyncio.create_task(at.take(2, seconds=LONG))
    await rounds()
    at.give(9)
    await waiting[0]
    at.give(1)
    await other  # before the second request of the first tenant
    assert not waiting[1].done()
    at.give(2)
    await waiting[1]


@settings(max_examples=examples(100), deadline=None)
@given(
    st.integers(1, 4),
    st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from(["wait", "cancel", "expire"]), st.integers(0, 3)), min_size=1, max_size=30
    ),
)
def test_no_turn_is_lost_or_doubled_under_cancellation(total: int, requests: list[tuple[int, str, int]]) -> None:
    async def run() -> None:
        each = max(1, total // 2)
        at, using, most = Turns(total, each=each, of="test"), Counter[int](), Counter[int]()

        async def work(tenant: int, pauses: int, seconds: float) -> None:
            with contextlib.suppress(DecklogError):
                async with at.turn(tenant, seconds=seconds):
                    using[tenant] += 1
                    most[tenant] = max(most[tenant], using[tenant])
                    assert using.total() <= total
                    try:
                        await rounds(pauses)
                    finally:
                        using[tenant] -= 1

        tasks = [
            asyncio.create_task(work(tenant, pauses, 0 if ending == "expire" else LONG)) for tenant, ending, pauses in requests
        ]
        for task, (_, ending, pauses) in zip(tasks, requests, strict=True):
            if ending == "cancel":
                await rounds(pauses)
                task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert result is None or isinstance(result, asyncio.CancelledError)
        assert (at.free, at.waiting) == (total, 0)
        assert max(most.values(), default=0) <= each

    asyncio.run(run())


async def test_work_yields_to_other_tasks_after_each_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "SLICE_SECONDS", 0.0)
    at, done, seen = Processor(), list[int](), list[int]()

    async def other() -> None:
        while len(done) < 50:
            seen.append(len(done))
            await asyncio.sleep(0)

    watching = asyncio.create_task(other())
    await at.map(1, done.append, range(50))
    await watching
    assert len(seen) >= 49
    assert max(b - a for a, b in itertools.pairwise(seen)) <= 1


async def test_slices_of_two_tenants_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "SLICE_SECONDS", 0.0)
    at, order = Processor(), list[int]()
    await asyncio.gather(
        at.map(1, lambda _: order.append(1), range(40)),
        at.map(1, lambda _: order.append(1), range(40)),
        at.map(2, lambda _: order.append(2), range(10)),
    )
    assert order.count(2) == 10
    assert 1 + max(at for at, tenant in enumerate(order) if tenant == 2) <= 22


async def test_long_items_are_worked_on_in_a_thread_one_at_a_time_and_in_order() -> None:
    at, names, working = Processor(), set[str](), list[int]()

    def work(item: str) -> int:
        names.add(threading.current_thread().name.rpartition("_")[0])
        working.append(1)
        assert len(working) == 1
        working.pop()
        return len(item)

    long = processor.IN_THREAD_CHARS
    found = await asyncio.gather(*(at.map(tenant, work, ["x" * long, "y" * (long + 1)], chars=len) for tenant in (1, 2)))
    assert found == [[long, long + 1]] * 2
    assert names == {"decklog-heavy"}


async def test_cancelled_work_keeps_its_turn_until_its_thread_is_free() -> None:
    at, began, go_on = Processor(), threading.Event(), threading.Event()

    def work(_: str) -> None:
        began.set()
        go_on.wait(10)

    task = asyncio.create_task(at.map(1, work, ["x"], chars=lambda _: processor.IN_THREAD_CHARS))
    await asyncio.to_thread(began.wait, 10)
    task.cancel()
    await rounds()
    assert at.threads.free == 0
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert at.threads.free == 1


async def test_error_of_the_work_is_raised_and_the_turn_is_given_back() -> None:
    at = Processor()
    with pytest.raises(ZeroDivisionError):
        await at.map(1, lambda number: 1 / number, [1, 0])
    assert at.slices.free == 1


async def test_search_of_large_records_lets_other_requests_in_between_two_records() -> None:
    async with desk(indexed=False) as at:
        await at.put(*[{"metadata": {"x": "1", "pad": "word " * 10_000}} for _ in range(20)])
        rounds_seen = 0

        async def other() -> None:
            nonlocal rounds_seen
            while True:
                rounds_seen += 1
                await asyncio.sleep(0)

        watching = asyncio.create_task(other())
        log, query = parse([("metadata.x", "1")])
        found = await at.search.page(at.acme, log, query, limit=100)
        watching.cancel()
        assert len(found.items) == 20
        assert rounds_seen > 20


async def test_costly_filter_of_one_stream_stalls_no_stream_of_another_tenant(monkeypatch: pytest.MonkeyPatch) -> None:
    began, go_on = threading.Event(), threading.Event()

    def costly(*arguments: Any) -> Terms:
        began.set()
        go_on.wait(30)
        return terms_of(*arguments)

    async with desk() as at:
        busy = await at.streams.open(at.principal(), REQUEST, [("q", "needle")])
        free = await at.streams.open(at.principal(at.rival), REQUEST, [("actor", "tester")])
        waiting = asyncio.create_task(anext(busy))
        with monkeypatch.context() as patch:
            patch.setattr(
                feeds, "terms_of", lambda record, *more: (costly if len(record.content) > 50_000 else terms_of)(record, *more)
            )
            await at.put({"message": "needle", "metadata": "x" * 60_000})
            await asyncio.to_thread(began.wait, 30)
            for number in range(3):
                await at.put({}, tenant=at.rival)
                event = await anext(free)
                assert event.record is not None
                assert event.record.seq == number
            assert not waiting.done()
            go_on.set()
            assert (await waiting).record is not None
        for stream in (busy, free):
            await stream.aclose()
