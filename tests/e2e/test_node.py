"""A release on a real node: the images run as the chart says, store records, and are upgraded and killed without losing one.

The backends are those of all other tests, reached by pods as managed services are: by an address outside of the cluster.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from decklog.timescale.connection import OWNER_ROLE, SERVICE_ROLE, WORKER_ROLE
from tests.backends import LocalNode, OpenSearchServer, PostgresServer
from tests.backends.cache import locked
from tests.backends.images import archive, built
from tests.backends.node import CGROUPS, HOST, LOCK, NAME
from tests.backends.server import LOOPBACK
from tests.backends.sqs import SqsServer
from tests.support.charts import CHART, Helm, Json, make_namespace
from tests.support.edge import Edge, drain
from tests.support.operators import until
from tests.support.records import FINGERPRINT_KEY
from tests.support.relay import Relay
from tests.support.stores import ROLE_PASSWORD, Database, drop_database, empty_database

LONGEST = 600.0
"""Seconds for pods to begin or end, on a slow and busy machine."""
WAIT = "--timeout=100s"
SENDERS = 4
PLACE = RELEASE = "decklog"
TENANT = "acme"
INGRESS = "audit.example.com"
OTHERS_PER_MINUTE = 100
"""Requests per minute that the ingress controller passes on routes other than the log routes."""
NEXT = "next"
"""Another tag of the same images, as the version to upgrade to."""

pytestmark = [pytest.mark.xdist_group("interfaces"), pytest.mark.slow, pytest.mark.timeout(6 * LONGEST)]

PROBE = """
import json, os
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
def writes(path):
    try:
        open(path + "/probe", "w").close()
    except OSError as error:
        return error.strerror
    return "written"
