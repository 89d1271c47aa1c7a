"""Comparison of the index with the records: what the index lacks below its cursor is found, written again and counted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from decklog.domain.consumers import indexer_of
from decklog.domain.errors import Code, DecklogError
from decklog.domain.index_generation import IndexGeneration
from decklog.domain.log import LogName
from decklog.domain.tenant import Tenant
from decklog.workers.consumers.indexer import Indexer
from decklog.workers.duties import gaps
from decklog.workers.duties.gaps import CHECK_SECONDS, MISSING, UNREPAIRED, GapCheck
from tests.support.desk import Desk, desk
from tests.support.examples import examples
from tests.support.generations import LONG_AGO
from tests.support.memory import MemoryRegistry
from tests.support.memory_generations import MemoryGenerations
from tests.support.memory_index import MemoryIndex
from tests.support.memory_store import index_all

EVENTS = LogName.EVENTS


async def indexed(at: Desk, count: int, *, index: MemoryIndex | None = None) -> GapCheck:
    """Store and index so many records, and return what compares them."""
    generation = IndexGeneration(at.acme.index, "v3-1", (LONG_AGO,))
    generations, registry = MemoryGenerations(at.acme.index), MemoryRegistry()
    await generations.record(generation, ["uuid"], at_once=True)
    registry.add_tenant(at.acme)
    at.acme = replace(at.acme, live=generation)
    at.index = index or at.index
    if count:
        await at.put(*[{}] * count)
    await index_all(at.store, at.acme, at.index, at.cursors, indexer_of(at.acme))
    return GapCheck(generations, registry, store=at.store, cursors=at.cursors, index=at.index, indexer=Indexer(at.index))


def lose(at: Desk, seqs: set[int]) -> None:
    """Lose documents, as a disk does."""
    for documents in (at.index._written, at.index._findable):
        place = documents.get(f"{at.acme.index}.v3-1", {})
        for key in [key for key in place if key[1] is EVENTS and key[3] in seqs]:
            del place[key]


@settings(max_examples=examples(40), deadline=None)
@given(count=st.integers(0, 60), lost=st.sets(st.integers(0, 59)), span_min=st.integers(1, 20))
async def test_everything_that_the_index_lacks_is_written_again_and_counted(count: int, lost: set[int], span_min: int) -> None:
    async with desk() as at:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(gaps, "SPAN_MIN", span_min)
            check = await indexed(at, count)
            lose(at, lost)
            before = MISSING._value.get(), UNREPAIRED._value.get()
            await check.check_all()
            assert at.index.findable(at.acme, EVENTS) == list(range(count))
            assert MISSING._value.get() - before[0] == len(lost & set(range(count)))
            assert UNREPAIRED._value.get() == before[1]
            written = at.index.added
            at.now.forward(seconds=CHECK_SECONDS + 1)
            await check.check_all()
            assert at.index.added == written


async def test_log_is_checked_once_for_all_workers_and_again_after_a_failure() -> None:
    async with desk() as at:
        check = await indexed(at, 3)
        assert await check.check(at.acme, EVENTS)
        assert not await check.check(at.acme, EVENTS)
        at.now.forward(seconds=CHECK_SECONDS + 1)
        at.index.failing = DecklogError(Code.SEARCH_UNAVAILABLE, "Away.")
        with pytest.raises(DecklogError):
            await check.check(at.acme, EVENTS)
        at.index.failing = None
        assert await check.check(at.acme, EVENTS)


async def test_records_below_the_floor_and_above_the_cursor_are_not_compared() -> None:
    async with desk() as at:
        check = await indexed(at, 5)
        await at.put({}, {})
        held = await at.cursors.lease("forgetter", at.acme.id, EVENTS, owner="w", seconds=1)
        assert held is not None
        await at.cursors.move(held, 2, seconds=1)
        lose(at, {0, 1, 4})
        before = MISSING._value.get()
        await check.check_all()
        assert MISSING._value.get() - before == 1
        assert at.index.findable(at.acme, EVENTS) == [2, 3, 4]


async def test_one_check_counts_a_bounded_number_of_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps, "SPAN_MIN", 1)
    monkeypatch.setattr(gaps, "SPANS_MAX", 20)
    async with desk() as at:
        check = await indexed(at, 64)
        lose(at, set(range(64)))
        for _ in range(20):
            asked = at.index.asked
            await check.check_all()
            assert at.index.asked - asked < 20 * 4
            at.now.forward(seconds=CHECK_SECONDS + 1)
        assert at.index.findable(at.acme, EVENTS) == list(range(64))


async def test_document_that_cannot_be_written_is_counted_as_unrepaired() -> None:
    class Forgetful(MemoryIndex):
        async def refresh(self, *tenants: Tenant) -> None:
            await super().refresh(*tenants)
            if self.refreshes > 2:
                lose(at, {1})

    async with desk() as at:
        check = await indexed(at, 3, index=Forgetful())
        lose(at, {1})
        at.index.refreshes = 9
        before = UNREPAIRED._value.get()
        await check.check_all()
        assert UNREPAIRED._value.get() - before == 1
