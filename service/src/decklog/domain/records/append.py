"""Requests to append records to a log, their results, and their refusals by quota."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import IntEnum

import msgspec

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.record import Prepared
from decklog.domain.tenant import Tenant


class Status(IntEnum):
    """The result for one record. The number is the one that the append function in SQL returns."""

    STORED = 0
    DUPLICATE = 1
    CONFLICT = 2
    """The id was used for other content; the receipt has the position of the first record with this id."""


class Receipt(msgspec.Struct, frozen=True):
    """The place of one record; for a duplicate or a conflict, of the record first stored under its id.

    `trimmed` has the paths of what was removed from the record as sent.
    """

    status: Status
    epoch: int
    seq: int
    received_at: datetime
    digest: bytes
    trimmed: tuple[str, ...] = ()


RECORDS, QUERIES, BYTES = "append", "query", "bytes"
"""Units of a rate bucket: records of the `events` log, queries, or bytes of records in one process."""


class Rate(msgspec.Struct, frozen=True):
    """A tenant's rate bucket after a request.

    `per_second` is its refill, `burst` its capacity, `remaining` its level; `of` is `RECORDS`, `QUERIES` or `BYTES`.
    """

    per_second: float
    burst: int
    remaining: float
    of: str = RECORDS


_ROOM_SECONDS = 300.0
"""Retry interval while the storage quota is used up: the usage is measured about as often."""


def rate_limited(tenant: str, rate: Rate, count: int) -> DecklogError:
    """Return the refusal of `count` records, queries or bytes that exceed the level of the bucket."""
    wait = max(0.001, (count - rate.remaining) / rate.per_second)
    may = f"append {rate.per_second:g} records per second"
    if rate.of == QUERIES:
        may = f"make {rate.per_second * 60:g} queries per minute"
    elif rate.of == BYTES:
        may = f"append {rate.per_second:.0f} bytes per second in this process (spec.quotas.bytesPerSecond)"
    return DecklogError(
        Code.RATE_LIMITED,
        f"The tenant {tenant!r} may {may}. Try again in {wait:.3f} s.",
        retry_after=wait,
        extra={"rate": msgspec.structs.replace(rate, remaining=max(0.0, rate.remaining))},
    )


def day_full(tenant: str, at: datetime) -> DecklogError:
    """Return the refusal of records beyond the tenant's quota for the UTC day of `at`."""
    today = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return DecklogError(
        Code.QUOTA_EXCEEDED,
        f"The tenant {tenant!r} would exceed its quota of records on {today:%Y-%m-%d} (UTC). None of these records was stored. "
        "Try again on the next day, or raise spec.quotas.eventsPerDay.",
        retry_after=(today + timedelta(days=1) - at).total_seconds(),
    )


def storage_used_up(tenant: str) -> DecklogError:
    """Return the refusal of records of a tenant beyond its storage quota."""
    return DecklogError(
        Code.QUOTA_EXCEEDED,
        f"The tenant {tenant!r} has used up its storage quota. None of these records was stored; stored records can be read. "
        "Raise spec.quotas.storageGiB. Decklog measures the usage every few minutes.",
        retry_after=_ROOM_SECONDS,
    )


class AppendRequest(msgspec.Struct, frozen=True):
    """Records of one request for one log, stored in their order. No two of them may have the same id.

    Args:
        tenant: Owner of the log.
        log: The log to append to.
        records: At least one.
        atomic: Whether one conflict prevents the whole request.
        metered: Whether the tenant's state and quotas apply. In `events` each record takes a token of the record rate; in `access`
            the record of a query takes a token of the query rate.
    """

    tenant: Tenant
    log: LogName
    records: Sequence[Prepared]
    atomic: bool = False
    metered: bool = True


class Appended(msgspec.Struct, frozen=True):
    """One receipt for each record, in the request's order.

    `stored` is false if a conflict prevented an atomic request; then only the receipts in conflict have a meaning.
    """

    receipts: Sequence[Receipt]
    stored: bool = True
    rate: Rate | None = None
