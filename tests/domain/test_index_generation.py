"""Names and ranges of a generation: every receipt time has one range, and the number of ranges has a bound."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decklog.domain.index_generation import (
    AHEAD,
    RANGES_MAX,
    IndexGeneration,
    first_starts,
    next_name,
    next_start,
    parse_name,
    parse_range_index,
    range_days,
)
from decklog.domain.tenancy.parts.database import partition_days

DAY = timedelta(days=1)
days = st.dates(date(2020, 1, 1), date(2040, 1, 1))
kept = st.integers(1, 3_650)


@given(st.lists(days, min_size=1, unique=True), st.datetimes(datetime(2019, 1, 1), datetime(2041, 1, 1)))  # noqa: DTZ001
def test_record_belongs_to_the_last_range_that_begins_at_or_before_its_receipt(starts: list[date], moment: datetime) -> None:
    generation = IndexGeneration("decklog-t-acme", "v3-1", tuple(sorted(starts)))
    begun = [start for start in starts if start <= moment.date()]
    assert generation.range_of(moment.replace(tzinfo=UTC)) == (max(begun) if begun else None)


@given(days)
def test_name_of_a_range_tells_generation_and_start(start: date) -> None:
    generation = IndexGeneration("decklog-t-acme", "v3-12", (start,))
    [name] = generation.range_indices
    assert parse_range_index("decklog-t-acme", name) == ("v3-12", start)
    assert name.startswith(f"{generation.alias}.")
    assert generation.version == 3


@pytest.mark.parametrize(
    "name",
    [
        "decklog-t-acme",
        "decklog-t-acme.write",
        "decklog-t-acme.v3-1",
        "decklog-t-acme.v3-1.20261301",
        "decklog-t-acme.v3-1.20260101.write",
        "decklog-t-acme-2.v3-1.20260101",
        "decklog-t-acme.v-1.20260101",
    ],
)
def test_other_names_are_no_ranges(name: str) -> None:
    assert parse_range_index("decklog-t-acme", name) is None


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 50))))
def test_next_name_is_newer_than_every_generation_of_its_version(known: list[tuple[int, int]]) -> None:
    name = next_name(3, [f"v{version}-{build}" for version, build in known])
    assert all(parse_name(name) > each for each in known if each[0] == 3)


@given(kept)
def test_ranges_are_whole_partitions_and_their_number_has_a_bound(kept_days: int) -> None:
    partition = partition_days(kept_days)
    length = range_days(partition, kept_days)
    assert length % partition == 0
    assert RANGES_MAX * length >= kept_days
    assert length == partition or RANGES_MAX * (length - partition) < kept_days


@given(days, st.integers(0, 4_000), kept)
def test_first_ranges_cover_all_records_to_the_days_ahead(today: date, age: int, kept_days: int) -> None:
    first, partition = today - timedelta(days=age), partition_days(kept_days)
    starts = first_starts(first, today, partition, kept_days)
    assert starts == tuple(sorted(set(starts)))
    assert starts[0] <= first
    assert today + AHEAD - timedelta(days=range_days(partition, kept_days)) < starts[-1] <= today + AHEAD
    assert len(starts) <= RANGES_MAX + 2 + AHEAD.days
    assert next_start(starts[-1], today, partition, kept_days) is None
    # Every range but the first begins with a partition.
    assert all((start - date(1970, 1, 1)) % timedelta(days=partition) == timedelta() for start in starts[1:])


@given(days, kept, st.integers(0, 4_000))
def test_next_range_begins_when_every_worker_knows_it_and_never_too_late(today: date, kept_days: int, late: int) -> None:
    partition = partition_days(kept_days)
    last = today - timedelta(days=late)
    start = next_start(last, today, partition, kept_days)
    if start is not None:
        assert start > today + DAY
        assert start <= today + AHEAD
        assert start >= last + timedelta(days=range_days(partition, kept_days))
    else:
        assert last + timedelta(days=range_days(partition, kept_days)) > today + AHEAD


def test_receipt_times_count_in_utc() -> None:
    generation = IndexGeneration("i", "v1-1", (date(2026, 1, 1), date(2026, 1, 2)))
    west = datetime.combine(date(2026, 1, 1), time(23), tzinfo=timezone(timedelta(hours=-5)))
    assert generation.range_of(west) == date(2026, 1, 2)
