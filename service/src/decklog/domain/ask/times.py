"""Times that the words of a question name: days, clock times, ranges of both, and times relative to now.

Exact forms of our own come first. The library dateparser reads what they do not, within the bounds of this module: a few words, each of
which is a word for times.
"""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import dateparser
import msgspec

from decklog.domain.ask.calendar_words import DAYS, LONG_UNITS, MONTHS, NUMBERS, clock_of, day_of, month_of, number_of, unit_of
from decklog.domain.ask.days import Days, Now, read_days
from decklog.domain.ask.tokens import Token, words
from decklog.domain.times import instant

_DAY_SECONDS = 86_400
_GUESS_WORDS_MAX, _GUESS_CHARS_MAX, _GUESSES_MAX = 6, 40, 12
"""Words and characters of a text that the library reads, and texts of one question."""
_GUESSED = frozenset((*DAYS, *MONTHS, *NUMBERS, "ago", "at", "of", "the", "am", "pm", "noon", "midnight", "yesterday", "today"))
_FIXED = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks", "s": "seconds"}


class Moment(NamedTuple):
    """A point in time or days: days, seconds of the clock up to an end, or an exact time; `ago` as the query language has it."""

    days: Days | None = None
    clock: tuple[int, int] | None = None
    at: datetime | None = None
    ago: str = ""


class Times(msgspec.Struct, frozen=True):
    """Meaning of some words about the time: days, a window of the clock, and bounds with their relative spelling."""

    days: tuple[Days, ...] = ()
    clock: tuple[int, int] | None = None
    since: tuple[datetime, str] | None = None
    until: tuple[datetime, str] | None = None


NO_TIMES = Times()
"""Meaning of words that say nothing about the time."""

Found = tuple[int, Times] | None
_Reader = tuple[int, Moment] | None


def read_times(tokens: Sequence[Token], at: int, now: Now) -> Found:
    """Return what the words at a place say of the time, and how many words these are; None for other words."""
    for reader in (_between, _bounded, _older, _within, _plain):
        if (found := reader(tokens, at, now)) is not None:
            return found
    return None


def _moment(tokens: Sequence[Token], at: int, now: Now) -> _Reader:
    """Read a day, a clock time, a day with a clock time in any order, an exact time, or a time ago."""
    if (exact := _exact(tokens, at, now)) is not None:
        return exact
    if (days := read_days(tokens, at, now)) is not None:
        count, found = days
        clock = _clock(tokens, at + count, words=("at", ",", ""))
        return (count, Moment(found)) if clock is None else (count + clock[0], Moment(found, clock[1]))
    if (clock := _clock(tokens, at, words=("at", ""))) is not None:
        count = clock[0]
        link = 1 if words(tokens, at + count, 1) in ("on", "of", "in", ",") else 0
        if (days := read_days(tokens, at + count + link, now)) is not None:
            return count + link + days[0], Moment(days[1], clock[1])
        return count, Moment(None, clock[1])
    return _guessed(tokens, at, now)


def _exact(tokens: Sequence[Token], at: int, now: Now) -> _Reader:
    """Read a time with an offset, and a number of units ago."""
    text = tokens[at].text if at < len(tokens) else ""
    if "T" in text and "-" in text:
        try:
            return 1, Moment(at=instant(text).astimezone(UTC))
        except ValueError:
            return None
    count, unit = number_of(words(tokens, at, 1)), unit_of(words(tokens, at + 1, 1))
    if count is None or unit in (None, "d") or words(tokens, at + 2, 1) != "ago":
        return None
    return 3, _ago(count, unit or "", now)


def _ago(count: int, unit: str, now: Now) -> Moment:
    return Moment(at=now.at - timedelta(**{_FIXED[unit]: min(count, 99_999)}), ago=f"now-{min(count, 99_999)}{unit}")


def _clock(tokens: Sequence[Token], at: int, *, words: tuple[str, ...]) -> tuple[int, tuple[int, int]] | None:
    """Read a clock time: the seconds of the day from its beginning to its end, which is that of the minute, or of the hour."""
    link = 1 if at < len(tokens) and tokens[at].word in words else 0
    text = tokens[at + link].word if at + link < len(tokens) else ""
    suffix = tokens[at + link + 1].word if at + link + 1 < len(tokens) else ""
    joined = suffix in ("am", "pm", "o'clock") and text.replace(":", "").isdigit()
    found = clock_of(text + suffix if joined and suffix != "o'clock" else text)
    if found is None or (text.isdigit() and not joined and not link):
        return None
    hour, minute, second = found
    start = hour * 3600 + minute * 60 + second
    return link + 1 + joined, (start, start + (60 if ":" in text or text in ("noon", "midnight") else 3600))


