"""Counting records: by which fields and intervals, and what a count is.

The groups are the countable fields of `fields.py`; intervals are calendar intervals in UTC by `occurred_at`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import msgspec

from decklog.domain.errors import NAME_CHARS_MAX, Code, DecklogError, invalid_parameter
from decklog.domain.search.fields import COUNTABLE, Field
from decklog.domain.search.terms import Terms

INTERVALS = ("minute", "hour", "day", "week", "month")
GROUPS_MAX = 2
"""Fields that one count groups by."""
BUCKETS_MAX = 10_000
"""Buckets of one answer."""

Key: TypeAlias = tuple[tuple[str | None, ...], datetime | None]
"""What the records of a bucket have in common: a value for each field of the grouping, and the beginning of the interval."""


class Bucket(msgspec.Struct, frozen=True):
    """A count of records.

    `key` has one value for each field of the grouping, None where a record lacks it. `start` is the beginning of the interval in
    UTC, None without an interval.
    """

    key: tuple[str | None, ...]
    start: datetime | None
    count: int


class Grouping(msgspec.Struct, frozen=True):
    """What records are counted by: up to `GROUPS_MAX` different countable fields, by name, and one of `INTERVALS` or None.

    Raises:
        DecklogError: `invalid-parameter` for other names, naming the parameter `by` or `interval`.
    """

    by: tuple[str, ...] = ()
    interval: str | None = None

    def __post_init__(self) -> None:
        for name in self.by:
            _require("by", name, COUNTABLE)
        if len(self.by) > GROUPS_MAX or len(set(self.by)) < len(self.by):
            raise invalid_parameter("by", f"at most {GROUPS_MAX} different names are allowed.")
        if self.interval is not None:
            _require("interval", self.interval, INTERVALS)

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of `by`, in its order."""
        return tuple(COUNTABLE[name] for name in self.by)

    def key(self, terms: Terms) -> Key:
        """Return the key of the bucket that a record with these terms belongs to."""
        values = tuple(getattr(terms, field.term) for field in self.fields)
        return values, None if self.interval is None else start_of(self.interval, terms.occurred_at)


def start_of(interval: str, moment: datetime) -> datetime:
    """Return the beginning, in UTC, of the minute, hour, day, week (from Monday) or month that contains `moment`."""
    start = moment.astimezone(UTC).replace(second=0, microsecond=0)
    if interval == "minute":
        return start
    if interval == "hour":
        return start.replace(minute=0)
    start = start.replace(hour=0, minute=0)
    if interval == "day":
        return start
    return start - timedelta(days=start.weekday()) if interval == "week" else start.replace(day=1)


def too_many_buckets(limit: int) -> DecklogError:
    """Return the refusal of a count with more than `limit` buckets."""
    return DecklogError(
        Code.TOO_MANY_BUCKETS, f"There are more than {limit} buckets. Narrow the filters or take a longer interval."
    )


def _require(parameter: str, name: str, allowed: tuple[str, ...] | dict[str, Field]) -> None:
    if name not in allowed:
        raise invalid_parameter(parameter, f"{name[:NAME_CHARS_MAX]!r} is not one of {', '.join(allowed)}.")
