"""Calendar intervals in a time zone: where the one that contains a moment begins, and where the next one does.

Days, weeks and months begin at midnight of the zone, whatever its offset is then. A day on which clocks change has 23 or 25 hours, each of
which is an interval of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from decklog.domain.errors import NAME_CHARS_MAX, invalid_parameter

INTERVALS = ("minute", "hour", "day", "week", "month")
HALF_HOUR_ZONES = ("Australia/Lord_Howe", "Australia/LHI")
"""Zones whose clocks change by half an hour, each year: engines differ in the hours of those days."""
_SHORT = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1)}
_NO_ZONES = ("posix/", "right/")
"""Beginnings of names that are no zones of their own."""


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(name for name in available_timezones() if not name.startswith(_NO_ZONES)) - {"localtime", "Factory"}


def zone_of(name: str) -> ZoneInfo:
    """Return the time zone of an IANA name, such as `Europe/Amsterdam`. Raises `invalid-parameter`."""
    if name not in _names():
        raise invalid_parameter(
            "tz",
            f"{name[:NAME_CHARS_MAX]!r} is not the name of a time zone. Use a name of the IANA database, such as Europe/Amsterdam.",
        )
    return ZoneInfo(name)


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return the moment at which a day begins in a zone, in UTC. Where clocks skip midnight, the day begins at the change."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def _first_day(interval: str, day: date) -> date:
    if interval == "month":
        return day.replace(day=1)
    return day - timedelta(days=day.weekday()) if interval == "week" else day


def start_of(interval: str, moment: datetime, zone: ZoneInfo) -> datetime:
    """Return the beginning, in UTC, of the minute, hour, day, week (from Monday) or month of the zone that contains `moment`."""
    local = moment.astimezone(zone)
    if interval in _SHORT:
        # In time that passes, and not by the clock: the hour that is there twice is two intervals.
        within = timedelta(
            minutes=local.minute if interval == "hour" else 0, seconds=local.second, microseconds=local.microsecond
        )
        return moment.astimezone(UTC) - within
    return midnight(_first_day(interval, local.date()), zone)


def starts_from(interval: str, first: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """Yield the beginning of the interval that contains `first`, and of all that follow, in UTC."""
    start = start_of(interval, first, zone)
    while True:
        yield start
        if interval in _SHORT:
            start = start_of(interval, start + _SHORT[interval], zone)
        else:
            following = start.astimezone(zone).date() + {"day": timedelta(days=1), "week": timedelta(days=7)}.get(
                interval, timedelta(days=32)
            )
            start = midnight(_first_day(interval, following), zone)
