"""What goes into a log at once, and what comes back for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import IntEnum

import msgspec

from decklog.domain.log import LogName
from decklog.domain.record import Prepared
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


class Rate(msgspec.Struct, frozen=True):
    """A tenant's bucket after a request: refill per second, capacity, records that may still come at once."""

    per_second: float
    burst: int
    remaining: float


class AppendRequest(msgspec.Struct, frozen=True):
    """Records of one request for one log. The records of a request are stored in their order.

    `atomic`: all or nothing, where a conflict is the only thing that can still go wrong. `metered`: whether the
    tenant's quota applies (access records are exempt). No two records may have the same id.
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
