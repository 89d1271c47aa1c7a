"""Prometheus metrics of the operator. `decklog.services` counts its calls of backends.

No label names a tenant, because the number of tenants is unbounded. A standby replica reports no Tenants, so sums over all
replicas are correct.
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

LEADER = Gauge("decklog_operator_leader", "1 on the leading replica, 0 on standby replicas.")
RECONCILES = Counter(
    "decklog_operator_reconciles_total",
    "Visits of Tenants, by kind (visit, removal) and result: done, refused (needs a change by a user), again (retried soon) or "
    "fault (a bug of the operator).",
    ["kind", "result"],
)
RECONCILE_SECONDS = Histogram(
    "decklog_operator_reconcile_seconds",
    "Duration of a visit in seconds, including waiting for backends that are shared.",
    ["kind"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 600),
)
READY_SECONDS = Histogram(
    "decklog_operator_time_to_ready_seconds",
    "Seconds from the creation of a Tenant, or from a loss of readiness, until it is ready.",
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 300, 1_800, 7_200),
)
ROTATIONS_DUE = Gauge("decklog_operator_rotations_due", "Tenants whose key rotation is overdue.")
WATCH_SILENCE = Gauge("decklog_operator_watch_silence_seconds", "Seconds since the last data from the watch of Tenants.")
REQUESTS = Counter(
    "decklog_operator_kubernetes_requests_total",
    "Requests to the Kubernetes API without those of Kopf, by method and HTTP status (unreachable: no response).",
    ["method", "status"],
)


class Visit:
    """A running visit. Set `result` to done when nothing is left to do, and to refused when a user must act."""

    result = "again"


@contextmanager
def visiting(kind: str) -> Iterator[Visit]:
    """Count and time the block; `kind` is visit or removal."""
    visit, started, result = Visit(), time.perf_counter(), "fault"
    try:
        yield visit
        result = visit.result
    finally:
        RECONCILE_SECONDS.labels(kind).observe(time.perf_counter() - started)
        RECONCILES.labels(kind, result).inc()


class _Known(msgspec.Struct):
    """Last seen state of a Tenant. `unready_since` is in seconds since 1970; None while the Tenant is ready."""

    generation: int
    ready: str
    paused: bool
    over_quota: bool
    quota_used: float
    unready_since: float | None


class Census(Collector):
    """Count the Tenants that the watch has shown by their last state, and measure how soon they become ready."""

    def __init__(self) -> None:
        self._tenants: dict[str, _Known] = {}

    def notice(self, body: Mapping[str, Any], *, gone: bool) -> None:
        """Note a change. Call in the order of changes."""
        metadata = body["metadata"]
        uid = metadata["uid"]
        if gone:
            self._tenants.pop(uid, None)
            return
        found = {condition.type: condition for condition in statuses.conditions(body.get("status") or {})}
        condition, quota = found.get(READY), found.get(QUOTA_EXCEEDED)
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
        """Return the generation seen last; None for an unknown UID."""
        known = self._tenants.get(uid)
        return known.generation if known else None

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not collect."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield the gauges of the Tenants as they are now."""
        tenants = tuple(self._tenants.values())  # a scrape runs on the thread of the probes
        by_ready = Count(known.ready for known in tenants)
        family = GaugeMetricFamily(
            "decklog_operator_tenants", "Tenants of this replica, by the condition Ready.", labels=["ready"]
        )
        for ready in ("True", "False", "Unknown"):
            family.add_metric([ready], by_ready[ready])
        yield family
        paused = sum(known.paused for known in tenants)
        yield GaugeMetricFamily("decklog_operator_tenants_paused", f"Tenants with the annotation {PAUSED}.", value=paused)
        over = sum(known.over_quota for known in tenants)
        yield GaugeMetricFamily(
            "decklog_operator_tenants_over_quota", f"Tenants with the condition {QUOTA_EXCEEDED}.", value=over
        )
        yield GaugeMetricFamily(
            "decklog_operator_storage_quota_used_ratio",
            "Largest share of spec.quotas.storageGiB that the records of both logs of a Tenant take.",
            value=max((known.quota_used for known in self._tenants.values()), default=0.0),
        )


def _quota_used(body: Mapping[str, Any]) -> float:
    """Return the share of its storage quota that a Tenant uses, by its status; 0 without a quota."""
    wanted = (body.get("spec") or {}).get("quotas") or {}
    used = (body.get("status") or {}).get("usage") or {}
    return float(used.get("storageBytes", 0)) / (wanted["storageGiB"] * GIB) if wanted.get("storageGiB") else 0.0


def _seconds(timestamp: str, otherwise: float) -> float:
    try:
        return datetime.fromisoformat(timestamp).timestamp()
    except ValueError:
        return otherwise
