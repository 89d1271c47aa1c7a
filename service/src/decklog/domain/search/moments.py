"""Times in queries: absolute ones with an offset, days, and ones relative to now."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from decklog.domain.times import instant

EARLIEST, LATEST = datetime(1, 2, 1, tzinfo=UTC), datetime(9999, 12, 1, tzinfo=UTC)
"""Bounds are clamped to these: records lie within the years 2 to 9998, and every engine can still calculate here."""

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_RELATIVE = re.compile(r"(now)?(?:(?(1)-)(\d{1,6})([smhdw]))?")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_MICROSECOND = timedelta(microseconds=1)


class Moment(NamedTuple):
    """A time of a query, from `start` up to, but not including, `end`; `ago` is how it is written where it depends on now."""

    start: datetime
    end: datetime
    ago: str = ""


def clamped(moment: datetime) -> datetime:
    """Return a time with an offset in UTC, within the bounds of what records can have."""
    try:
        return min(max(moment.astimezone(UTC), EARLIEST), LATEST)
    except OverflowError:
        return EARLIEST if moment.year == 1 else LATEST


def read_time(text: str) -> datetime:
    """Return a time as `domain.times` reads it, in UTC and clamped. Raises ValueError with what is wrong."""
    return clamped(instant(text))


def _relative(text: str, now: datetime) -> Moment | None:
    found = _RELATIVE.fullmatch(text)
    if found is None or not text:
        return None
    _, count, unit = found.groups()
    try:
        at = clamped(now - timedelta(**{_UNITS[unit]: int(count)}) if count else now)
    except OverflowError:
        at = EARLIEST
    return Moment(at, at, f"now-{count}{unit}" if count else "now")


def read_moment(text: str, now: datetime) -> Moment:
    """Return a time, a day in UTC, or a time relative to `now`. Raises ValueError with what is wrong."""
    if (relative := _relative(text, now)) is not None:
        return relative
    if _DAY.fullmatch(text):
        try:
            day = datetime.fromisoformat(text).replace(tzinfo=UTC)
        except ValueError as error:
            raise ValueError(f"{text!r}: {error}.") from None
        return Moment(clamped(day), clamped(day + timedelta(days=1)) if day < LATEST else LATEST)
    try:
        at = read_time(text)
    except ValueError as error:
        raise ValueError(f"{error} A day like 2026-01-31, 24h or now-24h are times too.") from None
    return Moment(at, at + _MICROSECOND)
