"""Extents of a log in each closed partition: its numbers and times, so that a reading touches few partitions.

Receipt times never decrease along `seq`, so a partition before the head's receipt time never changes again. Its extent is read once,
from three indexes, and cached in the process. Extents only prune: a window must contain every record that can match.

A new process knows no extents, and reading those of hundreds of partitions takes longer than a list. So a list of the newest records
does not wait for them: its windows are bounded by receipt times alone, which are known from the head.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import asyncpg

from decklog.domain.errors import DecklogError
from decklog.domain.log import Head, LogName, Span
from decklog.domain.records.retained import Partition
from decklog.domain.search.query import Query
from decklog.domain.tenant import Isolation, Tenant
from decklog.timescale.connection import Pool
from decklog.timescale.records.filters import RECEIPT_SLACK, by_index
from decklog.timescale.statements import only_row, quoted, statement

_LOGS_MAX = 1_000
"""Logs with cached extents, least recently used out first; about 20 KB each at a hundred partitions."""
_GROWTH = 8
"""Each window spans so many times the partitions of the one before: frequent matches read few partitions, rare ones need few
statements."""
NEAR = 8
"""Partitions for which a plan of their own costs less than one for all partitions, which a new connection takes 0.3 s to load."""
_MANY = 20_000
"""Numbers of an ascending reading from which the extents are worth their cost."""
_EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Extent(NamedTuple):
    """The records of a log with `start <= received_at < end`: `first` to `last`, `oldest` to `newest` by `occurred_at`."""

    start: datetime
    end: datetime
    first: int
    last: int
    oldest: datetime
    newest: datetime


class Window(NamedTuple):
    """A part of a log: the numbers of `span`, received from `since` (inclusive) to `until` (exclusive), where known.

    `wide`: it may touch so many partitions that a plan for each of them costs more than it saves. `parts`: unless empty, only the
    numbers of these parts of the span.
    """

    span: Span
    since: datetime | None
    until: datetime | None
    wide: bool = False
    parts: tuple[Span, ...] = ()


class _Known:
    """The extents of one log. Records received from `open_from` on are in none."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.closed: list[Extent] = []
        self.open_from: datetime | None = None
        self.span = timedelta()
        self.learning = asyncio.Lock()
        self.learner: asyncio.Task[None] | None = None

    @property
    def complete(self) -> bool:
        """Whether no partition was closed since the last reading."""
        return self.open_from is not None and self.head.received_at < self.open_from + self.span


