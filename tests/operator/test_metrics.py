"""The operator's metrics: of Tenants that the watch has shown, and of a running operator."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry

from decklog.domain.log import rfc3339_seconds
from decklog_operator.metrics import Census, visiting
from tests.support.operators import Kubernetes, Operator, until
from tests.support.provisioning import FolderProvisioner

pytestmark = pytest.mark.xdist_group("kubernetes")


@pytest.fixture
def census() -> Census:
    return Census()


def body(uid: str, ready: str | None = None, *, since: float = 0.0, created: float = 0.0, **metadata: Any) -> dict[str, Any]:
    """Return a Tenant by the age of its creation and of its last condition change, in seconds."""
    now = datetime.now(UTC)
    condition = {
        "type": "Ready",
        "status": ready,
        "reason": "x",
        "message": "x",
        "observedGeneration": 1,
        "lastTransitionTime": rfc3339_seconds(now - timedelta(seconds=since)),
    }
    created_at = rfc3339_seconds(now - timedelta(seconds=created))
    return {
        "metadata": {"uid": uid, "generation": 3, "creationTimestamp": created_at, **metadata},
        "status": {"conditions": [condition] if ready else []},
    }


def value(census: Census, name: str, **labels: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(census)
    return registry.get_sample_value(f"decklog_operator_{name}", labels)


def ready_seconds() -> tuple[float, int]:
    """Return how many Tenants became ready, and their total time in tens of seconds."""
    name = "decklog_operator_time_to_ready_seconds"
    return REGISTRY.get_sample_value(f"{name}_count") or 0, round((REGISTRY.get_sample_value(f"{name}_sum") or 0) / 10)


def test_census_counts_tenants_by_their_last_seen_readiness(census: Census) -> None:
    for uid, ready in (("a", None), ("b", "True"), ("c", "True"), ("d", "False"), ("c", "False")):
        census.notice(body(uid, ready), gone=False)
    assert [value(census, "tenants", ready=ready) for ready in ("True", "False", "Unknown")] == [1, 2, 1]
    census.notice(body("d", "False"), gone=True)
    assert value(census, "tenants", ready="False") == 1
    assert (census.generation("a"), census.generation("d")) == (3, None)


def test_census_counts_only_tenants_known_to_be_over_quota(census: Census) -> None:
    for uid, status in (("a", "True"), ("b", "False"), ("c", "True"), ("d", "Unknown"), ("c", "False")):
        seen = body(uid, "True")
        quota = {**seen["status"]["conditions"][0], "type": "QuotaExceeded", "status": status}
        census.notice({**seen, "status": {"conditions": [*seen["status"]["conditions"], quota]}}, gone=False)
    assert value(census, "tenants_over_quota") == 1


def test_census_reports_the_largest_share_of_a_storage_quota(census: Census) -> None:
    assert value(census, "storage_quota_used_ratio") == 0
    for uid, gib, used in (("a", 2, 2**30), ("b", 0.5, 2**27), ("c", 0, 2**40), ("d", None, 2**40), ("e", 1, None)):
        seen = body(uid, "True")
        quotas = {} if gib is None else {"storageGiB": gib}
        usage = {} if used is None else {"usage": {"storageBytes": used}}
        census.notice({**seen, "spec": {"quotas": quotas}, "status": {**seen["status"], **usage}}, gone=False)
    assert value(census, "storage_quota_used_ratio") == 0.5
    census.notice(body("a"), gone=True)
    assert value(census, "storage_quota_used_ratio") == 0.25


def test_census_counts_paused_tenants_by_annotation(census: Census) -> None:
    for uid, paused in (("a", "true"), ("b", "false"), ("c", "true")):
        census.notice(body(uid, annotations={"decklog.dev/paused": paused}), gone=False)
    census.notice(body("c"), gone=False)
    assert value(census, "tenants_paused") == 1


def test_time_to_ready_starts_at_creation_and_at_each_loss_of_readiness(census: Census) -> None:
    count, total = ready_seconds()
    census.notice(body("a", None, created=100), gone=False)
    census.notice(body("a", "False", since=40, created=100), gone=False)
    census.notice(body("a", "True", created=100), gone=False)
    assert ready_seconds() == (count + 1, total + 10)
    census.notice(body("a", "True", created=100), gone=False)
    census.notice(body("a", "False", created=100), gone=False)
    census.notice(body("a", "True", created=100), gone=False)
    assert ready_seconds() == (count + 2, total + 10)


def test_time_to_ready_continues_from_the_status_after_a_restart(census: Census) -> None:
    count, total = ready_seconds()
    census.notice(body("ready", "True", since=500, created=1_000), gone=False)
    census.notice(body("waiting", "False", since=50, created=1_000), gone=False)
    census.notice(body("waiting", "True", created=1_000), gone=False)
    assert ready_seconds() == (count + 1, total + 5)


def test_visits_are_counted_by_result() -> None:
    def counted(result: str) -> float:
        labels = {"kind": "visit", "result": result}
        return REGISTRY.get_sample_value("decklog_operator_reconciles_total", labels) or 0

    before = [counted(result) for result in ("done", "again", "fault")]
    with visiting("visit") as visit:
        visit.result = "done"
    with visiting("visit"):
        pass
    with pytest.raises(ZeroDivisionError), visiting("visit"):
        raise ZeroDivisionError
    assert [counted(result) for result in ("done", "again", "fault")] == [each + 1 for each in before]


def test_operator_metrics_cover_its_work_and_name_no_tenant(
    kubernetes: Kubernetes, operator: Operator, backends: FolderProvisioner
) -> None:
    good, bad = kubernetes.name(), kubernetes.name()
    (backends.folder / f"{bad}.fault").write_text("SearchReady")
    kubernetes.apply(kubernetes.tenant(good), kubernetes.tenant(bad))
    kubernetes.wait_ready(good)
    until("both are counted", lambda: operator.metric("decklog_operator_tenants", ready="False") == 1)
    assert operator.metric("decklog_operator_tenants", ready="True") == 1
    assert operator.metric("decklog_operator_leader") == 1
    assert operator.metric("decklog_operator_time_to_ready_seconds_count") == 1
    assert operator.metric("decklog_operator_rotations_due") == 0
    until("visits are counted", lambda: operator.metric("decklog_operator_reconciles_total", kind="visit", result="again"))
    assert operator.metric("decklog_operator_reconciles_total", kind="visit", result="done")
    assert operator.metric("decklog_operator_reconcile_seconds_count", kind="visit")
    assert operator.metric("decklog_operator_kubernetes_requests_total", method="PATCH", status="200")
    kubernetes.patch(bad, {"metadata": {"annotations": {"decklog.dev/paused": "true"}}})
    until("it is counted as paused", lambda: operator.metric("decklog_operator_tenants_paused") == 1)
    kubernetes("delete", "tenant", good, "--timeout=60s")
    assert operator.metric("decklog_operator_reconciles_total", kind="removal", result="done") == 1
    until("it is counted no more", lambda: operator.metric("decklog_operator_tenants", ready="True") == 0)
    told = operator.ask("/metrics")[1]
    assert good not in told
    assert bad not in told
