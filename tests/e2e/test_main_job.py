"""The main use: Tenants applied with kubectl become ready, and real events are imported and read over the API."""

from __future__ import annotations

import asyncio
import base64
import csv
import gzip
import io
import json
import secrets
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from tests.backends import KubernetesServer, OpenSearchServer, PostgresServer
from tests.backends.sqs import SqsServer
from tests.e2e.conftest import whole
from tests.support.operators import LABEL, ROOT, Kubernetes, Operator, least_rights_kubeconfig, operator_environment, turn, until
from tests.support.stack import Program, Stack

pytestmark = [pytest.mark.xdist_group("kubernetes"), pytest.mark.slow]

DATA = ROOT.parent / "shared" / "data"
TRAIL, AUDIT = DATA / "cloudtrail_invictus.ndjson.gz", DATA / "k8s_audit.ndjson.gz"

needs_data = pytest.mark.skipif(
    not TRAIL.exists(), reason="the folder shared/data with real audit events is not beside the project"
)


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


@pytest.fixture
async def cluster(
    kubernetes_server: KubernetesServer,
    timescale_server: PostgresServer,
    opensearch_server: OpenSearchServer,
    sqs_server: SqsServer,
    tmp_path: Path,
) -> AsyncIterator[tuple[Kubernetes, Stack]]:
    """Apply the examples, which an operator with the installation's rights makes ready."""
    async with AsyncExitStack() as stack:
        # The examples have fixed names, so one test at a time may have them in the cluster that all workers share.
        await asyncio.to_thread(stack.enter_context, turn(kubernetes_server, "examples"))
        made = await stack.enter_async_context(whole(tmp_path, timescale_server, opensearch_server, sqs_server))
        kubernetes = Kubernetes(kubernetes_server)
        rights = await asyncio.to_thread(least_rights_kubeconfig, kubernetes_server, tmp_path)
        operator = Operator(["decklog_operator", "run"], operator_environment(kubernetes, rights, **made.variables), tmp_path)
        stack.callback(kubernetes.clean)  # after the operator has ended, which would take finalizers off at the same time
        stack.callback(operator.end)
        await asyncio.to_thread(operator.start)
        # Secrets of an earlier test whose Tenants are gone may still wait for the garbage collector.
        names = [f"{name}-decklog" for name in ("acme", "globex", "minimal")]
        kubernetes("delete", "secret", *names, "--ignore-not-found", "--wait")
        kubernetes("apply", "-f", str(ROOT / "manifests" / "examples"))
        kubernetes("label", "tenant", "acme", "globex", "minimal", f"{LABEL}={kubernetes.run}", "--overwrite")
        kubernetes("wait", "--for=condition=Ready", "tenant", "-l", kubernetes.selector, "--timeout=60s")
        yield kubernetes, made


def keys_of(kubernetes: Kubernetes, tenant: str) -> dict[str, str]:
    secret = kubernetes.secret(tenant)
    assert secret is not None
    return {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}


