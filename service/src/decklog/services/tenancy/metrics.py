"""What the control plane does, in numbers for Prometheus. No label names a tenant: their number has no bound."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge, Histogram

from decklog.domain.tenancy.status import Part
from decklog.domain.tenancy.trouble import Trouble

CALL_SECONDS = Histogram(
    "decklog_provisioning_call_seconds",
    "Seconds of a call to a backend, also of one that failed.",
    ["backend", "operation"],
    buckets=(0.005, 0.02, 0.1, 0.5, 1, 5, 15, 30, 120),
)
CALL_ERRORS = Counter(
    "decklog_provisioning_call_errors_total",
    "Calls to a backend that failed, by the reason that the tenant's condition tells.",
    ["backend", "operation", "reason"],
)
WAITING = Gauge("decklog_provisioning_visits_waiting", "Tenants whose visit is due and waits for others to end.")
REPAIRS = Counter(
    "decklog_provisioning_drift_repairs_total",
    "Actions that put right what was in order before and was changed behind our back.",
    ["part"],
)

DRIFT = Counter(
    "decklog_provisioning_drift_found_total",
    "Things found changed behind our back, by the first word of the name that the status tells; what driftPolicy Report leaves counts once.",
    ["part", "thing"],
)


def backend(part: Part) -> str:
    """The label of a part of a tenant: database, search, queue or credentials."""
    return part.name.lower()


class Call:
    """One call to a backend, while it lasts. `trouble` is set where it fails."""

    trouble: Trouble | None = None


@contextmanager
def calling(part: Part, operation: str) -> Iterator[Call]:
    """Counts and times what is done within."""
    call, started = Call(), time.perf_counter()
    try:
        yield call
    finally:
        CALL_SECONDS.labels(backend(part), operation).observe(time.perf_counter() - started)
        if call.trouble is not None:
            CALL_ERRORS.labels(backend(part), operation, call.trouble.reason).inc()
