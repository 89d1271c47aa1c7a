"""Metrics of provisioning. No label names a tenant, because the number of tenants has no bound."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge, Histogram

from decklog.domain.tenancy.status import Part
from decklog.domain.tenancy.trouble import Trouble

CALL_SECONDS = Histogram(
    "decklog_provisioning_call_seconds",
    "Duration of calls to a backend, including failed ones.",
    ["backend", "operation"],
    buckets=(0.005, 0.02, 0.1, 0.5, 1, 5, 15, 30, 120),
)
CALL_ERRORS = Counter(
    "decklog_provisioning_call_errors_total",
    "Failed calls to a backend, by the reason in the tenant's condition.",
    ["backend", "operation", "reason"],
)
WAITING = Gauge("decklog_provisioning_visits_waiting", "Tenants whose visit waits for other visits to end.")
REPAIRS = Counter(
    "decklog_provisioning_drift_repairs_total",
    "Actions that corrected drift.",
    ["part"],
)

DRIFT = Counter(
    "decklog_provisioning_drift_found_total",
    "Drift found, by the first word of its name in the status. Drift that driftPolicy Report leaves alone counts once.",
    ["part", "thing"],
)


def backend(part: Part) -> str:
    """Return the label of a part: database, search, queue or credentials."""
    return part.name.lower()


class Call:
    """One call to a backend. `trouble` is set when it fails."""

    trouble: Trouble | None = None


@contextmanager
def calling(part: Part, operation: str) -> Iterator[Call]:
    """Count and time the call that is made within."""
    call, started = Call(), time.perf_counter()
    try:
        yield call
    finally:
        CALL_SECONDS.labels(backend(part), operation).observe(time.perf_counter() - started)
        if call.trouble is not None:
            CALL_ERRORS.labels(backend(part), operation, call.trouble.reason).inc()
