"""The chart on a real API server: every object is accepted, and install, upgrade and uninstall keep the data."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from decklog_operator.manifests import rights
from tests.backends import KubernetesServer
from tests.support.charts import CHART, MATRIX, WAIT_MAX, Helm, complete, namespace, of, pods
from tests.support.operators import until

pytestmark = pytest.mark.xdist_group("kubernetes")


@pytest.fixture
def place(cluster: KubernetesServer) -> Iterator[str]:
    with namespace(cluster, f"chart-{uuid.uuid4().hex[:8]}") as name:
        yield name


@pytest.mark.parametrize("values", MATRIX)
def test_api_server_accepts_every_object_and_every_pod_is_restricted(
    chart: Helm, cluster: KubernetesServer, place: str, values: str
) -> None:
    objects = chart.render(values, namespace=place, release=place)
    dry_run = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-"]
    told = cluster.kubectl(*dry_run, stdin=yaml.safe_dump_all(objects))
    assert told.count("server dry run") == len(objects)
    for component, template in pods(objects).items():
        spec = {name: value for name, value in template["spec"].items() if name != "serviceAccountName"}
        spec.pop("priorityClassName", None)  # this PriorityClass is for system namespaces
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": component, "namespace": place}, "spec": spec}
        assert f"pod/{component} serverside-applied" in cluster.kubectl(*dry_run, stdin=json.dumps(pod))


class Release:
    """A release whose migrations the test completes, because there is no node to run them."""

    def __init__(self, chart: Helm, cluster: KubernetesServer, place: str) -> None:
        self._chart, self._cluster, self._place = chart, cluster, place

    def replicas(self) -> int:
        return int(self._cluster.kubectl("get", *self._api, "-o", "jsonpath={.spec.replicas}"))

    @property
    def _api(self) -> tuple[str, ...]:
        return "deployment", f"{self._place}-decklog-api", "-n", self._place

    def helm(self, verb: str, *words: str) -> str:
        """Install or upgrade, and return helm's output."""
        where: list[str | Path] = ["-n", self._place, "--kubeconfig", self._cluster.kubeconfig, "-f", CHART / "ci/minimal.yaml"]
        process = self._chart.start(verb, self._place, CHART, *where, *words)
        before = 0 if verb == "install" else 3
        self._migrated(process, f"{self._place}-decklog-migrate", lambda: self._deployments() == before)
        if verb == "upgrade":  # the removal for the previous version runs last, after the new pods are requested
            self._migrated(process, f"{self._place}-decklog-migrate-post", lambda: self.replicas() == 5)
        printed, complained = process.communicate(timeout=WAIT_MAX)
        assert process.returncode == 0, complained
        return printed

    def _migrated(self, process: subprocess.Popen[str], job: str, state: Callable[[], bool]) -> None:
        """Complete the job when helm has started it in this state of the release."""
        until(
            f"{job} has started, or helm has ended",
            lambda: (
                process.poll() is not None or self._cluster.kubectl("get", "job", job, "-n", self._place, "--ignore-not-found")
            ),
            longest=WAIT_MAX,
        )
        if process.poll() is None:
            assert state()
            complete(self._cluster, self._place, job)

    def _deployments(self) -> int:
        return self._cluster.kubectl("get", "deployments", "-n", self._place, "-o", "name").count("\n")


def test_uninstall_keeps_the_definition_and_the_tenants(chart: Helm, cluster: KubernetesServer, place: str) -> None:
    release = Release(chart, cluster, place)
    told = release.helm("install", "--take-ownership")
    assert "Uninstalling this release keeps the definition of Tenant, all Tenants and all data." in told
    spec = {"retention": {"days": 30}, "deletionProtection": False}
    tenant = {"apiVersion": "decklog.dev/v1", "kind": "Tenant", "metadata": {"name": place}, "spec": spec}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(tenant))
    assert release.replicas() == 2

    release.helm("upgrade", "--set", "api.replicas=5")
    assert release.replicas() == 5

    testing = chart.start("test", place, "-n", place, "--kubeconfig", cluster.kubeconfig)
    doctor, probes = f"pod/{place}-decklog-doctor", f"tenant/{place}-decklog-doctor"
    until(
        "the doctor is asked, or helm has ended",
        lambda: testing.poll() is not None or cluster.kubectl("get", doctor, "-n", place, "--ignore-not-found"),
        longest=WAIT_MAX,
    )
    assert cluster.kubectl("get", probes, "-o", "jsonpath={.spec.credentials.secretNamespace}") == place
    done = ["--subresource=status", "--type=merge", "-p", '{"status": {"phase": "Succeeded"}}']
    cluster.kubectl("patch", doctor, "-n", place, *done)
    told, complained = testing.communicate(timeout=WAIT_MAX)
    assert testing.returncode == 0, complained
    assert "Succeeded" in told
    assert cluster.kubectl("get", probes, "--ignore-not-found") == ""

    told = chart("uninstall", place, "-n", place, "--kubeconfig", cluster.kubeconfig)
    kept = told.partition("kept due to the resource policy")[2]
    assert "[CustomResourceDefinition] tenants.decklog.dev" in kept
    assert "[ValidatingAdmissionPolicy]" in kept
    left = cluster.kubectl("get", "deployments,services,serviceaccounts,roles,networkpolicies,jobs", "-n", place, "-o", "name")
    assert left.split() == ["serviceaccount/default"]
    assert cluster.kubectl("get", "clusterrole", f"{place}-decklog-operator", "--ignore-not-found") == ""
    assert "Established" in cluster.kubectl("get", "crd", "tenants.decklog.dev", "-o", "yaml")
    assert cluster.kubectl("get", "tenant", place, "-o", "name") == f"tenant.decklog.dev/{place}\n"
    cluster.kubectl("delete", "tenant", place)


def test_dev_release_keeps_passwords_and_migrates_on_each_upgrade(chart: Helm, cluster: KubernetesServer, place: str) -> None:
    def helm(verb: str, *words: str) -> None:
        chart(verb, place, CHART, "-n", place, "--kubeconfig", cluster.kubeconfig, "-f", CHART / "ci/dev.yaml", *words)

    def seen(kind: str) -> list[str]:
        return cluster.kubectl("get", kind, "-n", place, "-o", "name").split()

    helm("install", "--take-ownership")
    read = ("get", "secret", f"{place}-decklog-dev", "-n", place, "-o", "jsonpath={.data}")
    before = json.loads(cluster.kubectl(*read))
    assert {"dsn", "owner-dsn", "admin-dsn", "fingerprint-key"} <= before.keys()
    assert seen("jobs") == [f"job.batch/{place}-decklog-migrate-1"]
    helm("upgrade", "--set", "api.replicas=2")
    assert json.loads(cluster.kubectl(*read)) == before
    assert f"job.batch/{place}-decklog-migrate-2" in seen("jobs")
    assert seen("statefulsets") == [f"statefulset.apps/{place}-decklog-dev-{name}" for name in ("opensearch", "s3", "timescale")]
    chart("uninstall", place, "-n", place, "--kubeconfig", cluster.kubeconfig)
    assert seen("secrets") == []


def test_chart_and_manifests_grant_the_operator_the_same_rights(chart: Helm) -> None:
    rendered = [each["rules"] for kind in ("ClusterRole", "Role") for each in of(chart.render("minimal"), kind)]
    assert sorted(map(str, rendered)) == sorted(str(each["rules"]) for each in rights() if each["kind"].endswith("Role"))
