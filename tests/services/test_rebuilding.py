"""Rebuilding of indices: which ones are chosen, what is begun, and how its progress is seen."""

from __future__ import annotations

from datetime import date

import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.index_generation import IndexGeneration
from decklog.services.search.rebuilding import rebuild, select, watch
from tests.support.memory_generations import MemoryGenerations, MemoryRanges


async def world() -> tuple[MemoryGenerations, MemoryRanges]:
    """One index with a live generation of two ranges."""
    generations, ranges = MemoryGenerations("decklog-t-acme"), MemoryRanges()
    first = IndexGeneration("decklog-t-acme", "v3-1", (date(2026, 1, 1), date(2026, 1, 3)))
    ranges.there = dict.fromkeys(first.range_indices, "uuid")
    await generations.record(first, ["uuid", "uuid"], at_once=True)
    return generations, ranges


async def test_indices_are_chosen_by_tenant_or_all() -> None:
    generations, _ = await world()
    everything = await generations.all()
    assert await select(None, generations, generations) == await select(["acme"], generations, generations) == everything
    for unknown in (["nobody"], ["acme", "nobody"]):
        with pytest.raises(DecklogError, match="nobody") as refused:
            await select(unknown, generations, generations)
        assert refused.value.code is Code.NOT_FOUND


async def test_progress_ends_when_searches_read_the_generation() -> None:
    generations, ranges = await world()
    [index] = await generations.all()
    built = await rebuild(index, generations, ranges)
    assert built is not None
    generations.lag = 60_000
    seen = []
    async for progress in watch([built], generations, pause=0):
        seen.append((progress.done, progress.records, progress.left))
        generations.lag -= 30_000
        if generations.lag < 0:
            generations.lag = 0
            await generations.switch(built, lag_max=0)
    assert seen == [
        (40_000, 100_000, (index.name,)),
        (70_000, 100_000, (index.name,)),
        (100_000, 100_000, (index.name,)),
        (100_000, 100_000, ()),
    ]


async def test_progress_of_a_generation_that_was_given_up_is_refused() -> None:
    generations, ranges = await world()
    [index] = await generations.all()
    built = await rebuild(index, generations, ranges)
    assert built is not None
    another = IndexGeneration(index.name, "v3-9", built.starts)
    await generations.record(another, ["uuid", "uuid"], at_once=True)
    with pytest.raises(DecklogError, match="given up") as refused:
        await anext(watch([built], generations, pause=0))
    assert refused.value.code is Code.CONFLICT