def _bare_hour(tokens: Sequence[Token], at: int) -> tuple[int, int] | None:
    """Return the seconds of an hour that stands as a number alone; only ranges have these."""
    word = words(tokens, at, 1)
    found = clock_of(word) if word.isdigit() and len(word) <= 2 else None
    return None if found is None else (found[0] * 3600, (found[0] + 1) * 3600)


def _guessed(tokens: Sequence[Token], at: int, now: Now) -> _Reader:
    """Read by the library, the most words first; all of them must be words for times."""
    longest = 0
    while longest < _GUESS_WORDS_MAX and at + longest < len(tokens) and _for_times(tokens[at + longest].word):
        longest += 1
    for count in range(longest, max(1, longest - 2), -1):
        text = words(tokens, at, count)
        if len(text) > _GUESS_CHARS_MAX or len(now.guesses) >= _GUESSES_MAX:
            continue
        now.guesses.append(text)
        if (found := _parsed(text, now)) is not None:
            return count, found
    return None


def _for_times(word: str) -> bool:
    return word in _GUESSED or unit_of(word) is not None or word.rstrip("s") in LONG_UNITS or clock_of(word) is not None


def _parsed(text: str, now: Now) -> Moment | None:
    local = now.at.astimezone(now.zone).replace(tzinfo=None)
    found = dateparser.parse(
        text,
        languages=["en"],
        settings={"RELATIVE_BASE": local, "PREFER_DATES_FROM": "past", "DATE_ORDER": "DMY", "RETURN_AS_TIMEZONE_AWARE": False},
    )
    if found is None or found.year < 1970:
        return None
    if found.time() == local.time() or not (found.hour or found.minute):
        day = found.date()
        return Moment(Days(day, day + timedelta(days=1)))
    return Moment(at=found.replace(tzinfo=now.zone).astimezone(UTC))


def _start(moment: Moment, now: Now) -> tuple[datetime, str]:
    """Return when a moment begins: today's clock where it has no day."""
    if moment.at is not None:
        return moment.at, moment.ago
    day = now.today if moment.days is None else moment.days.first
    return now.start(day, 0 if moment.clock is None else moment.clock[0]), ""


def _end(moment: Moment, now: Now) -> tuple[datetime, str]:
    """Return when a moment ends: a clock time at its beginning, days after the last of them."""
    if moment.days is None or moment.clock is not None:
        return _start(moment, now)
    return now.start(moment.days.end), ""


def _between(tokens: Sequence[Token], at: int, now: Now) -> Found:
    """Read between X and Y, and from X to Y."""
    opening = words(tokens, at, 1)
    if opening not in ("between", "from"):
        return None
    links = ("and",) if opening == "between" else ("to", "until", "till", "through")
    for first in _ends(tokens, at + 1, now):
        middle = at + 1 + first[0]
        if words(tokens, middle, 1) in links:
            for second in _ends(tokens, middle + 1, now):
                if (found := _range(first[1], second[1], tokens[at + 1], now)) is not None:
                    return middle + 1 + second[0] - at, found
    return None


def _ends(tokens: Sequence[Token], at: int, now: Now) -> list[tuple[int, Moment]]:
    """Return the readings of one end of a range, the likeliest first."""
    found = _moment(tokens, at, now)
    hour = _bare_hour(tokens, at)
    readings = [] if found is None else [found]
    if hour is not None:
        link = 1 if words(tokens, at + 1, 1) in ("on", ",") else 0
        days = read_days(tokens, at + 1 + link, now)
        readings += [] if days is None else [(1 + link + days[0], Moment(days[1], hour))]
        readings.append((1, Moment(None, hour)))
    return readings


def _range(first: Moment, second: Moment, token: Token, now: Now) -> Times | None:
    """Return the range of two ends. What only the second end says, its day or its month, is meant of both."""
    if second.days is not None and second.clock is None and first.days is None and first.at is None:
        day = day_of(token.word)
        if day is None or month_of(token.word) is not None or day > second.days.first.day:
            return None
        return Times((Days(second.days.first.replace(day=day), second.days.end),))
    if first.clock and second.clock and first.days is None:
        window = first.clock[0], second.clock[0]
        if window[0] >= window[1]:
            return None
        return Times(() if second.days is None else (second.days,), window)
    if first.days is not None and second.days is not None and not first.clock and not second.clock:
        return Times((Days(first.days.first, second.days.end),)) if first.days.first < second.days.end else None
    since, until = _start(first, now), _end(second._replace(days=second.days or first.days), now)
    return Times(since=since, until=until) if since[0] < until[0] else None


