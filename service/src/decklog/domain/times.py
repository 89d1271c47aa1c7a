"""Times as text: the one reader for records, filters and imports, so that all of them accept and refuse the same texts.

The form is RFC 3339 with an offset. A blank in place of `T`, small letters and an offset without a colon are accepted too. Digits
beyond microseconds are cut from the moment, never rounded: a record must not move into another second.
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime

TIME_CHARS_MAX = 64
"""Characters of a time; this bounds the digits of its fraction."""

_FORM = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}):(\d{2})(\.\d+)?(?:([Zz])|([+-]\d{2}):?(\d{2}))?",
    re.ASCII,
)
_LOST_PLUS = re.compile(r"\d \d{2}:?\d{2}$", re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_NUMBER = re.compile(r"\d{9,19}", re.ASCII)


class NotATimeError(ValueError):
    """A text is not a time. The message names the text, the form and, where it can be told, the cause."""


def read_time(text: str, *, offset_required: bool = True) -> tuple[datetime, str]:
    """Return the moment of a time, with its offset and cut to microseconds; and the time as RFC 3339 writes it, with all digits.

    A leap second (`23:59:60` UTC at the end of a month) is the last microsecond before it ends. Without `offset_required`, a time
    that has no offset is in UTC.

    Raises:
        NotATimeError: The text is no such time.
    """
    size = len(text)
    if (
        size in (27, 20, 24)  # microseconds, seconds, milliseconds
        and text[-1] == "Z"
        and text[10] == "T"
        and text[16] == ":"
        and text[17] != "6"
        and text[5] != "W"
        and (size == 20 or text[19] == ".")
    ):
        # Most times. `fromisoformat` reads more forms (weeks, commas); with these characters in their places it reads this one only.
        try:
            return datetime.fromisoformat(text), text
        except ValueError as error:
            raise _not_a_time(text, f"{error}") from None
    match = _FORM.fullmatch(text) if size <= TIME_CHARS_MAX else None
    if match is None:
        raise _not_a_time(text, _cause(text))
    day, minute, second, fraction, zone, hours, minutes = match.groups(default="")
    if not (zone or hours) and offset_required:
        raise _not_a_time(text, "It has no offset: append Z for UTC, or one like +01:00")
    offset = f"{hours}:{minutes}" if hours else "Z"
    leap = second == "60"
    try:
        moment = datetime.fromisoformat(f"{day}T{minute}:{'59' if leap else second}{fraction[:7]}{offset}")
        moment = _leap_second(moment) if leap else moment
    except (ValueError, OverflowError) as error:
        raise _not_a_time(text, f"{error}") from None
    return moment, f"{day}T{minute}:{second}{fraction}{offset}"


def instant(text: str, *, offset_required: bool = True) -> datetime:
    """Return the moment of a time; see `read_time`."""
    return read_time(text, offset_required=offset_required)[0]


def _leap_second(moment: datetime) -> datetime:
    last = moment.astimezone(UTC)
    if (last.hour, last.minute) != (23, 59) or last.day != calendar.monthrange(last.year, last.month)[1]:
        raise ValueError("second must be in 0..59; 60 is a leap second, at 23:59:60 UTC on the last day of a month")
    return moment.replace(microsecond=999_999)


def _not_a_time(text: str, cause: str) -> NotATimeError:
    said = f"{text[:TIME_CHARS_MAX]!r} is not an RFC 3339 time with an offset, like 2026-01-31T12:00:00Z."
    return NotATimeError(f"{said} {cause[:1].upper()}{cause[1:]}." if cause else said)


def _cause(text: str) -> str:
    if len(text) > TIME_CHARS_MAX:
        return f"it has {len(text)} characters; at most {TIME_CHARS_MAX} are allowed"
    if _LOST_PLUS.search(text):
        return "a plus sign in a query string means a blank: write it as %2B"
    if _DATE.fullmatch(text):
        return f"it is a date only: write {text}T00:00:00Z"
    if _NUMBER.fullmatch(text):
        return "a number of seconds or milliseconds since 1970 must be written as such a time"
    return ""
