"""The queue before the writer: every tenant gets its turn, every log keeps its order, and nothing is lost or left counted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.append import AppendRequest
from decklog.domain.records.record import Prepared, decode, prepare
from decklog.services.records.queue import (
    GROUP_BYTES_MAX,
    GROUP_RECORDS_MAX,
    QUANTUM_BYTES,
    CommitQueue,
    Waiting,
)
from tests.support.memory import make_tenant
from tests.support.records import FINGERPRINT_KEY, body

TENANTS = [make_tenant(f"t{number}") for number in range(4)]
Key = tuple[int, LogName]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


PREPARED = prepare(decode(body()), now=datetime.now(UTC), fingerprint_key=FINGERPRINT_KEY)


def record(size: int, identity: str | None = None) -> Prepared:
    fields = {name: getattr(PREPARED, name) for name in PREPARED.__struct_fields__}
    return Prepared(**{**fields, "id": identity, "content": b"x" * size})


def request(loop: asyncio.AbstractEventLoop, tenant: int, log: LogName, sizes: list[int], identity: str | None = None) -> Waiting:
    records = [record(size, identity if number == 0 else None) for number, size in enumerate(sizes)]
    return Waiting(AppendRequest(TENANTS[tenant], log, records), loop.create_future(), None)


def key(waiting: Waiting) -> Key:
    return waiting.request.tenant.id, waiting.request.log


SUBMISSIONS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(LogName),
        st.lists(st.sampled_from([10, 5_000, 200_000, QUANTUM_BYTES]), min_size=1, max_size=3).filter(
            lambda sizes: sum(sizes) <= QUANTUM_BYTES
        ),
        st.sampled_from([None, None, "a", "b"]),
        st.integers(1, 300),
    ),
    max_size=30,
)


@settings(max_examples=50)
@given(st.lists(st.tuples(SUBMISSIONS, st.sets(st.integers(0, 40), max_size=4)), min_size=1, max_size=5))
def test_between_two_groups_of_one_log_every_other_waiting_log_is_served(
    loop: asyncio.AbstractEventLoop, rounds: list[tuple[list[tuple[int, LogName, list[int], str | None, int]], set[int]]]
) -> None:
    queue = CommitQueue(10**6, 10**12)
    pending: dict[Key, list[Waiting]] = {}
    since: dict[Key, set[Key]] = {}  # for each log: those served since its own last turn, while it waited
    put, answered, cancelled = 0, 0, 0

    def groups() -> Iterator[list[Waiting]]:
        for submissions, cancels in rounds:
            nonlocal put, cancelled
            for tenant, log, sizes, identity, copies in submissions:
                for _ in range(copies if identity is None and sum(sizes) < 10_000 else 1):
                    waiting = request(loop, tenant, log, sizes, identity)
                    queue.put(waiting)
                    pending.setdefault(key(waiting), []).append(waiting)
                    put += 1
            for line in pending.values():
                for number in cancels:
                    if number < len(line) and not line[number].future.done():
                        line[number].future.cancel()
                        cancelled += 1
            yield queue.take()
        while queue:
            yield queue.take()

    for group in filter(None, groups()):
        assert sum(len(each.request.records) for each in group) <= max(GROUP_RECORDS_MAX, len(group[0].request.records))
        assert sum(each.size for each in group) <= max(GROUP_BYTES_MAX, group[0].size)
        named = [(key(each), identity) for each in group for identity in each.ids]
        assert len(named) == len(set(named))
        served = {key(each) for each in group}
        for line_key, line in pending.items():
            line[:] = [each for each in line if not each.future.cancelled()]
            mine = [each for each in group if key(each) == line_key]
            assert line[: len(mine)] == mine  # the order of a log is the order of arrival
            del line[: len(mine)]
            if mine or not line:
                since[line_key] = set()
            else:
                assert not since.setdefault(line_key, set()) & served, "served twice while another log waited"
                since[line_key] |= served
        for each in group:
            queue.release(each)
            answered += 1
    assert answered + cancelled == put
    assert all(each.future.cancelled() for line in pending.values() for each in line)
    assert (queue.requests, queue.bytes) == (0, 0)


def test_overdrawn_quantum_is_repaid_by_later_turns(loop: asyncio.AbstractEventLoop) -> None:
    queue = CommitQueue(1_000, 10**9)
    for _ in range(2):
        queue.put(request(loop, 0, LogName.EVENTS, [2 * QUANTUM_BYTES]))
    for _ in range(20):
        queue.put(request(loop, 1, LogName.EVENTS, [QUANTUM_BYTES]))
    order = [key(each)[0] for _ in range(40) for each in (queue.take() if queue else [])]
    big, small = TENANTS[0].id, TENANTS[1].id
    assert order.count(big) == 2
    first, second = (at for at, tenant in enumerate(order) if tenant == big)
    assert order[first + 1 : second].count(small) >= 2


def test_log_has_no_turns_while_its_large_request_is_committed(loop: asyncio.AbstractEventLoop) -> None:
    queue = CommitQueue(1_000, 10**9)
    before, large, after = (
        request(loop, 0, LogName.EVENTS, [10]),
        request(loop, 0, LogName.EVENTS, [10] * (GROUP_RECORDS_MAX + 1)),
        request(loop, 0, LogName.EVENTS, [10]),
    )
    other = [request(loop, 1, LogName.EVENTS, [10]) for _ in range(2)]
    access = request(loop, 0, LogName.ACCESS, [10])
    for each in (before, large, after, other[0]):
        queue.put(each)
    assert queue.take() == [before, other[0]]
    assert queue.take() == []
    assert queue.has_large
    assert queue.take_large() is large
    queue.put(other[1])
    queue.put(access)
    assert queue.take() == [other[1], access]
    assert not queue
    queue.resume(large)
    assert queue.take() == [after]
    for each in (before, large, after, *other, access):
        queue.release(each)
    assert (queue.requests, queue.bytes, bool(queue)) == (0, 0, False)


def test_many_requests_of_one_tenant_leave_room_for_another(loop: asyncio.AbstractEventLoop) -> None:
    queue = CommitQueue(30, 10**9)
    for _ in range(10):
        queue.put(request(loop, 0, LogName.EVENTS, [10]))
    with pytest.raises(DecklogError) as caught:
        queue.put(request(loop, 0, LogName.EVENTS, [10]))
    assert caught.value.code is Code.OVERLOADED
    queue.put(request(loop, 1, LogName.EVENTS, [10]))
    assert {key(each)[0] for each in queue.take()} == {TENANTS[0].id, TENANTS[1].id}
