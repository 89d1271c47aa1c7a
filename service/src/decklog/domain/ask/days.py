"""Days, weeks, months and years that words name, as ranges of dates in the zone of a question.

A name without a year is the latest one that is not in the future. Each function returns how many words it read, or None.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from decklog.domain.ask.calendar_words import MONTHS, day_of, month_of, number_of, weekday_of
from decklog.domain.ask.tokens import Token, words
from decklog.domain.search.calendar import midnight

_ISO = re.compile(r"(\d{4})-(\d{2})-(\d{2})")
_NUMERIC = re.compile(r"(\d{1,2})[/.](\d{1,2})[/.](\d{4})")
_YEAR = re.compile(r"(?:19|20)\d{2}")
_LAST, _THIS = ("last", "previous"), ("this", "current")
_DAY = timedelta(days=1)
_MONTHS_BACK = 4
"""Months that the latest day of a number may be back: there is a 31st in one of three."""


class Now(msgspec.Struct, frozen=True):
    """The time of a question, and the zone that its words mean."""

    at: datetime
    zone: ZoneInfo
    guesses: list[str] = msgspec.field(default_factory=list)
    """Texts that were given to the library for dates, whose number is bounded."""

    @property
    def today(self) -> date:
        """The day of the question."""
        return self.at.astimezone(self.zone).date()

    def start(self, day: date, seconds: int = 0) -> datetime:
        """Return the moment at which a day begins, or a time of its clock, in UTC."""
        if not seconds:
            return midnight(day, self.zone)
        local = datetime(day.year, day.month, day.day, tzinfo=self.zone) + timedelta(seconds=seconds)
        return local.astimezone(UTC)


class Days(NamedTuple):
    """Days from `first` up to, but not including, `end`. `note` says how an ambiguous word is read."""

    first: date
    end: date
    note: str = ""


Found = tuple[int, Days] | None


def read_days(tokens: Sequence[Token], at: int, now: Now) -> Found:
    """Return the days that the words at a place name, and how many words these are; None for other words."""
    skipped = 1 if words(tokens, at, 1) == "the" else 0
    if skipped and (found := _ordinal(tokens, at + 1, now)) is not None:
        return found
    for reader in (_named, _relative, _weekday, _date, _month, _written, _year):
        if (found := reader(tokens, at + skipped, now)) is not None:
            return found[0] + skipped, found[1]
    return None


def _ordinal(tokens: Sequence[Token], at: int, now: Now) -> Found:
    """Read the 10th, the latest one, where no month follows."""
    word, following = words(tokens, at, 1), words(tokens, at + 1, 1)
    day = day_of(word)
    if day is None or word.isdigit() or following == "of" or month_of(following) is not None:
        return None
    for back in range(_MONTHS_BACK):
        month = month_of_year(now.today.year, now.today.month - back)
        found = month.first + (day - 1) * _DAY
        if found < month.end and found <= now.today:
            return 2, _one(found)
    return None


def _one(day: date, note: str = "") -> Days:
    return Days(day, day + _DAY, note)


def _named(tokens: Sequence[Token], at: int, now: Now) -> Found:
    if words(tokens, at, 3) == "day before yesterday":
        return 3, _one(now.today - 2 * _DAY)
    before = {"today": 0, "yesterday": 1}.get(words(tokens, at, 1))
    if before is not None:
        return 1, _one(now.today - before * _DAY)
    count = number_of(words(tokens, at, 1))
    if count is not None and words(tokens, at + 1, 2) in ("days ago", "day ago") and count < 10_000:
        return 3, _one(now.today - count * _DAY)
    return None


def week_of(day: date) -> Days:
    """Return the week, from Monday, that contains a day."""
    monday = day - day.weekday() * _DAY
    return Days(monday, monday + 7 * _DAY)


def month_of_year(year: int, month: int) -> Days:
    """Return a month; months before January and after December are those of other years."""
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    first = date(year, month, 1)
    return Days(first, (first + 31 * _DAY).replace(day=1))


def _relative(tokens: Sequence[Token], at: int, now: Now) -> Found:
    """Read last week, this month and the like, which are those of the calendar."""
    which, unit = words(tokens, at, 1), words(tokens, at + 1, 1)
    if which not in (*_LAST, *_THIS):
        return None
    back, today = (1 if which in _LAST else 0), now.today
    found = {
        "week": lambda: week_of(today - back * 7 * _DAY),
        "month": lambda: month_of_year(today.year, today.month - back),
        "year": lambda: Days(date(today.year - back, 1, 1), date(today.year - back + 1, 1, 1)),
        "weekend": lambda: _weekend(today, back),
        "quarter": lambda: _quarter(today, back),
    }.get(unit)
    return None if found is None else _week_and_day(tokens, at + 2, found(), 2)


def _week_and_day(tokens: Sequence[Token], at: int, week: Days, count: int) -> Found:
    """Read the day behind last week, as in last week Friday."""
    weekday = weekday_of(words(tokens, at, 1))
    if weekday is None or week.end - week.first != 7 * _DAY:
        return count, week
    return count + 1, _one(week.first + weekday * _DAY)


def _weekend(today: date, back: int) -> Days:
    saturday = week_of(today).first + 5 * _DAY
    saturday -= 7 * _DAY if back or saturday > today else timedelta()
    return Days(saturday, saturday + 2 * _DAY)


def _quarter(today: date, back: int) -> Days:
    first = month_of_year(today.year, (today.month - 1) // 3 * 3 + 1 - 3 * back)
    return Days(first.first, month_of_year(first.first.year, first.first.month + 2).end)


def _weekday(tokens: Sequence[Token], at: int, now: Now) -> Found:
    """Read Monday, last Monday, and Monday of last week."""
    which = words(tokens, at, 1)
    skipped = 1 if which in (*_LAST, *_THIS) else 0
    weekday = weekday_of(words(tokens, at + skipped, 1))
    if weekday is None:
        return None
    at += skipped + 1
    link = 1 if words(tokens, at, 1) == "of" else 0
    week = _relative(tokens, at + link, now)
    if week is not None and words(tokens, at + link + 1, 1) == "week" and week[0] == 2:
        return skipped + link + 3, _one(week[1].first + weekday * _DAY)
    if which in _THIS:
        return skipped + 1, _one(week_of(now.today).first + weekday * _DAY)
    back = (now.today.weekday() - weekday) % 7 or (7 if which in _LAST else 0)
    return skipped + 1, _one(now.today - back * _DAY)


def _date(tokens: Sequence[Token], at: int, now: Now) -> Found:
    """Read 10 July, the 10th of July, July 10, each with or without a year."""
    day, count = day_of(words(tokens, at, 1)), 1
    if day is not None:
        count += words(tokens, at + 1, 1) == "of"
        month = month_of(words(tokens, at + count, 1))
        count += 1
    else:
        month = month_of(words(tokens, at, 1))
        count += words(tokens, at + 1, 1) == "the"
        day = day_of(words(tokens, at + count, 1))
        count += 1
    if day is None or month is None:
        return None
    comma = 1 if words(tokens, at + count, 1) == "," and _YEAR.fullmatch(words(tokens, at + count + 1, 1)) else 0
    year = words(tokens, at + count + comma, 1)
    if _YEAR.fullmatch(year):
        return _checked(count + comma + 1, int(year), month, day)
    found = _checked(count, now.today.year, month, day)
    return found if found and found[1].first <= now.today else _checked(count, now.today.year - 1, month, day)


def _checked(count: int, year: int, month: int, day: int, note: str = "") -> Found:
    try:
        return count, _one(date(year, month, day), note)
    except ValueError:
        return None


def _month(tokens: Sequence[Token], at: int, now: Now) -> Found:
    """Read July, and July 2026. The name in short needs a year, as some are other words, too."""
    word = words(tokens, at, 1)
    month, year = month_of(word), words(tokens, at + 1, 1)
    if month is None:
        return None
    if _YEAR.fullmatch(year):
        return 2, month_of_year(int(year), month)
    if word not in MONTHS or (word in ("may", "march") and tokens[at].text.islower()):
        return None
    return 1, month_of_year(now.today.year - (month > now.today.month), month)


def _written(tokens: Sequence[Token], at: int, _: Now) -> Found:
    """Read 2026-07-10, and 10/07/2026 with the day first unless that is no day."""
    word = words(tokens, at, 1)
    if (iso := _ISO.fullmatch(word)) is not None:
        year, month, day = map(int, iso.groups())
        return _checked(1, year, month, day)
    if (numeric := _NUMERIC.fullmatch(word)) is None:
        return None
    first, second, year = map(int, numeric.groups())
    if second > 12:
        return _checked(1, year, first, second)
    return _checked(1, year, second, first, "" if first > 12 or first == second else "read with the day first")


def _year(tokens: Sequence[Token], at: int, _: Now) -> Found:
    word = words(tokens, at, 1)
    return (1, Days(date(int(word), 1, 1), date(int(word) + 1, 1, 1))) if _YEAR.fullmatch(word) else None
