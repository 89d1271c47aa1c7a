"""Metrics of requests: number, duration and status by route. Paths are no labels, so the number of series is bounded.

One thread answers all requests, so plain numbers are counted and turned into metrics only on a scrape: the locks of
prometheus_client's counters would cost the append route 3 % of its rate.
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
        """Count one request. `status` is 0 if the client disconnected before an answer."""
        key = (route, method, status)
        self._counts[key] = self._counts.get(key, 0) + 1
        times = self._times.get((route, method))
        if times is None:
            times = self._times[route, method] = _Times()
        times.buckets[bisect_left(_BOUNDS, seconds)] += 1
        times.total += seconds

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics at this moment."""
        counts = CounterMetricFamily(
            "decklog_http_requests",
            "HTTP requests by route, method and status; status 0: the client disconnected.",
            labels=("route", "method", "status"),
        )
        for (route, method, status), count in tuple(self._counts.items()):
            counts.add_metric((route, method, str(status)), count)
        yield counts
        seconds = HistogramMetricFamily(
            "decklog_http_request_seconds",
            "Duration of HTTP requests in seconds; a stream is counted when it ends.",
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
    """Count one request by its route."""
    method = scope["method"]
    observe(scope.get("path_template", "unmatched"), method if method in _METHODS else "other", status, seconds)
