"""Times in questions: exact forms, in the zone of the question, relative to its time."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from decklog.domain.ask.days import Now
from decklog.domain.ask.draft import time_node
from decklog.domain.ask.times import read_times
from decklog.domain.ask.tokens import tokens_of
from decklog.domain.ask.zones import find_zone
from decklog.domain.search.written import written

WEDNESDAY = datetime(2026, 7, 15, 12, tzinfo=UTC)


def query(text: str, zone: str = "UTC", now: datetime = WEDNESDAY) -> str | None:
    """The condition that a text is as a whole, None for a text that is no time, or not as a whole."""
    tokens, clock = tokens_of(text), Now(now, ZoneInfo(zone))
    found = read_times(tokens, 0, clock)
    node = time_node(found[1], clock) if found and found[0] == len(tokens) else None
    return None if node is None else written(node).replace("occurred_at:", "").replace(":00Z", "Z").replace(" AND ", " ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("on 10 July", ">=2026-07-10T00:00Z <2026-07-11T00:00Z"),
        ("on the 10th of July", ">=2026-07-10T00:00Z <2026-07-11T00:00Z"),
        ("July 10, 2025", ">=2025-07-10T00:00Z <2025-07-11T00:00Z"),
        ("on 20 December", ">=2025-12-20T00:00Z <2025-12-21T00:00Z"),
        ("2026-07-10", ">=2026-07-10T00:00Z <2026-07-11T00:00Z"),
        ("10/07/2026", ">=2026-07-10T00:00Z <2026-07-11T00:00Z"),
        ("07/25/2025", ">=2025-07-25T00:00Z <2025-07-26T00:00Z"),
        ("on the 31st", ">=2026-05-31T00:00Z <2026-06-01T00:00Z"),
        ("last week", ">=2026-07-06T00:00Z <2026-07-13T00:00Z"),
        ("this month", ">=2026-07-01T00:00Z <2026-08-01T00:00Z"),
        ("last quarter", ">=2026-04-01T00:00Z <2026-07-01T00:00Z"),
        ("last weekend", ">=2026-07-11T00:00Z <2026-07-13T00:00Z"),
        ("Friday last week", ">=2026-07-10T00:00Z <2026-07-11T00:00Z"),
        ("on Wednesday", ">=2026-07-15T00:00Z <2026-07-16T00:00Z"),
        ("last Wednesday", ">=2026-07-08T00:00Z <2026-07-09T00:00Z"),
        ("on Monday and Tuesday", ">=2026-07-13T00:00Z <2026-07-15T00:00Z"),
        ("in June", ">=2026-06-01T00:00Z <2026-07-01T00:00Z"),
        ("in 2025", ">=2025-01-01T00:00Z <2026-01-01T00:00Z"),
        ("the day before yesterday", ">=2026-07-13T00:00Z <2026-07-14T00:00Z"),
        ("three days ago", ">=2026-07-12T00:00Z <2026-07-13T00:00Z"),
        ("between 9 and 17 on Monday", ">=2026-07-13T09:00Z <2026-07-13T17:00Z"),
        ("from 9am to 5 pm yesterday", ">=2026-07-14T09:00Z <2026-07-14T17:00Z"),
        ("between 1 and 10 July", ">=2026-07-01T00:00Z <2026-07-11T00:00Z"),
        ("from 14:00 yesterday to 10:00 today", ">=2026-07-14T14:00Z <2026-07-15T10:00Z"),
        ("after 18:00 yesterday", ">=2026-07-14T18:00Z <2026-07-15T00:00Z"),
        ("at 14:30 on Monday", ">=2026-07-13T14:30Z <2026-07-13T14:31Z"),
        ("at noon yesterday", ">=2026-07-14T12:00Z <2026-07-14T12:01Z"),
        ("since yesterday", ">=2026-07-14T00:00Z"),
        ("since 10:00 today", ">=2026-07-15T10:00Z"),
        ("before July", "<2026-07-01T00:00Z"),
        ("after 10 July", ">=2026-07-11T00:00Z"),
        ("until 10 July", "<2026-07-11T00:00Z"),
        ("in the last 24 hours", "since:now-24h"),
        ("over the past week", "since:now-1w"),
        ("in the last two months", ">=2026-05-15T12:00Z"),
        ("older than 30 days", "until:now-30d"),
        ("since 2026-07-10T10:00:00+02:00", ">=2026-07-10T08:00Z"),
        ("between 17 and 9 on Monday", None),
        ("between 9 and 17", None),
        ("last 10 logins", None),
        ("on 31 February", None),
        ("tomorrow", None),
        ("next week", None),
        ("may", None),
        ("second", None),
        ("10", None),
    ],
)
def test_times_are_read_exactly(text: str, expected: str | None) -> None:
    assert query(text) == expected


def test_days_are_those_of_the_zone_also_where_clocks_change() -> None:
    assert query("on 10 July", "Europe/Amsterdam") == ">=2026-07-09T22:00Z <2026-07-10T22:00Z"
    assert (
        query("yesterday", "Pacific/Auckland", datetime(2026, 7, 15, 13, tzinfo=UTC)) == ">=2026-07-14T12:00Z <2026-07-15T12:00Z"
    )
    assert query("on 29 March 2026", "Europe/Amsterdam") == ">=2026-03-28T23:00Z <2026-03-29T22:00Z"
    assert query("between 9 and 17 on 29 March 2026", "Europe/Amsterdam") == ">=2026-03-29T07:00Z <2026-03-29T15:00Z"


def test_window_of_the_clock_repeats_on_each_day_of_a_range() -> None:
    found = query("between 9 and 17 on Monday and Tuesday")
    assert found is None  # the days of a window stand behind it, one after the other are a range of their own
    assert query("from 9:00 to 17:00 last week") is not None
    assert str(query("from 9:00 to 17:00 last week")).count(" OR ") == 6
    assert query("from 9:00 to 17:00 last year") is None


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("logins on Monday in Amsterdam time", "Europe/Amsterdam"),
        ("logins on Monday (New York time zone)", "America/New_York"),
        ("logins per day in UTC", "UTC"),
        ("logins per day in Europe/Paris", "Europe/Paris"),
        ("from 14:00 to 14:10 in Amsterdam", "Europe/Amsterdam"),
        ("logins from Amsterdam", None),
        ("logins in Atlantis time", None),
    ],
)
def test_zones_are_found_by_name_and_by_city(text: str, zone: str | None) -> None:
    found = find_zone(tokens_of(text))
    assert (None if found is None else found[2]) == zone
