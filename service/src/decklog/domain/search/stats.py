"""Counting records: by which fields and intervals, and what a count is.

The groups are the countable fields of `fields.py`; intervals are calendar intervals of a time zone by `occurred_at`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

import msgspec

from decklog.domain.errors import NAME_CHARS_MAX, Code, DecklogError, invalid_parameter
from decklog.domain.search.calendar import HALF_HOUR_ZONES, INTERVALS, start_of, starts_from, zone_of
from decklog.domain.search.fields import COUNTABLE, Field
from decklog.domain.search.terms import Terms

UTC_NAME = "UTC"
GROUPS_MAX = 2
"""Fields that one count groups by."""
BUCKETS_MAX = 10_000
"""Buckets of one answer."""

FACETS_MAX = 5
"""Fields whose values one answer counts, each by itself."""
TOP_DEFAULT, TOP_MAX = 10, 100
"""Values of a facet that are named; the others are one number."""

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


class Facet(msgspec.Struct, frozen=True):
    """The most frequent values of one field among the matching records.

    `values` are ordered by descending count, then by value. `other` counts the records with further values, and `missing` those without
    the field.
    """

    field: str
    values: list[tuple[str, int]]
    other: int
    missing: int

    @classmethod
    def of(cls, field: str, counts: Mapping[Key, int], top: int) -> Facet:
        """Return the facet of complete counts by this field alone."""
        known = {value: count for ((value,), _), count in counts.items() if value is not None}
        ordered = sorted(known.items(), key=lambda item: (-item[1], item[0]))
        other = sum(count for _, count in ordered[top:])
        return cls(field, ordered[:top], other, sum(counts.values()) - sum(known.values()))


def facet_fields(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of fields to count each by itself. Raises `invalid-parameter`."""
    for name in names:
        _require("facets", name, COUNTABLE)
    if len(names) > FACETS_MAX or len(set(names)) < len(names):
        raise invalid_parameter("facets", f"at most {FACETS_MAX} different names are allowed.")
    return tuple(names)


def zero_filled(
    buckets: Sequence[Bucket], grouping: Grouping, since: datetime | None, until: datetime | None, *, limit: int
) -> list[Bucket]:
    """Return buckets in the order of time, with one of count 0 for each interval and key without records.

    The intervals are those from `since` up to `until`, where they are given, else from the first to the last with records.

    Raises:
        DecklogError: `too-many-buckets` above `limit` buckets.
    """
    starts = [bucket.start for bucket in buckets if bucket.start is not None]
    if grouping.interval is None or not (starts or (since and until)):
        return list(buckets)
    first, keys = since or min(starts), list(dict.fromkeys(bucket.key for bucket in buckets)) or ([()] if not grouping.by else [])
    counts = {(bucket.key, bucket.start): bucket.count for bucket in buckets}
    filled: list[Bucket] = []
    for start in starts_from(grouping.interval, first, grouping.zone):
        if start >= until if until else start > max(starts):
            return filled
        filled += [Bucket(key, start, counts.get((key, start), 0)) for key in keys]
        if len(filled) > limit:
            raise too_many_buckets(limit)
    return filled


class Grouping(msgspec.Struct, frozen=True):
    """What records are counted by: up to `GROUPS_MAX` different countable fields, by name, and one of `INTERVALS` of `tz`, or None.

    Raises:
        DecklogError: `invalid-parameter` for other names, naming the parameter `by`, `interval` or `tz`.
    """

    by: tuple[str, ...] = ()
    interval: str | None = None
    tz: str = UTC_NAME

    def __post_init__(self) -> None:
        for name in self.by:
            _require("by", name, COUNTABLE)
        if len(self.by) > GROUPS_MAX or len(set(self.by)) < len(self.by):
            raise invalid_parameter("by", f"at most {GROUPS_MAX} different names are allowed.")
        if self.interval is not None:
            _require("interval", self.interval, INTERVALS)
        zone_of(self.tz)
        if self.interval == "hour" and self.tz in HALF_HOUR_ZONES:
            raise invalid_parameter(
                "tz", f"clocks in {self.tz} change by half an hour, so its hours are no hours. Take days, or UTC."
            )

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of `by`, in its order."""
        return tuple(COUNTABLE[name] for name in self.by)

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of the intervals."""
        return zone_of(self.tz)

    def key(self, terms: Terms) -> Key:
        """Return the key of the bucket that a record with these terms belongs to."""
        values = tuple(getattr(terms, field.term) for field in self.fields)
        return values, None if self.interval is None else start_of(self.interval, terms.occurred_at, self.zone)


class Tally(NamedTuple):
    """What one answer counts: by a grouping, and by each facet alone."""

    grouping: Grouping
    facets: tuple[str, ...] = ()

    @property
    def groupings(self) -> list[Grouping]:
        """All groupings, that of the buckets first."""
        return [self.grouping, *(Grouping((name,)) for name in self.facets)]


def too_many_buckets(limit: int) -> DecklogError:
    """Return the refusal of a count with more than `limit` buckets."""
    return DecklogError(
        Code.TOO_MANY_BUCKETS, f"There are more than {limit} buckets. Narrow the filters or take a longer interval."
    )


def _require(parameter: str, name: str, allowed: tuple[str, ...] | dict[str, Field]) -> None:
    if name not in allowed:
        raise invalid_parameter(parameter, f"{name[:NAME_CHARS_MAX]!r} is not one of {', '.join(allowed)}.")
