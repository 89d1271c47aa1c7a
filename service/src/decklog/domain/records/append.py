"""What goes into a log at once, and what comes back for it."""

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
    """What became of one record. The number is what the append function in SQL returns."""

    STORED = 0
    DUPLICATE = 1
    CONFLICT = 2
    """The id was used for other content; the receipt carries the position of the first record."""


class Receipt(msgspec.Struct, frozen=True):
    """The place of one record; for a duplicate or a conflict that of the record first stored under its id."""

    status: Status
    epoch: int
    seq: int
    received_at: datetime
    digest: bytes


RECORDS, QUERIES = "append", "query"
"""What a bucket counts: the records of a tenant's events, or the times that somebody asks for records."""


class Rate(msgspec.Struct, frozen=True):
    """A tenant's bucket after a request: refill per second, capacity, and how many may still come at once, of what `of` says."""

    per_second: float
    burst: int
    remaining: float
    of: str = RECORDS


_ROOM_SECONDS = 300.0
"""When to come back where the storage is used up: about as often it is looked whether there is room."""


def rate_limited(tenant: str, rate: Rate, count: int) -> DecklogError:
    """`count` is more than the bucket holds."""
    wait = max(0.001, (count - rate.remaining) / rate.per_second)
    may = f"append {rate.per_second:g} records per second"
    if rate.of == QUERIES:
        may = f"make {rate.per_second * 60:g} queries per minute"
    return DecklogError(
        Code.RATE_LIMITED,
        f"The tenant {tenant!r} may {may}. Try again in {wait:.3f} s.",
        retry_after=wait,
        extra={"rate": msgspec.structs.replace(rate, remaining=max(0.0, rate.remaining))},
    )


def day_full(tenant: str, at: datetime) -> DecklogError:
    """The day that `at` is on would have more records than it may."""
    today = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return DecklogError(
        Code.QUOTA_EXCEEDED,
        f"The tenant {tenant!r} may not store so many more records on {today:%Y-%m-%d} (UTC), and none of these is stored. "
        "Try again on the next day, or ask for a larger spec.quotas.eventsPerDay.",
        retry_after=(today + timedelta(days=1) - at).total_seconds(),
    )


def storage_used_up(tenant: str) -> DecklogError:
    """The tenant's records take more room than they may."""
    return DecklogError(
        Code.QUOTA_EXCEEDED,
        f"The records of the tenant {tenant!r} take more storage than its quota, and none of these is stored; all that is there can "
        "be read. Ask for a larger spec.quotas.storageGiB. Whether there is room is looked at every few minutes.",
        retry_after=_ROOM_SECONDS,
    )


class AppendRequest(msgspec.Struct, frozen=True):
    """Records of one request for one log. The records of a request are stored in their order.

    `atomic`: all or nothing, where a conflict is the only thing that can still go wrong. `metered`: whether the
    tenant's quotas and state apply: those of records to the log of events, that of queries to the access log, where the
    record of a query takes a token. No two records may have the same id.
    """

    tenant: Tenant
    log: LogName
    records: Sequence[Prepared]
    atomic: bool = False
    metered: bool = True


class Appended(msgspec.Struct, frozen=True):
    """One receipt per record, in the request's order. Where an atomic request met a conflict nothing is stored:
    `stored` is false and only the conflicting receipts mean anything."""

    receipts: Sequence[Receipt]
    stored: bool = True
    rate: Rate | None = None
