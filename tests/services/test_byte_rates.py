"""Bytes per second of a tenant in one process: charged with records of any number, refilled with time, refused with its own words."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.records.append import BYTES, Rate
from decklog.domain.tenant import Limits, default_bytes_per_second
from decklog.services.records.rates import BURST_SECONDS, ByteRates
from tests.support.memory import make_tenant

SLOW = make_tenant("slow", limits=Limits(bytes_per_second=1_000))
OTHER = make_tenant("other", limits=Limits(bytes_per_second=1_000))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def refusal(call: Callable[[], None]) -> DecklogError:
    with pytest.raises(DecklogError) as caught:
        call()
    return caught.value


def test_bytes_run_out_for_one_tenant_and_come_back_with_time() -> None:
    clock = Clock()
    rates = ByteRates(clock)
    for _ in range(BURST_SECONDS):
        rates.charge(SLOW, 1_000)
    error = refusal(lambda: rates.charge(SLOW, 500))
    assert (error.code, error.retry_after) == (Code.RATE_LIMITED, 0.5)
    assert "1000 bytes per second" in error.detail
    rate = error.extra["rate"]
    assert isinstance(rate, Rate)
    assert (rate.of, rate.burst, rate.remaining) == (BYTES, 16_000, 0)
    rates.charge(OTHER, 16_000)
    clock.now = 0.5
    rates.charge(SLOW, 500)
    clock.now = 1_000
    rates.charge(SLOW, 16_000)
    assert refusal(lambda: rates.charge(SLOW, 1)).code is Code.RATE_LIMITED


def test_request_that_no_bucket_can_hold_is_refused_for_good() -> None:
    error = refusal(lambda: ByteRates(Clock()).charge(SLOW, 16_001))
    assert (error.code, error.retry_after) == (Code.BATCH_EXCEEDS_BURST, None)
    assert "spec.quotas.bytesPerSecond" in error.detail


def test_refused_bulk_is_refused_early_until_it_may_be_sent_again_and_single_records_go_on() -> None:
    clock = Clock()
    rates = ByteRates(clock)
    rates.charge(SLOW, 10_000)
    rates.refuse_early(SLOW)
    assert refusal(lambda: rates.charge(SLOW, 8_000, bulk=True)).retry_after == 2
    assert refusal(lambda: rates.refuse_early(SLOW)).retry_after == 2
    rates.charge(SLOW, 10)
    rates.refuse_early(OTHER)
    clock.now = 2.1
    rates.refuse_early(SLOW)
    rates.charge(SLOW, 8_000, bulk=True)


def test_full_buckets_are_forgotten() -> None:
    clock = Clock()
    rates = ByteRates(clock)
    for number in range(10_000):
        clock.now += 0.1
        rates.charge(make_tenant(f"t{number}"), 1)
    assert len(rates._buckets) < 2_000


@pytest.mark.parametrize(("events", "expected"), [(5, 1_048_576), (1_000, 4_096_000), (1_000_000, 4_096_000_000)])
def test_default_follows_the_rate_of_records(events: int, expected: int) -> None:
    assert default_bytes_per_second(events) == expected
