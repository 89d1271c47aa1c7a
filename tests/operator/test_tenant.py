"""The life of a Tenant as kubectl shows it: an operator process with its own rights on a real API server."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
import yaml

from decklog.domain.tenant import State
from tests.support.operators import LABEL, ROOT, Json, Kubernetes, Operator, operator_environment, until
from tests.support.provisioning import FOLDER_VARIABLE, FolderProvisioner
from tests.support.relay import Relay

pytestmark = pytest.mark.xdist_group("kubernetes")

KEY = re.compile(r"dlk_[0-9a-z]+_[0-9A-Za-z]+")


def keys_of(secret: Json) -> dict[str, str]:
    """Return `url` and the key of each role from the Secret."""
    values = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    return {name: value for name, value in values.items() if name not in ("revision", "validUntil")}


def uid_of(kubernetes: Kubernetes, name: str) -> str:
    return str((kubernetes.get("tenant", name) or {})["metadata"]["uid"])


def events_of(kubernetes: Kubernetes, name: str) -> list[tuple[str, str]]:
    found = yaml.safe_load(
        kubernetes("get", "events", "-o", "yaml", f"--field-selector=involvedObject.uid={uid_of(kubernetes, name)}")
    )
    return [(event["type"], event["reason"]) for event in found["items"]]


def passes(backends: FolderProvisioner, name: str) -> int:
    row = backends.row(name)
    return row.passes if row else 0


def test_examples_become_ready_and_kubectl_shows_readiness_first(
    kubernetes: Kubernetes, operator: Operator, backends: FolderProvisioner
) -> None:
    documents = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "manifests/examples").glob("*.yaml"))]
    for document in documents:
        document["metadata"] = {"name": kubernetes.name(document["metadata"]["name"]), "labels": {LABEL: kubernetes.run}}
    kubernetes.apply(*documents)
    kubernetes("wait", "--for=condition=Ready", "tenant", "-l", kubernetes.selector, "--timeout=60s")
    header, *rows = kubernetes("get", "tenants", "-l", kubernetes.selector).splitlines()
    assert header.split() == ["NAME", "READY", "REASON", "ISOLATION", "RETENTION", "AGE"]
    assert {(row.split()[1], row.split()[3], row.split()[4]) for row in rows} == {
        ("True", "Dedicated", "30"),
        ("True", "Dedicated", "365"),
        ("True", "Shared", "60"),
    }
    assert max(map(len, rows)) <= 120
    wide = kubernetes("get", "tenants", "-l", kubernetes.selector, "-o", "wide")
    assert "shared_90" in wide
    assert "decklog-shared-90" in wide


def test_secret_holds_url_and_one_key_per_role_and_is_owned_by_the_tenant(kubernetes: Kubernetes, operator: Operator) -> None:
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name))
    kubernetes.wait_ready(name)
    secret = kubernetes.secret(name)
    assert secret is not None
    values = keys_of(secret)
    assert values.pop("url") == "https://decklog.example.test"
    assert set(values) == {"writer", "auditor", "admin"}
    assert len(set(values.values())) == 3
    assert all(KEY.fullmatch(key) for key in values.values())
    assert secret["metadata"]["labels"]["decklog.dev/tenant"] == name
    assert secret["metadata"]["ownerReferences"][0]["uid"] == uid_of(kubernetes, name)
    status = (kubernetes.get("tenant", name) or {})["status"]
    assert status["credentials"] == {"secret": {"namespace": "default", "name": f"{name}-decklog"}, "revision": 1}
    assert base64.b64decode(secret["data"]["revision"]) == b"1"
    assert secret["data"]["validUntil"] == ""
    assert re.fullmatch("[0-9a-f]{64}", secret["metadata"]["annotations"]["decklog.dev/checksum"])


def test_edited_spec_is_applied_and_its_generation_reported(kubernetes: Kubernetes, operator: Operator) -> None:
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name))
    kubernetes.wait_ready(name)
    kubernetes.patch(name, {"spec": {"displayName": "New"}})
    kubernetes("wait", "--for=jsonpath={.status.observedGeneration}=2", f"tenant/{name}", "--timeout=60s")
    assert {each["observedGeneration"] for each in (kubernetes.get("tenant", name) or {})["status"]["conditions"]} == {2}


def test_edit_during_a_visit_is_applied(kubernetes: Kubernetes, operator: Operator, backends: FolderProvisioner) -> None:
    name = kubernetes.name()
    hold = backends.folder / f"{name}.hold"
    hold.touch()
    kubernetes.apply(kubernetes.tenant(name))
    until("the visit is halfway", (backends.folder / f"{name}.held").exists)
    kubernetes.patch(name, {"spec": {"displayName": "Edited meanwhile"}})
    hold.unlink()
    kubernetes("wait", "--for=jsonpath={.status.observedGeneration}=2", f"tenant/{name}", "--timeout=60s")


def test_deleted_tenant_loses_its_secret_and_is_adopted_when_applied_again(
    kubernetes: Kubernetes, operator: Operator, backends: FolderProvisioner
) -> None:
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name))
    kubernetes.wait_ready(name)
    before, row = keys_of(kubernetes.secret(name) or {}), backends.row(name)
    assert row is not None
    kubernetes("delete", "tenant", name, "--timeout=60s")
    assert kubernetes.get("tenant", name) is None
    assert kubernetes.secret(name) is None
    gone = backends.row(name)
    assert gone is not None
    assert (gone.state, gone.hashes) == (State.DELETED, {})

    kubernetes.apply(kubernetes.tenant(name))
    kubernetes.wait_ready(name)
    again = backends.row(name)
    assert again is not None
    assert (again.id, again.state) == (row.id, State.ACTIVE)
    assert again.uid != row.uid
    assert set(keys_of(kubernetes.secret(name) or {}).values()).isdisjoint(set(before.values()) - {before["url"]})


def test_deletion_waits_for_an_unavailable_backend_and_reports_it(
    kubernetes: Kubernetes, operator: Operator, backends: FolderProvisioner
) -> None:
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name))
    kubernetes.wait_ready(name)
    fault = backends.folder / f"{name}.fault"
    fault.write_text("remove")
    kubernetes("delete", "tenant", name, "--wait=false")
    until("the status tells", lambda: "the deletion waits for it" in kubernetes.condition(name).get("message", ""))
    assert kubernetes.secret(name) is not None
    operator.kill()
    operator.start()
    assert kubernetes.get("tenant", name) is not None
    fault.unlink()
    kubernetes("wait", "--for=delete", f"tenant/{name}", "--timeout=60s")
    until("the Secret is gone", lambda: kubernetes.secret(name) is None)


@pytest.mark.parametrize("damage", ["deleted", "emptied", "forged"])
def test_damaged_secret_gets_working_keys(
    kubernetes: Kubernetes, operator: Operator, backends: FolderProvisioner, damage: str
) -> None:
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name))
    kubernetes.wait_ready(name)
    before = keys_of(kubernetes.secret(name) or {})
    forged = base64.b64encode(f"dlk_{'0' * 16}_{'0' * 64}".encode()).decode()
    if damage == "deleted":
        kubernetes("delete", "secret", f"{name}-decklog")
    else:
        data = "null" if damage == "emptied" else f'{{"admin":"{forged}"}}'
        kubernetes("patch", "secret", f"{name}-decklog", "--type=merge", "-p", f'{{"data":{data}}}')

    def repaired() -> bool:
        secret, row = kubernetes.secret(name), backends.row(name)
        if secret is None or row is None or set(keys_of({"data": secret.get("data") or {}})) != set(before):
            return False
        good = FolderProvisioner.hashes_of({role: key for role, key in keys_of(secret).items() if role != "url"})
        return good == row.hashes

    until("all three keys are good again", repaired)
    assert keys_of(kubernetes.secret(name) or {})["admin"] != before["admin"]


def test_next_operator_finishes_a_visit_that_was_killed(
    kubernetes: Kubernetes, operator: Operator, backends: FolderProvisioner
) -> None:
    names = [kubernetes.name() for _ in range(3)]
    for name in names:
        (backends.folder / f"{name}.hold").touch()
    kubernetes.apply(*map(kubernetes.tenant, names))
    until("all visits are halfway", lambda: all((backends.folder / f"{name}.held").exists() for name in names))
    operator.kill()
    for name in names:
        (backends.folder / f"{name}.hold").unlink()
    kubernetes.patch(names[0], {"spec": {"displayName": "Edited while nobody looked"}})
    kubernetes("delete", "tenant", names[1], "--wait=false")
    operator.start()
    kubernetes.wait_ready(names[0], names[2])
    kubernetes("wait", "--for=jsonpath={.status.observedGeneration}=2", f"tenant/{names[0]}", "--timeout=60s")
    kubernetes("wait", "--for=delete", f"tenant/{names[1]}", "--timeout=60s")
    for name in (names[0], names[2]):
        row = backends.row(name)
        assert row is not None
        values = {role: key for role, key in keys_of(kubernetes.secret(name) or {}).items() if role != "url"}
        assert FolderProvisioner.hashes_of(values) == row.hashes


def test_broken_backend_posts_one_event_and_blocks_nothing_else(
    kubernetes: Kubernetes, operator: Operator, backends: FolderProvisioner
) -> None:
    name = kubernetes.name()
    fault = backends.folder / f"{name}.fault"
    fault.write_text("SearchReady")
    kubernetes.apply(kubernetes.tenant(name))
    until("it is told", lambda: kubernetes.condition(name, "SearchReady").get("status") == "False")
    assert kubernetes.condition(name)["message"] == "SearchReady does not answer."
    assert kubernetes.condition(name, "DatabaseReady")["status"] == "True"
    assert kubernetes.condition(name, "CredentialsReady")["status"] == "True"
    seen = passes(backends, name)
    until("it is tried again and again", lambda: passes(backends, name) > seen + 2)
    fault.unlink()
    kubernetes.wait_ready(name)
    until("each change of a condition is told", lambda: len(events_of(kubernetes, name)) >= 4)
    recovered = [("Normal", reason) for reason in ("Done", "Ready", "Ready")]  # of Synced, Ready and SearchReady
    assert sorted(events_of(kubernetes, name)) == [*recovered, ("Warning", "Unavailable")]
    assert "Everything is there." in kubernetes("describe", "tenant", name).partition("Events:")[2]


def test_unchanged_tenant_causes_no_write(kubernetes: Kubernetes, operator: Operator, backends: FolderProvisioner) -> None:
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name))
    kubernetes.wait_ready(name)
    settled = (kubernetes.get("tenant", name) or {})["metadata"]["resourceVersion"]
    secret = (kubernetes.secret(name) or {})["metadata"]["resourceVersion"]
    seen = passes(backends, name)
    until("it was looked at three times more", lambda: passes(backends, name) > seen + 2)
    told = operator.log.read_text().count("status changed")
    assert told <= 2  # possibly one for not ready, and one for ready
    operator.stop()
    operator.start()
    seen = passes(backends, name)
    until("also by the next operator", lambda: passes(backends, name) > seen)
    assert (kubernetes.get("tenant", name) or {})["metadata"]["resourceVersion"] == settled
    assert operator.log.read_text().count("status changed") == told
    assert (kubernetes.secret(name) or {})["metadata"]["resourceVersion"] == secret


def test_status_edited_by_hand_is_corrected(kubernetes: Kubernetes, operator: Operator) -> None:
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name))
    kubernetes.wait_ready(name)
    since = kubernetes.condition(name)["lastTransitionTime"]
    lie = {"status": {"conditions": [{**kubernetes.condition(name), "status": "False", "reason": "Lie"}]}}
    kubernetes.patch(name, lie, "--subresource=status")
    kubernetes.wait_ready(name)
    until("all conditions are back", lambda: kubernetes.condition(name, "QueueReady").get("status") == "True")
    assert kubernetes.condition(name)["lastTransitionTime"] >= since


def test_foreign_secret_is_never_written(kubernetes: Kubernetes, operator: Operator) -> None:
    name = kubernetes.name()
    kubernetes("create", "secret", "generic", f"{name}-decklog", "--from-literal=mine=precious")
    try:
        kubernetes.apply(kubernetes.tenant(name))
        until("it is told", lambda: "is not Decklog's" in kubernetes.condition(name, "CredentialsReady").get("message", ""))
        assert keys_of(kubernetes.secret(name) or {}) == {"mine": "precious"}
        kubernetes("delete", "tenant", name, "--timeout=60s")
        assert keys_of(kubernetes.secret(name) or {}) == {"mine": "precious"}
    finally:
        kubernetes("delete", "secret", f"{name}-decklog", "--ignore-not-found")


def test_secret_moves_with_the_namespace_and_leaves_no_copy(kubernetes: Kubernetes, operator: Operator) -> None:
    name, namespace = kubernetes.name(), kubernetes.name("ns")
    kubernetes.apply(kubernetes.tenant(name))
    kubernetes.wait_ready(name)
    kubernetes.patch(name, {"spec": {"credentials": {"secretNamespace": namespace}}})
    until(
        "the missing namespace is told",
        lambda: "does not exist" in kubernetes.condition(name, "CredentialsReady").get("message", ""),
    )
    assert kubernetes.secret(name) is not None  # the keys still work, and clients still need them
    kubernetes("create", "namespace", namespace)
    try:
        kubernetes.wait_ready(name)
        assert set(keys_of(kubernetes.secret(name, namespace) or {})) == {"url", "writer", "auditor", "admin"}
        until("no key is left behind", lambda: kubernetes.secret(name) is None)
    finally:
        kubernetes("delete", "namespace", namespace, "--wait=false")


def test_keys_appear_only_in_their_secret(kubernetes: Kubernetes, operator: Operator, backends: FolderProvisioner) -> None:
    name, refused = kubernetes.name(), kubernetes.name()
    kubernetes("create", "secret", "generic", f"{refused}-decklog", "--from-literal=mine=precious")
    try:
        kubernetes.apply(kubernetes.tenant(name), kubernetes.tenant(refused))
        kubernetes.wait_ready(name)
        until("the refusal is told", lambda: kubernetes.condition(refused).get("status") == "False")
        keys = [key for role, key in keys_of(kubernetes.secret(name) or {}).items() if role != "url"]
        kubernetes("delete", "tenant", name, "--timeout=60s")
    finally:
        kubernetes("delete", "secret", f"{refused}-decklog", "--ignore-not-found")
    operator.stop()
    kinds = kubernetes("api-resources", "--verbs=list", "-o", "name").split()
    told = [
        kubernetes("get", ",".join(kind for kind in kinds if kind != "secrets"), "-A", "-o", "json"),
        operator.log.read_text(),
    ]
    assert len(keys) == 3
    for key in keys:
        secret = key.rpartition("_")[2]
        assert not [text for text in told if secret in text or base64.b64encode(key.encode()).decode()[8:-4] in text]
    assert not KEY.search(told[1])


def test_operator_requests_fail_beyond_its_rights(kubernetes: Kubernetes) -> None:
    account = "--as=system:serviceaccount:decklog-system:decklog-operator"
    allowed = kubernetes("auth", "can-i", "--list", account, "--no-headers")
    rules = {(line.split()[0], line.split()[-1]) for line in allowed.splitlines() if not line.startswith(" ")}
    ours = {rule for rule in rules if rule[0].startswith(("secrets", "tenants", "events", "*"))}
    for words in (("list", "secrets"), ("watch", "secrets"), ("delete", "tenants"), ("update", "tenants"), ("create", "tenants")):
        answer = kubernetes.refusal("auth", "can-i", *words, "-A", account)
        assert answer == "" or "error" not in answer
    assert {resource for resource, _ in ours} == {"secrets", "events", "tenants.decklog.dev", "tenants.decklog.dev/status"}


def test_operator_stops_at_once_on_sigterm(kubernetes: Kubernetes, operator: Operator) -> None:
    names = [kubernetes.name() for _ in range(3)]
    kubernetes.apply(*map(kubernetes.tenant, names))
    kubernetes.wait_ready(*names)
    assert operator.stop() == 0
    assert "Traceback" not in operator.log.read_text()


def test_operator_survives_an_api_server_outage(
    kubernetes: Kubernetes, away: tuple[Relay, Path], backends: FolderProvisioner, tmp_path: Path
) -> None:
    relay, config = away
    environment = operator_environment(kubernetes, config, **{FOLDER_VARIABLE: str(backends.folder)})
    operator = Operator(["tests.support.operator_on_folder"], environment, tmp_path)
    operator.start()
    try:
        first, second = kubernetes.name(), kubernetes.name()
        kubernetes.apply(kubernetes.tenant(first))
        kubernetes.wait_ready(first)
        seen = passes(backends, first)
        relay.cut()
        kubernetes.patch(first, {"spec": {"displayName": "Edited while it was away"}})
        kubernetes.apply(kubernetes.tenant(second))
        until("it notices", lambda: passes(backends, first) > seen or "does not answer" in operator.log.read_text())
        relay.mend()
        kubernetes.wait_ready(second)
        kubernetes("wait", "--for=jsonpath={.status.observedGeneration}=2", f"tenant/{first}", "--timeout=60s")
        assert operator.running()
    finally:
        operator.end()
