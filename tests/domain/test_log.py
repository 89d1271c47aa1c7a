"""Positions order as records do and parse their own text; times are exact."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName, Position, from_microseconds, microseconds, rfc3339

EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(
    *(datetime(*day, tzinfo=UTC).replace(tzinfo=None) for day in ((1970, 1, 3), (9998, 1, 1))), timezones=offsets
)
positions = st.builds(Position, epoch=st.integers(0, 999_999_999), received_at=moments, seq=st.integers(0, 10**18 - 1))


@given(positions)
@settings(deadline=None)
def test_position_parses_its_own_text(position: Position) -> None:
    assert Position.parse(str(position)) == position


@given(positions, positions)
@settings(deadline=None)
def test_position_orders_by_epoch_then_receipt_time_then_seq(left: Position, right: Position) -> None:
    keys = [(p.epoch, p.received_at, p.seq) for p in (left, right)]
    assert (left < right) == (keys[0] < keys[1])


def test_position_may_precede_the_first_record() -> None:
    assert Position.parse("-1") == -1
    start = Position(0, from_microseconds(0), -1)
    assert Position.parse(str(start)) == start


@given(st.integers(0, 10**18 - 1))
@settings(deadline=None)
def test_position_parses_a_bare_number_as_seq(seq: int) -> None:
    assert Position.parse(str(seq)) == seq


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1.2",
        "1.2.3.4",
        "-2",
        "--1",
        "1.-2.3",
        "1.2.-2",
        " 1",
        "1\n",
        "1.2.3\n",
        "٣",
        "1.2.٣",
        "1e3",
        "9" * 19,
        "1.999999999999999999.1",
    ],
)
def test_position_rejects_other_texts(text: str) -> None:
    with pytest.raises(DecklogError) as error:
        Position.parse(text)
    assert error.value.code is Code.INVALID_PARAMETER


def test_position_error_cuts_long_texts() -> None:
    with pytest.raises(DecklogError) as error:
        Position.parse("x" * 100_000)
    assert len(error.value.detail) < 300


@given(moments)
@settings(deadline=None)
def test_microseconds_are_exact(moment: datetime) -> None:
    assert from_microseconds(microseconds(moment)) == moment


@given(moments)
@settings(deadline=None)
def test_rfc3339_writes_utc_with_six_digits(moment: datetime) -> None:
    text = rfc3339(moment)
    assert datetime.fromisoformat(text) == moment
    assert len(text) == len("2026-01-02T03:04:05.000006Z")
    assert text.endswith("Z")


@given(moments, moments)
@settings(deadline=None)
def test_rfc3339_texts_sort_as_times_do(left: datetime, right: datetime) -> None:
    assert (rfc3339(left) < rfc3339(right)) == (left < right)


def test_rfc3339_pads_early_years_to_four_digits() -> None:
    assert rfc3339(datetime(2, 1, 2, 3, 4, 5, 6, tzinfo=UTC)) == "0002-01-02T03:04:05.000006Z"


def test_log_name_is_lower_case() -> None:
    assert [log.text for log in LogName] == ["events", "access"]
    assert [LogName.parse(log.text) for log in LogName] == list(LogName)
    for text in ("", "EVENTS", "event", "0"):
        with pytest.raises(DecklogError) as error:
            LogName.parse(text)
        assert error.value.code is Code.INVALID_PARAMETER


def test_microseconds_count_from_1970() -> None:
    assert microseconds(EPOCH_START) == 0
    assert microseconds(datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1), "CET"))) == 0
    assert from_microseconds(1) == EPOCH_START + timedelta(microseconds=1)
