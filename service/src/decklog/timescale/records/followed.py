"""Reading several logs of one relation at once, as consumers do that follow them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter

import asyncpg

from decklog.domain.records.record import StoredRecord
from decklog.domain.store import Reading
from decklog.timescale.connection import Pool
from decklog.timescale.statements import quoted, statement

RECENT = timedelta(days=1)
"""Records received within this time are read by one statement, which touches two partitions or three."""

Found = tuple[list[StoredRecord], int]
"""Records of a log, and the `seq` at which the next reading of it begins."""


async def recent(pool: Pool, readings: Sequence[Reading], *, timeout: float, bytes_max: int) -> list[Found | None]:
    """Return what `FollowedStore.read_logs` does, None for each log whose span does not begin with a recent record.

    Numbers have no gaps and receipt times never decrease along them. So where the record with the first number of a span is recent, so are
    all after it.

    Raises:
        DecklogError: `storage-unavailable`.
        asyncpg.exceptions.QueryCanceledError: `timeout` seconds have passed.
    """
    [schema] = {reading.tenant.schema for reading in readings}
    async with pool.reading(
        *{reading.tenant.id for reading in readings}, timeout=timeout, plan="force_custom_plan"
    ) as connection:
        rows = await connection.fetch(
            statement("records.of_logs").replace("{schema}", quoted(schema)),
            [reading.tenant.id for reading in readings],
            [reading.log.value for reading in readings],
            [reading.span.first for reading in readings],
            [reading.span.end for reading in readings],
            [reading.limit for reading in readings],
            [reading.tenant.retention_days for reading in readings],
            datetime.now(UTC) - RECENT,
            bytes_max,
        )
    of_logs = {place: list(group) for place, group in groupby(rows, key=itemgetter(0))}
    return [_found(reading, of_logs.get(place, [])) for place, reading in enumerate(readings, 1)]


def _found(reading: Reading, rows: Sequence[asyncpg.Record]) -> Found | None:
    span = reading.span
    if not rows:
        return [], span.first  # others have filled the bytes
    if rows[0]["seq"] != span.first:
        return None
    records = [StoredRecord(*row[2:]) for row in rows]
    whole = len(rows) == rows[0]["found"] < reading.limit
    return records, span.end if whole else records[-1].seq + 1
