"""English words for times: names of days and months, units, numbers, and places whose time is meant."""

from __future__ import annotations

import re

MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
NUMBERS = {
    word: number
    for number, word in enumerate(
        ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"), start=1
    )
} | {"a": 1, "an": 1, "couple": 2, "fifteen": 15, "twenty": 20, "thirty": 30, "sixty": 60, "ninety": 90}
UNITS = {"minute": "m", "min": "m", "hour": "h", "hr": "h", "day": "d", "week": "w", "second": "s", "sec": "s"}
"""Units of a fixed length, by their letters in the query language."""
LONG_UNITS = ("month", "year", "quarter")
INTERVALS = {
    "minute": "minute",
    "hour": "hour",
    "hourly": "hour",
    "day": "day",
    "daily": "day",
    "week": "week",
    "weekly": "week",
    "month": "month",
    "monthly": "month",
}
ZONES = {"utc": "UTC", "gmt": "UTC", "zulu": "UTC"}
_MONTH_SHORT = {name[:3]: number for number, name in enumerate(MONTHS, 1)} | {"sept": 9}
_DAY_SHORT = {"mon": 0, "tue": 1, "tues": 1, "wed": 2, "thu": 3, "thur": 3, "thurs": 3, "fri": 4, "sat": 5, "sun": 6}
_ORDINAL = re.compile(r"(\d{1,2})(?:st|nd|rd|th)?")
_CLOCK = re.compile(r"(\d{1,2})(?:[:.h](\d{2})(?::(\d{2}))?)?(am|pm)?")


def month_of(word: str) -> int | None:
    """Return the number of a month, from 1, or None."""
    return MONTHS.index(word) + 1 if word in MONTHS else _MONTH_SHORT.get(word)


def weekday_of(word: str) -> int | None:
    """Return the number of a day of the week, from 0 for Monday, or None."""
    return DAYS.index(word) if word in DAYS else _DAY_SHORT.get(word)


def day_of(word: str) -> int | None:
    """Return the day of a month that a word like 10 or 10th names, or None."""
    found = _ORDINAL.fullmatch(word)
    return int(found[1]) if found and 1 <= int(found[1]) <= 31 else None


def number_of(word: str) -> int | None:
    """Return the number that a word names, or None."""
    return int(word) if word.isascii() and word.isdigit() and len(word) <= 6 else NUMBERS.get(word)


def clock_of(word: str) -> tuple[int, int, int] | None:
    """Return the hour, minute and second that a word like 9, 17:30 or 6pm names, or None."""
    if word in ("noon", "midday", "midnight"):
        return (0 if word == "midnight" else 12), 0, 0
    found = _CLOCK.fullmatch(word)
    if found is None:
        return None
    hour, minute, second = int(found[1]), int(found[2] or 0), int(found[3] or 0)
    if found[4]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if found[4] == "pm" else 0)
    return (hour, minute, second) if hour <= 24 and minute < 60 and second < 60 and (hour < 24 or not minute) else None


def unit_of(word: str) -> str | None:
    """Return the letter of a unit of a fixed length, or None."""
    return UNITS.get(word) or UNITS.get(word.removesuffix("s"))
