"""Extents of a log in each closed partition: its numbers and times, so that a reading touches few partitions.

Receipt times never decrease along `seq`, so a partition before the head's receipt time never changes again. Its extent is read once,
from three indexes, and cached in the process. Extents only prune: a window must contain every record that can match.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import asyncpg

from decklog.domain.log import Head, LogName, Span
from decklog.domain.records.retained import Partition
from decklog.domain.search.query import Query
from decklog.domain.tenant import Isolation, Tenant
from decklog.timescale.connection import PlanMode, Pool
from decklog.timescale.records.filters import by_index
from decklog.timescale.statements import only_row, quoted, statement

_LOGS_MAX = 1_000
"""Logs with cached extents, least recently used out first; about 20 KB each at a hundred partitions."""
_GROWTH = 8
"""Each window spans so many times the partitions of the one before: frequent matches read few partitions, rare ones need few
statements."""
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
        return _first_and_rest(ordered) if by_index(query) else _growing(ordered)

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
                start, span, plan = await _beginning(connection, tenant, log, head)
                start, found = known.open_from or start, list(known.closed)
                await connection.execute(f"SET LOCAL plan_cache_mode = {plan}")
                while start + span <= head.received_at:
                    extent = await _look(connection, tenant, log, start, start + span)
                    found += [] if extent is None else [extent]
                    start += span
            known.closed, known.open_from, known.span = found, start, span


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


def _first_and_rest(windows: Sequence[Window]) -> list[Window]:
    rest = windows[1:]
    return [*windows[:1], *([joined(rest, wide=len(rest) > _GROWTH)] if rest else [])]


def _growing(windows: Sequence[Window]) -> list[Window]:
    """Return neighbours joined to windows that grow by `_GROWTH`."""
    groups: list[Window] = []
    at, size = 0, 1
    while at < len(windows):
        groups.append(joined(windows[at : at + size]))
        at += size
        size *= _GROWTH
    return groups


async def _beginning(
    connection: asyncpg.Connection, tenant: Tenant, log: LogName, head: Head
) -> tuple[datetime, timedelta, PlanMode]:
    """Return the start of the partition of the log's oldest record, the length of partitions, and the plan mode for one."""
    relation = await only_row(
        connection, "SELECT partition_days, hypertable FROM decklog.relations WHERE schema_name = $1", tenant.schema
    )
    span = timedelta(days=relation["partition_days"])
    oldest = await connection.fetchval(
        f"SELECT received_at FROM {quoted(tenant.schema)}.records WHERE tenant_id = $1 AND log = $2"
        " AND received_at > now() - $3::interval ORDER BY seq LIMIT 1",
        tenant.id,
        log.value,
        timedelta(days=tenant.retention_days),
    )
    oldest = oldest or head.received_at
    # A generic plan prunes native partitions when it starts; TimescaleDB prunes chunks only while planning.
    plan: PlanMode = "force_custom_plan" if relation["hypertable"] else "force_generic_plan"
    return _EPOCH_START + (oldest - _EPOCH_START) // span * span, span, plan


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
