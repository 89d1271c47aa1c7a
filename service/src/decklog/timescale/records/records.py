"""Records in PostgreSQL: `RecordStore`, with the appender for writing and hand-written statements for reading."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import asyncpg

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import Head, LogName, Span
from decklog.domain.records.append import Appended, AppendRequest
from decklog.domain.records.idempotency import KeyBinding
from decklog.domain.records.record import StoredRecord
from decklog.domain.records.retained import Partition
from decklog.domain.search.calendar import midnight
from decklog.domain.search.coverage import too_slow
from decklog.domain.search.fields import CONTENT, COUNTABLE, Field, Kind
from decklog.domain.search.order import Place
from decklog.domain.search.query import Query
from decklog.domain.search.stats import Bucket, Grouping, too_many_buckets
from decklog.domain.search.terms import COLUMN_CHARS_MAX
from decklog.domain.store import READ_BYTES_MAX, Reading
from decklog.domain.tenant import Tenant
from decklog.timescale.connection import PlanMode, Pool
from decklog.timescale.records.append import Appender
from decklog.timescale.records.by_time import ByTime, by_time
from decklog.timescale.records.extents import Extents, Window, joined
from decklog.timescale.records.filters import Parameters, conditions
from decklog.timescale.records.followed import recent
from decklog.timescale.records.term_filters import PostgresTermFilters
from decklog.timescale.statements import quoted, statement

_RECORD = "epoch, seq, received_at, digest, content"


def _whole(field: Field) -> str:
    """Return the expression of a field's whole value: a column may hold a long one by its hash."""
    if field.kind is not Kind.KEYWORD:
        return field.column
    path = field.path.replace(".", ",")
    return (
        f"CASE WHEN octet_length({field.column}) < {COLUMN_CHARS_MAX} THEN {field.column}"
        f" ELSE {CONTENT}::json #>> '{{{path}}}' END"
    )


def _value(field: Field, value: str | int | None) -> str | None:
    """Return a value of a column as an answer has it."""
    return field.choices[value] if isinstance(value, int) else value


def _start(grouping: Grouping, parameters: Parameters) -> str:
    """Return the expression of the beginning of a record's interval; that of a day or more is the zone's own date and time."""
    zone = f"{parameters.add(grouping.tz)}::text"
    if grouping.interval in ("minute", "hour"):
        return f"date_trunc('{grouping.interval}', occurred_at, {zone})"
    return f"date_trunc('{grouping.interval}', occurred_at AT TIME ZONE {zone})"


def _moment(start: datetime, zone: ZoneInfo) -> datetime:
    return start if start.tzinfo is not None else midnight(start.date(), zone)


def _bounded(rows: str, order: str, room: str) -> str:
    """Return a statement for the first of these rows that fill `room` bytes, each with the sum of bytes up to it as `held`."""
    held = f"sum(octet_length(content)) OVER (ORDER BY seq {order} ROWS UNBOUNDED PRECEDING) AS held"
    return (
        f"SELECT {_RECORD}, held FROM (SELECT {_RECORD}, {held} {rows}) AS found"
        f" WHERE held - octet_length(content) < {room} ORDER BY seq {order}"
    )


@contextmanager
def _too_slow_when_cancelled() -> Iterator[None]:
    """Raise `search-unavailable` where the database ended a statement after its time limit."""
    try:
        yield
    except DecklogError as error:
        if isinstance(error.__cause__, asyncpg.exceptions.QueryCanceledError):
            raise too_slow() from error
        raise


def _stored(rows: Sequence[asyncpg.Record]) -> list[StoredRecord]:
    return [StoredRecord(*row[:-1]) for row in rows]


def _received(window: Window, parameters: Parameters) -> str:
    condition = ""
    if window.since is not None:
        condition += f" AND received_at >= {parameters.add(window.since)}"
    if window.until is not None:
        condition += f" AND received_at < {parameters.add(window.until)}"
    return condition


def _in_parts(scope: str, parts: Sequence[Span], parameters: Parameters) -> str:
    """Return FROM for those rows of a scope that lie in these parts, each of which is a range of the index by `seq`."""
    firsts, ends = parameters.add([part.first for part in parts]), parameters.add([part.end for part in parts])
    # OFFSET keeps the planner from reading everything between the first part and the last one.
    rows = f"SELECT {_RECORD} {scope} AND seq >= part.first_seq AND seq < part.end_seq OFFSET 0"
    return f"FROM unnest({firsts}::bigint[], {ends}::bigint[]) AS part (first_seq, end_seq) CROSS JOIN LATERAL ({rows}) AS rows"


