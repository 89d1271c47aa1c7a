"""`decklog dev` as a developer uses it, and known faults of audit logs, each in a test."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.support.dev import Dev

RECORD: dict[str, Any] = {"action": "document.create", "actor": {"id": "alice"}}


def fill(client: httpx.Client, count: int, **fields: Any) -> None:
    answer = client.post("/api/v1/logs/bulk", json=[{**RECORD, **fields} for _ in range(count)])
    assert answer.json()["stored"] == count, answer.text


def test_dev_keeps_records_keys_and_sequence_after_restarts(tmp_path: Path) -> None:
    dev = Dev(tmp_path)
    dev.start()
    with dev.client() as client:
        assert client.post("/api/v1/logs", json=RECORD).json()["seq"] == 0
    before = dev.content["tenants"]
    assert dev.signal(signal.SIGINT) == 0
    assert dev.processes() == [], "something is left running"
    dev.start()
    assert dev.content["tenants"] == before
    with dev.client() as client:
        assert client.get("/api/v1/logs/0").json()["action"] == "document.create"
        assert client.post("/api/v1/logs", json=RECORD).json()["seq"] == 1
    dev.signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while dev.processes():
        assert time.monotonic() < deadline, "PostgreSQL outlives a killed decklog dev"
        time.sleep(0.05)
    dev.start()
    with dev.client() as client:
        assert client.post("/api/v1/logs", json=RECORD).json()["seq"] == 2
    assert dev.signal(signal.SIGTERM) == 0
    dev.start("--fresh")
    with dev.client() as client:
        assert client.get("/api/v1/logs").json()["items"] == []
    dev.close()


def test_dev_keeps_tenants_of_the_api_and_their_keys_after_a_restart(tmp_path: Path) -> None:
    dev = Dev(tmp_path)
    dev.start()
    manifest = {
        "apiVersion": "decklog.dev/v1",
        "kind": "Tenant",
        "metadata": {"name": "initech"},
        "spec": {"retention": {"days": 30}, "isolation": "Shared"},
    }
    with dev.client("platform") as platform:
        made = platform.post("/api/v1/tenants", json=manifest)
        assert made.status_code == 201, made.text
        assert platform.post("/api/v1/tenants", json=manifest).json() == {"tenant": made.json()["tenant"], "keys": None}
        file = {**manifest, "metadata": {"name": "acme"}}
        assert platform.post("/api/v1/tenants", json=file).json()["code"] == "conflict"
    keys = made.json()["keys"]
    assert dev.content["tenants"]["initech"] == keys
    with dev.client("initech", "writer") as client:
        assert client.post("/api/v1/logs", json=RECORD).json()["seq"] == 0
    assert dev.signal(signal.SIGKILL) == -signal.SIGKILL
    # What was lost of it meanwhile is made up for, like that of the tenants in files.
    dev.forget("initech", "auditor")
    dev.start()
    assert "and of 4 tenants" in dev.log.read_text()
    kept = dev.content["tenants"]["initech"]
    assert {role for role in keys if keys[role] != kept[role]} == {"auditor"}
    with dev.client("initech", "writer") as client:
        assert client.post("/api/v1/logs", json=RECORD).json()["seq"] == 1
    with dev.client("initech", "auditor") as client:
        shown = client.get("/api/v1/tenants/initech").json()
        assert (shown["spec"], shown["conditions"][0]["status"]) == (manifest["spec"], "True")
        assert len(client.get("/api/v1/logs").json()["items"]) == 2
    told = dev.log.read_text()
    assert not [key for key in (*keys.values(), *kept.values()) if key in told]
    dev.close()


def test_dev_refuses_a_folder_in_use(dev: Dev, tmp_path: Path) -> None:
    other = Dev(tmp_path)
    other.data = dev.data
    with pytest.raises(AssertionError, match="Another decklog dev uses"):
        other.start("--fresh")
    with dev.client() as client:
        assert client.post("/api/v1/logs", json=RECORD).status_code == 201


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        ("apiVersion: decklog.dev/v1\nkind: Tenant\nmetadata: {name: x}\nspec: {}\n", "retention"),
        ("apiVersion: decklog.dev/v1\nkind: Tenant\nmetadata: {name: Xx}\nspec: {retention: {days: 1}}\n", "metadata.name"),
        ("a: [", "is not YAML"),
    ],
)
def test_dev_names_the_invalid_manifest_and_its_fault(tmp_path: Path, manifest: str, told: str) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "bad.yaml").write_text(manifest)
    with pytest.raises(AssertionError) as caught:
        Dev(tmp_path, manifests=folder).start()
    assert "bad.yaml" in str(caught.value)
    assert told in str(caught.value)


def test_api_ignores_or_refuses_tenant_and_role_of_headers_body_and_query(dev: Dev) -> None:
    with dev.client("globex", "writer") as client:
        spoofed = {"X-Tenant": "acme", "X-Tenant-Id": "acme", "X-Role": "admin", "X-Forwarded-User": "admin"}
        answer = client.post("/api/v1/logs", json=RECORD, headers=spoofed)
        assert (answer.status_code, answer.json()["tenant"]) == (201, "globex")
        assert client.get("/api/v1/logs", headers=spoofed).status_code == 403
        for extra in (
            {"tenant": "acme"},
            {"log": "access"},
            {"seq": 7},
            {"received_at": "2020-01-01T00:00:00Z"},
            {"digest": "x"},
        ):
            answer = client.post("/api/v1/logs", json={**RECORD, **extra})
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid-record")
            assert next(iter(extra)) in answer.json()["detail"]
        assert client.post("/api/v1/logs", params={"tenant": "acme"}, json=RECORD).json()["code"] == "unknown-parameter"


def test_api_routes_distinguish_one_record_from_the_collection(dev: Dev) -> None:
    with dev.client() as client:
        seq = client.post("/api/v1/logs", json=RECORD).json()["seq"]
        assert client.get(f"/api/v1/logs/{seq}").json()["seq"] == seq
        assert "items" in client.get("/api/v1/logs").json()
        assert "buckets" in client.get("/api/v1/logs/stats", params={"by": "action"}).json()
        assert client.get("/api/v1/logs/export").headers["content-type"].startswith("application/x-ndjson")
        assert client.get("/api/v1/logs/999999999").json()["code"] == "not-found"
        assert client.get("/api/v1/logs/nonsense").status_code in (404, 422)


def test_auditor_cannot_write_or_delete(dev: Dev) -> None:
    with dev.client("acme", "auditor") as client:
        assert client.post("/api/v1/logs", json=RECORD).json()["code"] == "forbidden"
        assert client.post("/api/v1/logs/bulk", json=[RECORD]).json()["code"] == "forbidden"
        for method in ("DELETE", "PUT", "PATCH"):
            for path in ("/api/v1/logs", "/api/v1/logs/0", "/api/v1/logs/export"):
                answer = client.request(method, path)
                assert (answer.status_code, answer.json()["code"]) == (405, "method-not-allowed")


def test_websocket_stays_open_for_a_silent_client(dev: Dev) -> None:
    token = dev.content["tenants"]["minimal"]["auditor"]
    url = dev.content["url"].replace("http", "ws") + "/api/v1/logs/stream"
    protocols: Any = ["decklog", f"bearer.{token}"]
    with connect(url, subprotocols=protocols) as socket, dev.client("minimal") as client:
        assert json.loads(socket.recv(timeout=10))["type"] == "open"
        for number in range(2):
            time.sleep(number)  # the silence
            client.post("/api/v1/logs", json={**RECORD, "message": f"{number}"})
            event = json.loads(socket.recv(timeout=10))
            assert (event["type"], event["record"]["message"]) == ("record", f"{number}")


def test_export_is_not_limited_to_a_page(dev: Dev) -> None:
    with dev.client("acme") as client:
        for _ in range(3):
            fill(client, 1_900, action="many.records")
        lines = client.get("/api/v1/logs/export", params={"action": "many.records"}).text.splitlines()
        assert len(lines) == 5_700
        assert len(client.get("/api/v1/logs/export", params={"action": "many.records", "format": "json"}).json()) == 5_700


def test_csv_export_neutralizes_formulas(dev: Dev) -> None:
    nasty = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", 'quoted "=1"', "two\nlines", "comma,here"]
    with dev.client() as client:
        for text in nasty:
            client.post("/api/v1/logs", json={**RECORD, "action": "csv.test", "message": text})
        table = client.get("/api/v1/logs/export", params={"action": "csv.test", "format": "csv"}).text
    messages = [row["message"] for row in csv.DictReader(io.StringIO(table, newline=""))]
    assert not [message for message in messages if re.search(r"^[=+@\t\r-]|[;\t\r\n][=+@-]", message)]
    # The documented way back: apostrophes in front of a sign go, at the beginning and behind a separator.
    assert [re.sub(r"(^|[;\t\r\n])'(?=[=+@\t\r-])", r"\1", message) for message in messages] == nasty


@pytest.mark.parametrize("path", ["", "/export", "/stats", "/stream", "/0"])
def test_api_refuses_unknown_or_invalid_filters(dev: Dev, path: str) -> None:
    with dev.client() as client:
        for parameters in ({"actr": "x"}, {"metadata": "x"}, {"outcome": "maybe"}, {"from": "yesterday"}, {"ip": "nowhere"}):
            answer = client.get(f"/api/v1/logs{path}", params={**parameters, **({"by": "actor"} if path == "/stats" else {})})
            assert answer.status_code == 422, (path, parameters, answer.text[:200])
            assert answer.json()["code"] in ("unknown-parameter", "invalid-parameter")


def test_api_answers_errors_with_a_problem_and_never_with_200(dev: Dev) -> None:
    with dev.client() as client:
        bad: list[tuple[str, str, dict[str, Any]]] = [
            ("POST", "/api/v1/logs", {"content": b"{", "headers": {"content-type": "application/json"}}),
            ("POST", "/api/v1/logs", {"json": {"action": ""}}),
            ("POST", "/api/v1/logs/bulk", {"content": b'{"a"', "headers": {"content-type": "application/json"}}),
            ("POST", "/api/v1/logs/bulk", {"json": [{"action": 1}], "params": {"atomic": "true"}}),
            ("GET", "/api/v1/logs", {"params": {"limit": "1001"}}),
            ("GET", "/api/v1/logs", {"params": {"cursor": "x"}}),
            ("GET", "/api/v1/logs", {"headers": {"authorization": "Bearer nonsense"}}),
            ("GET", "/api/v1/nothing", {}),
        ]
        for method, path, arguments in bad:
            answer = client.request(method, path, **arguments)
            assert 400 <= answer.status_code < 500, (method, path, answer.status_code)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == answer.status_code
            assert answer.json()["detail"]


def test_password_in_metadata_is_masked_in_every_output_and_on_disk(dev: Dev) -> None:
    secret = "hunter2-never-to-be-seen"
    body = {
        **RECORD,
        "action": "secret.test",
        "metadata": {"password": secret, "deep": [{"Api-Key": secret}]},
        "after": {"secret": secret},
    }
    with dev.client() as client:
        assert client.post("/api/v1/logs", json=body).status_code == 201
        assert secret not in client.post("/api/v1/logs", json={**body, "nonsense": 1}).text
        texts = [
            client.get("/api/v1/logs", params={"action": "secret.test"}).text,
            client.get("/api/v1/logs", params={"log": "access", "limit": "1000"}).text,
            *[
                client.get("/api/v1/logs/export", params={"format": form, "action": "secret.test"}).text
                for form in ("csv", "ndjson")
            ],
        ]
        assert client.get("/api/v1/logs", params={"q": secret}).json()["items"] == []
        masked = client.get("/api/v1/logs", params={"action": "secret.test"}).json()["items"][0]["masked"]
    assert masked == ["/after/secret", "/metadata/deep/0/Api-Key", "/metadata/password"]
    assert not [text for text in texts if secret in text]
    stored = b"".join(path.read_bytes() for path in dev.data.rglob("*") if path.is_file())
    assert secret.encode() not in stored, "the secret rests on disk"


def test_access_log_records_provisioning(dev: Dev) -> None:
    with dev.client() as client:
        [first] = client.get("/api/v1/logs", params={"log": "access", "action": "tenant.provision"}).json()["items"]
    assert first["seq"] == 0
    assert first["actor"] == {"id": "provisioning", "type": "decklog"}
    assert "RegisterTenant" in first["metadata"]["actions"]
    assert "dlk_" not in json.dumps(first)


def test_platform_key_lists_tenants_and_reads_no_log(dev: Dev) -> None:
    with dev.client("platform") as client:
        listed = client.get("/api/v1/tenants").json()
        names = {tenant["name"]: tenant for tenant in listed["items"]}
        assert {"acme", "globex", "minimal"} <= set(names)
        assert {condition["type"] for condition in names["acme"]["conditions"]} >= {"Ready", "DatabaseReady", "SearchReady"}
        assert client.get("/api/v1/logs").json()["code"] == "forbidden"
    with dev.client() as client:
        assert client.get("/api/v1/tenants").json()["code"] == "forbidden"
        assert client.get("/api/v1/whoami").json()["tenant"] == "acme"
