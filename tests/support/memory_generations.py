"""Generations and ranges of search indices in memory: the references of the real ones, for tests of their life."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import date

from msgspec.structs import replace

from decklog.domain.errors import DecklogError
from decklog.domain.index_generation import (
    DOCUMENTS_MAX,
    GenerationProgress,
    GenerationRow,
    GenerationState,
    IndexGeneration,
    TendedIndex,
)

_numbers = itertools.count(1)


class MemoryGenerations:
    """One index. `lag` is what its logs lack most in the generation that is being built; `today` bounds new ranges."""

    def __init__(self, index: str, *, kept_days: int = 8, partition_days: int = 1, today: date = date(2026, 1, 1)) -> None:
        self.index = index
        self.kept_days = kept_days
        self.partition_days = partition_days
        self.today = today
        self.lag = 0
        self.records = 100_000
        self.idle_seconds = 3_600.0
        self.rows: dict[str, GenerationRow] = {}

    async def all(self) -> list[TendedIndex]:
        rows = tuple(self.rows[name] for name in sorted(self.rows))
        return [TendedIndex(self.index, self.kept_days, self.partition_days, self.idle_seconds, rows)] if rows else []

    async def record(self, generation: IndexGeneration, uuids: Sequence[str], *, at_once: bool) -> bool:
        if generation.name in self.rows:
            return False
        live = at_once or not self._in(GenerationState.LIVE)
        self._retire(GenerationState.BUILDING)
        if live:
            self._retire(GenerationState.LIVE)
        state = GenerationState.LIVE if live else GenerationState.BUILDING
        self.rows[generation.name] = GenerationRow(generation.name, state, generation.starts, tuple(uuids))
        return True

    async def add_range(self, generation: IndexGeneration, start: date, uuid: str) -> bool:
        row = self.rows.get(generation.name)
        if row is None or row.state is GenerationState.RETIRED or start <= max(row.starts[-1], self.today):
            return False
        self.rows[row.name] = replace(row, starts=(*row.starts, start), uuids=(*row.uuids, uuid))
        return True

    async def drop_range(self, generation: IndexGeneration, start: date) -> bool:
        row = self.rows.get(generation.name)
        if row is None or row.starts[0] != start or len(row.starts) < 2:
            return False
        self.rows[row.name] = replace(row, starts=row.starts[1:], uuids=row.uuids[1:])
        return True

    async def switch(self, generation: IndexGeneration, *, lag_max: int) -> bool:
        row = self.rows.get(generation.name)
        if row is None or row.state is not GenerationState.BUILDING or self.lag > lag_max:
            return False
        self._retire(GenerationState.LIVE)
        self.rows[row.name] = replace(row, state=GenerationState.LIVE)
        return True

    async def progress(self, generation: IndexGeneration) -> GenerationProgress:
        row = self.rows.get(generation.name)
        return GenerationProgress(row.state if row else None, self.records - self.lag, self.records)

    async def index_of(self, name: str) -> str | None:
        return self.index if self.index.endswith(f"-{name}") else None

    async def forget(self, generation: IndexGeneration) -> bool:
        row = self.rows.get(generation.name)
        if row is None or row.state is not GenerationState.RETIRED:
            return False
        del self.rows[row.name]
        return True

    def _in(self, state: GenerationState) -> list[GenerationRow]:
        return [row for row in self.rows.values() if row.state is state]

    def _retire(self, state: GenerationState) -> None:
        for row in self._in(state):
            self.rows[row.name] = replace(row, state=GenerationState.RETIRED)


class MemoryRanges:
    """Indices by name, with their uuids. `failing` is raised by every call while it is set."""

    def __init__(self, version: int = 3) -> None:
        self.version = version
        self.there: dict[str, str] = {}
        self.failing: DecklogError | None = None
        self.full: set[str] = set()

    async def documents(self, name: str) -> int:
        self._answer()
        return DOCUMENTS_MAX if name in self.full else 1

    async def uuids(self, index: str) -> dict[str, str]:
        self._answer()
        return {name: uuid for name, uuid in self.there.items() if name == index or name.startswith(f"{index}.")}

    async def make(self, generation: IndexGeneration, start: date, *, like: str) -> str:
        self._answer()
        assert like in self.there
        return self.there.setdefault(generation.range_index(start), f"uuid-{next(_numbers)}")

    async def remove(self, names: Sequence[str]) -> None:
        self._answer()
        for name in names:
            self.there.pop(name, None)

    def _answer(self) -> None:
        if self.failing is not None:
            raise self.failing
