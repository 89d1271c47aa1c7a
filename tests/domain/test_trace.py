"""Trace ids of a commit: derived from its records, and different for every other commit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from decklog.domain.log import LogName, from_microseconds
from decklog.domain.records.trace import commit_ids
from tests.support.memory import make_tenant

ACME, OTHER = make_tenant("acme"), make_tenant("other")
places = st.tuples(
    st.sampled_from([ACME, OTHER]),
    st.sampled_from(list(LogName)),
    st.integers(1, 2**31 - 1),
    st.integers(0, 2**52).map(from_microseconds),
)


@given(places, places)
def test_commit_ids_differ_by_tenant_log_epoch_and_receipt_time(one: tuple, two: tuple) -> None:  # type: ignore[type-arg]
    assert (commit_ids(*one) == commit_ids(*two)) is (one == two)
    trace, span = commit_ids(*one)
    assert 0 < trace < 2**128
    assert 0 < span < 2**64


def test_commit_ids_are_derived_from_a_stored_record() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    read = msgspec.structs.replace(ACME, display_name="Acme Inc.")
    assert commit_ids(ACME, LogName.EVENTS, 1, at) == commit_ids(read, LogName.EVENTS, 1, at)
    assert commit_ids(ACME, LogName.EVENTS, 1, at) != commit_ids(ACME, LogName.EVENTS, 1, at + timedelta(microseconds=1))
