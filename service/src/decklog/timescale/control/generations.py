"""Generations of search indices in `decklog.search_generations`, as workers read and change them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from itertools import groupby

from decklog.domain.index_generation import GenerationProgress, GenerationRow, GenerationState, IndexGeneration, TendedIndex
from decklog.domain.tenant import State
from decklog.timescale.connection import Pool
from decklog.timescale.statements import statement

_ALL = statement("generations.tended")
_RECORD = statement("generations.record")
_ADD_RANGE = statement("generations.add_range")
_DROP_RANGE = statement("generations.drop_range")
_SWITCH = statement("generations.switch")
_PROGRESS = statement("generations.progress")
_FORGET = statement("generations.forget_retired")


class PostgresGenerations:
    """`Generations` over a pool of the worker's role or the owner's; the protocol says what each method promises."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def all(self) -> list[TendedIndex]:
        """See the protocol."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(_ALL)
        found: list[TendedIndex] = []
        for _, same in groupby(rows, key=lambda row: row["index"]):
            group = list(same)
            generations = tuple(
                GenerationRow(row["generation"], GenerationState(row["state"]), tuple(row["starts"]), tuple(row["uuids"]))
                for row in group
            )
            idle = min(row["idle_seconds"] for row in group)
            first = group[0]
            found.append(TendedIndex(first["index"], first["kept_days"], first["partition_days"], idle, generations))
        return found

    async def record(self, generation: IndexGeneration, uuids: Sequence[str], *, at_once: bool) -> bool:
        """See the protocol."""
        return await self._call(_RECORD, generation.index, generation.name, generation.starts, uuids, at_once)

    async def add_range(self, generation: IndexGeneration, start: date, uuid: str) -> bool:
        """See the protocol."""
        return await self._call(_ADD_RANGE, generation.index, generation.name, start, uuid)

    async def drop_range(self, generation: IndexGeneration, start: date) -> bool:
        """See the protocol."""
        return await self._call(_DROP_RANGE, generation.index, generation.name, start)

    async def switch(self, generation: IndexGeneration, *, lag_max: int) -> bool:
        """See the protocol."""
        return await self._call(_SWITCH, generation.index, generation.name, lag_max)

    async def progress(self, generation: IndexGeneration) -> GenerationProgress:
        """See the protocol."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(_PROGRESS, generation.index, generation.name, State.DELETED.value)
        if row is None:
            return GenerationProgress(None, 0, 0)
        return GenerationProgress(GenerationState(row["state"]), row["done"], row["records"])

    async def index_of(self, name: str) -> str | None:
        """Return the index of a tenant, None for an unknown name. Raises `storage-unavailable`."""
        async with self._pool.connection() as connection:
            index: str | None = await connection.fetchval("SELECT index FROM decklog.tenants WHERE name = $1", name)
        return index

    async def forget(self, generation: IndexGeneration) -> bool:
        """See the protocol."""
        return await self._call(_FORGET, generation.index, generation.name)

    async def _call(self, function: str, *values: object) -> bool:
        async with self._pool.connection() as connection:
            return bool(await connection.fetchval(function, *values))
