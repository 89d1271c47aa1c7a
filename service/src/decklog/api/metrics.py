"""How many requests, how fast, and how they ended: by route and never by path, so that the number of series is bounded.

Counted in plain numbers, since one thread answers all requests, and turned into metrics only when somebody looks:
prometheus_client's own counters lock, and would cost the append route 3 % of its rate.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from litestar.types import HTTPScope
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_BOUNDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0)
"""Upper bounds of the histogram's buckets, in seconds."""
_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS"})


class _Times:
    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets = [0] * (len(_BOUNDS) + 1)
        self.total = 0.0


class RequestMetrics(Collector):
    """The requests of one process."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, int], int] = {}
        self._times: dict[tuple[str, str], _Times] = {}

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request. `status` is 0 where the client was gone before an answer."""
        key = (route, method, status)
        self._counts[key] = self._counts.get(key, 0) + 1
        times = self._times.get((route, method))
        if times is None:
            times = self._times[route, method] = _Times()
        times.buckets[bisect_left(_BOUNDS, seconds)] += 1
        times.total += seconds

    def collect(self) -> Iterator[Metric]:
        counts = CounterMetricFamily(
            "decklog_http_requests", "Requests that were answered.", labels=("route", "method", "status")
        )
        for (route, method, status), count in tuple(self._counts.items()):
            counts.add_metric((route, method, str(status)), count)
        yield counts
        seconds = HistogramMetricFamily(
            "decklog_http_request_seconds",
            "Seconds from the request's head to the answer's end; a stream counts when it ends.",
            labels=("route", "method"),
        )
        for labels, times in tuple(self._times.items()):
            buckets: list[tuple[str, float]] = []
            running = 0
            for bound, count in zip((*map(str, _BOUNDS), "+Inf"), times.buckets, strict=True):
                running += count
                buckets.append((bound, running))
            seconds.add_metric(labels, buckets, times.total)
        yield seconds


_metrics = RequestMetrics()
REGISTRY.register(_metrics)
observe = _metrics.observe


def observe_scope(scope: HTTPScope, status: int, seconds: float) -> None:
    """Count one request by the route that it took."""
    method = scope["method"]
    observe(scope.get("path_template", "unmatched"), method if method in _METHODS else "other", status, seconds)
