"""Tenants under protection or legal hold: the API server refuses their deletion, and without the policy the operator does."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
import yaml

from decklog_operator.manifests import protection
from tests.operator.test_tenant import events_of, passes
from tests.support.operators import Json, Kubernetes, turn, until
from tests.support.provisioning import FolderProvisioner

pytestmark = pytest.mark.xdist_group("kubernetes")

HOLDS = [
    ({}, "spec.deletionProtection to false", "DeletionProtected"),
    ({"deletionProtection": False, "legalHold": True}, "under a legal hold", "LegalHold"),
]
FREE = {"spec": {"deletionProtection": False, "legalHold": False}}


@pytest.fixture
def the_policy(kubernetes: Kubernetes) -> Iterator[None]:
    """The installed policy; no other test removes it meanwhile."""
    with turn(kubernetes.server, "policy"):
        yield


@pytest.fixture
def unguarded(kubernetes: Kubernetes, the_policy: None) -> Iterator[None]:
    """A cluster without the policy, as after its removal."""
    objects = yaml.safe_dump_all(protection())
    kubernetes("delete", "-f", "-", stdin=objects)
    yield
    kubernetes("apply", "--server-side", "-f", "-", stdin=objects)


def deleted(kubernetes: Kubernetes, name: str, *flags: str) -> bool:
    """Return whether the API server accepted the deletion. It applies a policy, and its removal, with a delay."""
    try:
        kubernetes("delete", "tenant", name, *flags)
    except subprocess.CalledProcessError:
        return False
    return True


def tenant(kubernetes: Kubernetes, name: str, hold: Json) -> Json:
    """Create a Tenant with this hold and the defaults of the definition."""
    return {**kubernetes.tenant(name), "spec": {"retention": {"days": 30}, **hold}}


@pytest.mark.usefixtures("the_policy")
@pytest.mark.parametrize(("hold", "complaint"), [(hold, complaint) for hold, complaint, _ in HOLDS])
def test_admission_policy_refuses_to_delete_a_held_tenant_with_advice(kubernetes: Kubernetes, hold: Json, complaint: str) -> None:
    name = kubernetes.name()
    kubernetes.apply(tenant(kubernetes, name, hold))
    until("the API server acts by the policy", lambda: not deleted(kubernetes, name, "--dry-run=server"))
    told = kubernetes.refusal("delete", "tenant", name)
    assert f"Tenant {name} is" in told
    assert complaint in told
    assert "deletionTimestamp" not in (kubernetes.get("tenant", name) or {})["metadata"]
    kubernetes.patch(name, FREE)
    kubernetes("delete", "tenant", name, "--timeout=60s")


@pytest.mark.usefixtures("unguarded", "operator")
@pytest.mark.parametrize(("hold", "reason"), [(hold, reason) for hold, _, reason in HOLDS])
def test_operator_keeps_a_held_tenant_without_the_admission_policy(
    kubernetes: Kubernetes, backends: FolderProvisioner, hold: Json, reason: str
) -> None:
    name = kubernetes.name()
    kubernetes.apply(tenant(kubernetes, name, hold))
    kubernetes.wait_ready(name)
    before, keys = backends.row(name), (kubernetes.secret(name) or {})["data"]
    until("the API server has forgotten the policy", lambda: deleted(kubernetes, name, "--wait=false"))
    until("it is told", lambda: kubernetes.condition(name, "Synced").get("reason") == reason)
    assert kubernetes.condition(name)["status"] == "True"
    until("an Event tells it, too", lambda: ("Warning", reason) in events_of(kubernetes, name))
    seen = passes(backends, name)
    until("it is looked after as before", lambda: passes(backends, name) > seen + 1)
    after = backends.row(name)
    assert before is not None
    assert after is not None
    assert (after.state, after.hashes) == (before.state, before.hashes)
    assert (kubernetes.secret(name) or {})["data"] == keys
    kubernetes.patch(name, FREE)
    kubernetes("wait", "--for=delete", f"tenant/{name}", "--timeout=60s")
    until("the Secret is gone", lambda: kubernetes.secret(name) is None)
