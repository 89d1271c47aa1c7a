"""`SearchIndex` in memory, which finds by `domain.search.query.matches`: the reference of the real index, for tests of services."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from decklog.domain.errors import DecklogError
from decklog.domain.log import LogName, Span
from decklog.domain.search.order import Place
from decklog.domain.search.query import Query, matches
from decklog.domain.search.stats import Bucket, Grouping, too_many_buckets
from decklog.domain.search.terms import Terms
from decklog.domain.store import SearchDocument
from decklog.domain.tenant import Tenant

_Key = tuple[int, LogName, int, int]


def interval_start(moment: datetime, interval: str, tz: str = "UTC") -> datetime:
    """Return the beginning in UTC of the minute, hour, day, week (from Monday) or month of a zone that holds `moment`."""
    moment = moment.astimezone(ZoneInfo(tz))
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    start = {
        "minute": moment.replace(second=0, microsecond=0),
        "hour": moment.replace(minute=0, second=0, microsecond=0),
        "day": day,
        "week": day - timedelta(days=day.weekday()),
        "month": day.replace(day=1),
    }[interval]
    return start.astimezone(UTC)


def bucket_of(terms: Terms, grouping: Grouping) -> tuple[tuple[str | None, ...], datetime | None]:
    """The key of a record's bucket, found without the code that is tested."""
    start = interval_start(terms.occurred_at, grouping.interval, grouping.tz) if grouping.interval else None
    return tuple(getattr(terms, name) for name in grouping.by), start


def tally(found: Iterable[Terms], grouping: Grouping, limit: int) -> list[Bucket]:
    """Counts of records. Raises `too-many-buckets`."""
    counts = Counter(bucket_of(terms, grouping) for terms in found)
    if len(counts) > limit:
        raise too_many_buckets(limit)
    return [Bucket(key, start, count) for (key, start), count in counts.items()]


def following(places: Iterable[Place], after: Place | None, *, newest_first: bool) -> list[Place]:
    """Return the places behind `after`, in the order of a list."""
    left = [each for each in places if after is None or (each < after if newest_first else each > after)]
    return sorted(left, reverse=newest_first)


def _place(tenant: Tenant) -> str:
    return tenant.index if tenant.live is None else tenant.live.alias


class MemoryIndex:
    """Documents are found only after a refresh, as in the real one.

    `failing` is raised by every question while it is set, `down` by pings. `asked`, `added` and `refreshes` count calls, documents, refreshes.
    """

    def __init__(self) -> None:
        self.failing: DecklogError | None = None
        self.down: DecklogError | None = None
        self.asked = self.added = self.refreshes = 0
        self._written: dict[str, dict[_Key, SearchDocument]] = {}
        self._findable: dict[str, dict[_Key, SearchDocument]] = {}

    async def add(self, tenant: Tenant, documents: Sequence[SearchDocument]) -> int:
        await self._answer()
        self.added += len(documents)
        written = self._written.setdefault(_place(tenant), {})
        for document in documents:
            if tenant.live is not None and tenant.live.range_of(document.received_at) is None:
                continue
            written[document.tenant_id, document.log, document.epoch, document.seq] = document
        return 0

    async def ping(self) -> None:
        await asyncio.sleep(0)
        if self.down is not None:
            raise self.down

    async def refresh(self, *tenants: Tenant) -> None:
        findable = {place: dict(self._written.get(place, {})) for place in map(_place, tenants)}
        await self._answer()
        self.refreshes += 1
        self._findable |= findable

    def covers(self, tenant: Tenant) -> bool:
        return True

    def drop(self, tenant: Tenant, log: LogName, below: int) -> None:
        """Lose the documents below a number, as an index does when a range is dropped."""
        for documents in (self._written, self._findable):
            kept = documents.get(_place(tenant), {})
            documents[_place(tenant)] = {key: kept[key] for key in kept if key[:2] != (tenant.id, log) or key[3] >= below}

    def findable(self, tenant: Tenant, log: LogName) -> list[int]:
        """Return all numbers of a log that can be found, in order."""
        return sorted(key[3] for key in self._findable.get(_place(tenant), {}) if key[:2] == (tenant.id, log))

    async def find(
        self,
        tenant: Tenant,
        log: LogName,
        span: Span,
        *,
        query: Query,
        limit: int,
        newest_first: bool,
        doubted: set[int] | None = None,
    ) -> list[int]:
        await self._answer()
        return sorted(self._matching(tenant, log, span, query), reverse=newest_first)[:limit]

    async def find_by_time(
        self,
        tenant: Tenant,
        log: LogName,
        span: Span,
        *,
        query: Query,
        after: Place | None,
        limit: int,
        newest_first: bool,
        doubted: set[int] | None = None,
    ) -> list[Place]:
        await self._answer()
        places = [Place(terms.occurred_at, seq) for seq, terms in self._matching(tenant, log, span, query).items()]
        return following(places, after, newest_first=newest_first)[:limit]

    async def count(
        self, tenant: Tenant, log: LogName, span: Span, *, query: Query, grouping: Grouping, limit: int
    ) -> list[Bucket]:
        await self._answer()
        return tally(self._matching(tenant, log, span, query).values(), grouping, limit)

    async def facets(
        self, tenant: Tenant, log: LogName, span: Span, *, query: Query, names: Sequence[str], limit: int
    ) -> list[list[Bucket]]:
        await self._answer()
        found = self._matching(tenant, log, span, query).values()
        return [tally(found, Grouping((name,)), limit) for name in names]

    def _matching(self, tenant: Tenant, log: LogName, span: Span, query: Query) -> dict[int, Terms]:
        return {
            seq: document.terms
            for (tenant_id, name, _, seq), document in self._findable.get(_place(tenant), {}).items()
            if tenant_id == tenant.id and name is log and span.first <= seq < span.end and matches(query, document.terms)
        }

    async def _answer(self) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.failing is not None:
            raise self.failing
