"""Why the append functions refuse a request: the numbers that SQL returns, and the error that each of them means.

`decklog.admission` in `sql/cell.sql` is the only place that returns these numbers; a test compares the two.
"""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum

from decklog.domain.errors import Code, DecklogError
from decklog.domain.records.append import AppendRequest, Rate, day_full, rate_limited, storage_used_up

KNOWN_ID = "DL001"
"""SQLSTATE of `decklog.append_new` when it cannot decide without a look-up of ids. It has stored nothing."""

ADMITTED = 0
"""`request_status` of a request that was stored."""


class Refusal(IntEnum):
    """`request_status` of a request that was not stored."""

    RATE_LIMITED = 1
    """The bucket holds fewer tokens than the request has records."""
    BATCH_EXCEEDS_BURST = 2
    """The request has more records than a full bucket has tokens."""
    SUSPENDED = 3
    """The tenant is suspended."""
    NO_LOG = 4
    """The log has no head, or the tenant is deleted."""
    CONFLICT = 5
    """The request is atomic, and one of its ids belongs to a record with other content."""
    CLOCK_BEHIND = 6
    """The newest receipt time of the log is further ahead of the database's clock than `decklog.skew()`."""
    DAY_FULL = 7
    """The day would hold more records than the quota allows."""
    STORAGE_USED_UP = 8
    """The tenant has reached its storage quota."""


def refusal(code: int, request: AppendRequest, rate: Rate | None, received_at: datetime) -> DecklogError | None:
    """Return the error for this `request_status`.

    None for a request that was stored, and for a conflict: its receipts say which records are in conflict.
    `received_at` is the receipt time that the records would have had.
    """
    name, count = request.tenant.name, len(request.records)
    match code:
        case 0 | Refusal.CONFLICT:
            return None
        case Refusal.RATE_LIMITED if rate is not None:
            return rate_limited(name, rate, count)
        case Refusal.BATCH_EXCEEDS_BURST if rate is not None:
            return DecklogError(
                Code.BATCH_EXCEEDS_BURST,
                f"The request has {count} records, but the tenant {name!r} may append at most {rate.burst} at once. "
                "Send smaller batches.",
            )
        case Refusal.SUSPENDED:
            return DecklogError(
                Code.TENANT_SUSPENDED,
                f"The tenant {name!r} is suspended: it accepts no records and no queries. Its data is kept.",
            )
        case Refusal.NO_LOG:
            return DecklogError(Code.NOT_FOUND, f"The tenant {name!r} has no such log. It may have just been deleted.")
        case Refusal.CLOCK_BEHIND:
            return DecklogError(
                Code.CLOCK_BEHIND,
                "The database's clock is behind the newest record of this log. The log accepts records again once the clock has caught up.",
                retry_after=30,
            )
        case Refusal.DAY_FULL:
            return day_full(name, received_at)
        case Refusal.STORAGE_USED_UP:
            return storage_used_up(name)
    return DecklogError(
        Code.INTERNAL, f"The database refused the request with code {code}, which this version of Decklog does not know."
    )
