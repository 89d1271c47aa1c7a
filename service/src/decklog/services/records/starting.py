"""Where a reading begins that goes on after a position: a list, an export or a stream.

A position that means another record now, or behind which records are gone, is refused: what is skipped without a word is lost.
"""

from __future__ import annotations

import msgspec

from decklog.domain.errors import invalid_parameter
from decklog.domain.log import Head, LogName, Position, Span
from decklog.domain.records.record import StoredRecord
from decklog.domain.search.query import Query
from decklog.domain.store import RecordStore
from decklog.domain.tenant import Tenant


def position_of(record: StoredRecord) -> Position:
    """Return the position of a record."""
    return Position(record.epoch, record.received_at, record.seq)


def newest_of(head: Head) -> Position:
    """Return the position of the newest record below a head."""
    return Position(head.epoch, head.received_at, head.next_seq - 1)


async def start_after(
    store: RecordStore, tenant: Tenant, log: LogName, head: Head, after: Position | int | None, *, seconds: float
) -> Position:
    """Return the exact position to begin after; the newest record without `after`.

    Args:
        store: The records.
        tenant: Owner of the log.
        log: Log that is read.
        head: Its head.
        after: A position, or a number alone; -1 means before the oldest record.
        seconds: Time limit of a reading.

    Raises:
        DecklogError: `invalid-parameter` where records would be skipped, or another record be taken for the one that is named.
    """
    newest = newest_of(head)
    if after is None:
        return newest
    seq = after if isinstance(after, int) else after.seq
    if seq > newest.seq:
        why = f"the log {log.text!r} has no record {seq}; its newest is {newest.seq}."
        if isinstance(after, Position) and after.epoch != head.epoch:
            why += f" It has been restored since (epoch {head.epoch}, not {after.epoch})."
        raise invalid_parameter("after", why)
    for record in await store.fetch(tenant, log, [seq]) if seq >= 0 else ():
        if isinstance(after, Position) and (record.epoch, record.received_at) != (after.epoch, after.received_at):
            raise invalid_parameter(
                "after",
                f"record {seq} is not the one that this position means, as the log has been restored since: it is "
                f"{position_of(record)} now. Compare what you have, and go on after that.",
            )
        return position_of(record)
    return await _start_of_retention(store, tenant, log, newest, seq, seconds=seconds)


async def _start_of_retention(
    store: RecordStore, tenant: Tenant, log: LogName, newest: Position, seq: int, *, seconds: float
) -> Position:
    """Return the position before the oldest record, where that record follows `seq` or everything is wanted (-1)."""
    records, _ = await store.read(
        tenant, log, Span(0, newest.seq + 1), query=Query(), limit=1, newest_first=False, timeout=seconds
    )
    start = position_of(records[0]) if records else Position(newest.epoch, newest.received_at, newest.seq + 1)
    start = msgspec.structs.replace(start, seq=start.seq - 1)
    if seq not in (-1, start.seq):
        raise invalid_parameter(
            "after",
            f"the records after {seq} are not within retention any more. Go on after {start.seq}, or after -1 for all there is.",
        )
    return start
