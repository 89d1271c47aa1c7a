"""How many requests, how fast, and how they ended: by route and never by path, so that the number of series is bounded."""

from __future__ import annotations

from litestar.types import HTTPScope
from prometheus_client import Counter, Histogram

_requests = Counter("decklog_http_requests_total", "Requests that were answered.", ["route", "method", "status"])
_seconds = Histogram(
    "decklog_http_request_seconds",
    "Seconds from the request's head to the answer's end; a stream counts when it ends.",
    ["route", "method"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10),
)
_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS"})
_count: dict[tuple[str, str, int], Counter] = {}
_time: dict[tuple[str, str], Histogram] = {}


def observe(scope: HTTPScope, status: int, seconds: float) -> None:
    """Count one request. `status` is 0 where the client was gone before an answer."""
    route = scope.get("path_template", "unmatched")
    method = scope["method"] if scope["method"] in _METHODS else "other"
    counter = _count.get((route, method, status))
    if counter is None:
        counter = _count[route, method, status] = _requests.labels(route, method, str(status))
        _time[route, method] = _seconds.labels(route, method)
    counter.inc()
    _time[route, method].observe(seconds)