def import_events(kind: str, file: Path, api: Program, key: str, folder: Path) -> tuple[int, dict[str, Any]]:
    """Run `decklog import`, and return its exit code and its summary."""
    key_file = folder / "writer.key"
    key_file.write_text(key)
    words = [sys.executable, "-m", "decklog", "import", kind, str(file), "--url", api.url, "--key-file", str(key_file)]
    done = subprocess.run([*words, "--state", str(folder / "state"), "--json"], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


async def follow(api: Program, key: str, count: int) -> list[dict[str, Any]]:
    """Return the first `count` records of a WebSocket that begins after record 0."""
    protocols: Any = ["decklog", f"bearer.{key}"]
    url = api.url.replace("http", "ws") + "/api/v1/logs/stream?after=0"
    records: list[dict[str, Any]] = []
    async with websockets.connect(url, subprotocols=protocols, max_size=2**22) as socket, asyncio.timeout(120):
        async for message in socket:
            event = json.loads(message)
            if event["type"] == "record":
                records.append(event["record"])
                if len(records) == count:
                    break
    return records


async def indexed(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(60):
        while True:
            page = (await client.get("/api/v1/logs", params={"limit": 1})).json()
            if page["indexed"] == page["head"]:
                return
            await asyncio.sleep(0.1)


async def all_pages(client: httpx.AsyncClient, **parameters: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = (
            await client.get("/api/v1/logs", params={**parameters, "limit": "1000", **({"cursor": cursor} if cursor else {})})
        ).json()
        items += page["items"]
        cursor = page["next"]
        if cursor is None:
            return items


@needs_data
async def test_real_events_are_equal_in_lists_searches_exports_and_streams(
    cluster: tuple[Kubernetes, Stack], tmp_path: Path
) -> None:
    kubernetes, stack = cluster
    api = await stack.api()
    await stack.worker()
    trail = events(TRAIL)
    acme, globex = keys_of(kubernetes, "acme"), keys_of(kubernetes, "globex")

    code, report = await asyncio.to_thread(import_events, "cloudtrail", TRAIL, api, acme["writer"], tmp_path)
    assert (code, report["stored"]) == (0, 2_900), report
    code, report = await asyncio.to_thread(import_events, "kubernetes", AUDIT, api, globex["writer"], tmp_path)
    assert (code, report["stored"]) == (1, 88), report
    assert "86" in json.dumps(report)

    async with stack.client(api.url, acme["auditor"]) as client:
        await indexed(client)
        # Counts per action, computed from the file itself.
        expected = Counter(event["eventName"] for event in trail)
        stats = (await client.get("/api/v1/logs/stats", params={"by": "action"})).json()
        counted: Counter[str] = Counter()
        for bucket in stats["buckets"]:
            counted[bucket["key"][0].partition(":")[2]] += bucket["count"]
        assert counted == expected
        assert stats["total"] == 2_900

        exported = [json.loads(line) for line in (await client.get("/api/v1/logs/export")).text.splitlines()]
        assert [record["seq"] for record in exported] == list(range(2_900))
        assert {record["id"] for record in exported} == {event["eventID"] for event in trail}
        listed = await all_pages(client)
        assert listed == exported[::-1]
        rows = list(csv.DictReader(io.StringIO((await client.get("/api/v1/logs/export", params={"format": "csv"})).text)))
        assert [(row["seq"], row["id"], row["action"]) for row in rows] == [
            (str(record["seq"]), record["id"], record["action"]) for record in exported
        ]
        followed = await follow(api, acme["auditor"], 2_899)
        assert followed == exported[1:]  # `after=0` is behind the first record

        # Search agrees with what the file says, for exact fields, for metadata and for words.
        [(action, _)] = Counter(record["action"] for record in exported).most_common(1)
        by_action = await all_pages(client, action=action)
        assert by_action == [record for record in exported[::-1] if record["action"] == action]
        region = await all_pages(client, **{"metadata.awsRegion": "us-west-2"})
        assert [record["seq"] for record in region] == [
            record["seq"] for record in exported[::-1] if record["metadata"].get("awsRegion") == "us-west-2"
        ]
        page = (await client.get("/api/v1/logs", params={"q": "benjamin", "limit": 5})).json()
        assert page["engine"] == "opensearch"
        assert page["items"]

    # Importing again stores nothing.
    shutil.rmtree(tmp_path / "state")
    code, report = await asyncio.to_thread(import_events, "cloudtrail", TRAIL, api, acme["writer"], tmp_path)
    assert (code, report["stored"], report["duplicates"]) == (0, 0, 2_900), report

    # The other tenant has its own events only.
    async with stack.client(api.url, globex["auditor"]) as client:
        own = await all_pages(client)
        assert len(own) == 88
        assert {record["tenant"] for record in own} == {"globex"}
        assert (await client.get("/api/v1/logs", params={"q": "benjamin"})).json()["items"] == []


async def test_api_shows_the_conditions_of_the_custom_resource(cluster: tuple[Kubernetes, Stack]) -> None:
    kubernetes, stack = cluster
    await stack.provision()
    api = await stack.api()
    for name in ("acme", "globex", "minimal"):
        shown = (kubernetes.get("tenant", name) or {})["status"]["conditions"]
        assert len(shown) > 3
        for key in (stack.platform_key, keys_of(kubernetes, name)["auditor"]):
            async with stack.client(api.url, key) as client:
                assert (await client.get(f"/api/v1/tenants/{name}")).json()["conditions"] == shown
                told = (await client.get("/api/v1/tenants/decklog")).status_code
                assert told == (200 if key == stack.platform_key else 404)


async def test_storage_quota_refuses_appends_and_allows_reads_until_it_is_raised(
    cluster: tuple[Kubernetes, Stack],
) -> None:
    kubernetes, stack = cluster
    api = await stack.api()
    kubernetes.patch("minimal", {"spec": {"quotas": {"storageGiB": 0.01}}})
    kubernetes("wait", "--for=condition=QuotaExceeded=false", "tenant/minimal", "--timeout=60s")
    record: dict[str, Any] = {"action": "a.b", "actor": {"id": "x"}}
    async with stack.client(api.url, keys_of(kubernetes, "minimal")["admin"]) as client:
        for _ in range(6):
            filling = [{**record, "metadata": {"filling": secrets.token_hex(100_000)}} for _ in range(10)]
            assert (await client.post("/api/v1/logs/bulk", json=filling)).json()["stored"] == 10
        kubernetes("wait", "--for=condition=QuotaExceeded", "tenant/minimal", "--timeout=60s")
        refused = await client.post("/api/v1/logs", json=record)
        assert (refused.status_code, refused.json()["code"], refused.headers["Retry-After"]) == (429, "quota-exceeded", "300")
        assert "spec.quotas.storageGiB" in refused.json()["detail"]
        assert (await client.get("/api/v1/logs/59")).status_code == 200
        words = ("get", "events", "-A", "--field-selector", "reason=StorageUsedUp,involvedObject.name=minimal")
        await asyncio.to_thread(until, "an Event tells of it", lambda: "QuotaExceeded is True" in kubernetes(*words))
        ready = kubernetes.condition("minimal")
        assert (ready["status"], ready["reason"]) == ("True", "QuotaExceeded")
        kubernetes.patch("minimal", {"spec": {"quotas": {"storageGiB": 0.02}}})
        kubernetes("wait", "--for=condition=QuotaExceeded=false", "tenant/minimal", "--timeout=60s")
        assert (await client.post("/api/v1/logs", json=record)).json()["seq"] == 60


async def test_api_returns_a_manifest_that_kubectl_applies(cluster: tuple[Kubernetes, Stack]) -> None:
    kubernetes, stack = cluster
    await stack.provision()
    api = await stack.api()
    name = kubernetes.name()
    body = kubernetes.tenant(name, {"retention": {"days": 60}, "isolation": "Shared", "quotas": {"burst": 20_000}})
    del body["metadata"]["labels"]
    async with stack.client(api.url, stack.platform_key) as client:
        refused = (await client.post("/api/v1/tenants", json=body)).json()
        assert refused["code"] == "managed-by-kubernetes"
        assert (await client.get(f"/api/v1/tenants/{name}")).status_code == 404
        kubernetes("apply", "-f", "-", stdin=json.dumps(refused["manifest"]))
        kubernetes("label", "tenant", name, f"{LABEL}={kubernetes.run}")  # as this operator serves labelled Tenants only
        kubernetes.wait_ready(name)
        shown = (await client.get(f"/api/v1/tenants/{name}")).json()
        assert shown["spec"]["retention"] == {"days": 60}


async def test_deleted_tenant_is_refused_and_adopted_when_applied_again(
    cluster: tuple[Kubernetes, Stack],
) -> None:
    kubernetes, stack = cluster
    api = await stack.api()
    header = kubernetes("get", "tenants").splitlines()[0].split()
    assert header[:2] == ["NAME", "READY"]
    before = keys_of(kubernetes, "minimal")
    record = {"action": "a.b", "actor": {"id": "x"}}
    async with stack.client(api.url, before["writer"]) as client:
        first = await client.post("/api/v1/logs", json=record)
        assert first.status_code == 201, first.text
        assert first.json()["seq"] == 0
        kubernetes.patch("minimal", {"spec": {"deletionProtection": False}})
        kubernetes("delete", "tenant", "minimal", "--timeout=60s")
        # At once by the head (404), and within two seconds by the registry, where the key is revoked too (401).
        seen: list[int] = []
        async with asyncio.timeout(10):
            while seen[-1:] != [401]:
                seen.append((await client.post("/api/v1/logs", json=record)).status_code)
                await asyncio.sleep(0.1)
        assert set(seen[seen.index(404) if 404 in seen else -1 :]) <= {404, 401}, seen
    kubernetes("apply", "-f", str(ROOT / "manifests" / "examples" / "minimal.yaml"))
    kubernetes("label", "tenant", "minimal", f"{LABEL}={kubernetes.run}", "--overwrite")
    kubernetes("wait", "--for=condition=Ready", "tenant/minimal", "--timeout=60s")
    after = keys_of(kubernetes, "minimal")
    assert after["writer"] != before["writer"]
    async with stack.client(api.url, after["auditor"]) as client, asyncio.timeout(10):
        while (await client.get("/api/v1/logs/0")).status_code != 200:
            await asyncio.sleep(0.1)


@pytest.fixture
def the_policy(kubernetes_server: KubernetesServer) -> Iterator[None]:
    """Hold the admission policy, which refuses a deletion of the tour."""
    with turn(kubernetes_server, "policy"):
        yield


@pytest.mark.usefixtures("the_policy")
async def test_documented_kubectl_tour_runs_as_typed(cluster: tuple[Kubernetes, Stack], tmp_path: Path) -> None:
    kubernetes, stack = cluster
    page = (ROOT / "docs/start/cluster.md").read_text()
    tour = page.partition("<!-- tour: kubectl -->\n```sh\n")[2].partition("```")[0]
    assert "kubectl delete tenant acme" in tour
    # This operator serves labelled Tenants only; the tour applies acme anew.
    tour = tour.replace("dedicated.yaml", f"dedicated.yaml && kubectl label --overwrite tenant acme {LABEL}={kubernetes.run}")
    tour = tour.replace("tenant --all", f"tenant -l {kubernetes.selector}")  # nor does it wait for Tenants of other tests
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "kubectl").symlink_to(kubernetes.server.kubectl_program)
    environment = {
        "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "KUBECONFIG": str(kubernetes.server.kubeconfig),
        "DECKLOG_DATABASE_OWNER_DSN": stack.variables["DECKLOG_DATABASE_OWNER_DSN"],
    }
    done = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-eu", "-o", "pipefail", "-c", tour],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    kubernetes("delete", "secret", "decklog-backends", "-n", "decklog-system")
    kubernetes("delete", "deployment", "--all", "-n", "decklog-system")
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    assert "dlk_" in done.stdout
    assert "refused" in done.stdout
    assert "class of 90 days" in done.stderr or "class" in done.stderr, done.stderr
    assert done.stdout.count("condition met") >= 5
