"""Group commit: what waits is committed together, answered after the commit, refused when there is too much of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName, Span
from decklog.domain.records.append import Appended, AppendRequest, Status
from decklog.domain.records.record import RecordInput, decode
from decklog.domain.search.query import Query
from decklog.domain.store import RecordStore
from decklog.domain.tenant import Tenant
from decklog.services.records.ingest import Ingest
from tests.support.memory_store import MemoryAnnouncements
from tests.support.records import FINGERPRINT_KEY, body
from tests.support.stores import Database, freeze_clock


class Held:
    """A store in front of another that commits only when it is let, and may fail instead."""

    def __init__(self, store: RecordStore) -> None:
        self._store = store
        self.go = asyncio.Event()
        self.groups: list[int] = []
        self.failure: Exception | None = None

    async def append(self, requests: Sequence[AppendRequest]) -> list[Appended | DecklogError]:
        self.groups.append(len(requests))
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        return await self._store.append(requests)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


@asynccontextmanager
async def running(store: object, **limits: int) -> AsyncIterator[Ingest]:
    ingest = Ingest(store, MemoryAnnouncements(), fingerprint_key=FINGERPRINT_KEY, **limits)  # type: ignore[arg-type]
    await ingest.start()
    try:
        yield ingest
    finally:
        if isinstance(store, Held):
            store.go.set()
        await ingest.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def contents(store: RecordStore, tenant: Tenant, log: LogName = LogName.EVENTS) -> list[str]:
    records, _ = await store.read(tenant, log, Span(0, 10**6), query=Query(), limit=10**5, newest_first=False, timeout=30)
    assert [record.seq for record in records] == list(range(len(records)))
    return [record.content for record in records]


async def refused(ingest: Ingest, tenant: Tenant, raw: bytes, key: str | None = None) -> DecklogError:
    with pytest.raises(DecklogError) as caught:
        await ingest.append(tenant, raw, key=key)
    return caught.value


async def test_ingest_commits_waiting_requests_as_one_group_before_it_answers(database: Database) -> None:
    tenant, store = await database.tenant(), Held(await database.records())
    async with running(store) as ingest:
        first = asyncio.create_task(ingest.append(tenant, body(id="first")))
        await until(lambda: len(store.groups) == 1)
        rest = [asyncio.create_task(ingest.append(tenant, body(id=f"{i}"))) for i in range(20)]
        await asyncio.sleep(0)
        assert not first.done()
        store.go.set()
        receipts = [receipt for receipt, _ in await asyncio.gather(first, *rest)]
        assert [receipt.seq for receipt in receipts] == list(range(21))
        assert store.groups == [1, 20]


async def test_ingest_stores_one_record_for_two_requests_with_the_same_id(database: Database) -> None:
    tenant, store = await database.tenant(), Held(await database.records())
    async with running(store) as ingest:
        tasks = [asyncio.create_task(ingest.append(tenant, body(id="x"))) for _ in range(3)]
        other = asyncio.create_task(ingest.append(tenant, body(id="x", message="other")))
        await until(lambda: bool(store.groups))
        store.go.set()
        receipts = [receipt for receipt, _ in await asyncio.gather(*tasks)]
        assert [receipt.status for receipt in receipts] == [Status.STORED, Status.DUPLICATE, Status.DUPLICATE]
        assert {receipt.seq for receipt in receipts} == {0}
        with pytest.raises(DecklogError) as caught:
            await other
        assert caught.value.code is Code.ID_CONFLICT
    assert len(await contents(store, tenant)) == 1  # type: ignore[arg-type]


async def test_ingest_acknowledges_nothing_of_a_failed_group(database: Database) -> None:
    tenant, store = await database.tenant(), Held(await database.records())
    store.failure = DecklogError(Code.STORAGE_UNAVAILABLE, "away", retry_after=1)
    store.go.set()
    async with running(store) as ingest:
        assert (await refused(ingest, tenant, body(id="x"))).code is Code.STORAGE_UNAVAILABLE
        store.failure = KeyError("a defect")
        assert (await refused(ingest, tenant, body(id="x"))).code is Code.OUTCOME_UNKNOWN
        store.failure = None
        receipt, _ = await ingest.append(tenant, body(id="x"))
        assert (receipt.status, receipt.seq) == (Status.STORED, 0)


async def test_ingest_refuses_a_tenant_beyond_its_share_of_the_queue_and_takes_another_one(database: Database) -> None:
    tenant, other, store = await database.tenant(), await database.tenant(), Held(await database.records())
    async with running(store, waiting_requests_max=9) as ingest:
        waiting = [asyncio.create_task(ingest.append(tenant, body()))]
        await until(lambda: bool(store.groups))
        waiting += [asyncio.create_task(ingest.append(tenant, body())) for _ in range(2)]
        await asyncio.sleep(0)
        error = await refused(ingest, tenant, body())
        assert (error.code, error.retry_after) == (Code.OVERLOADED, 1)
        waiting.append(asyncio.create_task(ingest.append(other, body())))
        await asyncio.sleep(0)
        store.go.set()
        await asyncio.gather(*waiting)
        await ingest.append(tenant, body())
    bytes_held = Held(await database.records())
    async with running(bytes_held, waiting_bytes_max=150_000) as ingest:
        waiting = [asyncio.create_task(ingest.append(tenant, body(metadata="x" * 40_000)))]
        await until(lambda: bool(bytes_held.groups))
        waiting.append(asyncio.create_task(ingest.append(tenant, body(metadata="x" * 5_000))))
        await asyncio.sleep(0)
        assert (await refused(ingest, tenant, body(metadata="x" * 40_000))).code is Code.OVERLOADED
        waiting.append(asyncio.create_task(ingest.append(other, body(metadata="x" * 20_000))))
        await asyncio.sleep(0)
        bytes_held.go.set()
        await asyncio.gather(*waiting)
    assert len(await contents(store, tenant)) == 6  # type: ignore[arg-type]
    assert len(await contents(store, other)) == 2  # type: ignore[arg-type]


async def test_ingest_commits_waiting_requests_and_refuses_new_ones_when_it_stops(database: Database) -> None:
    tenant, store = await database.tenant(), Held(await database.records())
    async with running(store) as ingest:
        waiting = [asyncio.create_task(ingest.append(tenant, body())) for _ in range(5)]
        await until(lambda: bool(store.groups))
        stopping = asyncio.create_task(ingest.stop())
        await asyncio.sleep(0)
        assert (await refused(ingest, tenant, body())).code is Code.OVERLOADED
        store.go.set()
        await stopping
        assert len(await asyncio.gather(*waiting)) == 5


async def test_ingest_does_not_store_a_request_cancelled_while_it_waited(database: Database) -> None:
    tenant, store = await database.tenant(), Held(await database.records())
    async with running(store) as ingest:
        first = asyncio.create_task(ingest.append(tenant, body()))
        await until(lambda: bool(store.groups))
        abandoned = asyncio.create_task(ingest.append(tenant, body(message="abandoned")))
        await asyncio.sleep(0)
        abandoned.cancel()
        await asyncio.sleep(0)
        store.go.set()
        await first
        await ingest.append(tenant, body())
    assert not [text for text in await contents(store, tenant) if "abandoned" in text]  # type: ignore[arg-type]


async def test_idempotency_key_stands_for_the_id(database: Database) -> None:
    tenant, store = await database.tenant(), await database.records()
    async with running(store) as ingest:
        first, _ = await ingest.append(tenant, body(), key="k")
        again, _ = await ingest.append(tenant, body(), key="k")
        assert (again.status, again.seq) == (Status.DUPLICATE, first.seq)
        assert (await refused(ingest, tenant, body(message="new"), key="k")).code is Code.ID_CONFLICT
        own, _ = await ingest.append(tenant, body(id="own"), key="k")
        assert own.status is Status.STORED
        bulk = await ingest.append_bulk(tenant, [body(), body(id="own")], key="b")
        again_bulk = await ingest.append_bulk(tenant, [body(), body(id="own")], key="b")
        assert [item.status for item in bulk.items if not isinstance(item, DecklogError)] == [Status.STORED, Status.DUPLICATE]
        assert {item.status for item in again_bulk.items if not isinstance(item, DecklogError)} == {Status.DUPLICATE}


async def test_concurrent_bulks_of_one_key_are_one_bulk_or_refused(database: Database) -> None:
    tenant, store = await database.tenant(), await database.records()
    one, other = [body(message="one")] * 3, [body(message="other")] * 2
    async with running(store) as ingest:
        tasks = [ingest.append_bulk(tenant, raws, key="k") for raws in (one, other, one, other)]
        found = await asyncio.gather(*tasks, return_exceptions=True)
        refusals = [each for each in found if isinstance(each, DecklogError)]
        assert {each.code for each in refusals} == {Code.IDEMPOTENCY_KEY_REUSED}
        assert len(refusals) == 2
        assert len(set(await contents(store, tenant))) in (2, 3)


async def test_bulk_that_was_stored_in_part_is_completed_by_the_same_content_alone(database: Database) -> None:
    tenant, store = await database.tenant(), Held(await database.records())
    raws = [body(message=f"{n}") for n in range(700)]
    store.go.set()
    async with running(store) as ingest:
        real = store._store.append

        async def lost_after_the_first_part(requests: Sequence[AppendRequest]) -> list[Appended | DecklogError]:
            if len(store.groups) > 1:
                raise DecklogError(Code.STORAGE_UNAVAILABLE, "away", retry_after=1)
            return await real(requests)

        store._store.append = lost_after_the_first_part  # type: ignore[method-assign]
        assert (await ingest.append_bulk(tenant, raws, key="k")).refused is not None
        store._store.append = real  # type: ignore[method-assign]
        with pytest.raises(DecklogError) as caught:
            await ingest.append_bulk(tenant, raws[100:], key="k")
        assert caught.value.code is Code.IDEMPOTENCY_KEY_REUSED
        items = (await ingest.append_bulk(tenant, raws, key="k")).items
        assert [item.seq for item in items if not isinstance(item, DecklogError)] == list(range(700))
    assert len(await contents(store, tenant)) == 700  # type: ignore[arg-type]


async def test_bulk_stores_valid_records_beside_invalid_ones_in_order(database: Database) -> None:
    tenant, store = await database.tenant(), await database.records()
    async with running(store) as ingest:
        await ingest.append(tenant, body(id="taken"))
        result = await ingest.append_bulk(
            tenant,
            [
                body(id="a"),
                b'{"action":1}',
                body(id="a"),
                body(id="a", message="twin"),
                body(id="taken", message="x"),
                body(id="taken", message="x"),
                b"{",
                body(),
            ],
        )
    shown = [item.code.value if isinstance(item, DecklogError) else (item.status.name, item.seq) for item in result.items]
    assert shown == [
        ("STORED", 1),
        "invalid-record",
        ("DUPLICATE", 1),
        "id-conflict",
        "id-conflict",
        "id-conflict",
        "invalid-json",
        ("STORED", 2),
    ]
    assert len(await contents(store, tenant)) == 3


@pytest.mark.parametrize(
    ("second", "code"),
    [
        (b'{"action":"x"}', "invalid-record"),
        (body(id="a", message="twin"), "id-conflict"),
        (body(id="taken", message="x"), "id-conflict"),
    ],
)
async def test_atomic_bulk_stores_all_or_nothing(database: Database, second: bytes, code: str) -> None:
    tenant, store = await database.tenant(), await database.records()
    async with running(store) as ingest:
        await ingest.append(tenant, body(id="taken"))
        with pytest.raises(DecklogError) as caught:
            await ingest.append_bulk(tenant, [body(id="a"), second], atomic=True)
        assert caught.value.code is Code.BATCH_REJECTED
        assert [(error["index"], error["code"]) for error in caught.value.extra["errors"]] == [(1, code)]
        assert len(await contents(store, tenant)) == 1
        await ingest.append_bulk(tenant, [body(id="a"), body(id="taken"), body(id="a")], atomic=True)
        assert len(await contents(store, tenant)) == 2


async def test_atomic_bulk_larger_than_a_group_holds_up_no_other_log(database: Database) -> None:
    tenant, other, store = await database.tenant(), await database.tenant(), await database.records()
    async with running(store) as ingest:
        bulk = asyncio.create_task(ingest.append_bulk(tenant, [body(id=f"{n}") for n in range(3_000)], atomic=True))
        await until(lambda: ingest._queue.requests == 1)
        later = asyncio.create_task(ingest.append(tenant, body(message="later")))
        answered = 0
        while not bulk.done():
            await ingest.append(other, body())
            answered += 1
        assert len((await bulk).items) == 3_000
        assert (await later)[0].seq == 3_000
    assert len(await contents(store, tenant)) == 3_001
    assert len(await contents(store, other)) == answered


async def test_bulk_of_too_many_records_is_refused_whole(database: Database) -> None:
    tenant, store = await database.tenant(), await database.records()
    async with running(store) as ingest:
        with pytest.raises(DecklogError) as caught:
            await ingest.append_bulk(tenant, [b"{}"] * 10_001)
        assert caught.value.code is Code.TOO_MANY_RECORDS
        assert (await ingest.append_bulk(tenant, [])).items == []


async def test_ingest_refuses_a_tenant_over_its_rate_locally_until_the_bucket_may_have_refilled(database: Database) -> None:
    tenant, store = await database.tenant(per_second=5, burst=2), Held(await database.records())
    store.go.set()
    async with running(store) as ingest:
        await ingest.append(tenant, body())
        await ingest.append(tenant, body())
        error = await refused(ingest, tenant, body())
        assert error.code is Code.RATE_LIMITED
        groups = len(store.groups)
        again = await refused(ingest, tenant, body())
        assert (again.code, len(store.groups)) == (Code.RATE_LIMITED, groups)
        assert again.retry_after is not None
        await asyncio.sleep(again.retry_after + 0.05)
        await ingest.append(tenant, body())


async def test_ingest_sends_the_store_only_what_the_bucket_may_hold_during_a_flood(database: Database) -> None:
    tenant, store = await database.tenant(per_second=4, burst=1), Held(await database.records())
    store.go.set()
    async with running(store) as ingest:
        await ingest.append(tenant, body())
        await refused(ingest, tenant, body())
        store.groups.clear()
        await asyncio.sleep(0.55)  # at least two came due, of which the bucket holds one
        await freeze_clock(database)  # no more come due, however long the flood takes
        results = await asyncio.gather(*(ingest.append(tenant, body()) for _ in range(100)), return_exceptions=True)
    assert sum(isinstance(result, tuple) for result in results) == 1
    assert {result.code for result in results if isinstance(result, DecklogError)} == {Code.RATE_LIMITED}
    assert sum(store.groups) < 10
    assert store.groups


async def test_raised_rate_applies_at_once_to_a_tenant_that_was_just_refused(database: Database) -> None:
    tenant, store = await database.tenant(per_second=1, burst=1_000), await database.records()
    async with running(store) as ingest:
        many = [body() for _ in range(1_000)]
        await ingest.append_bulk(tenant, many)
        with pytest.raises(DecklogError) as caught:
            await ingest.append_bulk(tenant, many)
        assert caught.value.code is Code.RATE_LIMITED
        await database.execute("UPDATE decklog.heads SET per_second = 1000000 WHERE tenant_id = $1", tenant.id)
        await asyncio.sleep(1.1)
        assert len((await ingest.append_bulk(tenant, many)).items) == 1_000


async def test_requests_refused_for_another_reason_spend_no_tokens(database: Database) -> None:
    tenant, store = await database.tenant(per_second=5, burst=1), Held(await database.records())
    store.go.set()
    async with running(store) as ingest:
        await ingest.append(tenant, body())
        error = await refused(ingest, tenant, body())
        assert error.retry_after is not None
        await asyncio.sleep(error.retry_after + 0.05)
        store.failure = DecklogError(Code.STORAGE_UNAVAILABLE, "away")
        assert (await refused(ingest, tenant, body())).code is Code.STORAGE_UNAVAILABLE
        store.failure = None
        await ingest.append(tenant, body())


async def test_access_records_use_the_same_writer_masked_and_unmetered(database: Database) -> None:
    tenant, store = await database.tenant(per_second=1, burst=1), await database.records()
    record: RecordInput = decode(body(action="log.search", metadata={"filter": {"password": "hunter2"}}))
    async with running(store) as ingest:
        for _ in range(3):
            await ingest.append_access(tenant, record)
    texts = await contents(store, tenant, LogName.ACCESS)
    assert len(texts) == 3
    assert not [text for text in texts if "hunter2" in text]
    assert await contents(store, tenant) == []


async def test_ingest_refuses_a_short_fingerprint_key() -> None:
    with pytest.raises(DecklogError) as caught:
        Ingest(object(), MemoryAnnouncements(), fingerprint_key=b"short")  # type: ignore[arg-type]
    assert caught.value.code is Code.MISCONFIGURED
