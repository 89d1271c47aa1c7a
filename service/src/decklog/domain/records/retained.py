"""How long the records of a log stay readable, by ranges of receipt time: what is open, closed and hidden, and from when on. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

import msgspec

from decklog.domain.log import LogName
from decklog.domain.tenant import Tenant

RANGES_MAX = 400
"""Ranges of one answer. A log has about a hundred partitions; neighbours are joined where it has more."""


class Partition(msgspec.Struct, frozen=True):
    """Records of a log with `since <= received_at < until`: the numbers from `first_seq` to below `end_seq`.

    `bytes` is the size of the partition with its indexes and with the tenant's other log; None where tenants share it.
    """

    since: datetime
    until: datetime
    first_seq: int
    end_seq: int
    bytes: int | None = None


class RangeState(StrEnum):
    """The state of a range: further records may come, none comes any more, or they cannot be read any more."""

    OPEN = "open"
    CLOSED = "closed"
    HIDDEN = "hidden"


class RetainedRange(msgspec.Struct, frozen=True):
    """A range of a log. `since` is None where the beginning is not known; from `hidden_after` on, none of its records is read."""

    since: datetime | None
    until: datetime
    first_seq: int
    end_seq: int
    bytes: int | None
    hidden_after: datetime
    state: RangeState


class Partitions(Protocol):
    """Where the records of logs are, by receipt time."""

    async def partitions(self, tenant: Tenant, log: LogName) -> Sequence[Partition]:
        """Return the partitions with records of a log, in order, from the first one with a record within retention.

        A log without such a record has the partition of its last record alone, and an empty log has none. Raises `not-found` and
        `storage-unavailable`.
        """
        ...


def retained(partitions: Sequence[Partition], days: int, now: datetime) -> list[RetainedRange]:
    """Return the ranges of a log with so many `days` of retention: they cover all of its numbers, in order.

    Records before the first partition are one hidden range: they are beyond retention, or dropped.
    """
    size = -(-len(partitions) // RANGES_MAX) or 1
    ranges = [_range(_joined(partitions[at : at + size]), days, now) for at in range(0, len(partitions), size)]
    if ranges and ranges[0].first_seq > 0:
        until = min(partitions[0].since, now - timedelta(days=days))
        ranges.insert(
            0, RetainedRange(None, until, 0, ranges[0].first_seq, None, until + timedelta(days=days), RangeState.HIDDEN)
        )
    return ranges


def _joined(group: Sequence[Partition]) -> Partition:
    sizes = [each.bytes for each in group if each.bytes is not None]
    total = sum(sizes) if len(sizes) == len(group) else None
    return Partition(group[0].since, group[-1].until, group[0].first_seq, group[-1].end_seq, total)


def _range(part: Partition, days: int, now: datetime) -> RetainedRange:
    hidden_after = part.until + timedelta(days=days)
    state = RangeState.HIDDEN if hidden_after <= now else RangeState.OPEN if part.until > now else RangeState.CLOSED
    return RetainedRange(part.since, part.until, part.first_seq, part.end_seq, part.bytes, hidden_after, state)