class Extents:
    """Extents of the logs of a cell, for one process."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        # The retention is part of the key: a longer one needs extents of older partitions.
        self._logs: OrderedDict[tuple[int, LogName, int], _Known] = OrderedDict()
        self._lengths: dict[str, timedelta] = {}
        """Lengths of partitions, by schema: they never change."""

    def seen(self, tenant: Tenant, log: LogName, head: Head) -> None:
        """Store the head of a log: it decides which partitions are closed. Another epoch discards the extents."""
        key = (tenant.id, log, tenant.retention_days)
        known = self._logs.get(key)
        if known is None or known.head.epoch != head.epoch:
            self._logs[key] = known = _Known(head)
            while len(self._logs) > _LOGS_MAX:
                self._logs.popitem(last=False)
        self._logs.move_to_end(key)
        if head.next_seq > known.head.next_seq:
            known.head = head

    async def windows(self, tenant: Tenant, log: LogName, span: Span, query: Query, *, newest_first: bool) -> list[Window]:
        """Return windows with all matching records of a span, in the order of reading.

        Raises `storage-unavailable`.
        """
        first, end = span
        known = self._logs.get((tenant.id, log, tenant.retention_days))
        if known is not None:
            if known.open_from is None and (
                newest := await self._newest(tenant, log, known, span, query, newest_first=newest_first)
            ):
                return newest
            many = min(end, known.head.next_seq) - first > _MANY
            if newest_first or many or _bounded(query):
                await self._learn(tenant, log, known)
        if known is None or known.open_from is None:
            return [Window(span, None, None, wide=True)]
        # Clocks differ: records just beyond retention are read, and the database leaves them out.
        oldest = datetime.now(UTC) - timedelta(days=tenant.retention_days) - known.span
        parts = [extent for extent in known.closed if extent.end > oldest and _touches(extent, query, span)]
        windows = [Window(Span(max(first, part.first), min(end, part.last + 1)), part.start, part.end) for part in parts]
        tail = max(first, known.closed[-1].last + 1 if known.closed else 0)
        if tail < end:
            until = known.head.received_at + _MICROSECOND if end <= known.head.next_seq else None
            windows.append(Window(Span(tail, end), known.open_from, until))
        ordered = windows[::-1] if newest_first else windows
        return _near_and_rest(ordered) if by_index(query) else _growing(ordered)

    async def _newest(
        self, tenant: Tenant, log: LogName, known: _Known, span: Span, query: Query, *, newest_first: bool
    ) -> list[Window]:
        """Return windows of a log whose extents are unknown, in the order of reading; none where they must be learned first."""
        since = _received_from(query)
        length = await self._length(tenant)
        newest = _start_of(known.head.received_at, length)
        near = newest - NEAR * length
        until = known.head.received_at + _MICROSECOND if span.end <= known.head.next_seq else None
        if since is not None and since >= near:
            return [Window(span, _start_of(since, length), until)]
        if not newest_first or _bounded(query):
            return []
        if known.learner is None or known.learner.done():
            known.learner = asyncio.create_task(self._learn_for_later(tenant, log, known))
        return [Window(span, newest, until), Window(span, near, newest), Window(span, None, near, wide=True)]

    async def _length(self, tenant: Tenant) -> timedelta:
        """Return the length of the partitions of a schema."""
        if tenant.schema not in self._lengths:
            async with self._pool.connection() as connection:
                self._lengths[tenant.schema] = (await _partitioning(connection, tenant))[0]
        return self._lengths[tenant.schema]

    async def receipts(self, tenant: Tenant, log: LogName, oldest: int, newest: int) -> Window | None:
        """Return a window in which the records from one number to another probably are: where the extents are unknown, the newest.

        None where the log was never seen.
        """
        known = self._logs.get((tenant.id, log, tenant.retention_days))
        if known is None:
            return None
        span = Span(oldest, newest + 1)
        if known.open_from is None:
            length = await self._length(tenant)
            return Window(span, _start_of(known.head.received_at, length) - NEAR * length, None)
        lasts = [extent.last for extent in known.closed]
        low, high = bisect_left(lasts, oldest), bisect_left(lasts, newest)
        since = known.closed[low].start if low < len(lasts) else known.open_from
        until = known.closed[high].end if high < len(lasts) else None
        return Window(span, since, until, wide=high - low > NEAR)

    async def around(self, tenant: Tenant, log: LogName, span: Span, query: Query) -> Window | None:
        """Return one window with all matching records of a span, None if none can match. Raises `storage-unavailable`."""
        windows = await self.windows(tenant, log, span, query, newest_first=False)
        return joined(windows) if windows else None

    async def partitions(self, tenant: Tenant, log: LogName) -> list[Partition]:
        """Return the partitions with records of a log whose head was `seen`; see `domain.records.retained.Partitions`.

        Raises `storage-unavailable`.
        """
        known = self._logs[tenant.id, log, tenant.retention_days]
        await self._learn(tenant, log, known)
        closed, start, span = list(known.closed), known.open_from, known.span
        if start is None:
            return []
        oldest = datetime.now(UTC) - timedelta(days=tenant.retention_days)
        # TimescaleDB prunes chunks only while planning.
        async with self._pool.reading(tenant.id, plan="force_custom_plan") as connection:
            last = await _look(connection, tenant, log, start, start + span)
            parts = [extent for extent in closed if extent.end > oldest] + ([] if last is None else [last])
            sizes = await _sizes(connection, tenant, [part.start for part in parts])
        return [Partition(part.start, part.end, part.first, part.last + 1, size) for part, size in zip(parts, sizes, strict=True)]

    async def _learn(self, tenant: Tenant, log: LogName, known: _Known) -> None:
        """Read the extents of partitions that were closed since the last reading."""
        if known.complete:
            return
        async with known.learning:
            if known.complete:
                return
            head = known.head
            async with self._pool.reading(tenant.id, plan="force_generic_plan") as connection:
                span, hypertable = await _partitioning(connection, tenant)
                start, found = known.open_from or await _beginning(connection, tenant, log, head, span), list(known.closed)
                starts = [start + number * span for number in range(max(0, (head.received_at - start) // span))]
                if hypertable:
                    # TimescaleDB prunes chunks only while planning.
                    await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
                    looks = [await _look(connection, tenant, log, each, each + span) for each in starts]
                    found += [extent for extent in looks if extent is not None]
                else:
                    found += await _looks(connection, tenant, log, starts, span)
                start += len(starts) * span
            known.closed, known.open_from, known.span = found, start, span

    async def _learn_for_later(self, tenant: Tenant, log: LogName, known: _Known) -> None:
        with suppress(DecklogError):  # logged; the next list tries again
            await self._learn(tenant, log, known)


def _received_from(query: Query) -> datetime | None:
    """Return the receipt time before which no record can match, None without one."""
    bounds = [query.received_since, query.since and query.since - RECEIPT_SLACK]
    return max((bound for bound in bounds if bound is not None), default=None)


def _start_of(moment: datetime, length: timedelta) -> datetime:
    """Return the start of the partition of a receipt time."""
    return _EPOCH_START + (moment - _EPOCH_START) // length * length


def _bounded(query: Query) -> bool:
    bounds = query.since, query.until, query.received_since, query.received_until
    return any(bound is not None for bound in bounds)


def _touches(extent: Extent, query: Query, span: Span) -> bool:
    return (
        extent.first < span.end
        and extent.last >= span.first
        and (query.since is None or extent.newest >= query.since)
        and (query.until is None or extent.oldest < query.until)
        and (query.received_since is None or extent.end > query.received_since)
        and (query.received_until is None or extent.start < query.received_until)
    )


def joined(windows: Sequence[Window], *, wide: bool = False) -> Window:
    """Return one window from the first to the last of these."""
    low, high = sorted((windows[0], windows[-1]))
    return Window(Span(low.span.first, high.span.end), low.since, high.until, wide)


def _near_and_rest(windows: Sequence[Window]) -> list[Window]:
    """Return the first window, those of the partitions next to it as one, and the rest as one."""
    near, rest = windows[1 : 1 + NEAR], windows[1 + NEAR :]
    return [*windows[:1], *([joined(near)] if near else []), *([joined(rest, wide=len(rest) > _GROWTH)] if rest else [])]


def _growing(windows: Sequence[Window]) -> list[Window]:
    """Return neighbours joined to windows that grow by `_GROWTH`."""
    groups: list[Window] = []
    at, size = 0, 1
    while at < len(windows):
        groups.append(joined(windows[at : at + size]))
        at += size
        size *= _GROWTH
    return groups


async def _partitioning(connection: asyncpg.Connection, tenant: Tenant) -> tuple[timedelta, bool]:
    """Return the length of the partitions of a schema, and whether they are chunks of TimescaleDB."""
    row = await only_row(
        connection, "SELECT partition_days, hypertable FROM decklog.relations WHERE schema_name = $1", tenant.schema
    )
    return timedelta(days=row["partition_days"]), row["hypertable"]


async def _beginning(connection: asyncpg.Connection, tenant: Tenant, log: LogName, head: Head, length: timedelta) -> datetime:
    """Return the start of the partition of the log's oldest record."""
    oldest = await connection.fetchval(
        f"SELECT received_at FROM {quoted(tenant.schema)}.records WHERE tenant_id = $1 AND log = $2"
        " AND received_at > now() - $3::interval ORDER BY seq LIMIT 1",
        tenant.id,
        log.value,
        timedelta(days=tenant.retention_days),
    )
    return _start_of(oldest or head.received_at, length)


