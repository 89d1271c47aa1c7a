"""A tenant's rate limit as headers, in the fields of the IETF's RateLimit draft (draft-ietf-httpapi-ratelimit-headers)."""

from __future__ import annotations

import math
from functools import lru_cache

from decklog.domain.records.append import Rate


def rate_headers(rate: Rate) -> list[tuple[bytes, bytes]]:
    """`RateLimit-Policy` (burst, and seconds in which an empty bucket fills) and `RateLimit` (what is left, and seconds until it is full)."""
    left = max(0, math.floor(rate.remaining))
    return [
        _policy(rate.of, rate.burst, rate.per_second),
        (b"ratelimit", b'"%b";r=%d;t=%d' % (rate.of.encode(), left, math.ceil((rate.burst - left) / rate.per_second))),
    ]


@lru_cache(1_024)
def _policy(of: str, burst: int, per_second: float) -> tuple[bytes, bytes]:
    return b"ratelimit-policy", b'"%b";q=%d;w=%d' % (of.encode(), burst, math.ceil(burst / per_second))
