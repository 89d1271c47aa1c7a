"""The ids of a commit's trace: the same for whoever computes them, others for every other commit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from decklog.domain.log import LogName
from decklog.domain.records.trace import commit_ids
from tests.support.memory import make_tenant

ACME, OTHER = make_tenant("acme"), make_tenant("other")
places = st.tuples(
    st.sampled_from([ACME, OTHER]),
    st.sampled_from(list(LogName)),
    st.integers(1, 2**31 - 1),
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)


@given(places, places)
def test_two_commits_have_the_same_ids_only_where_tenant_log_epoch_and_receipt_time_are_the_same(one: tuple, two: tuple) -> None:  # type: ignore[type-arg]
    assert (commit_ids(*one) == commit_ids(*two)) is (one == two)
    trace, span = commit_ids(*one)
    assert 0 < trace < 2**128
    assert 0 < span < 2**64


def test_whoever_reads_a_record_gets_the_ids_that_its_commit_had() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    read = msgspec.structs.replace(ACME, display_name="Acme Inc.")
    assert commit_ids(ACME, LogName.EVENTS, 1, at) == commit_ids(read, LogName.EVENTS, 1, at)
    assert commit_ids(ACME, LogName.EVENTS, 1, at) != commit_ids(ACME, LogName.EVENTS, 1, at + timedelta(microseconds=1))
