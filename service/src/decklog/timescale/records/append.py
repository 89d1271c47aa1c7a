"""Appending of records: a group of requests is one transaction, whose row becomes receipts.

A group is one autocommit statement in a single round trip: the append function of its schema, or the cell's where it has requests for
several schemas. The cell's function gives up if an id is stored already, which is rare; then one transaction calls the function of
each schema. All of them lock heads in the order of tenants and logs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import asyncpg
import structlog

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.append import (
    QUERIES,
    RECORDS,
    Appended,
    AppendRequest,
    Rate,
    Receipt,
    Status,
)
from decklog.timescale.connection import LOST, connect_writer, unavailable
from decklog.timescale.records.bulk_keys import BulkKeys
from decklog.timescale.records.refusals import ADMITTED, KNOWN_ID, refusal
from decklog.timescale.statements import only_row, quoted

_log = structlog.get_logger("decklog.timescale")

_STATUS = tuple(Status)

_APPEND = "SELECT * FROM {schema}.append($1, $2, $3, $4, $5, $6, $7)"
_APPEND_NEW = "SELECT * FROM decklog.append_new($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
_LOCK = "SELECT decklog.lock_heads($1, $2)"


def _ids(requests: Sequence[AppendRequest]) -> list[str]:
    return [r.id for request in requests for r in request.records if r.id is not None]


def _items(requests: Sequence[AppendRequest]) -> list[tuple[Any, ...]]:
    """Return the records as rows of `decklog.new_record`, each with the number of its request, from 1."""
    return [
        (
            number,
            r.id,
            r.fingerprint,
            r.occurred_at,
            r.severity,
            r.outcome,
            r.action,
            r.actor_type,
            r.actor_id,
            r.resource_type,
            r.resource_id,
            r.ip,
            r.session_id,
            r.correlation_id,
            r.digest,
            r.content.decode(),
        )
        for number, request in enumerate(requests, start=1)
        for r in request.records
    ]


def _columns(requests: Sequence[AppendRequest]) -> tuple[list[int], list[int], list[int], list[bool]]:
    """Return, per request: tenants, logs, numbers of records, and whether it is metered."""
    return (
        [request.tenant.id for request in requests],
        [request.log.value for request in requests],
        [len(request.records) for request in requests],
        [request.metered for request in requests],
    )


class _Answer:
    """The row that answers a group, by columns: to look one up by its name costs more than to index a list."""

    __slots__ = ("_burst", "_codes", "_epochs", "_first", "_items", "_per_second", "_received", "_remaining")

    def __init__(self, row: asyncpg.Record) -> None:
        self._codes, self._received = row["request_status"], row["received_at"]
        self._per_second, self._burst, self._remaining = row["per_second"], row["burst"], row["remaining"]
        self._epochs, self._first = row["epoch"], row["first_seq"]
        self._items = row if row.get("item_status") is not None else None

    def result(self, request: AppendRequest, number: int, item: int) -> Appended | DecklogError:
        """Return what became of the request with this index, whose records begin at `item` in the group."""
        code, per_second = self._codes[number], self._per_second[number]
        rate = None
        if per_second is not None:  # else it took no tokens
            of = QUERIES if request.log is LogName.ACCESS else RECORDS
            rate = Rate(per_second, self._burst[number], max(0.0, self._remaining[number]), of)
        if code != ADMITTED and (error := refusal(code, request, rate, self._received[number])) is not None:
            return error
        return Appended(self._receipts(request, number, item), code == ADMITTED, rate)

    def _receipts(self, request: AppendRequest, number: int, item: int) -> list[Receipt]:
        row = self._items
        if row is None:
            epoch, seq, received_at = self._epochs[number], self._first[number], self._received[number]
            return [
                Receipt(Status.STORED, epoch, at, received_at, record.digest)
                for at, record in enumerate(request.records, start=seq)
            ]
        statuses, epochs, seqs = row["item_status"], row["item_epoch"], row["item_seq"]
        received, digests = row["item_received_at"], row["item_digest"]
        return [
            Receipt(_STATUS[statuses[i]], epochs[i], seqs[i], received[i], digests[i] or record.digest)
            for i, record in enumerate(request.records, start=item)
        ]


def _results(requests: Sequence[AppendRequest], row: asyncpg.Record) -> list[Appended | DecklogError]:
    answer = _Answer(row)
    results: list[Appended | DecklogError] = []
    item = 0
    for number, request in enumerate(requests):
        results.append(answer.result(request, number, item))
        item += len(request.records)
    return results


async def append_on(connection: asyncpg.Connection, requests: Sequence[AppendRequest]) -> list[Appended | DecklogError]:
    """Append requests of one schema, ordered by tenant and log, in the connection's transaction. Raises what asyncpg raises."""
    sql = _APPEND.replace("{schema}", quoted(requests[0].tenant.schema))
    tenants, logs, counts, metered = _columns(requests)
    atomic = [request.atomic for request in requests]
    return _results(
        requests, await only_row(connection, sql, tenants, logs, counts, atomic, metered, _ids(requests), _items(requests))
    )


async def _append_new(connection: asyncpg.Connection, requests: Sequence[AppendRequest]) -> list[Appended | DecklogError] | None:
    """Append requests of several schemas, ordered by tenant and log.

    Returns None, with nothing stored, if ids have to be looked up first.
    """
    runs = [list(run) for _, run in groupby(requests, key=lambda request: request.tenant.schema)]
    ids, items = [_ids(run) for run in runs], [_items(run) for run in runs]
    try:
        row = await only_row(
            connection,
            _APPEND_NEW,
            [run[0].tenant.schema for run in runs],
            *([len(each) for each in lists] for lists in (runs, items, ids)),
            *_columns(requests),
            [each for of_run in ids for each in of_run],
            [each for of_run in items for each in of_run],
        )
    except asyncpg.exceptions.PostgresError as error:
        if error.sqlstate == KNOWN_ID:
            return None
        raise
    return _results(requests, row)


