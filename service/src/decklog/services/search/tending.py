"""The life of search indices in time: ranges are made ahead and dropped, and generations are switched and removed.

Every step is safe to repeat, and several workers may take it at once. What searches rely on is in the database, and it changes first
where something goes, and last where something comes. Provisioning makes the first generation, and replaces a lost one.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, date, datetime, timedelta

import structlog
from msgspec.structs import replace
from prometheus_client import Counter

from decklog.domain.errors import DecklogError
from decklog.domain.index_generation import (
    DOCUMENTS_MAX,
    GenerationRow,
    Generations,
    GenerationState,
    IndexGeneration,
    Ranges,
    TendedIndex,
    next_start,
    parse_name,
    parse_range_index,
)
from decklog.domain.log import LogName
from decklog.domain.store import Registry
from decklog.domain.tenant import Tenant
from decklog.services.search.forgetting import Forgetting

LOOK_EVERY = timedelta(hours=1)
"""Longest time between two looks at the indices of one name in the search engine."""
LEFT_FOR = timedelta(minutes=10)
"""What no search reads any more is removed after this, far longer than any search and any registry cache."""
LAG_MAX = 10_000
"""Records of a log that a generation may lack when searches begin to read it. Postgres finds them in milliseconds."""
PAGE_TENANTS = 500
_DAY = timedelta(days=1)

MADE = Counter("decklog_search_ranges_made_total", "Ranges of search indices made ahead.")
DROPPED = Counter(
    "decklog_search_ranges_dropped_total", "Ranges of search indices dropped, because every record in them is too old."
)
SWITCHED = Counter("decklog_search_generations_switched_total", "Generations of search indices that searches began to read.")
REMOVED = Counter("decklog_search_indices_removed_total", "Indices deleted that no search reads any more.")

_log = structlog.get_logger("decklog.worker")


class Tending:
    """The indices of one installation, as one worker tends them."""

    def __init__(
        self,
        generations: Generations,
        ranges: Ranges,
        registry: Registry,
        forgetting: Forgetting,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.generations = generations
        self._ranges = ranges
        self.registry = registry
        self._forgetting = forgetting
        self._now = now
        self._clock = clock
        self._looked: dict[str, float] = {}

    async def tend(self) -> dict[str, DecklogError]:
        """Take the steps that are due for every index; return why they failed, by index. Raises `storage-unavailable`."""
        failed: dict[str, DecklogError] = {}
        indices = await self.generations.all()
        self._looked = {index.name: self._looked[index.name] for index in indices if index.name in self._looked}
        for index in indices:
            try:
                await self._tend(index)
            except DecklogError as error:
                failed[index.name] = error
        return failed

    async def _tend(self, index: TendedIndex) -> None:
        today = self._now().astimezone(UTC).date()
        due = self._is_due(index)
        for row in index.generations:
            generation = IndexGeneration(index.name, row.name, row.starts)
            if row.state is not GenerationState.RETIRED and generation.version == self._ranges.version:
                full = due and await self._is_full(generation, today)
                await self._make_ahead(index, generation, today, full=full)
            if row.state is GenerationState.LIVE:
                await self._drop_old(index, generation, today)
            if row.state is GenerationState.BUILDING and await self.generations.switch(generation, lag_max=LAG_MAX):
                SWITCHED.inc()
                _log.info("searches read another generation", index=index.name, generation=row.name)
                return  # what is known of the index is out of date
        if due and index.idle_seconds > LEFT_FOR.total_seconds():
            await self._remove_unused(index)
            self._looked[index.name] = self._clock()

    def _is_due(self, index: TendedIndex) -> bool:
        looked = self._looked.get(index.name)
        return looked is None or self._clock() - looked > LOOK_EVERY.total_seconds()

    async def _is_full(self, generation: IndexGeneration, today: date) -> bool:
        last = generation.starts[-1]
        return last <= today and await self._ranges.documents(generation.range_index(last)) >= DOCUMENTS_MAX

    async def _make_ahead(self, index: TendedIndex, generation: IndexGeneration, today: date, *, full: bool) -> None:
        last = generation.starts[-1]
        start = next_start(last, today, index.partition_days, index.kept_days, full=full)
        if start is None:
            return
        uuid = await self._ranges.make(generation, start, like=generation.range_index(last))
        if await self.generations.add_range(generation, start, uuid):
            MADE.inc()
            _log.info("a range was made ahead", index=index.name, generation=generation.name, start=str(start))

    async def _drop_old(self, index: TendedIndex, generation: IndexGeneration, today: date) -> None:
        """Take out the first range, once every record in it is too old for every tenant, and the floors are above it."""
        if len(generation.starts) < 2 or generation.starts[1] + timedelta(days=index.kept_days) + _DAY > today:
            return
        days = (today - generation.starts[1]).days
        async for tenant in self._tenants(index.name):
            for log in LogName:
                if not await self._forgetting.raise_floor(tenant, log, days=days):
                    return
        if await self.generations.drop_range(generation, generation.starts[0]):
            DROPPED.inc()
            _log.info("a range was dropped", index=index.name, generation=generation.name, start=str(generation.starts[0]))

    async def _tenants(self, index: str) -> AsyncIterator[Tenant]:
        after = 0
        while page := await self.registry.of_index(index, after=after, limit=PAGE_TENANTS):
            for tenant in page:
                yield tenant
            after = page[-1].id

    async def _remove_unused(self, index: TendedIndex) -> None:
        """Delete indices that no generation in use has: of retired generations, dropped ranges, and versions before generations."""
        there = await self._ranges.uuids(index.name)
        if unused := sorted(name for name in there if _is_unused(index, name)):
            await self._ranges.remove(unused)
            REMOVED.inc(len(unused))
            _log.info("indices that nothing uses were deleted", indices=unused)
        for row in index.generations:
            if row.state is GenerationState.RETIRED:
                await self.generations.forget(IndexGeneration(index.name, row.name, row.starts))


def _is_unused(index: TendedIndex, name: str) -> bool:
    """Return whether an index is one that was in use. One that is not recorded yet is left alone."""
    live = any(row.state is GenerationState.LIVE for row in index.generations)
    place = parse_range_index(index.name, name)
    if place is None:
        return live and name == index.name
    row = next((row for row in index.generations if row.name == place[0]), None)
    if row is None:
        return live and _is_older(place[0], index.generations)
    return row.state is GenerationState.RETIRED or place[1] < row.starts[0]


def _is_older(name: str, rows: Iterable[GenerationRow]) -> bool:
    return parse_name(name) < max(parse_name(row.name) for row in rows)


def as_building(tenant: Tenant) -> Tenant | None:
    """Return the tenant with the generation that is being built as its live one; None where there is none."""
    return None if tenant.building is None else replace(tenant, live=tenant.building)
