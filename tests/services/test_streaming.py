"""Streams: no record missed or doubled, whatever the pace, the announcements or the place to begin; and they end when they must."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Principal, Role
from decklog.domain.log import LogName, Position, Span
from decklog.domain.records.record import StoredRecord
from decklog.domain.search.query import matches, parse
from decklog.domain.tenant import Isolation, State
from decklog.domain.tenant import Limits as TenantLimits
from decklog.services.records import feeds, streaming
from decklog.services.records.access_log import AccessLog
from decklog.services.records.ingest import Ingest
from decklog.services.records.streaming import Event, Limits, Streams, Subscription
from decklog.services.search.matching import terms_of
from tests.support.desk import REQUEST, Desk, desk
from tests.support.examples import examples
from tests.support.memory_store import FINGERPRINT_KEY
from tests.support.records import body
from tests.support.stores import Database

BEATING = Limits(heartbeat=0.05, poll=0.02)
QUIET = Limits(heartbeat=600, poll=600)
"""No heartbeat and no look at the head: what arrives arrives by announcement."""
PATIENCE = 20.0


@contextmanager
def refused(code: Code, text: str | None = None) -> Iterator[None]:
    with pytest.raises(DecklogError, match=text) as error:
        yield
    assert error.value.code is code


@asynccontextmanager
async def following(at: Desk, *parameters: tuple[str, str], after: str | None = None) -> AsyncIterator[Subscription]:
    subscription = await at.streams.open(at.principal(), REQUEST, list(parameters), after)
    try:
        yield subscription
    finally:
        await subscription.aclose()


async def soon(subscription: Subscription) -> Event:
    async with asyncio.timeout(PATIENCE):
        return await anext(subscription)


async def take(subscription: Subscription, count: int) -> list[int]:
    """The numbers of the next records, past heartbeats."""
    found: list[int] = []
    while len(found) < count:
        event = await soon(subscription)
        if event.record is not None:
            found.append(event.record.seq)
    return found


async def nothing_more(subscription: Subscription) -> bool:
    """Whether no record is waiting: the next event is a heartbeat, or there is none for a while."""
    try:
        async with asyncio.timeout(0.15):
            return (await anext(subscription)).record is None
    except TimeoutError:
        return True


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            await asyncio.sleep(0.005)


# -- from where


async def test_stream_begins_at_the_head_without_after() -> None:
    async with desk(limits=QUIET) as at:
        await at.put({}, {})
        async with following(at) as stream:
            await at.put({}, {})
            assert await take(stream, 2) == [2, 3]
            assert await nothing_more(stream)


@pytest.mark.parametrize(("after", "wanted"), [("-1", [0, 1, 2, 3]), ("0", [1, 2, 3]), ("2", [3]), ("3", [])])
async def test_stream_begins_after_a_bare_number(after: str, wanted: list[int]) -> None:
    async with desk(limits=QUIET) as at:
        await at.put({}, {}, {}, {})
        async with following(at, after=after) as stream:
            assert await take(stream, len(wanted)) == wanted
            await at.put({})
            assert await take(stream, 1) == [4]


async def test_stream_resumes_after_any_position_it_delivered() -> None:
    async with desk(limits=BEATING) as at:
        await at.put(*[{"severity": "ERROR" if n % 3 == 0 else "INFO"} for n in range(9)])
        async with following(at, ("severity", "ERROR"), after="-1") as stream:
            events = [await soon(stream) for _ in range(5)]
        assert {event.record is None for event in events} == {True, False}
        for number, event in enumerate(events):
            given = [item.record.seq for item in events[: number + 1] if item.record is not None]
            assert Position.parse(str(event.position)) == event.position
            async with following(at, ("severity", "ERROR"), after=str(event.position)) as again:
                rest = [seq for seq in (0, 3, 6) if seq not in given]
                assert await take(again, len(rest)) == rest
                assert await nothing_more(again)


async def test_stream_of_an_empty_log_has_a_position() -> None:
    async with desk(limits=BEATING) as at:
        async with following(at) as stream:
            position = (await soon(stream)).position
        assert position.seq == -1
        async with following(at, after=str(position)) as stream:
            await at.put({})
            assert await take(stream, 1) == [0]


@pytest.mark.parametrize("after", ["4", "99", "1.0.4", "x", "", "-2", "1.2", "0x1"])
async def test_stream_refuses_a_position_beyond_the_head_or_malformed(after: str) -> None:
    async with desk() as at:
        await at.put({}, {}, {}, {})
        with refused(Code.INVALID_PARAMETER):
            await at.streams.open(at.principal(), REQUEST, [], after)
        assert at.streams.count == 0
        assert await at.accesses() == []


async def test_stream_refuses_a_position_of_an_earlier_epoch_and_explains_why() -> None:
    async with desk() as at:
        await at.put({}, {}, {})
        async with following(at, after="1") as stream:
            old = (await soon(stream)).position
        at.store.restore(at.acme, LogName.EVENTS, 1)
        with refused(Code.INVALID_PARAMETER, "restored"):
            await at.streams.open(at.principal(), REQUEST, [], str(old))
        at.now.forward(seconds=1)
        await at.put({}, {}, {})
        with refused(Code.INVALID_PARAMETER, "restored"):
            await at.streams.open(at.principal(), REQUEST, [], str(old))
        with refused(Code.INVALID_PARAMETER, "restored"):
            await at.streams.open(at.principal(), REQUEST, [], str(msgspec.structs.replace(old, epoch=2)))
        async with following(at, after=str(old.seq)) as stream:
            assert await take(stream, 1) == [3]


async def test_stream_refuses_a_position_beyond_retention_and_minus_one_is_the_oldest_record() -> None:
    async with desk(limits=BEATING) as at:
        await at.put({}, {}, {})
        at.store.drop_before(at.acme, LogName.EVENTS, 2)
        with refused(Code.INVALID_PARAMETER, "after 1"):
            await at.streams.open(at.principal(), REQUEST, [], "0")
        for after in ("1", "-1"):
            async with following(at, after=after) as stream:
                assert await take(stream, 1) == [2]
        async with following(at, ("severity", "ERROR"), after="-1") as stream:
            position = (await soon(stream)).position
        async with following(at, after=str(position)) as stream:
            await at.put({})
            assert await take(stream, 1) == [3]


async def test_stream_begins_at_the_head_when_all_records_are_beyond_retention() -> None:
    async with desk(limits=QUIET) as at:
        await at.put({}, {})
        at.store.drop_before(at.acme, LogName.EVENTS, 2)
        for after in ("-1", "1"):
            async with following(at, after=after) as stream:
                await at.put({"message": after})
                record = (await soon(stream)).record
                assert record is not None
                assert f'"message":"{after}"' in record.content
            at.store.drop_before(at.acme, LogName.EVENTS, 3)
            if after == "-1":
                with refused(Code.INVALID_PARAMETER):
                    await at.streams.open(at.principal(), REQUEST, [], "1")
                break


# -- the law


@given(
    parameters=st.sampled_from([[], [("severity", "ERROR")], [("q", "needle")], [("metadata.k", "1")], [("action", "a.*")]]),
    start=st.integers(-1, 5),
    plan=st.lists(st.tuples(st.integers(1, 6), st.booleans(), st.integers(0, 9)), min_size=1, max_size=8),
    bounds=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=examples(60), suppress_health_check=[HealthCheck.too_slow])
async def test_stream_delivers_each_match_once_in_order_at_any_pace(
    parameters: list[tuple[str, str]],
    start: int,
    plan: list[tuple[int, bool, int]],
    bounds: tuple[int, int, int],
    seed: int,
) -> None:
    chance = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in zip(("RING_RECORDS_MAX", "READ_ROWS", "BACKLOG_ROWS"), bounds, strict=True):
            patch.setattr(feeds, name, value)
        patch.setattr(streaming, "TURN_RECORDS", 2)
        async with desk(limits=Limits(heartbeat=0.01, poll=0.005)) as at:
            at.store.scan_max = chance.choice([None, 1, 3])

            def one() -> dict[str, Any]:
                return {
                    "action": chance.choice(["a.b", "b.c"]),
                    "severity": chance.choice(["ERROR", "INFO"]),
                    "message": chance.choice(["needle", "hay"]),
                    "metadata": {"k": chance.choice(["1", 2])},
                }

            await at.put(*[one() for _ in range(6)])
            given: list[int] = []
            position = str(start)
            stream = await at.streams.open(at.principal(), REQUEST, parameters, position)
            for count, lost, reads in plan:
                at.announcements.lost = lost
                await at.put(*[one() for _ in range(count)])
                for _ in range(reads):
                    event = await soon(stream)
                    position = str(event.position)
                    if event.record is not None:
                        given.append(event.record.seq)
                if chance.random() < 0.3:  # the connection breaks, and the client comes back
                    await stream.aclose()
                    stream = await at.streams.open(at.principal(), REQUEST, parameters, position)
            query = parse(parameters)[1]
            found, _ = await _everything(at)
            wanted = [record.seq for record in found if record.seq > start and matches(query, terms_of(record))]
            given += await take(stream, len(wanted) - len(given))
            assert given == wanted
            assert await nothing_more(stream)
            await stream.aclose()


async def _everything(at: Desk) -> tuple[list[StoredRecord], int | None]:
    at.store.scan_max = None
    return await at.store.read(
        at.acme, LogName.EVENTS, Span(0, 10**9), query=parse([])[1], limit=10**6, newest_first=False, timeout=5
    )


async def test_stream_finds_records_by_polling_when_announcements_are_lost() -> None:
    async with desk(limits=Limits(heartbeat=600, poll=0.02)) as at:
        at.announcements.lost = True
        async with following(at) as stream:
            await at.put({}, {})
            assert await take(stream, 2) == [0, 1]


async def test_stream_ignores_announcements_of_records_that_are_not_stored() -> None:
    async with desk(limits=QUIET) as at, following(at) as stream:
        at.announcements.announce(at.acme.id, LogName.EVENTS, 1_000)
        assert await nothing_more(stream)
        await at.put({})
        at.announcements.announce(at.acme.id, LogName.EVENTS, 1)
        at.announcements.announce(at.acme.id, LogName.EVENTS, 1_001)
        assert await take(stream, 1) == [0]


async def test_stream_loses_nothing_when_a_wait_is_cancelled() -> None:
    async with desk(limits=QUIET) as at, following(at) as stream:
        for count in range(20):
            waiting = asyncio.create_task(anext(stream))
            for _ in range(count):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await at.put({}, {})
        assert await take(stream, 2) == [0, 1]


# -- many at once


async def test_log_is_read_once_for_all_its_streams() -> None:
    async with desk(limits=QUIET) as at:
        streams = [await at.streams.open(at.principal(), REQUEST, []) for _ in range(20)]
        assert await nothing_more(streams[0])  # the shared reader has had its first look
        before = at.store.reads
        await at.put(*[{} for _ in range(10)])
        for stream in streams:
            assert await take(stream, 10) == list(range(10))
        assert at.store.reads - before <= 2
        for stream in streams:
            await stream.aclose()


async def test_slow_stream_reads_from_the_store_and_delays_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "RING_RECORDS_MAX", 20)
    async with desk(limits=QUIET) as at, following(at) as slow, following(at) as fast:
        for _ in range(10):
            await at.put(*[{} for _ in range(50)])
            await take(fast, 50)
        assert len(slow.feed.ring) <= 20
        assert await take(slow, 500) == list(range(500))


async def test_rings_are_bounded_in_size_across_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "RINGS_BYTES_MAX", 200_000)
    async with desk(limits=QUIET) as at, following(at) as stream:
        await at.put(*[{"message": "x" * 8_000} for _ in range(100)])
        assert await take(stream, 100) == list(range(100))
        assert stream.feed.size <= 200_000
        async with following(at, ("log", "access")):
            assert stream.feed.size <= 100_000


async def test_stream_filters_like_a_list() -> None:
    async with desk(limits=QUIET) as at:
        parameters = [("q", "needle"), ("severity", "ERROR"), ("metadata.k", "1")]
        async with following(at, *parameters) as stream:
            values = [
                {"message": text, "severity": level, "metadata": {"k": k}}
                for text in ("needle", "hay")
                for level in ("ERROR", "INFO")
                for k in ("1", "2")
            ]
            await at.put(*values, *values)
            listed = (await at.reading.list(at.principal(), REQUEST, parameters))[2].items
            assert await take(stream, 2) == [record.seq for record in reversed(listed)] == [0, 8]
            assert await nothing_more(stream)


async def test_stream_never_delivers_records_of_another_tenant() -> None:
    async with desk(limits=BEATING) as at, following(at) as stream:
        await at.put({}, {}, {}, tenant=at.rival)
        await at.put({"message": "mine"})
        record = (await soon(stream)).record
        while record is None:
            record = (await soon(stream)).record
        assert '"message":"mine"' in record.content
        assert await nothing_more(stream)


# -- heartbeats


async def test_stream_sends_heartbeats_with_its_position_when_nothing_matches() -> None:
    async with desk(limits=BEATING) as at, following(at, ("severity", "CRITICAL")) as stream:
        await at.put({}, {}, {})

        async def reached() -> bool:
            event = await soon(stream)
            assert event.record is None
            return event.position.seq == 2

        await until(reached)


async def test_stream_sends_heartbeats_while_it_examines_many_records_without_a_match() -> None:
    async with desk(limits=Limits(heartbeat=0.01, poll=0.01)) as at:
        await at.put(*[{"message": "hay"} for _ in range(3_000)])
        at.store.seconds_per_read = 0.01
        async with following(at, ("q", "needle"), after="-1") as stream:
            events = [await soon(stream) for _ in range(3)]
            assert all(event.record is None for event in events)
            assert events[0].position.seq < 2_999
            at.store.seconds_per_read = 0.0
            await at.put({"message": "needle"})
            assert await take(stream, 1) == [3_000]


# -- endings


async def test_waiting_stream_ends_when_its_credential_is_withdrawn() -> None:
    async with desk(limits=BEATING) as at, following(at) as stream:
        at.withdrawn.add("key-1")
        with refused(Code.UNAUTHENTICATED):
            while True:
                await soon(stream)
        assert stream.ended.is_set()
        with refused(Code.UNAUTHENTICATED):
            await soon(stream)


async def test_stream_sets_ended_for_an_edge_that_is_blocked_in_sending() -> None:
    async with desk(limits=BEATING) as at, following(at) as stream:
        at.withdrawn.add("key-1")
        async with asyncio.timeout(PATIENCE):
            await stream.ended.wait()


async def test_stream_ends_with_tenant_suspended_when_its_tenant_is_suspended() -> None:
    async with desk(limits=BEATING) as at, following(at) as stream:
        at.tenants[at.acme.id] = msgspec.structs.replace(at.acme, state=State.SUSPENDED)
        at.withdrawn.add("key-1")
        with refused(Code.TENANT_SUSPENDED):
            while True:
                await soon(stream)


async def test_stream_ends_when_the_registry_is_stale() -> None:
    async with desk(limits=BEATING) as at:

        async def unknown(_: object) -> bool:
            raise DecklogError(Code.REGISTRY_STALE, "Stale.")

        async with following(at) as stream:
            at.streams._still_valid = unknown
            with refused(Code.REGISTRY_STALE):
                while True:
                    await soon(stream)


async def test_stream_ends_when_its_log_is_restored() -> None:
    async with desk(limits=BEATING) as at, following(at) as stream:
        await at.put({}, {})
        await take(stream, 2)
        at.store.restore(at.acme, LogName.EVENTS, 1)
        await at.put({}, {})
        with refused(Code.STORAGE_UNAVAILABLE, "restored"):
            while True:
                assert (await soon(stream)).record is None


async def test_streams_end_with_overloaded_when_the_process_stops() -> None:
    async with desk(limits=QUIET) as at:
        stream = await at.streams.open(at.principal(), REQUEST, [])
        await at.streams.stop()
        with refused(Code.OVERLOADED):
            await soon(stream)
        await stream.aclose()
        with refused(Code.OVERLOADED):
            await at.streams.open(at.principal(), REQUEST, [])
        assert at.streams.count == 0


async def test_streams_wait_while_the_store_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(feeds, "RING_RECORDS_MAX", 5)
    async with desk(limits=BEATING) as at:
        await at.put(*[{} for _ in range(30)])
        async with following(at) as new, following(at, after="-1") as old:
            at.store.failing = DecklogError(Code.STORAGE_UNAVAILABLE, "Away.")
            assert (await soon(new)).record is None
            assert (await soon(old)).record is None
            at.store.failing = None
            await at.put({})
            assert await take(new, 1) == [30]
            assert await take(old, 31) == list(range(31))


# -- limits and access records


async def test_open_streams_are_limited_per_tenant_and_process_until_one_closes() -> None:
    async with desk(limits=Limits(streams_max=3, heartbeat=600, poll=600), tenant=TenantLimits(streams=2)) as at:
        held = [await at.streams.open(at.principal(), REQUEST, []) for _ in range(2)]
        with pytest.raises(DecklogError, match="tenant 'acme' may have 2 streams") as error:
            await at.streams.open(at.principal(), REQUEST, [])
        assert error.value.code is Code.TOO_MANY_STREAMS
        assert error.value.retry_after
        held.append(await at.streams.open(at.principal(at.rival), REQUEST, []))
        with refused(Code.TOO_MANY_STREAMS, "process"):
            await at.streams.open(at.principal(at.rival), REQUEST, [])
        await held.pop(0).aclose()
        await held.pop(0).aclose()
        held.append(await at.streams.open(at.principal(at.rival), REQUEST, []))
        for stream in held:
            await stream.aclose()
            await stream.aclose()  # again is harmless
        assert at.streams.count == 0
        assert len(at.streams.feeds) == 0
        assert not at.streams._reserved


async def test_stream_limit_holds_when_many_open_at_once() -> None:
    async with desk(limits=Limits(streams_max=10, heartbeat=600, poll=600), tenant=TenantLimits(streams=3)) as at:
        opened = await asyncio.gather(*[at.streams.open(at.principal(), REQUEST, []) for _ in range(20)], return_exceptions=True)
        streams = [item for item in opened if isinstance(item, Subscription)]
        assert len(streams) == 3
        for stream in streams:
            await stream.aclose()


async def test_stream_opening_and_end_are_recorded_with_the_number_of_records() -> None:
    async with desk(limits=BEATING) as at:
        await at.put(*[{"severity": "ERROR" if n % 2 else "INFO"} for n in range(6)])
        async with following(at, ("severity", "ERROR"), after="-1") as stream:
            assert [item["action"] for item in await at.accesses()] == ["log.stream.open"]
            await take(stream, 2)
        opened, closed = await at.accesses()
        assert closed["action"] == "log.stream.close"
        assert (closed["metadata"]["records"], closed["outcome"]) == (2, "success")
        for item in (opened, closed):
            assert item["metadata"]["filter"] == {"q": "severity:ERROR"}
            assert item["resource"] == {"type": "log", "id": "events"}


async def test_stream_end_by_a_withdrawn_credential_is_recorded_as_denied() -> None:
    async with desk(limits=BEATING) as at:
        async with following(at) as stream:
            at.withdrawn.add("key-1")
            async with asyncio.timeout(PATIENCE):
                await stream.ended.wait()
        assert [item["outcome"] for item in await at.accesses()] == ["success", "denied"]


async def test_stream_end_is_recorded_for_a_suspended_tenant() -> None:
    async with desk(limits=BEATING) as at:
        async with following(at) as stream:
            await at.put({})
            await take(stream, 1)
            at.store.set_state(at.acme, State.SUSPENDED)
            at.withdrawn.add("key-1")
            async with asyncio.timeout(PATIENCE):
                await stream.ended.wait()
        closed = (await at.accesses())[-1]
        assert (closed["action"], closed["outcome"]) == ("log.stream.close", "denied")
        assert closed["metadata"]["records"] == 1


async def test_stream_of_the_access_log_delivers_its_own_opening_and_no_more() -> None:
    async with desk(limits=BEATING) as at, following(at, ("log", "access")) as stream:
        assert await take(stream, 1) == [0]
        await at.reading.list(at.principal(), REQUEST, [])
        assert await take(stream, 1) == [1]
        assert await nothing_more(stream)
        assert len(await at.accesses()) == 2


# -- on real servers


async def test_streams_in_another_process_miss_and_repeat_nothing_on_real_servers(database: Database) -> None:
    tenant = await database.tenant(isolation=Isolation.SHARED)
    here, there = [(await database.records(), await database.announcements()) for _ in range(2)]
    ingest = Ingest(*here, fingerprint_key=FINGERPRINT_KEY)
    await ingest.start()

    async def still_valid(_: object) -> bool:
        return True

    async def tenant_now(_: object) -> None:
        return None

    limits = Limits(heartbeat=0.2, poll=0.2)
    streams = Streams(*there, AccessLog(ingest, lambda: tenant), still_valid=still_valid, tenant_now=tenant_now, limits=limits)
    await streams.start()
    auditor = Principal(kind="api_key", subject="key-1", role=Role.AUDITOR, tenant=tenant)
    bodies = [body(severity="ERROR" if number % 3 == 0 else "INFO", message=f"number {number}") for number in range(300)]

    async def write() -> None:
        for start in range(0, len(bodies), 20):
            await asyncio.gather(*[ingest.append(tenant, raw) for raw in bodies[start : start + 20]])

    async def follow(parameters: list[tuple[str, str]], count: int, *, breaks: int) -> list[int]:
        """The numbers given over several connections, each going on where the one before broke."""
        given: list[int] = []
        after = "-1"
        while len(given) < count:
            stream = await streams.open(auditor, REQUEST, parameters, after)
            for _ in range(breaks):
                event = await soon(stream)
                after = str(event.position)
                if event.record is not None:
                    given.append(event.record.seq)
                if len(given) == count:
                    break
            await stream.aclose()
        return given

    everything, errors, _ = await asyncio.gather(
        follow([], 300, breaks=37), follow([("severity", "ERROR")], 100, breaks=11), write()
    )
    assert everything == list(range(300))
    store = here[0]
    found, _ = await store.read(
        tenant,
        LogName.EVENTS,
        Span(0, 300),
        query=parse([("severity", "ERROR")])[1],
        limit=300,
        newest_first=False,
        timeout=30,
    )
    assert errors == [record.seq for record in found]
    await streams.stop()
    await ingest.stop()
