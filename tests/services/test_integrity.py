"""Records are compared with their digests when they are read: a damaged one is refused, counted and noted, and no other is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from decklog.domain.consumers import LogRecords
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Principal, Role
from decklog.domain.log import LogName
from decklog.domain.records.append import AppendRequest
from decklog.domain.tenant import Isolation
from decklog.services.records.access_log import AccessLog
from decklog.services.records.ingest import Ingest
from decklog.services.records.integrity import Read, damaged_of
from decklog.services.records.reading import Reading
from decklog.services.search.search import Search
from decklog.workers.consumers.indexer import Indexer
from tests.support.desk import REQUEST, Desk, desk
from tests.support.memory_store import FINGERPRINT_KEY, MemoryAnnouncements
from tests.support.records import prepared
from tests.support.stores import Database

EVENTS = LogName.EVENTS


def counted(read: Read) -> float:
    return REGISTRY.get_sample_value("decklog_records_damaged_total", {"read": read.value}) or 0.0


async def damaged_desk(at: Desk, count: int = 9, damaged: int = 4) -> None:
    await at.put(*({"action": f"a{number}"} for number in range(count)))
    at.store.damage(at.acme, EVENTS, damaged)


async def last_access(at: Desk) -> tuple[str, str, dict[str, Any]]:
    record = (await at.accesses())[-1]
    return record["action"], record["outcome"], record["metadata"]


async def until_refused(source: AsyncIterable[Any]) -> tuple[list[Any], Code]:
    """Return what the source gave, and the code of the error that ended it."""
    given: list[Any] = []
    try:
        async for each in source:
            given += [each]
    except DecklogError as error:
        return given, error.code
    raise AssertionError("the source ended without an error")


async def test_single_read_refuses_a_damaged_record_and_gives_the_others() -> None:
    async with desk() as at:
        await damaged_desk(at)
        before = counted(Read.SINGLE)
        with pytest.raises(DecklogError, match="record 4 ") as refused:
            await at.reading.get(at.principal(), REQUEST, 4, [])
        assert (refused.value.code, refused.value.extra) == (Code.RECORD_DAMAGED, {"seq": 4})
        assert counted(Read.SINGLE) == before + 1
        action, outcome, details = await last_access(at)
        assert (action, outcome, details["records"], details["damaged"]) == ("log.read", "failure", 0, [4])
        for seq in (3, 5):
            _, record = await at.reading.get(at.principal(), REQUEST, seq, [])
            assert record.seq == seq


async def test_list_refuses_a_page_with_a_damaged_record_and_gives_pages_without_it() -> None:
    async with desk() as at:
        await damaged_desk(at)
        with pytest.raises(DecklogError) as refused:
            await at.reading.list(at.principal(), REQUEST, [])
        assert refused.value.code is Code.RECORD_DAMAGED
        action, outcome, details = await last_access(at)
        assert (action, outcome, details["records"], details["damaged"]) == ("log.search", "failure", 0, [4])
        _, _, page = await at.reading.list(at.principal(), REQUEST, [("limit", "4")])
        assert [record.seq for record in page.items] == [8, 7, 6, 5]


async def test_export_ends_with_a_typed_error_at_a_damaged_record() -> None:
    async with desk() as at:
        await damaged_desk(at, count=1_500, damaged=1_200)
        export = await at.reading.export(at.principal(), REQUEST, [])
        chunks, code = await until_refused(export)
        assert code is Code.RECORD_DAMAGED
        assert all(json.loads(line)["seq"] < 1_200 for chunk in chunks for line in chunk.splitlines())
        action, outcome, details = await last_access(at)
        assert (action, outcome, details["damaged"], details["code"]) == (
            "log.export.close",
            "failure",
            [1_200],
            "record-damaged",
        )


async def test_stream_delivers_the_records_before_a_damaged_one_and_ends() -> None:
    async with desk() as at:
        await damaged_desk(at)
        stream = await at.streams.open(at.principal(), REQUEST, [], after="-1")
        events, code = await until_refused(stream)
        assert (code, [event.record.seq for event in events]) == (Code.RECORD_DAMAGED, [0, 1, 2, 3])
        await stream.aclose()
        action, outcome, details = await last_access(at)
        assert (action, outcome, details["records"]) == ("log.stream.close", "failure", 4)


async def test_indexer_counts_damaged_records_and_indexes_the_others() -> None:
    async with desk() as at:
        await damaged_desk(at)
        records = await at.store.fetch(at.acme, EVENTS, range(9), newest_first=False)
        records[4] = type(records[4])(1, 4, records[4].received_at, records[4].digest, "{no JSON")
        before = counted(Read.INDEX)
        await Indexer(at.index).apply([LogRecords(at.acme, EVENTS, records)])
        assert counted(Read.INDEX) == before + 1


@pytest.mark.parametrize("share", [0.0, 1.0])
async def test_sample_of_a_list_is_the_share_of_the_setting(share: float) -> None:
    async with desk() as at:
        await damaged_desk(at)
        records = await at.store.fetch(at.acme, EVENTS, range(9))
        assert await damaged_of(records, at.acme, EVENTS, Read.LIST, share=share) == [4] * int(share)


async def test_query_that_fails_after_it_read_leaves_an_access_record() -> None:
    async with desk(indexed=False, timeout=1e-9) as at:
        await at.put({})
        for call in (at.reading.list, at.reading.stats):
            with pytest.raises(DecklogError) as refused:
                await call(at.principal(), REQUEST, [("q", "a")])
            assert refused.value.code is Code.SEARCH_UNAVAILABLE
            _, outcome, details = await last_access(at)
            assert (outcome, details["code"], details["records"]) == ("failure", "search-unavailable", 0)


@pytest.mark.parametrize("isolation", list(Isolation))
async def test_byte_changed_by_a_superuser_is_found_by_every_read_of_that_record_only(
    database: Database, isolation: Isolation
) -> None:
    store = await database.records()
    acme, rival = [await database.tenant(isolation=isolation) for _ in range(2)]
    for tenant in (acme, rival):
        await store.append([AppendRequest(tenant, EVENTS, [prepared(message=f"paid {number}") for number in range(3)])])
    await database.execute(
        f'UPDATE "{acme.schema}".records SET content = replace(content, $1, $2) WHERE tenant_id = $3 AND log = 0 AND seq = 1',
        "paid 1", "paid 9", acme.id,
    )  # fmt: skip
    ingest = Ingest(store, MemoryAnnouncements(), fingerprint_key=FINGERPRINT_KEY)
    await ingest.start()
    reading = Reading(Search(store), store, AccessLog(ingest, lambda: acme), checked_share=1)
    mine, other = (Principal(kind="api_key", subject="k", role=Role.AUDITOR, tenant=tenant) for tenant in (acme, rival))

    async def codes(principal: Principal) -> list[str]:
        found: list[str] = []
        for call in (
            *(reading.get(principal, REQUEST, seq, []) for seq in range(3)),
            reading.list(principal, REQUEST, []),
            reading.export(principal, REQUEST, []),
        ):
            try:
                answer = await call
                if hasattr(answer, "__aiter__"):
                    assert [chunk async for chunk in answer]
                found.append("given")
            except DecklogError as error:
                found.append(error.code.value)
        return found

    try:
        assert await codes(mine) == ["given", "record-damaged", "given", "record-damaged", "record-damaged"]
        assert await codes(other) == ["given"] * 5
    finally:
        await ingest.stop()
