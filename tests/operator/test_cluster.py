"""The Kubernetes client turns refusals, failures and timeouts into typed errors with advice."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from kmock import RawHandler, Request

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.spec import Retention, TenantSpec
from decklog.services.tenancy.vaults import Handout
from decklog_operator.cluster import Cluster, NotFoundError, connect, in_pod, own_namespace
from decklog_operator.secrets import SecretVault

pytestmark = pytest.mark.kmock(cls=RawHandler)  # sends the given responses; the Kubernetes emulator would create its own

Json = dict[str, Any]
SECRETS = "/api/v1/namespaces/default/secrets"
SECRET = f"{SECRETS}/acme-decklog"
STATUS = "/apis/decklog.dev/v1/tenants/acme/status"
ACME = Manifest("acme", "uid-1", 1, TenantSpec(Retention(30)))
KEYS = dict.fromkeys((Role.WRITER, Role.AUDITOR, Role.ADMIN), f"dlk_{'0' * 16}_{'a' * 64}")
HANDOUT = Handout(KEYS, 3, "2026-01-02T03:04:05Z")


@pytest.fixture
async def cluster(kmock: RawHandler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    named = {"name": "test"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{**named, "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{**named, "cluster": {"server": str(kmock.url).rstrip("/")}}],
        "users": [{**named, "user": {"token": "t0ken"}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    async with connect() as connected:
        yield connected


def sent(kmock: RawHandler, method: str) -> Request:
    """Return the first request with this method."""
    return cast("Request", kmock[method][0])


async def test_apply_status_sends_the_token_and_names_one_uid(kmock: RawHandler, cluster: Cluster) -> None:
    kmock[f"patch {STATUS}"] << {"metadata": {"resourceVersion": "7"}}
    assert await cluster.apply_status("acme", "uid-1", {"observedGeneration": 1}) == "7"
    request = sent(kmock, "patch")
    assert request.headers["Authorization"] == "Bearer t0ken"
    assert request.headers["Content-Type"] == "application/apply-patch+yaml"
    assert request.params["fieldManager"] == "decklog-operator"
    assert json.loads(request.body)["metadata"] == {"name": "acme", "uid": "uid-1"}


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (401, Code.MISCONFIGURED, "ClusterRole"),
        (403, Code.MISCONFIGURED, "ClusterRole"),
        (404, Code.NOT_FOUND, "Tenant acme"),
        (409, Code.CONFLICT, "refused to write the Tenant acme"),
        (422, Code.CONFLICT, "refused to write the Tenant acme"),
        (429, Code.STORAGE_UNAVAILABLE, "failed to write the Tenant acme"),
        (500, Code.STORAGE_UNAVAILABLE, "failed to write the Tenant acme"),
        (503, Code.STORAGE_UNAVAILABLE, "failed to write the Tenant acme"),
    ],
)
async def test_cluster_raises_a_typed_error_when_the_api_refuses(
    kmock: RawHandler, cluster: Cluster, status: int, code: Code, hint: str
) -> None:
    kmock[f"patch {STATUS}"] << status << {"kind": "Status", "message": "leaked-secret"}
    with pytest.raises(DecklogError) as caught:
        await cluster.apply_status("acme", "uid-1", {})
    assert caught.value.code is code
    assert hint in caught.value.detail
    assert "leaked-secret" not in caught.value.detail


async def test_cluster_raises_a_retryable_error_when_the_api_is_unreachable(cluster: Cluster, kmock: RawHandler) -> None:
    kmock[f"get {SECRET}"] << ConnectionResetError
    with pytest.raises(DecklogError) as caught:
        await cluster.read_secret("default", "acme-decklog")
    assert caught.value.code is Code.STORAGE_UNAVAILABLE
    assert caught.value.retry_after is not None


async def test_cluster_treats_absent_objects_as_none_and_as_deleted(cluster: Cluster, kmock: RawHandler) -> None:
    kmock[SECRET] << 404
    kmock["get /apis/decklog.dev/v1/tenants"] << 404
    assert await cluster.read_secret("default", "acme-decklog") is None
    await cluster.delete_secret("default", "acme-decklog", "uid-9")
    assert json.loads(sent(kmock, "delete").body)["preconditions"] == {"uid": "uid-9"}
    assert not await cluster.tenants_served()


async def test_vault_replaces_the_secret_of_an_earlier_tenant_of_the_same_name(cluster: Cluster, kmock: RawHandler) -> None:
    old = {
        "name": "acme-decklog",
        "uid": "secret-1",
        "labels": {"decklog.dev/tenant": "acme"},
        "ownerReferences": [{"uid": "uid-0"}],
    }
    kmock[f"get {SECRET}"] << {"metadata": old, "data": {}}
    kmock[f"delete {SECRET}"] << {}
    kmock[f"post {SECRETS}"] << {}
    vault = SecretVault(cluster, "https://decklog.example.test")
    assert await vault.read(ACME) is None
    await vault.write(ACME, HANDOUT)
    assert json.loads(sent(kmock, "delete").body)["preconditions"] == {"uid": "secret-1"}
    written = json.loads(sent(kmock, "post").body)
    assert set(written["data"]) == {"url", "writer", "auditor", "admin", "revision", "validUntil"}
    assert written["metadata"]["ownerReferences"][0]["uid"] == "uid-1"


async def test_vault_corrects_an_existing_secret_that_belongs_to_the_tenant(cluster: Cluster, kmock: RawHandler) -> None:
    kmock[f"post {SECRETS}"] << 409
    kmock[f"get {SECRET}"] << rendered(cluster)
    kmock[f"patch {SECRET}"] << {}
    await SecretVault(cluster, "https://decklog.example.test").write(ACME, HANDOUT)
    assert sent(kmock, "patch").params["force"] == "true"
    assert json.loads(sent(kmock, "patch").body) == rendered(cluster)


def rendered(cluster: Cluster, handout: Handout = HANDOUT) -> Json:
    """Return the Secret as the vault writes it."""
    return SecretVault(cluster, "https://decklog.example.test")._rendered(ACME, handout)


async def test_vault_reads_the_keys_that_it_wrote(cluster: Cluster, kmock: RawHandler) -> None:
    secret = rendered(cluster)
    secret["metadata"] |= {"resourceVersion": "1", "annotations": {**secret["metadata"]["annotations"], "team": "a"}}
    secret["data"]["theirs"] = "eA=="
    kmock[f"get {SECRET}"] << secret
    assert await SecretVault(cluster, "https://decklog.example.test").read(ACME) == HANDOUT


@pytest.mark.parametrize(
    ("field", "value", "drift"),
    [
        (("data", "url"), "aHR0cDovL2V2aWw=", {"url"}),
        (("data", "url"), None, {"url"}),
        (("data", "revision"), "eA==", {"revision", "annotations"}),
        (("data", "revision"), "MDM=", {"revision"}),
        (("data", "revision"), None, {"revision", "annotations"}),
        (("data", "validUntil"), None, {"validUntil", "annotations"}),
        (("data", "validUntil"), "/w==", {"validUntil", "annotations"}),
        (("annotations", "decklog.dev/checksum"), None, {"annotations"}),
        (("annotations", "decklog.dev/checksum"), "0" * 64, {"annotations"}),
        (("labels", "app.kubernetes.io/managed-by"), None, {"labels"}),
        (("labels", "decklog.dev/tenant"), None, {"labels"}),
        (("labels", "decklog.dev/tenant"), "another", {"labels"}),
    ],
)
async def test_vault_names_each_edited_field_of_a_secret(
    cluster: Cluster, kmock: RawHandler, field: tuple[str, str], value: str | None, drift: set[str]
) -> None:
    secret, (section, name) = rendered(cluster), field
    edited = secret["data"] if section == "data" else secret["metadata"][section]
    del edited[name]
    if value is not None:
        edited[name] = value
    kmock[f"get {SECRET}"] << secret
    found = await SecretVault(cluster, "https://decklog.example.test").read(ACME)
    assert found is not None
    assert set(found.drift) == drift
    assert found.keys == KEYS


async def test_secret_checksum_changes_with_every_field_and_reveals_no_key(cluster: Cluster) -> None:
    other = {**KEYS, Role.ADMIN: f"dlk_{'1' * 16}_{'a' * 64}"}
    handouts = [HANDOUT, Handout(other, 3, HANDOUT.valid_until), Handout(KEYS, 4, HANDOUT.valid_until), Handout(KEYS, 3, "")]
    secrets = [rendered(cluster, handout) for handout in (*handouts, HANDOUT)]
    checksums = [secret["metadata"]["annotations"]["decklog.dev/checksum"] for secret in secrets]
    assert len(set(checksums)) == len(handouts)
    assert checksums[0] == checksums[-1]
    assert "a" * 64 not in json.dumps([secret["metadata"] for secret in secrets])


def test_handout_hides_its_keys_when_printed() -> None:
    assert repr(HANDOUT) == "Handout(revision=3)"
    assert "a" * 64 not in f"{HANDOUT}{[HANDOUT]}"


@pytest.mark.parametrize("labels", [None, {}, {"decklog.dev/tenant": "other"}, {"app": "decklog"}])
async def test_vault_leaves_a_foreign_secret_untouched(
    cluster: Cluster, kmock: RawHandler, labels: dict[str, str] | None
) -> None:
    kmock[f"get {SECRET}"] << {
        "metadata": {"name": "acme-decklog", "uid": "theirs", "labels": labels},
        "data": {"writer": "eA=="},
    }
    kmock[f"post {SECRETS}"] << 409
    vault = SecretVault(cluster, "https://decklog.example.test")
    for use in (vault.read(ACME), vault.write(ACME, HANDOUT)):
        with pytest.raises(DecklogError) as caught:
            await use
        assert caught.value.code is Code.CONFLICT
    await vault.forget(ACME, "default")
    assert len(kmock["patch"]) == len(kmock["delete"]) == 0


async def test_vault_names_the_missing_namespace(cluster: Cluster, kmock: RawHandler) -> None:
    kmock[SECRETS] << 404
    with pytest.raises(DecklogError, match=r"spec.credentials.secretNamespace 'default' does not exist") as caught:
        await SecretVault(cluster, "https://decklog.example.test").write(ACME, HANDOUT)
    assert caught.value.code is Code.INVALID_TENANT
    assert not isinstance(caught.value, NotFoundError)


def test_own_namespace_is_that_of_the_pod_and_empty_outside_a_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "namespace"
    monkeypatch.setattr("decklog_operator.cluster._NAMESPACE_FILE", file)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert (in_pod(), own_namespace()) == (True, "")
    file.write_text("decklog-system\n")
    assert own_namespace() == "decklog-system"
    monkeypatch.setenv("KUBECONFIG", "/elsewhere")
    assert (in_pod(), own_namespace()) == (False, "")


async def test_connect_names_kubeconfig_when_no_cluster_is_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    with pytest.raises(DecklogError, match="KUBECONFIG") as caught:
        async with connect():
            pass
    assert caught.value.code is Code.MISCONFIGURED
