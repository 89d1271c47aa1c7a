"""A tenant's rate limit as header fields of the IETF's RateLimit draft (draft-ietf-httpapi-ratelimit-headers)."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from decklog.domain.records.append import Rate

RATE_HEADERS: dict[str, Any] = {
    "RateLimit": {"description": "Remaining records, and seconds until the limit is full again.", "schema": {"type": "string"}},
    "RateLimit-Policy": {"description": "Burst of the tenant, and seconds to refill it.", "schema": {"type": "string"}},
}
"""OpenAPI description of the headers that `rate_headers` returns."""


def rate_headers(rate: Rate) -> list[tuple[bytes, bytes]]:
    """Return `RateLimit-Policy` (burst, and seconds to refill an empty bucket) and `RateLimit` (remaining, and seconds until full)."""
    left = max(0, math.floor(rate.remaining))
    return [
        _policy(rate.of, rate.burst, rate.per_second),
        (b"ratelimit", b'"%b";r=%d;t=%d' % (rate.of.encode(), left, math.ceil((rate.burst - left) / rate.per_second))),
    ]


@lru_cache(1_024)
def _policy(of: str, burst: int, per_second: float) -> tuple[bytes, bytes]:
    return b"ratelimit-policy", b'"%b";q=%d;w=%d' % (of.encode(), burst, math.ceil(burst / per_second))