class PostgresRecords:
    """The records of one cell, over one appender and one pool per process."""

    def __init__(self, appender: Appender, pool: Pool) -> None:
        self._appender = appender
        self._pool = pool
        self._extents = Extents(pool)
        self._filters = PostgresTermFilters(pool)

    async def append(self, requests: Sequence[AppendRequest]) -> list[Appended | DecklogError]:
        """See the protocol."""
        return await self._appender.append(requests)

    async def bind_keys(self, bindings: Sequence[KeyBinding]) -> list[bool]:
        """See the protocol."""
        return await self._appender.keys.bind(bindings)

    async def head(self, tenant: Tenant, log: LogName) -> Head:
        """See the protocol."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(
                "SELECT epoch, next_seq, received_at FROM decklog.heads WHERE tenant_id = $1 AND log = $2", tenant.id, log.value
            )
        if row is None:
            raise DecklogError(Code.NOT_FOUND, f"The tenant {tenant.name!r} has no log {log.text!r}.")
        head = Head(row["epoch"], row["next_seq"], row["received_at"])
        self._extents.seen(tenant, log, head)
        return head

    async def partitions(self, tenant: Tenant, log: LogName) -> list[Partition]:
        """See `domain.records.retained.Partitions`."""
        await self.head(tenant, log)
        return await self._extents.partitions(tenant, log)

    async def heads(self, logs: Sequence[tuple[int, LogName]]) -> Mapping[tuple[int, LogName], Head]:
        """See the protocol."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                "SELECT tenant_id, log, epoch, next_seq, received_at FROM decklog.heads"
                " JOIN unnest($1::integer[], $2::smallint[]) AS wanted (tenant_id, log) USING (tenant_id, log)",
                [tenant_id for tenant_id, _ in logs],
                [log.value for _, log in logs],
            )
        return {(row["tenant_id"], LogName(row["log"])): Head(row["epoch"], row["next_seq"], row["received_at"]) for row in rows}

    async def first_received(self, tenant: Tenant, log: LogName, *, days: int, timeout: float) -> int:
        """See the protocol."""
        async with self._pool.reading(tenant.id, timeout=timeout) as connection:
            number: int = await connection.fetchval(
                f"SELECT coalesce((SELECT seq FROM {quoted(tenant.schema)}.records WHERE tenant_id = $1 AND log = $2"
                " AND received_at > now() - $3::interval ORDER BY seq LIMIT 1),"
                " (SELECT next_seq FROM decklog.heads WHERE tenant_id = $1 AND log = $2), 0)",
                tenant.id,
                log.value,
                timedelta(days=days),
            )
        return number

    async def first_since(self, tenant: Tenant, log: LogName, moment: datetime, *, timeout: float) -> int:
        """See the protocol. No index has receipt times, so this halves the numbers until one is left."""
        head = await self.head(tenant, log)
        with _too_slow_when_cancelled():
            async with self._pool.reading(tenant.id, timeout=timeout, plan="force_generic_plan") as connection:
                number: int = await connection.fetchval(
                    statement("records.first_since").replace("{schema}", quoted(tenant.schema)),
                    tenant.id,
                    log.value,
                    head.next_seq,
                    moment,
                )
        return number

    def _scope(self, tenant: Tenant, log: LogName, span: Span, query: Query) -> tuple[Parameters, str]:
        """Return parameters, and FROM with WHERE, for the tenant, its retention, the range and the filters."""
        parameters = Parameters(tenant.id, log.value, span.first, span.end, timedelta(days=tenant.retention_days))
        where = [
            "tenant_id = $1 AND log = $2 AND seq >= $3 AND seq < $4 AND received_at > now() - $5::interval",
            *conditions(query, parameters),
        ]
        return parameters, f"FROM {quoted(tenant.schema)}.records WHERE " + " AND ".join(where)

    async def read(
        self,
        tenant: Tenant,
        log: LogName,
        span: Span,
        *,
        query: Query,
        limit: int,
        newest_first: bool,
        timeout: float,
        bytes_max: int = READ_BYTES_MAX,
    ) -> tuple[list[StoredRecord], int | None]:
        """See the protocol."""
        if span.empty:
            return [], None
        rows: list[asyncpg.Record] = []
        held, full = 0, False
        windows = await self._extents.windows(tenant, log, span, query, newest_first=newest_first)
        ends_at = time.monotonic() + timeout
        with _too_slow_when_cancelled():
            async for window in self._filters.narrowed(tenant, log, query, windows, newest_first=newest_first, ends_at=ends_at):
                left = ends_at - time.monotonic()
                if left <= 0:
                    raise too_slow()
                room = limit - len(rows), bytes_max - held
                found = await self._read_window(tenant, log, query, window, room, newest_first=newest_first, timeout=left)
                rows += found
                held += found[-1]["held"] if found else 0
                if full := len(rows) >= limit or held >= bytes_max:
                    break
        records = _stored(rows)
        if not full:
            return records, None
        last = records[-1].seq
        return records, last if newest_first else last + 1

    async def _read_window(
        self,
        tenant: Tenant,
        log: LogName,
        query: Query,
        window: Window,
        room: tuple[int, int],
        *,
        newest_first: bool,
        timeout: float,
    ) -> list[asyncpg.Record]:
        """Read one window, at most `room[0]` records and `room[1]` bytes."""
        parameters, scope = self._scope(tenant, log, window.span, query)
        # A generic plan leaves partitions out when it starts.
        plan: PlanMode = "force_generic_plan" if window.wide else "force_custom_plan"
        scope += _received(window, parameters)
        if window.parts:
            scope = _in_parts(scope, window.parts, parameters)
        order, (limit, size) = "DESC" if newest_first else "ASC", room
        sql = _bounded(f"{scope} ORDER BY seq {order} LIMIT {parameters.add(limit)}", order, parameters.add(size))
        async with self._pool.reading(tenant.id, timeout=timeout, plan=plan) as connection:
            rows: list[asyncpg.Record] = await connection.fetch(sql, *parameters.values)
            return rows

    async def read_logs(
        self, readings: Sequence[Reading], *, timeout: float, bytes_max: int = READ_BYTES_MAX
    ) -> list[tuple[list[StoredRecord], int]]:
        """See `FollowedStore`."""
        ends_at = time.monotonic() + timeout
        with _too_slow_when_cancelled():
            found = await recent(self._pool, readings, timeout=timeout, bytes_max=bytes_max)
        room = bytes_max - sum(len(record.content) for each in found if each for record in each[0])
        whole: list[tuple[list[StoredRecord], int]] = []
        for reading, each in zip(readings, found, strict=True):
            records, onward = await self._read_older(reading, ends_at, room) if each is None else each
            room -= sum(len(record.content) for record in records) if each is None else 0
            whole.append((records, onward))
        return whole

    async def _read_older(self, reading: Reading, ends_at: float, room: int) -> tuple[list[StoredRecord], int]:
        """Return the first records of one log, whenever they were received; none where no time or room is left."""
        span, left = reading.span, ends_at - time.monotonic()
        if room <= 0 or left <= 0:
            return [], span.first
        await self.head(reading.tenant, reading.log)  # decides which partitions are closed
        records, onward = await self.read(
            reading.tenant,
            reading.log,
            span,
            query=Query(),
            limit=reading.limit,
            newest_first=False,
            timeout=left,
            bytes_max=room,
        )
        return records, span.end if onward is None else onward

    async def read_by_time(
        self,
        tenant: Tenant,
        log: LogName,
        span: Span,
        *,
        query: Query,
        after: Place | None,
        limit: int,
        newest_first: bool,
        timeout: float,
        bytes_max: int = READ_BYTES_MAX,
    ) -> tuple[list[tuple[Place, StoredRecord]], Place | None]:
        """See the protocol.

        A record occurred at most `RECEIPT_SLACK` after its receipt. So a descending page reads the partitions backwards, until those that
        are left can hold nothing later than what it has. An ascending one merges all partitions by their indexes.
        """
        if span.empty:
            return [], None
        windows = await self._extents.windows(tenant, log, span, query, newest_first=newest_first)
        if not newest_first and windows:
            windows = [joined(windows)]
        ends_at = time.monotonic() + timeout
        found = ByTime(limit, bytes_max, newest_first=newest_first)
        with _too_slow_when_cancelled():
            for window in windows:
                if found.whole(window):
                    break
                left = ends_at - time.monotonic()
                if left <= 0:
                    raise too_slow()
                parameters, scope = self._scope(tenant, log, window.span, query)
                sql = by_time(
                    scope + _received(window, parameters), parameters, after, limit, bytes_max, newest_first=newest_first
                )
                plan: PlanMode = "force_generic_plan" if window.wide else "force_custom_plan"
                async with self._pool.reading(tenant.id, timeout=left, plan=plan) as connection:
                    found.add(await connection.fetch(sql, *parameters.values))
        return found.page()

    async def fetch(self, tenant: Tenant, log: LogName, seqs: Sequence[int], *, newest_first: bool = True) -> list[StoredRecord]:
        """See the protocol."""
        if not seqs:
            return []
        if (window := await self._extents.receipts(tenant, log, min(seqs), max(seqs))) is not None:
            found, held = await self._fetched(tenant, log, seqs, window, newest_first=newest_first)
            if len(found) == len(seqs) or held >= READ_BYTES_MAX:
                return found
        # Numbers may be missing, or belong to records of another time than the window has: those of a restored log.
        return (await self._fetched(tenant, log, seqs, None, newest_first=newest_first))[0]

    async def _fetched(
        self, tenant: Tenant, log: LogName, seqs: Sequence[int], window: Window | None, *, newest_first: bool
    ) -> tuple[list[StoredRecord], int]:
        """Return records by their numbers, received within a window where it is given, and their bytes."""
        parameters = Parameters(tenant.id, log.value, list(seqs), timedelta(days=tenant.retention_days), READ_BYTES_MAX)
        scope = (
            f"FROM {quoted(tenant.schema)}.records WHERE tenant_id = $1 AND log = $2 AND seq = ANY ($3::bigint[])"
            " AND received_at > now() - $4::interval"
        )
        scope += "" if window is None else _received(window, parameters)
        plan: PlanMode = "force_generic_plan" if window is None or window.wide else "force_custom_plan"
        async with self._pool.reading(tenant.id, plan=plan) as connection:
            rows = await connection.fetch(_bounded(scope, "DESC" if newest_first else "ASC", "$5"), *parameters.values)
        return _stored(rows), rows[-1]["held"] if rows else 0

    async def count(
        self, tenant: Tenant, log: LogName, span: Span, *, query: Query, grouping: Grouping, limit: int, timeout: float
    ) -> list[Bucket]:
        """See the protocol."""
        fields, interval = grouping.fields, grouping.interval
        columns = [_whole(field) for field in fields]
        groups = ", ".join(str(number) for number in range(1, len(columns) + 1 + (interval is not None)))

        def counting(scope: str, parameters: Parameters) -> str:
            times = [] if interval is None else [_start(grouping, parameters)]
            selected = ", ".join([*columns, *times, "count(*)"])
            return f"SELECT {selected} {scope}" + (f" GROUP BY {groups} LIMIT {limit + 1}" if groups else "")

        rows = await self._counted(tenant, log, span, query, counting, timeout=timeout)
        if len(rows) > limit:
            raise too_many_buckets(limit)
        return [
            Bucket(
                tuple(_value(field, row[i]) for i, field in enumerate(fields)),
                None if interval is None else _moment(row[len(fields)], grouping.zone),
                row[-1],
            )
            for row in rows
            if row[-1]
        ]

    async def facets(
        self, tenant: Tenant, log: LogName, span: Span, *, query: Query, names: Sequence[str], limit: int, timeout: float
    ) -> list[list[Bucket]]:
        """See the protocol. One pass over the records counts all of the fields."""
        fields = [COUNTABLE[name] for name in names]
        columns = [f"f{number}" for number in range(len(fields))]
        selected = ", ".join(f"{_whole(field)} AS {column}" for field, column in zip(fields, columns, strict=True))
        listed, sets = ", ".join(columns), ", ".join(f"({column})" for column in columns)

        def counting(scope: str, parameters: Parameters) -> str:
            return (
                f"SELECT {listed}, GROUPING({listed}), count(*) FROM (SELECT {selected} {scope}) AS rows"
                f" GROUP BY GROUPING SETS ({sets}) LIMIT {limit * len(fields) + 1}"
            )

        rows = await self._counted(tenant, log, span, query, counting, timeout=timeout)
        found: list[list[Bucket]] = []
        for number, field in enumerate(fields):
            # GROUPING has a bit for each column, 0 for that of the group; the first column has the highest bit.
            mine = (1 << len(fields)) - 1 - (1 << (len(fields) - 1 - number))
            found.append([Bucket((_value(field, row[number]),), None, row[-1]) for row in rows if row[-2] == mine])
        if len(rows) > limit * len(fields) or any(len(buckets) > limit for buckets in found):
            raise too_many_buckets(limit)
        return found

    async def _counted(
        self,
        tenant: Tenant,
        log: LogName,
        span: Span,
        query: Query,
        counting: Callable[[str, Parameters], str],
        *,
        timeout: float,
    ) -> list[asyncpg.Record]:
        """Return the rows of a statement over the matching records of a span, made of FROM with WHERE, and of the parameters."""
        window = await self._extents.around(tenant, log, span, query)
        if window is None:
            return []
        parameters, scope = self._scope(tenant, log, window.span, query)
        sql = counting(scope + _received(window, parameters), parameters)
        with _too_slow_when_cancelled():
            async with self._pool.reading(tenant.id, timeout=timeout, plan="force_custom_plan") as connection:
                rows: list[asyncpg.Record] = await connection.fetch(sql, *parameters.values)
                return rows
