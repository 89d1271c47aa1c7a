"""What the operator does, in numbers for Prometheus; what it asks of backends is counted in `decklog.services`.

No label names a tenant: their number has no bound. A replica that stands by has no Tenants, so sums over all replicas
are true.
"""

from __future__ import annotations

import time
from collections import Counter as Count
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec
from prometheus_client import Counter, Gauge, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from decklog.domain.tenancy.quota import GIB
from decklog.domain.tenancy.status import QUOTA_EXCEEDED, READY
from decklog_operator import status as statuses
from decklog_operator.names import PAUSED

LEADER = Gauge("decklog_operator_leader", "1 while this replica works, 0 while it stands by.")
RECONCILES = Counter(
    "decklog_operator_reconciles_total",
    "Visits to a Tenant, by what they were for and how they went: done, or refused until somebody changes something, or to be "
    "repeated soon (again), or broken off by a fault of ours.",
    ["kind", "result"],
)
RECONCILE_SECONDS = Histogram(
    "decklog_operator_reconcile_seconds",
    "Seconds of a visit, with the waiting for others to end.",
    ["kind"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 600),
)
READY_SECONDS = Histogram(
    "decklog_operator_time_to_ready_seconds",
    "Seconds that a Tenant was not ready before it became so, from its creation on.",
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 300, 1_800, 7_200),
)
ROTATIONS_DUE = Gauge("decklog_operator_rotations_due", "Tenants whose keys should have been changed by now.")
WATCH_SILENCE = Gauge("decklog_operator_watch_silence_seconds", "Seconds since the watch of Tenants last showed a sign of life.")
REQUESTS = Counter(
    "decklog_operator_kubernetes_requests_total",
    "Requests to the Kubernetes API beside Kopf's own, by method and status; unreachable where there was no answer.",
    ["method", "status"],
)


class Visit:
    """One visit while it lasts. `result` is done where nothing is left to do, and refused where nothing can be done."""

    result = "again"


@contextmanager
def visiting(kind: str) -> Iterator[Visit]:
    """Counts and times what is done within; `kind` is visit or removal."""
    visit, started, result = Visit(), time.perf_counter(), "fault"
    try:
        yield visit
        result = visit.result
    finally:
        RECONCILE_SECONDS.labels(kind).observe(time.perf_counter() - started)
        RECONCILES.labels(kind, result).inc()


class _Known(msgspec.Struct):
    """What is remembered of a Tenant. `unready_since` is in seconds since 1970, None while it is ready."""

    generation: int
    ready: str
    paused: bool
    over_quota: bool
    quota_used: float
    unready_since: float | None


class Census(Collector):
    """The Tenants that the watch has shown, as they were last: how many there are, and how soon they became ready."""

    def __init__(self) -> None:
        self._tenants: dict[str, _Known] = {}

    def notice(self, body: Mapping[str, Any], *, gone: bool) -> None:
        """Hear of a change, in the order in which changes were made."""
        metadata = body["metadata"]
        uid = metadata["uid"]
        if gone:
            self._tenants.pop(uid, None)
            return
        told = {condition.type: condition for condition in statuses.conditions(body.get("status") or {})}
        condition, quota = told.get(READY), told.get(QUOTA_EXCEEDED)
        ready, known, now = condition.status if condition else "Unknown", self._tenants.get(uid), time.time()
        if known is None:
            since = condition.last_transition_time if condition else metadata["creationTimestamp"]
            known = _Known(0, ready, False, False, 0.0, None if ready == "True" else _seconds(since, now))
        elif ready == "True" and known.unready_since is not None:
            READY_SECONDS.observe(max(0.0, now - known.unready_since))
            known.unready_since = None
        elif ready != "True" and known.unready_since is None:
            known.unready_since = now
        known.generation, known.ready = metadata["generation"], ready
        known.paused = (metadata.get("annotations") or {}).get(PAUSED) == "true"
        known.over_quota = quota is not None and quota.status == "True"
        known.quota_used = _quota_used(body)
        self._tenants[uid] = known

    def generation(self, uid: str) -> int | None:
        """The generation that was last seen."""
        known = self._tenants.get(uid)
        return known.generation if known else None

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        tenants = tuple(self._tenants.values())  # a scrape runs on the thread of the probes
        by_ready = Count(known.ready for known in tenants)
        family = GaugeMetricFamily(
            "decklog_operator_tenants", "Tenants that this replica looks after, by their condition Ready.", labels=["ready"]
        )
        for ready in ("True", "False", "Unknown"):
            family.add_metric([ready], by_ready[ready])
        yield family
        paused = sum(known.paused for known in tenants)
        yield GaugeMetricFamily("decklog_operator_tenants_paused", f"Those of them with the annotation {PAUSED}.", value=paused)
        over = sum(known.over_quota for known in tenants)
        yield GaugeMetricFamily(
            "decklog_operator_tenants_over_quota", f"Those of them with the condition {QUOTA_EXCEEDED}.", value=over
        )
        yield GaugeMetricFamily(
            "decklog_operator_storage_quota_used_ratio",
            "The largest part of its spec.quotas.storageGiB that any of them uses.",
            value=max((known.quota_used for known in self._tenants.values()), default=0.0),
        )


def _quota_used(body: Mapping[str, Any]) -> float:
    """Which part of its storage quota a Tenant uses, as its status tells; 0 where it has none."""
    wanted = (body.get("spec") or {}).get("quotas") or {}
    used = (body.get("status") or {}).get("usage") or {}
    return float(used.get("storageBytes", 0)) / (wanted["storageGiB"] * GIB) if wanted.get("storageGiB") else 0.0


def _seconds(timestamp: str, otherwise: float) -> float:
    try:
        return datetime.fromisoformat(timestamp).timestamp()
    except ValueError:
        return otherwise
