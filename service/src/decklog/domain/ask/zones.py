"""The time zone that a question names: in Amsterdam time, UTC, Europe/Amsterdam."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from zoneinfo import available_timezones

from decklog.domain.ask.calendar_words import ZONES, clock_of
from decklog.domain.ask.tokens import Token, words

_CITY_WORDS_MAX = 3


@cache
def _by_name() -> dict[str, str]:
    """Return zones by their names in small letters, and by that of their city where one zone alone has it."""
    names = [
        name for name in available_timezones() if "/" in name and not name.startswith(("posix/", "right/", "Etc/", "SystemV/"))
    ]
    cities: dict[str, list[str]] = {}
    for name in names:
        cities.setdefault(name.rpartition("/")[2].lower().replace("_", " "), []).append(name)
    single = {city: found[0] for city, found in cities.items() if len(found) == 1}
    return single | {name.lower(): name for name in names} | ZONES


def find_zone(tokens: Sequence[Token]) -> tuple[int, int, str] | None:
    """Return the first and the last place, exclusive, of words that name a zone, and the zone; None where there are none."""
    for at in range(len(tokens)):
        for count in range(_CITY_WORDS_MAX, 0, -1):
            name = _by_name().get(words(tokens, at, count))
            end = at + count
            if name is None or end > len(tokens):
                continue
            timed = words(tokens, end, 1) in ("time", "timezone")
            if not (timed or "/" in tokens[at].word or tokens[at].word in ZONES or _behind_clock(tokens, at)):
                continue
            end += (1 + (words(tokens, end + 1, 1) == "zone")) if timed else 0
            return _opening(tokens, at), end, name
    return None


def _behind_clock(tokens: Sequence[Token], at: int) -> bool:
    """Return whether a clock time and in stand before a place: at 14:00 in Amsterdam."""
    return at > 1 and tokens[at - 1].word == "in" and ":" in tokens[at - 2].word and clock_of(tokens[at - 2].word) is not None


def _opening(tokens: Sequence[Token], at: int) -> int:
    """Return the place of the words before a zone that belong to it: in, in the."""
    if at and tokens[at - 1].word == "the":
        at -= 1
    return at - 1 if at and tokens[at - 1].word in ("in", "at", "by", "using") else at
