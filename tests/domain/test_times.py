"""Times: one reader for records, filters and imports, which never moves a time into another second."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.errors import DecklogError
from decklog.domain.intake.foreign_event import NotAnEventError, moment
from decklog.domain.records.record import prepare_sent
from decklog.domain.search.query import parse_time
from decklog.domain.times import TIME_CHARS_MAX, NotATimeError, instant, read_time
from tests.support.examples import examples

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def prepared(time: Any) -> Any:
    raw = msgspec.json.encode({"action": "a", "actor": {"id": "x"}, "id": "i", "occurred_at": time})
    return prepare_sent(raw, now=NOW, fingerprint_key=b"k" * 32)


ACCEPTED = [
    ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T12:00:00Z"),
    ("2026-01-31t12:00:00z", datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T12:00:00Z"),
    ("2026-01-31 12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T12:00:00Z"),
    ("2026-01-31T12:00:00+0100", datetime(2026, 1, 31, 11, tzinfo=UTC), "2026-01-31T12:00:00+01:00"),
    ("2026-01-31T12:00:00-00:00", datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T12:00:00-00:00"),
    ("2026-01-31T12:00:00.5Z", datetime(2026, 1, 31, 12, 0, 0, 500_000, tzinfo=UTC), "2026-01-31T12:00:00.5Z"),
    ("2026-01-31T23:59:59.9999999Z", datetime(2026, 1, 31, 23, 59, 59, 999_999, tzinfo=UTC), "2026-01-31T23:59:59.9999999Z"),
    (
        "2026-01-31T12:00:00.123456789+05:45",
        datetime(2026, 1, 31, 6, 15, 0, 123_456, tzinfo=UTC),
        "2026-01-31T12:00:00.123456789+05:45",
    ),
    ("2016-12-31T23:59:60Z", datetime(2016, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), "2016-12-31T23:59:60Z"),
    ("2017-01-01T00:59:60.25+01:00", datetime(2016, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), "2017-01-01T00:59:60.25+01:00"),
]
REFUSED = [
    "",
    "now",
    "2026-01-31",
    "1700000000",
    "2026-01-31T12:00:00",
    "2026-01-31T12:00Z",
    "2026-01-31T12:00:00+01",
    "2026-01-31T12:00:00 01:00",
    "2026-01-31T12:00:00,5Z",
    "2026-01-31T12:00:00.Z",
    "2026-01-31T24:00:00Z",
    "2026-02-30T12:00:00Z",
    "2026-01-31T12:00:60Z",
    "2026-01-30T23:59:60Z",
    "2026-01-31T12:00:61Z",
    "2026-01-31T12:00:00+24:00",
    "2026-W05-6T12:00:00Z",
    "2026-W05-6T12:00:00.123Z",
    "2026-01-31T120000.00Z",
    "2026-01-31T12:00:00,123Z",
    "20260131T120000.000Z",
    "٢٠٢٦-01-31T12:00:00Z",
    "2026-01-31T12:00:00Z\n",
    "2026-01-31T12:00:00\\u005a",
    "0000-01-31T12:00:00Z",
    "0001-01-01T00:59:60+01:00",
    "2026-01-31T12:00:00." + "1" * TIME_CHARS_MAX + "Z",
]


@pytest.mark.parametrize(("text", "expected", "spelling"), ACCEPTED)
def test_time_is_read_alike_by_records_filters_and_imports(text: str, expected: datetime, spelling: str) -> None:
    assert read_time(text) == (expected, spelling)
    assert parse_time("from", text) == expected
    assert moment(text, "eventTime") == spelling
    record = prepared(text)
    assert record.occurred_at == expected
    assert msgspec.json.decode(record.content)["occurred_at"] == spelling


@pytest.mark.parametrize("text", REFUSED)
def test_time_is_refused_alike_by_records_filters_and_imports(text: str) -> None:
    with pytest.raises(NotATimeError):
        instant(text)
    with pytest.raises(DecklogError, match=r"^from: "):
        parse_time("from", text)
    with pytest.raises(DecklogError, match=r"^occurred_at: "):
        prepared(text)
    if text != "2026-01-31T12:00:00":  # imports read it as UTC, which audit logs mean by it
        with pytest.raises(NotAnEventError):
            moment(text, "eventTime")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("2026-01-31T12:00:00", "It has no offset"),
        ("2026-11-30T01:00:00 01:00", "A plus sign in a query string means a blank: write it as %2B."),
        ("2026-11-30", "write 2026-11-30T00:00:00Z"),
        ("1700000000", "seconds or milliseconds since 1970"),
        ("2026-02-30T12:00:00Z", "Day is out of range"),
        ("2026-01-31T12:00:60Z", "60 is a leap second"),
    ],
)
def test_refused_time_names_the_likely_cause(text: str, cause: str) -> None:
    with pytest.raises(NotATimeError, match=cause):
        instant(text)


zones = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(2, 1, 2), datetime(2026, 11, 1), timezones=zones)  # noqa: DTZ001 - bounds are without a zone


@given(moments, st.text("0123456789", max_size=12), st.sampled_from("Tt "), st.booleans())
@settings(deadline=None, max_examples=examples(200))
def test_time_never_moves_into_another_second(at: datetime, digits: str, between: str, colon: bool) -> None:
    offset = at.strftime("%z")
    zone = f"{offset[:3]}:{offset[3:]}" if colon else offset
    day, second = f"{at.year:04}-{at:%m-%d}", f"{at:%H:%M:%S}"
    fraction = f".{digits}" if digits else ""
    found, spelling = read_time(f"{day}{between}{second}{fraction}{zone}")
    assert found.replace(microsecond=0) == at.replace(microsecond=0)
    assert found.microsecond == int(digits[:6].ljust(6, "0"))
    assert spelling == f"{day}T{second}{fraction}{offset[:3]}:{offset[3:]}"
    assert read_time(spelling) == (found, spelling)


@given(moments, st.sampled_from([0, 1, 3, 6]))
@settings(deadline=None, max_examples=examples(200))
def test_retry_with_another_number_of_digits_is_a_retry(at: datetime, digits: int) -> None:
    at = at.replace(microsecond=at.microsecond // 10 ** (6 - digits) * 10 ** (6 - digits))
    zone = at.strftime("%z")
    start, zone = f"{at.year:04}-{at:%m-%dT%H:%M:%S}", f"{zone[:3]}:{zone[3:]}"
    zero = "Z" if zone in ("+00:00", "-00:00") else zone
    spellings = {f"{start}.{at.microsecond:06}"[: 20 + digits].removesuffix(".") + zone, f"{start}.{at.microsecond:06}{zero}"}
    made = [prepared(spelling) for spelling in sorted(spellings)]
    assert {record.occurred_at for record in made} == {at.astimezone(UTC)}
    assert len({record.fingerprint for record in made}) == 1
    usual = msgspec.json.encode({"action": "a", "actor": {"id": "x"}, "id": "i", "occurred_at": at})
    assert made[0].fingerprint == prepare_sent(usual, now=NOW, fingerprint_key=b"k" * 32).fingerprint


def test_digits_beyond_microseconds_are_content() -> None:
    one, other = prepared("2026-01-31T12:00:00.1234561Z"), prepared("2026-01-31T12:00:00.1234562Z")
    assert one.occurred_at == other.occurred_at
    assert one.fingerprint != other.fingerprint