def _bounded(tokens: Sequence[Token], at: int, now: Now) -> Found:
    """Read since, after, before and until."""
    opening, count = words(tokens, at, 1), 1
    if words(tokens, at, 2) in ("up to", "prior to"):
        opening, count = ("until" if opening == "up" else "before"), 2
    if opening not in ("since", "after", "before", "until", "till"):
        return None
    found = _moment(tokens, at + count, now) or _ended(_rolling(tokens, at + count, now))
    if found is None:
        return None
    return count + found[0], _bound(opening, found[1], now)


def _ended(found: Found) -> _Reader:
    """Return the beginning of a time that lasts until now, for since the last two hours."""
    if found is None or found[1].since is None:
        return None
    return found[0], Moment(at=found[1].since[0], ago=found[1].since[1])


def _bound(opening: str, moment: Moment, now: Now) -> Times:
    if opening == "since":
        return Times(since=_start(moment, now))
    if moment.clock is not None:
        window = (moment.clock[0], _DAY_SECONDS) if opening == "after" else (0, moment.clock[0])
        return Times(() if moment.days is None else (moment.days,), window)
    if opening == "after":
        return Times(since=_end(moment, now))
    return Times(until=_start(moment, now) if opening == "before" else _end(moment, now))


def _older(tokens: Sequence[Token], at: int, now: Now) -> Found:
    """Read older than 30 days, and newer than."""
    opening = words(tokens, at, 2)
    count, unit = number_of(words(tokens, at + 2, 1)), unit_of(words(tokens, at + 3, 1))
    if opening not in ("older than", "newer than", "less than", "more than") or count is None or unit is None:
        return None
    ago = words(tokens, at + 4, 1) in ("ago", "old")
    if opening in ("less than", "more than") and not ago:
        return None
    bound = _ago(count, unit, now)
    edge = (bound.at or now.at, bound.ago)
    return 4 + ago, Times(until=edge) if opening in ("older than", "more than") else Times(since=edge)


def _rolling(tokens: Sequence[Token], at: int, now: Now) -> Found:
    """Read the last 24 hours, the past week, the last hour: times that end now."""
    skipped = 1 if words(tokens, at, 1) in ("the", "these", "those") else 0
    which, count = words(tokens, at + skipped, 1), number_of(words(tokens, at + skipped + 1, 1))
    if which not in ("last", "past", "previous"):
        return None
    place = at + skipped + (1 if count is None else 2)
    if count is not None and words(tokens, place, 1) == "of":
        place += 1
    word = words(tokens, place, 1)
    unit = unit_of(word)
    if count is None and (which != "past" and unit not in ("h", "m")):
        return None
    length = place + 1 - at
    if unit is not None:
        moment = _ago(count or 1, unit, now)
        return length, Times(since=(moment.at or now.at, moment.ago))
    if word.removesuffix("s") not in LONG_UNITS or word.startswith("quarter"):
        return None
    return length, Times(since=(_months_ago((count or 1) * (12 if word.startswith("year") else 1), now), ""))


def _months_ago(count: int, now: Now) -> datetime:
    local = now.at.astimezone(now.zone)
    months = max(local.year * 12 + local.month - 1 - count, 12 * 1970)
    year, month = divmod(months, 12)
    day = min(local.day, calendar.monthrange(year, month + 1)[1])
    return local.replace(year=year, month=month + 1, day=day).astimezone(UTC)


def _within(tokens: Sequence[Token], at: int, now: Now) -> Found:
    """Read a time that ends now, with or without a word like in or within before it."""
    link = 1 if words(tokens, at, 1) in ("in", "within", "during", "over", "for", "of", "from") else 0
    found = _rolling(tokens, at + link, now)
    return None if found is None else (link + found[0], found[1])


def _plain(tokens: Sequence[Token], at: int, now: Now) -> Found:
    """Read days, one after the other, and clock times of them."""
    link = 1 if words(tokens, at, 1) in ("on", "in", "during", "at", "for", "of", "from", "within", "over") else 0
    found = _moment(tokens, at + link, now)
    if found is None and link and words(tokens, at, 1) == "at":
        found = _moment(tokens, at, now)
    if found is None or (found[1].at is not None and found[1].ago):
        return None
    count, moment = link + found[0], found[1]
    if moment.at is not None:
        return count, Times(since=(moment.at, ""), until=(moment.at + timedelta(minutes=1), ""))
    days = [] if moment.days is None else [moment.days]
    while moment.clock is None and days and (more := _next_days(tokens, at + count, now)) is not None:
        count, days = count + more[0], [*days, more[1]]
    return count, Times(tuple(days), moment.clock)


def _next_days(tokens: Sequence[Token], at: int, now: Now) -> tuple[int, Days] | None:
    link = 1 if words(tokens, at, 1) in ("and", "or", ",") else 0
    link += 1 if link and words(tokens, at + link, 1) in ("on", "in", "and", "or") else 0
    found = read_days(tokens, at + link, now) if link else None
    return None if found is None else (link + found[0], found[1])
