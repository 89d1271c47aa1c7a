"""Key rotation on a real API server and real backends: it happens once, on time, with an overlap, and reveals no key."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.status import READY, SYNCED, KeyStatus, TenantStatus, Verdict, conditions
from decklog.services.identity.keys import key_hash
from decklog_operator.names import FINALIZER
from decklog_operator.reconcile import Reconciler
from decklog_operator.settings import OperatorSettings
from tests.backends import PostgresServer
from tests.backends.sqs import SqsServer
from tests.support.operator_installation import Installation, Installing, keys_of
from tests.support.operators import Json, Kubernetes, Operator, until
from tests.support.stack import installed
from tests.support.stores import Database, drop_database, new_database

pytestmark = pytest.mark.xdist_group("kubernetes")

SCHEDULED: Json = {"retention": {"days": 30}, "credentials": {"rotation": {"intervalDays": 7, "overlapHours": 12}}}
KEYS = "FROM decklog.api_keys WHERE tenant_id = (SELECT id FROM decklog.tenants WHERE name = $1)"


@pytest.fixture
async def database(postgres_server: PostgresServer) -> AsyncIterator[Database]:
    made = await new_database(postgres_server)
    yield made
    await drop_database(made)


def ask(kubernetes: Kubernetes, name: str, token: str) -> None:
    kubernetes("annotate", "tenant", name, f"decklog.dev/rotate={token}", "--overwrite")


def told(kubernetes: Kubernetes, name: str) -> Json:
    """Return the credentials of the status."""
    found: Json = (kubernetes.get("tenant", name) or {}).get("status", {}).get("credentials", {})
    return found


def said(kubernetes: Kubernetes, name: str) -> tuple[str, str, str]:
    """Return revision, validUntil and checksum of the Secret."""
    secret = kubernetes.secret(name) or {}
    revision, end = (base64.b64decode(secret["data"][entry]).decode() for entry in ("revision", "validUntil"))
    return revision, end, secret["metadata"]["annotations"]["decklog.dev/checksum"]


async def ends(installation: Installation, name: str, keys: dict[str, str]) -> set[datetime | None]:
    """Return the ends of these keys, without the revoked ones."""
    rows = await installation.database.execute(f"SELECT hash, expires_at {KEYS} AND revoked_at IS NULL", name)
    mine = {key_hash(key) for key in keys.values()}
    return {row["expires_at"] for row in rows if row["hash"] in mine}


async def test_rotate_annotation_rotates_once_and_old_keys_end_after_the_overlap(
    kubernetes: Kubernetes, install: Installing, sqs_server: SqsServer
) -> None:
    installation, operator = await install(sqs_server)
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name))
    kubernetes.wait_ready(name)
    first, before = keys_of(kubernetes.secret(name)), said(kubernetes, name)
    assert before[:2] == ("1", "")
    asked = datetime.now(UTC)
    ask(kubernetes, name, "leak-17")
    until("it is done and told", lambda: told(kubernetes, name).get("rotated") == "leak-17")
    second, after = keys_of(kubernetes.secret(name)), said(kubernetes, name)
    assert set(first.values()).isdisjoint(second.values())
    assert set(second) == {"writer", "auditor", "admin"}
    assert after[0] == "2"
    assert after[2] != before[2]
    [end] = await ends(installation, name, first)
    assert end is not None
    assert asked + timedelta(hours=24) <= end <= datetime.now(UTC) + timedelta(hours=24)
    assert await ends(installation, name, second) == {None}
    shown = told(kubernetes, name)
    assert (shown["revision"], shown["overlapUntil"]) == (2, end.strftime("%Y-%m-%dT%H:%M:%SZ"))

    # Another visit, another operator and the same annotation do not rotate again.
    operator.kill()
    operator.start()
    ask(kubernetes, name, "leak-17")
    kubernetes.patch(name, {"spec": {"displayName": "Looked at again"}})
    kubernetes("wait", "--for=jsonpath={.status.observedGeneration}=2", f"tenant/{name}", "--timeout=60s")
    assert keys_of(kubernetes.secret(name)) == second
    assert said(kubernetes, name) == after

    ask(kubernetes, name, "leak-18")
    until("the next is done", lambda: told(kubernetes, name).get("rotated") == "leak-18")
    assert await ends(installation, name, first) == set()
    assert None not in await ends(installation, name, second)
    rows = await installation.database.execute(f"SELECT role, count(*) AS n {KEYS} AND revoked_at IS NULL GROUP BY 1", name)
    assert {row["role"]: row["n"] for row in rows} == {"writer": 2, "auditor": 2, "admin": 2}


async def test_keys_rotate_on_schedule_and_expired_keys_are_removed(
    kubernetes: Kubernetes, install: Installing, sqs_server: SqsServer
) -> None:
    installation, _ = await install(sqs_server)
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name, SCHEDULED))
    kubernetes.wait_ready(name)
    first, before = keys_of(kubernetes.secret(name)), said(kubernetes, name)
    promised = datetime.fromisoformat(before[1])
    assert timedelta(days=7, hours=11) < promised - datetime.now(UTC) < timedelta(days=7, hours=13)
    assert told(kubernetes, name)["validUntil"] == before[1]

    # Let seven days pass for the keys.
    await installation.database.execute("UPDATE decklog.api_keys SET created_at = created_at - interval '7 days'")
    until("new keys are given out", lambda: told(kubernetes, name).get("revision", 0) > 1 and said(kubernetes, name)[0] == "2")
    second = keys_of(kubernetes.secret(name))
    assert set(first.values()).isdisjoint(second.values())
    assert None not in await ends(installation, name, first)
    assert told(kubernetes, name)["overlapUntil"]
    assert datetime.fromisoformat(said(kubernetes, name)[1]) >= promised

    # Let the overlap pass.
    await installation.database.execute("UPDATE decklog.api_keys SET expires_at = now() WHERE expires_at IS NOT NULL")
    until("it is told", lambda: "overlapUntil" not in told(kubernetes, name))
    assert await ends(installation, name, first) == set()
    assert keys_of(kubernetes.secret(name)) == second


async def test_changed_schedule_updates_the_secret_without_a_new_key(
    kubernetes: Kubernetes, install: Installing, sqs_server: SqsServer
) -> None:
    await install(sqs_server)
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name))
    kubernetes.wait_ready(name)
    keys = keys_of(kubernetes.secret(name))
    kubernetes.patch(name, {"spec": {"credentials": {"rotation": {"intervalDays": 30}}}})
    until("it is told", lambda: "validUntil" in told(kubernetes, name))
    assert said(kubernetes, name)[1] == told(kubernetes, name)["validUntil"]
    assert keys_of(kubernetes.secret(name)) == keys


@pytest.mark.parametrize(
    "patch",
    [
        {"data": {"url": base64.b64encode(b"https://evil.example").decode()}},
        {"data": {"revision": base64.b64encode(b"99").decode()}},
        {"data": {"validUntil": None}},
        {"metadata": {"annotations": {"decklog.dev/checksum": "0" * 64}}},
        {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}},
    ],
    ids=["url", "revision", "validUntil", "checksum", "label"],
)
def test_edited_secret_is_restored_and_keeps_its_keys(kubernetes: Kubernetes, operator: Operator, patch: Json) -> None:
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name))
    kubernetes.wait_ready(name)
    before = kubernetes.secret(name) or {}
    kubernetes("patch", "secret", f"{name}-decklog", "--type=merge", "-p", json.dumps(patch))

    def restored() -> bool:
        after = kubernetes.secret(name) or {}
        same = [(after["metadata"]["labels"], after["data"]["url"], after["data"].get("validUntil"))]
        return same == [(before["metadata"]["labels"], before["data"]["url"], "")] and said(kubernetes, name)[0] == "2"

    until("it is as it was", restored)
    assert keys_of(kubernetes.secret(name)) == keys_of(before)
    assert said(kubernetes, name)[2] not in ("0" * 64, before["metadata"]["annotations"]["decklog.dev/checksum"])


async def test_failed_rotation_is_reported_and_keys_stay(
    kubernetes: Kubernetes, install: Installing, sqs_server: SqsServer
) -> None:
    await install(sqs_server)
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name))
    kubernetes.wait_ready(name)
    keys = keys_of(kubernetes.secret(name))
    ask(kubernetes, name, "x" * 65)
    until("it is told", lambda: "at most 64 characters" in kubernetes.condition(name, "Ready").get("message", ""))
    ask(kubernetes, name, "x")
    kubernetes.wait_ready(name)
    until("the one that can be is done", lambda: told(kubernetes, name).get("rotated") == "x")
    assert set(keys.values()).isdisjoint(keys_of(kubernetes.secret(name)).values())


def _traces(key: str) -> list[str]:
    """Return the forms in which a key could leak: whole, its secret half, and base64."""
    secret = key.rpartition("_")[2]
    encoded = [base64.b64encode(b"\0" * shift + key.encode()).decode()[4 + shift : -4] for shift in range(3)]
    return [secret, secret.encode().hex(), *encoded]


async def _database_text(database: Database) -> str:
    """Return every row of every relation as text."""
    tables = await database.execute(
        "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    )
    rows = [await database.execute(f"SELECT t::text AS row FROM {table['name']} AS t") for table in tables]
    assert sum(map(len, rows)) > 10
    return "\n".join(row["row"] for table in rows for row in table)


def _cluster_text(kubernetes: Kubernetes) -> str:
    """Return every object of every kind with hidden fields; of tenants' Secrets, everything but their data."""
    kinds = kubernetes("api-resources", "--verbs=list", "-o", "name").split()
    assert {"secrets", "events", "tenants.decklog.dev"} <= set(kinds)
    found = json.loads(kubernetes("get", ",".join(kinds), "-A", "-o", "json", "--show-managed-fields"))
    for each in found["items"]:
        if each["kind"] == "Secret":
            each["data"] = sorted(each.get("data") or {})
    return json.dumps(found)


