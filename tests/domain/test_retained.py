"""Ranges of a log by retention: they cover every number once, and their states follow the time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from decklog.domain.records.retained import RANGES_MAX, Partition, RangeState, retained

DAY = timedelta(days=1)
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
TODAY = datetime(2026, 6, 15, tzinfo=UTC)


@st.composite
def logs(draw: st.DrawFn) -> list[Partition]:
    """Return the partitions of a log in order; some days have no record."""
    seq, made = draw(st.integers(0, 50)), []
    count = draw(st.integers(0, 3 * RANGES_MAX)) if draw(st.booleans()) else draw(st.integers(0, 10))
    for ago in sorted(range(count), reverse=True):
        records = (ago * 7 + seq) % 4
        if records:
            since = TODAY - ago * DAY
            made.append(Partition(since, since + DAY, seq, seq + records, 10 if draw(st.booleans()) else None))
            seq += records
    return made


@given(partitions=logs(), days=st.integers(1, 60))
def test_ranges_cover_every_number_once_in_order_and_are_bounded(partitions: list[Partition], days: int) -> None:
    ranges = retained(partitions, days, NOW)
    assert len(ranges) <= RANGES_MAX + 1
    end = 0
    for each in ranges:
        assert each.first_seq == end
        assert each.end_seq > each.first_seq
        end = each.end_seq
    assert end == (partitions[-1].end_seq if partitions else 0)
    order = [RangeState.HIDDEN, RangeState.CLOSED, RangeState.OPEN]
    states = [order.index(each.state) for each in ranges]
    assert states == sorted(states)
    for each in ranges:
        assert each.hidden_after == each.until + days * DAY
        assert (each.state is RangeState.HIDDEN) == (each.hidden_after <= NOW)


def test_range_is_open_then_closed_then_hidden() -> None:
    part = Partition(TODAY, TODAY + DAY, 5, 8, 100)
    ends = TODAY + 31 * DAY
    for now, state in (
        (NOW, RangeState.OPEN),
        (TODAY + DAY, RangeState.CLOSED),
        (ends - timedelta(microseconds=1), RangeState.CLOSED),
        (ends, RangeState.HIDDEN),
    ):
        before, found = retained([part], 30, now)
        assert (found.state, found.hidden_after, found.bytes) == (state, ends, 100)
        assert (before.since, before.end_seq, before.state) == (None, 5, RangeState.HIDDEN)


def test_records_before_the_first_partition_are_one_range_of_unknown_beginning() -> None:
    for since, until in ((TODAY - 3 * DAY, TODAY - 3 * DAY), (TODAY, NOW - 2 * DAY)):
        [before, _] = retained([Partition(since, since + DAY, 5, 8)], 2, NOW)
        assert (before.since, before.until, before.hidden_after) == (None, until, until + 2 * DAY)
        assert (before.first_seq, before.end_seq) == (0, 5)


def test_empty_log_has_no_range() -> None:
    assert retained([], 30, NOW) == []


def test_sizes_of_joined_partitions_are_added_where_all_are_known() -> None:
    parts = [Partition(TODAY - n * DAY, TODAY - n * DAY + DAY, 1000 - n, 1001 - n, 10) for n in range(500, -1, -1)]
    assert {each.bytes for each in retained(parts, 600, NOW)[1:-1]} == {20}
