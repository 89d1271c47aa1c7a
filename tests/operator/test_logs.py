"""Every log line about a tenant names the tenant and its generation in fields, including the lines of Kopf."""

from __future__ import annotations

import json

import pytest

from tests.support.operators import Json, Kubernetes, Operator, until
from tests.support.provisioning import FolderProvisioner

pytestmark = pytest.mark.xdist_group("kubernetes")


def about(operator: Operator, name: str) -> list[Json]:
    return [line for line in operator.lines() if name in json.dumps(line)]


def test_log_lines_about_a_tenant_carry_its_name_and_generation(
    kubernetes: Kubernetes, operator: Operator, backends: FolderProvisioner
) -> None:
    name = kubernetes.name()
    fault = backends.folder / f"{name}.fault"
    fault.write_text("SearchReady")
    kubernetes.apply(kubernetes.tenant(name))
    until("it is told", lambda: kubernetes.condition(name).get("status") == "False")
    fault.unlink()
    kubernetes.wait_ready(name)
    kubernetes.patch(name, {"spec": {"displayName": "New"}})
    kubernetes("wait", "--for=jsonpath={.status.observedGeneration}=2", f"tenant/{name}", "--timeout=60s")
    fault.write_text("remove")
    kubernetes("delete", "tenant", name, "--wait=false")
    until(
        "Kopf tells that its handler is to be repeated", lambda: any("release" in line["event"] for line in about(operator, name))
    )
    fault.unlink()
    kubernetes("wait", "--for=delete", f"tenant/{name}", "--timeout=60s")
    lines = about(operator, name)
    assert {line["tenant"] for line in lines} == {name}
    generations = [line["generation"] for line in lines]
    assert generations == sorted(generations)
    assert {1, 2} <= set(generations)
    assert "status changed" in {line["event"] for line in lines}