async def test_rotated_keys_appear_only_in_their_secret(
    kubernetes: Kubernetes, install: Installing, sqs_server: SqsServer, tmp_path: Path
) -> None:
    installation, operator = await install(sqs_server)
    database = installation.database
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name, SCHEDULED))
    kubernetes.wait_ready(name)
    issued: set[str] = set()

    async def changed(what: str, condition: Callable[[], Any]) -> None:
        until(what, condition)
        issued.update(keys_of(kubernetes.secret(name)).values())

    dsns = {"service_dsn": database.service_dsn, "owner_dsn": database.owner_dsn}
    async with installed(tmp_path, **dsns, **installation.variables) as stack:
        api = await stack.api()
        await changed("the first keys are there", lambda: keys_of(kubernetes.secret(name)))
        ask(kubernetes, name, "one")
        await changed("they are changed on request", lambda: told(kubernetes, name).get("rotated") == "one")
        kubernetes("delete", "secret", f"{name}-decklog")
        await changed("they are given out again", lambda: told(kubernetes, name).get("revision") == 3)
        await database.execute("UPDATE decklog.api_keys SET created_at = created_at - interval '7 days'")
        await database.execute("UPDATE decklog.api_keys SET expires_at = now() WHERE expires_at IS NOT NULL")
        await changed("they are changed on schedule", lambda: told(kubernetes, name).get("revision") == 4)
        operator.kill()
        operator.start()
        # Use each key, with success and failure, so that the service could have logged it.
        for key in issued:
            async with httpx.AsyncClient(base_url=api.url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
                await client.get("/api/v1/whoami")
                await client.get("/api/v1/logs", headers={"X-Request-Id": "abc"})
                await client.post("/api/v1/logs", json={"action": "a.b", "actor": {"id": "x"}})
        assert api.stop() == 0
        log = api.log.read_text()
    operator.stop()
    rows = await database.execute(f"SELECT hash {KEYS}", name)
    assert {row["hash"] for row in rows} == {key_hash(key) for key in issued}
    assert len(issued) == 12
    async with httpx.AsyncClient(base_url=installation.search.url) as search:
        index = (await search.get(f"/{installation.prefix}-*/_search", params={"size": 1000})).text
    texts = {
        "the cluster": _cluster_text(kubernetes),
        "the operator's log": operator.log.read_text(),
        "the service's log": log,
        "the database": await _database_text(database),
        "the index": index,
    }
    assert all(name in text for text in (texts["the cluster"], texts["the operator's log"], texts["the database"]))
    found = [(place, trace) for place, text in texts.items() for key in issued for trace in _traces(key) if trace in text]
    assert found == []


# --- time of the next visit ------------------------------------------------------------------------------------------

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
SOON = NOON + timedelta(minutes=1)
BODY: Json = {
    "metadata": {"name": "acme", "uid": "uid-1", "generation": 1, "resourceVersion": "1", "finalizers": [FINALIZER]},
    "spec": {"retention": {"days": 30}},
}


class Provisioning:
    """Provisioning that finds everything in order and reports these keys."""

    def __init__(self, keys: KeyStatus) -> None:
        self.keys = keys
        self.asked: list[str] = []

    async def reconcile(self, manifest: Manifest, vault: Any, previous: Any = ()) -> TenantStatus:
        self.asked.append(manifest.rotate)
        good = dict.fromkeys((READY, SYNCED), Verdict("True", "Good", "Good."))
        return TenantStatus(conditions(good, 1, (), NOON), 1, keys=self.keys)

    async def remove(self, manifest: Manifest, previous: Any = ()) -> TenantStatus:
        raise AssertionError


class Silent:
    """A cluster that accepts every write."""

    async def apply_status(self, name: str, uid: str, status: Json) -> str:
        return "2"

    async def post_event(self, **event: str) -> None:
        pass


def reconciler(keys: KeyStatus, now: datetime = NOON) -> tuple[Reconciler, Provisioning]:
    provisioning, cluster = Provisioning(keys), Silent()
    return Reconciler(provisioning, cluster, OperatorSettings(), clock=lambda: now), provisioning  # type: ignore[arg-type]


async def test_next_visit_is_planned_for_the_rotation_or_overlap_end() -> None:
    for _ in range(50):
        soon, _ = reconciler(KeyStatus(1, "", "", "", None, SOON))
        assert 60 <= await soon.visit(BODY) <= 120
        late, _ = reconciler(KeyStatus(1, "", "", "", None, NOON + timedelta(days=1)))
        assert 240 <= await late.visit(BODY) <= 360
        never, _ = reconciler(KeyStatus(1, "", "", "", None, None))
        assert 240 <= await never.visit(BODY) <= 360


async def test_new_annotation_ends_the_pause_and_reaches_provisioning() -> None:
    it, provisioning = reconciler(KeyStatus(1, "", "", "", None, None))
    await it.visit(BODY)
    metadata = {**BODY["metadata"], "annotations": {"decklog.dev/rotate": "now"}}
    for body, wakes in ((BODY, False), ({**BODY, "metadata": metadata}, True)):
        assert it.notice(body, gone=False, listed=False) is wakes
    await it.visit({**BODY, "metadata": metadata})
    assert provisioning.asked == ["", "now"]
    assert not it.notice({**BODY, "metadata": metadata}, gone=False, listed=False)


async def test_overdue_rotations_are_counted() -> None:
    asked = {**BODY, "metadata": {**BODY["metadata"], "annotations": {"decklog.dev/rotate": "now"}}}
    for keys, body, due in (
        (KeyStatus(1, "", "", "", SOON, SOON), BODY, 0),
        (KeyStatus(1, "", "", "", NOON, None), BODY, 1),
        (KeyStatus(1, "", "", "", None, None), asked, 1),
        (KeyStatus(1, "", "", "now", None, None), asked, 0),
    ):
        it, _ = reconciler(keys)
        assert it.rotations_due() == 0
        await it.visit(body)
        assert it.rotations_due() == due