print(json.dumps({
    "user": os.getuid(), "capabilities": int(status["CapEff"], 16), "privileges": status["NoNewPrivs"], "seccomp": status["Seccomp"],
    "writes": [writes(path) for path in ("", "/opt/decklog", "/tmp")],
}))
"""


@dataclass
class Release:
    """An installed release, with one tenant."""

    node: LocalNode
    chart: Helm
    values: Path

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        return self.node.address.kubectl("--namespace", PLACE, *words, stdin=stdin)

    def helm(self, verb: str, *words: str | Path) -> str:
        config = self.node.address.kubeconfig
        given: list[str | Path] = [
            verb,
            RELEASE,
            *words,
            "--namespace",
            PLACE,
            "--kubeconfig",
            config,
            "--timeout",
            f"{LONGEST:g}s",
        ]
        return self.chart(*given, longest=2 * LONGEST)

    def bring(self, verb: str, *words: str) -> None:
        """Install or upgrade, and wait until all pods are ready."""
        self.helm(verb, CHART, "--values", self.values, "--wait", *words)

    def pods(self, component: str) -> dict[str, Json]:
        """Return all pods of a component, terminating ones included, by name."""
        label = f"app.kubernetes.io/component={component}"
        return {
            each["metadata"]["name"]: each for each in json.loads(self.kubectl("get", "pods", "-l", label, "-o", "json"))["items"]
        }

    @property
    def url(self) -> str:
        """Return the address of the API by its Service."""
        address = self.kubectl("get", "service", f"{RELEASE}-api", "-o", "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}")
        return f"http://{address}"

    def client(self, role: str, through: Edge | None = None) -> httpx.Client:
        """Return a client that reaches the API by its Service or an ingress controller, and never retries."""
        secret = json.loads(self.kubectl("get", "secret", f"{TENANT}-decklog", "-o", "json"))["data"]
        headers = {"Authorization": f"Bearer {base64.b64decode(secret[role]).decode()}"}
        if through is None:
            return httpx.Client(base_url=self.url, headers=headers, timeout=60)
        return httpx.Client(base_url=f"http://{LOOPBACK}:{through.port}", headers={**headers, "Host": INGRESS}, timeout=60)


@pytest.fixture(scope="module")
def database(timescale_server: PostgresServer) -> Iterator[Database]:
    made = asyncio.run(empty_database(timescale_server))
    yield made
    asyncio.run(drop_database(made))


@pytest.fixture(scope="module")
def node(
    database: Database, private_node: Callable[[], LocalNode], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalNode]:
    """A node that has the images of this tree."""
    with private_node() as made:
        version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
        made.load(archive(built(tmp_path_factory.mktemp("images"), [version, NEXT])))
        yield made


@dataclass(frozen=True)
class Backends:
    """The backends of the release: values of the chart, and the Secrets that they name."""

    values: Json
    secrets: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def backends(
    node: LocalNode, database: Database, opensearch_server: OpenSearchServer, sqs_server: SqsServer
) -> Iterator[Backends]:
    with ExitStack() as stack:

        def reached(url: str) -> str:
            """Return the address by which pods reach the same server."""
            parts = urlsplit(url)
            relay = Relay(parts.hostname or "", parts.port or 443, listen=HOST)
            stack.callback(relay.close)
            return parts._replace(netloc=f"{HOST}:{relay.port}").geturl()

        outside = replace(database.server, host=HOST, port=urlsplit(reached(database.admin_dsn)).port or 0)
        roles = {"dsn": SERVICE_ROLE, "worker-dsn": WORKER_ROLE, "owner-dsn": OWNER_ROLE}
        values: Json = {
            "prefix": f"t{secrets.token_hex(4)}",
            "database": {"existingSecret": "database", "allowUnverified": True},
            "identity": {"existingSecret": "identity"},
            "search": {"url": reached(opensearch_server.url), "replicas": 0},
            "queue": {
                "enabled": True,
                "endpointUrl": reached(sqs_server.url),
                "region": sqs_server.region,
                "existingSecret": "queue",
            },
        }
        keys = {
            "database": {key: outside.dsn_for(database.name, role, ROLE_PASSWORD) for key, role in roles.items()},
            "identity": {"fingerprint-key": FINGERPRINT_KEY.decode()},
            "queue": {"access-key-id": sqs_server.access_key, "secret-access-key": sqs_server.secret_key},
        }
        yield Backends(values, keys)


@pytest.fixture(scope="module")
def release(
    node: LocalNode, backends: Backends, helm: Path, definitions: Path, tmp_path_factory: pytest.TempPathFactory
) -> Release:
    """Install the release into a namespace of the restricted profile, over an empty database."""
    folder = tmp_path_factory.mktemp("release")
    edge = {"edge": {"limits": {"othersPerMinute": OTHERS_PER_MINUTE}}, "httpProxy": {"enabled": True, "host": INGRESS}}
    # One replica where a second would show nothing more: what several replicas do is tested without a node.
    values = {
        **backends.values,
        **edge,
        "image": {"registry": "localhost"},
        "operator": {"replicas": 1},
        "worker": {"replicas": 1},
    }
    (folder / "values.yaml").write_text(json.dumps(values))  # JSON is YAML
    make_namespace(node.address, PLACE)
    node.address.kubectl("apply", "--server-side", "-f", str(definitions / "01-crds.yaml"))  # Contour's
    made = Release(node, Helm(helm, folder), folder / "values.yaml")
    for name, data in backends.secrets.items():
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}
        made.kubectl("apply", "-f", "-", stdin=json.dumps(secret))
    try:
        made.bring("install")
    except Exception as error:
        error.add_note(made.kubectl("get", "pods,events", "--sort-by=.metadata.creationTimestamp"))
        raise
    spec = {
        "retention": {"days": 30},
        "quotas": {"eventsPerSecond": 100_000, "burst": 100_000},
        "credentials": {"secretNamespace": PLACE},
        "deletionProtection": False,
    }
    tenant = {"apiVersion": "decklog.dev/v1", "kind": "Tenant", "metadata": {"name": TENANT}, "spec": spec}
    made.kubectl("apply", "-f", "-", stdin=json.dumps(tenant))
    made.kubectl("wait", "--for=condition=Ready", f"tenant/{TENANT}", WAIT)
    return made


@pytest.fixture(scope="module")
def ingress(release: Release, edge: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """Run a real ingress controller that forwards to the pods of the node."""
    made = Edge(edge, release.node.address, PLACE, tmp_path_factory.mktemp("ingress"))
    try:
        made.start()
        made.await_served(INGRESS, f"{RELEASE}-api")
        yield made
    finally:
        made.close()


class Sender(threading.Thread):
    """Sends records one after the other over one connection. `trouble` lists every answer other than 201."""

    def __init__(self, client: httpx.Client, number: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._client, self._number, self._stop_asked = client, number, stop
        self.acknowledged: dict[str, int] = {}
        self.trouble: list[str] = []
        self.sent = 0

    def run(self) -> None:
        with self._client as client:
            while not self._stop_asked.wait(0.01):
                self.sent += 1
                identity = f"{self.name}-{self._number}-{self.sent}"
                record = {"id": identity, "action": "node.write", "actor": {"id": f"sender-{self._number}"}}
                try:
                    answer = client.post("/api/v1/logs", json=record)
                except httpx.HTTPError as error:
                    self.trouble.append(f"{identity}: {error!r}")
                    continue
                if answer.status_code == 201:
                    self.acknowledged[identity] = answer.json()["seq"]
                else:
                    self.trouble.append(f"{identity}: {answer.status_code} {answer.text}")


@contextmanager
def sending(release: Release, ingress: Edge) -> Iterator[list[Sender]]:
    """Send from several threads within the block: half over the Service, half over the ingress controller."""
    stop = threading.Event()
    ways = [None, ingress]
    senders = [Sender(release.client("writer", ways[number % 2]), number, stop) for number in range(SENDERS)]
    for each in senders:
        each.start()
    try:
        until("each sends", lambda: all(len(each.acknowledged) > 10 for each in senders), longest=LONGEST)
        yield senders
    finally:
        stop.set()
        for each in senders:
            each.join()


def assert_kept(release: Release, senders: list[Sender]) -> None:
    """Check that each acknowledged record is stored once, at its sequence number."""
    with release.client("auditor") as client:
        exported = [json.loads(line) for line in client.get("/api/v1/logs/export").text.splitlines()]
    places = {record["id"]: record["seq"] for record in exported if "id" in record}
    acknowledged = {identity: seq for each in senders for identity, seq in each.acknowledged.items()}
    assert acknowledged.items() <= places.items()
    assert set(Counter(record["id"] for record in exported).values()) == {1}
    assert [record["seq"] for record in exported] == list(range(len(exported)))


def test_pods_are_ready_under_the_restricted_profile_with_a_read_only_root(release: Release) -> None:
    level = release.kubectl(
        "get", "namespace", PLACE, "-o", "jsonpath={.metadata.labels['pod-security\\.kubernetes\\.io/enforce']}"
    )
    assert level == "restricted"
    for component, count in (("operator", 1), ("api", 2), ("worker", 1)):
        pods = release.pods(component)
        assert len(pods) == count
        for name, pod in pods.items():
            [container] = pod["status"]["containerStatuses"]
            assert (container["ready"], container["restartCount"]) == (True, 0), release.kubectl("logs", name)
            probe = json.loads(release.kubectl("exec", name, "--", "/opt/decklog/bin/python", "-c", PROBE))
            confined = {"user": 65532, "capabilities": 0, "privileges": "1", "seccomp": "2"}
            assert probe == {**confined, "writes": ["Read-only file system"] * 3}


def test_records_are_stored_and_found_through_the_cluster_service(release: Release) -> None:
    with release.client("admin") as client:
        stored = client.post("/api/v1/logs", json={"id": "first", "action": "node.begin", "actor": {"id": "alice"}})
        assert stored.status_code == 201, stored.text

        def indexed() -> bool:
            page = client.get("/api/v1/logs", params={"q": "begin"}).json()
            return bool(page["indexed"] == page["head"] and [item["id"] for item in page["items"]] == ["first"])

        until("the record is found by the index", indexed, longest=LONGEST)


async def test_ingress_controller_passes_records_and_limits_a_flood(release: Release, ingress: Edge) -> None:
    record = {"id": "through", "action": "node.write", "actor": {"id": "alice"}}
    with release.client("admin", ingress) as client:
        stored = client.post("/api/v1/logs", json=record)
        assert stored.status_code == 201, stored.text
        assert "x-envoy-upstream-service-time" in stored.headers
        flood = await drain(ingress.port, INGRESS, ["/api/v1/whoami"], at_most=20 * OTHERS_PER_MINUTE)
        assert flood.passed == pytest.approx(OTHERS_PER_MINUTE * (1 + flood.seconds / 60), rel=0.05)
        assert client.post("/api/v1/logs", json=record).json()["status"] == "duplicate"


def test_helm_upgrade_under_load_answers_every_request_and_loses_nothing(release: Release, ingress: Edge) -> None:
    before = release.pods("api")
    with sending(release, ingress) as senders:
        release.bring("upgrade", "--set", f"image.service.tag={NEXT}")
        for name in before:
            release.kubectl("wait", "--for=delete", f"pod/{name}", WAIT)
        until("each goes on", _advanced(senders), longest=LONGEST)
    assert [line for each in senders for line in each.trouble] == []
    assert sum(len(each.acknowledged) for each in senders) > 100
    after = release.pods("api")
    assert not before.keys() & after.keys()
    assert {pod["spec"]["containers"][0]["image"] for pod in after.values()} == {f"localhost/decklog:{NEXT}"}
    assert_kept(release, senders)


def _advanced(senders: list[Sender]) -> Callable[[], bool]:
    counts = [len(each.acknowledged) for each in senders]
    return lambda: all(len(each.acknowledged) > count + 10 for each, count in zip(senders, counts, strict=True))


@pytest.mark.chaos
def test_killed_pod_loses_no_acknowledged_record_while_others_serve(release: Release, ingress: Edge) -> None:
    name = sorted(release.pods("api"))[0]
    container = release.pods("api")[name]["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    with sending(release, ingress) as senders:
        killed = release.node.ctr("tasks", "kill", "--signal", "SIGKILL", container)
        assert killed.returncode == 0, killed.stderr
        until("each goes on", _advanced(senders), longest=LONGEST)

        def again() -> bool:
            [status] = release.pods("api")[name]["status"]["containerStatuses"]
            return bool(status["ready"] and status["restartCount"])

        until("it runs again", again, longest=LONGEST)
    assert_kept(release, senders)


def test_helm_test_succeeds(release: Release) -> None:
    told = release.helm("test", "--logs")
    assert "Succeeded" in told
    assert f"http://{RELEASE}-api.{PLACE}.svc:8321 is healthy." in told


def test_node_removes_interfaces_mounts_and_groups_when_it_ends(node: LocalNode) -> None:
    """This is the last test of the file: it ends the node."""

    def left() -> list[str]:
        interfaces = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
        mounts = Path("/proc/self/mountinfo").read_text()
        lines = [line for line in (interfaces + mounts).splitlines() if NAME in line or str(node.folder) in line]
        return lines + [str(path) for path in CGROUPS.glob(f"**/{NAME}")]

    assert left()
    node.discard()
    with locked(LOCK, "another node on this machine to end"):  # it would have the same names
        assert left() == []
    assert not node.folder.exists()
