"""The rate of bytes that each tenant may append in this process.

Bytes cost the process, whatever becomes of the records: receiving, decoding, masking, hashing. So they are counted here, when a
request has arrived, and not on the head in the database, which counts records exactly across processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from decklog.domain.errors import Code, DecklogError
from decklog.domain.records.append import BYTES, Rate, rate_limited
from decklog.domain.tenant import Tenant
from decklog.services.records.queue import refused_by_byte_rate

BURST_SECONDS: Final = 16
"""Seconds of the rate that a tenant may append at once. The smallest rate, 64 KiB, leaves room for a record of any size."""
_TENANTS_MAX: Final = 1_024
"""Tenants from which full buckets are forgotten; a bucket is full again after `BURST_SECONDS`."""


class _Bucket:
    """The level of a bucket at a time, and the bytes of the last bulk that it refused, with the time when it may be sent again."""

    __slots__ = ("at", "level", "refused", "retry_at")

    def __init__(self, level: float, at: float) -> None:
        self.level = level
        self.at = at
        self.refused = 0
        self.retry_at = 0.0

    def level_at(self, now: float, tenant: Tenant) -> float:
        """Return the level with what was refilled since, by the tenant's present rate."""
        per_second = tenant.limits.bytes_per_second
        return min(per_second * BURST_SECONDS, self.level + (now - self.at) * per_second)


class ByteRates:
    """A bucket of bytes for each tenant that appended lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[int, _Bucket] = {}
        self._forget_at = _TENANTS_MAX

    def refuse_early(self, tenant: Tenant) -> None:
        """Raise `rate-limited` where a bulk was refused and its `Retry-After` has not passed.

        So a tenant that does not wait is refused before its body is received and decompressed. It takes nothing.
        """
        bucket = self._buckets.get(tenant.id)
        if bucket is not None and bucket.refused and self._clock() < bucket.retry_at:
            rate = self._rate(tenant, bucket, self._clock())
            refused_by_byte_rate.inc()
            raise rate_limited(tenant.name, rate, bucket.refused)

    def charge(self, tenant: Tenant, count: int, *, bulk: bool = False) -> None:
        """Take so many bytes. Raises `rate-limited`, and `batch-exceeds-burst` where waiting would not help."""
        now = self._clock()
        bucket = self._buckets.get(tenant.id)
        if bucket is None:
            bucket = self._buckets[tenant.id] = _Bucket(tenant.limits.bytes_per_second * BURST_SECONDS, now)
            if len(self._buckets) > self._forget_at:
                self._forget(now)
        per_second = tenant.limits.bytes_per_second
        # As `level_at`, without a call for each record.
        level = min(per_second * BURST_SECONDS, bucket.level + (now - bucket.at) * per_second)
        if count > level:
            raise self._refusal(tenant, bucket, count, now, bulk=bulk)
        bucket.level, bucket.at = level - count, now

    def _refusal(self, tenant: Tenant, bucket: _Bucket, count: int, now: float, *, bulk: bool) -> DecklogError:
        refused_by_byte_rate.inc()
        rate = self._rate(tenant, bucket, now)
        if count > rate.burst:
            return DecklogError(
                Code.BATCH_EXCEEDS_BURST,
                f"The request has {count} bytes of records, but the tenant {tenant.name!r} may append at most {rate.burst} at once. "
                "Send smaller batches, or raise spec.quotas.bytesPerSecond.",
            )
        if bulk:
            bucket.refused, bucket.retry_at = count, now + (count - rate.remaining) / rate.per_second
        return rate_limited(tenant.name, rate, count)

    def _rate(self, tenant: Tenant, bucket: _Bucket, now: float) -> Rate:
        per_second = tenant.limits.bytes_per_second
        return Rate(per_second, per_second * BURST_SECONDS, bucket.level_at(now, tenant), BYTES)

    def _forget(self, now: float) -> None:
        self._buckets = {tenant: bucket for tenant, bucket in self._buckets.items() if now - bucket.at < BURST_SECONDS}
        self._forget_at = max(_TENANTS_MAX, 2 * len(self._buckets))
