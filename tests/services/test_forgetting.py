"""The floor of a log, below which the index finds nothing; searches still find every record."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from decklog.domain.consumers import FORGETTER
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.search.query import parse
from decklog.domain.tenant import Limits
from decklog.services.search.forgetting import PASS_SECONDS, Forgetting
from tests.support.desk import Desk, desk

EVENTS, ACCESS = LogName.EVENTS, LogName.ACCESS
TEN_DAYS = Limits(search_days=10)


async def aged(at: Desk) -> Forgetting:
    """Index three old and two new records in both logs; the old ones are beyond `searchDays`."""
    for log in LogName:
        await at.put(*[{"message": "old needle"} for _ in range(3)], log=log)
    await at.put({"message": "needle of a rival"}, tenant=at.rival)
    at.now.forward(days=11)
    for log in LogName:
        await at.put(*[{"message": "new needle"} for _ in range(2)], log=log)
    await at.index_all()
    await at.index_all(at.rival)
    return Forgetting(at.store, at.cursors)


async def floor(at: Desk, log: LogName = EVENTS) -> int:
    return await at.cursors.next_seq(FORGETTER, at.acme.id, log)


async def found(at: Desk, *parameters: tuple[str, str]) -> list[int]:
    page = await at.search.page(at.acme, EVENTS, parse(parameters)[1], limit=10)
    assert page.next is None
    return [record.seq for record in page.items]


@pytest.mark.parametrize("dropped", [False, True], ids=["documents kept", "documents dropped"])
async def test_records_below_the_floor_are_found_by_postgres(dropped: bool) -> None:
    async with desk(tenant=TEN_DAYS) as at:
        forgetting = await aged(at)
        for log in LogName:
            assert await forgetting.forget(at.acme, log)
            assert await floor(at, log) == 3
            assert not await forgetting.forget(at.acme, log)
            if dropped:
                at.index.drop(at.acme, log, 3)
        assert at.index.findable(at.rival, EVENTS) == [0]
        since = ("from", at.now.time.replace(month=1).isoformat())
        assert await found(at, ("actor", "tester")) == [4, 3, 2, 1, 0]
        assert await found(at, ("q", "old"), since) == [2, 1, 0]
        assert (await at.search.count(at.acme, EVENTS, parse([("actor", "tester")])[1])).total == 5


async def test_full_text_beyond_the_index_needs_a_time_range_on_its_own_page() -> None:
    async with desk(tenant=TEN_DAYS) as at:
        assert await (await aged(at)).forget(at.acme, EVENTS)
        query = parse([("q", "needle")])[1]
        page = await at.search.page(at.acme, EVENTS, query, limit=10)
        assert ([record.seq for record in page.items], page.coverage.engine) == ([4, 3], "opensearch")
        assert (page.coverage.indexed_from, page.coverage.indexed) == (3, 5)
        assert page.next is not None
        for asking in (
            at.search.page(at.acme, EVENTS, query, limit=10, start=page.next),
            at.search.count(at.acme, EVENTS, query),
        ):
            with pytest.raises(DecklogError, match=r"searchDays.*give `from`") as refused:
                await asking
            assert refused.value.code is Code.SEARCH_UNAVAILABLE
        assert [record.seq async for batch in at.search.walk(at.acme, EVENTS, query, end=5) for record in batch] == [
            0,
            1,
            2,
            3,
            4,
        ]


async def test_long_walk_follows_the_floor_while_documents_are_dropped() -> None:
    async with desk(tenant=TEN_DAYS) as at:
        forgetting = await aged(at)
        await at.put(*[{"message": "more needle"} for _ in range(600)])
        await at.index_all()
        seqs: list[int] = []
        async for batch in at.search.walk(at.acme, EVENTS, parse([("q", "needle")])[1], end=605):
            seqs += [record.seq for record in batch]
            if len(seqs) == len(batch):
                at.now.forward(days=11)
                assert await forgetting.forget(at.acme, EVENTS)
                at.index.drop(at.acme, EVENTS, 605)
                assert at.index.findable(at.acme, EVENTS) == []
        assert seqs == list(range(605))


async def test_pass_runs_once_for_all_workers_and_stays_due_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    async with desk(tenant=TEN_DAYS) as at:
        await aged(at)
        passes = await asyncio.gather(*(Forgetting(at.store, at.cursors).forget(at.acme, EVENTS) for _ in range(5)))
        assert sum(passes) == 1
        at.now.forward(seconds=PASS_SECONDS + 1)
        forgetting = Forgetting(at.store, at.cursors)
        with monkeypatch.context() as broken:

            async def fails(*_: object, **__: object) -> int:
                raise DecklogError(Code.STORAGE_UNAVAILABLE, "Away.")

            broken.setattr(at.store, "first_received", fails)
            with pytest.raises(DecklogError):
                await forgetting.forget(at.acme, EVENTS)
        assert await forgetting.forget(at.acme, EVENTS)
        assert await floor(at) == 3


async def test_raising_search_days_keeps_the_floor_and_loses_nothing() -> None:
    async with desk(tenant=TEN_DAYS) as at:
        forgetting = await aged(at)
        assert await forgetting.forget(at.acme, EVENTS)
        at.now.forward(seconds=PASS_SECONDS + 1)
        assert await forgetting.forget(replace(at.acme, limits=Limits(search_days=20)), EVENTS)
        assert await floor(at) == 3
        assert await found(at, ("actor", "tester")) == [4, 3, 2, 1, 0]


async def test_floor_is_raised_for_a_tenant_without_search_days_too() -> None:
    async with desk() as at:
        forgetting = await aged(at)
        assert await forgetting.raise_floor(at.acme, EVENTS, days=10)
        assert await floor(at) == 3
        assert await forgetting.raise_floor(at.acme, EVENTS, days=30)
        assert await floor(at) == 3
        held = await at.cursors.lease(FORGETTER, at.acme.id, EVENTS, owner="another", seconds=60)
        assert held is not None
        assert await forgetting.raise_floor(at.acme, EVENTS, days=10)
        at.now.forward(days=20)
        assert await at.cursors.lease(FORGETTER, at.acme.id, EVENTS, owner="another", seconds=60)
        assert not await forgetting.raise_floor(at.acme, EVENTS, days=10)