async def _looks(
    connection: asyncpg.Connection, tenant: Tenant, log: LogName, starts: Sequence[datetime], length: timedelta
) -> list[Extent]:
    """Return the extents of native partitions that have records, by one statement, whose plan prunes for each of them."""
    rows = await connection.fetch(
        f"SELECT part.starts, found.* FROM unnest($3::timestamptz[]) AS part (starts) CROSS JOIN LATERAL ("
        f"SELECT min(seq) AS first, max(seq), min(occurred_at), max(occurred_at) FROM {quoted(tenant.schema)}.records"
        " WHERE tenant_id = $1 AND log = $2 AND received_at >= part.starts AND received_at < part.starts + $4::interval OFFSET 0"
        ") AS found WHERE found.first IS NOT NULL",
        tenant.id,
        log.value,
        list(starts),
        length,
    )
    return [Extent(row[0], row[0] + length, *row[1:]) for row in rows] if starts else []


async def _look(connection: asyncpg.Connection, tenant: Tenant, log: LogName, start: datetime, end: datetime) -> Extent | None:
    row = await only_row(
        connection,
        f"SELECT min(seq), max(seq), min(occurred_at), max(occurred_at) FROM {quoted(tenant.schema)}.records"
        " WHERE tenant_id = $1 AND log = $2 AND received_at >= $3 AND received_at < $4",
        tenant.id,
        log.value,
        start,
        end,
    )
    return None if row[0] is None else Extent(start, end, *row)


async def _sizes(connection: asyncpg.Connection, tenant: Tenant, starts: Sequence[datetime]) -> list[int | None]:
    """Return the bytes of the partitions that start at these times; None where tenants share them, and for one that is gone."""
    if tenant.isolation is Isolation.SHARED:
        return [None] * len(starts)
    native = await connection.fetchval("SELECT NOT hypertable FROM decklog.relations WHERE schema_name = $1", tenant.schema)
    sizes = statement("partitions.native_bytes") if native else statement("partitions.chunk_bytes")
    return [row["bytes"] for row in await connection.fetch(sizes, tenant.schema, starts)]