async def _append_each(connection: asyncpg.Connection, requests: Sequence[AppendRequest]) -> list[Appended | DecklogError]:
    """Append requests of several schemas, ordered by tenant and log, one schema after the other in the open transaction."""
    results: dict[int, Appended | DecklogError] = {}
    by_schema: dict[str, list[int]] = {}
    for i, request in enumerate(requests):
        by_schema.setdefault(request.tenant.schema, []).append(i)
    await connection.execute(_LOCK, *_columns(requests)[:2])
    for chosen in by_schema.values():
        results.update(zip(chosen, await append_on(connection, [requests[i] for i in chosen]), strict=True))
    return [results[i] for i in range(len(requests))]


class Appender:
    """The writing connection of a process to a cell, and a second one for a call during another. Further calls wait for the second."""

    def __init__(self, dsn: str, *, is_second: bool = False) -> None:
        self._dsn = dsn
        self._second = None if is_second else Appender(dsn, is_second=True)
        self.keys = BulkKeys(dsn)
        """Binds keys of bulks over a connection of its own, which opens with the first key."""
        self._connection: asyncpg.Connection | None = None
        self._busy = asyncio.Lock()

    async def close(self) -> None:
        """Drop the connections. The next append opens a new one."""
        self._drop()
        self.keys.close()
        if self._second is not None:
            await self._second.close()

    def _drop(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.terminate()

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            try:
                self._connection = await connect_writer(self._dsn)
            except (*LOST, asyncpg.exceptions.PostgresError) as error:
                raise unavailable(error) from error
        return self._connection

    async def append(self, requests: Sequence[AppendRequest]) -> list[Appended | DecklogError]:
        """See `RecordStore.append`."""
        if self._second is not None and self._busy.locked():
            return await self._second.append(requests)
        async with self._busy:
            try:
                return await self._attempt(requests)
            except asyncpg.exceptions.CheckViolationError:
                # No partition for this receipt time, so nothing was stored. Create it and try once more.
                await self._make_partitions({request.tenant.schema for request in requests})
                return await self._again(requests)
            except (asyncpg.exceptions.InvalidCachedStatementError, asyncpg.exceptions.OutdatedSchemaCacheError):
                self._drop()
                return await self._again(requests)
            except asyncpg.exceptions.PostgresError as error:
                return await self._split(requests, error)

    async def _again(self, requests: Sequence[AppendRequest]) -> list[Appended | DecklogError]:
        try:
            return await self._attempt(requests)
        except asyncpg.exceptions.PostgresError as error:
            return await self._split(requests, error)

    async def _split(self, requests: Sequence[AppendRequest], error: Exception) -> list[Appended | DecklogError]:
        """Append each tenant's requests alone, after the server refused the group and stored nothing of it."""
        if len({request.tenant.id for request in requests}) == 1:
            return [unavailable(error)] * len(requests)
        results: dict[int, Appended | DecklogError] = {}
        for tenant_id in {request.tenant.id for request in requests}:
            chosen = [i for i, request in enumerate(requests) if request.tenant.id == tenant_id]
            try:
                outcome = await self._attempt([requests[i] for i in chosen])
            except asyncpg.exceptions.PostgresError as again:
                outcome = [unavailable(again)] * len(chosen)
            except DecklogError as lost:
                outcome = [lost] * len(chosen)
            results.update(zip(chosen, outcome, strict=True))
        return [results[i] for i in range(len(requests))]

    async def _attempt(self, requests: Sequence[AppendRequest]) -> list[Appended | DecklogError]:
        order = sorted(range(len(requests)), key=lambda i: (requests[i].tenant.id, requests[i].log.value, i))
        ordered = [requests[i] for i in order]
        connection = await self._connected()
        committing = True
        found: list[Appended | DecklogError] | None
        try:
            if len({request.tenant.schema for request in ordered}) == 1:
                found = await append_on(connection, ordered)
            else:
                found = await _append_new(connection, ordered)
                if found is None:
                    committing = False
                    async with connection.transaction():
                        found = await _append_each(connection, ordered)
                        committing = True
        except LOST as error:
            # Never repeated here: only the client knows whether its records have ids, which make a retry safe.
            self._drop()
            if not committing:
                raise unavailable(error) from error
            _log.warning("outcome of a commit is unknown", error=type(error).__name__, requests=len(requests))
            raise DecklogError(
                Code.OUTCOME_UNKNOWN,
                "The connection to the database was lost during the commit; the records may or may not be stored. "
                "Sending them again is safe if each has an id.",
                retry_after=1,
            ) from error
        except asyncio.CancelledError:
            # The statement may still run on the server, so the connection is of no more use.
            self._drop()
            raise
        results = dict(zip(order, found, strict=True))
        return [results[i] for i in range(len(requests))]

    async def _make_partitions(self, schemas: set[str]) -> None:
        connection = await self._connected()
        try:
            for schema in sorted(schemas):
                await connection.execute("SELECT decklog.make_partition($1, decklog.clock())", schema)
                # A log whose last receipt time is ahead of the clock needs the partition of that time.
                await connection.execute(
                    "SELECT decklog.make_partition($1, max(received_at)) FROM decklog.heads HAVING max(received_at) > decklog.clock()",
                    schema,
                )
        except (*LOST, asyncpg.exceptions.PostgresError) as error:
            raise unavailable(error) from error
