"""Rebuilding an index beside live traffic: a new generation, which workers fill from the records while searches read the old one.

This module only begins, and watches. Workers fill the generation with a cursor of its own, let searches read it when it is nearly
full, and remove the old one (`tending.py`). Every step may be repeated, and goes on where an earlier one was interrupted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Protocol

import msgspec

from decklog.domain.errors import Code, DecklogError
from decklog.domain.index_generation import (
    Generations,
    GenerationState,
    IndexGeneration,
    Ranges,
    TendedIndex,
    next_name,
    parse_name,
)

LOOK_SECONDS = 1.0
"""Between two looks at the progress."""


class Directory(Protocol):
    """Where the index of a tenant is found by the tenant's name."""

    async def index_of(self, name: str) -> str | None:
        """Return the index of a tenant, None for an unknown name. Raises `storage-unavailable`."""
        ...


class Progress(msgspec.Struct, frozen=True):
    """How far rebuilt indices have come: `done` of `records`, and the names of those that searches do not read yet."""

    done: int
    records: int
    left: tuple[str, ...]


async def select(names: Collection[str] | None, generations: Generations, directory: Directory) -> list[TendedIndex]:
    """Return the indices of these tenants, of all tenants where None. Shared tenants have the index of their class.

    Raises:
        DecklogError: `not-found` for a name without a tenant or without an index, `storage-unavailable`.
    """
    known = {index.name: index for index in await generations.all()}
    if names is None:
        return list(known.values())
    wanted: set[str] = set()
    for name in names:
        index = await directory.index_of(name)
        if index not in known:
            raise DecklogError(Code.NOT_FOUND, f"There is no tenant {name!r} with a search index.")
        wanted.add(index)
    return [known[name] for name in sorted(wanted)]


async def rebuild(index: TendedIndex, generations: Generations, ranges: Ranges) -> IndexGeneration | None:
    """Begin to build a new generation of an index beside the live one; return it, or the one that is being built already.

    Returns None where the index has no live generation with this version's mapping: provisioning makes that.

    Raises:
        DecklogError: `storage-unavailable` and `search-unavailable`; a further call continues.
    """
    for row in index.generations:
        if row.state is GenerationState.BUILDING:
            return IndexGeneration(index.name, row.name, row.starts)
    live = next((row for row in index.generations if row.state is GenerationState.LIVE), None)
    if live is None or parse_name(live.name)[0] != ranges.version:
        return None
    name = next_name(ranges.version, (row.name for row in index.generations))
    generation = IndexGeneration(index.name, name, live.starts)
    like = IndexGeneration(index.name, live.name, live.starts).range_index(live.starts[-1])
    uuids = [await ranges.make(generation, start, like=like) for start in generation.starts]
    await generations.record(generation, uuids, at_once=False)
    return generation


async def watch(
    built: Sequence[IndexGeneration], generations: Generations, *, pause: float = LOOK_SECONDS
) -> AsyncIterator[Progress]:
    """Yield the progress of generations, for the last time when searches read all of them.

    Raises:
        DecklogError: `conflict` for a generation that was given up, because another was begun or a range was lost;
            `storage-unavailable`.
    """
    while True:
        seen = [(each, await generations.progress(each)) for each in built]
        for each, found in seen:
            if found.state not in (GenerationState.BUILDING, GenerationState.LIVE):
                raise DecklogError(Code.CONFLICT, f"The generation {each.alias!r} was given up. Run this again.")
        left = tuple(each.index for each, found in seen if found.state is GenerationState.BUILDING)
        yield Progress(sum(found.done for _, found in seen), sum(found.records for _, found in seen), left)
        if not left:
            return
        await asyncio.sleep(pause)
