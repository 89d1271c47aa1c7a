"""The edge works: the chart's HTTPProxy with Contour and Envoy, and its HTTPRoutes and policies with Envoy Gateway, in front of the
API of `decklog dev`."""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.backends import KubernetesServer
from tests.support.charts import Helm, Json, namespace
from tests.support.dev import Dev
from tests.support.edge import Edge, Flood, drain, limits_of
from tests.support.envoy_gateway import envoy_gateway

pytestmark = pytest.mark.xdist_group("kubernetes")

HOST = "audit.example.com"  # as in ci/edge.yaml, with the limits
ECHOING = "echo.example.com"
EACH = "each.example.com"
LOGS, OTHERS = ("/api/v1/logs", "/api/v1/logs/stats", "/api/v1/logs/export"), ("/api/v1/whoami", "/schema/none")
LOGS_PER_MINUTE, OTHERS_PER_MINUTE, RETRY_AFTER = 10_000, 100, "6"
LOGS_PER_SECOND = 167  # of each client, as the service counts it
RECORD = {"actor": {"id": "alice"}, "action": "document.create", "message": "through the edge"}


class Echo(BaseHTTPRequestHandler):
    """Respond with the received headers."""

    def do_GET(self) -> None:
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, *_: Any, **__: Any) -> None:
        pass


@pytest.fixture(scope="module")
def echo() -> Iterator[int]:
    """Start an echo server and return its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    made = Dev(tmp_path_factory.mktemp("dev"))
    made.start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def standing(cluster: KubernetesServer, edge: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """An edge in its own namespace, not started yet."""
    with namespace(cluster, f"edge-{uuid.uuid4().hex[:8]}") as place:
        made = Edge(edge, cluster, place, tmp_path_factory.mktemp("edge"))
        yield made
        made.close()


@pytest.fixture(scope="module")
def port(chart: Helm, standing: Edge, ratelimit: Path, dev: Dev, echo: int) -> int:
    """Port of Envoy. It serves three releases: one for the API, one for the echo server, one for the API with limits per client."""
    api = httpx.URL(dev.content["url"]).port
    assert api is not None

    def release(name: str, host: str, to: int, *words: str) -> list[Json]:
        given = ["--set", f"api.port={to}", "--set", f"httpProxy.host={host}", *words]
        return chart.render("edge", *given, release=name, namespace=standing.namespace)

    each = release("each", EACH, api, "--set", "httpProxy.perClient.enabled=true")
    standing.count(ratelimit, limits_of(each))
    standing.start()
    standing.lead(HOST, release("audit", HOST, api))
    standing.lead(ECHOING, release("echo", ECHOING, echo))
    standing.lead(EACH, each)
    return standing.port


@pytest.fixture(scope="module")
def gated(chart: Helm, gateway: Path, edge: Path, dev: Dev, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of the Envoy of an Envoy Gateway that serves the API with limits per client."""
    api = httpx.URL(dev.content["url"]).port
    assert api is not None
    with envoy_gateway(gateway, edge / "envoy", chart, tmp_path_factory.mktemp("gateway"), host=HOST, api_port=api) as port:
        yield port


@pytest.fixture(params=["port", "gated"], ids=["contour", "envoy-gateway"])
def way(request: pytest.FixtureRequest) -> int:
    """Port of an edge of either kind."""
    port: int = request.getfixturevalue(request.param)
    return port


def through(port: int, dev: Dev, *, tenant: str = "acme", address: str | None = None) -> httpx.Client:
    key = dev.content["tenants"][tenant]["admin"]
    transport = httpx.HTTPTransport(local_address=address)
    headers = {"Host": HOST, "Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, transport=transport, timeout=60)


def test_record_is_stored_and_read_through_the_edge(way: int, dev: Dev) -> None:
    with through(way, dev) as client:
        stored = client.post("/api/v1/logs", json=RECORD)
        assert stored.status_code == 201, stored.text
        assert {"x-envoy-upstream-service-time", "x-ratelimit-limit"} & stored.headers.keys()  # headers that the edges add
        found = client.get(f"/api/v1/logs/{stored.json()['seq']}")
        assert (found.status_code, found.json()["message"]) == (200, RECORD["message"])


def test_stream_passes_the_edge(way: int, dev: Dev) -> None:
    protocols: Any = ["decklog", f"bearer.{dev.content['tenants']['acme']['admin']}"]
    connection = socket.create_connection(("127.0.0.1", way))
    with (
        connect(f"ws://{HOST}/api/v1/logs/stream", sock=connection, subprotocols=protocols) as stream,
        through(way, dev) as client,
    ):
        assert json.loads(stream.recv(timeout=60))["type"] == "open"
        client.post("/api/v1/logs", json={**RECORD, "message": "streamed"})
        event = json.loads(stream.recv(timeout=60))
    assert (event["type"], event["record"]["message"]) == ("record", "streamed")


@pytest.mark.parametrize("path", ["/metrics", "/healthz"])
def test_edge_hides_health_and_metrics(way: int, dev: Dev, path: str) -> None:
    def status(to: int | None, asked: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", to, timeout=60)  # which does not normalise paths
        connection.request("GET", asked, headers={"Host": HOST})
        answer = connection.getresponse()
        assert b"decklog_" not in answer.read()
        connection.close()
        # an edge that normalises paths requests this one
        return status(to, answer.headers["Location"]) if answer.status == 307 else answer.status

    for asked in (
        path,
        f"/{path}",
        f"/api/..{path}",
        f"/api/%2e%2e{path}",
        f"/api/v1/logs/../../..{path}",
        f"/api/v1/logs/..%2f..%2f..{path}",
    ):
        assert status(way, asked) in (400, 401, 404), asked
    assert status(httpx.URL(dev.content["url"]).port, "/healthz") == 200


def test_edge_overwrites_a_claimed_client_address(port: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Host": ECHOING}, timeout=60) as client:
        told = client.get("/api/v1/logs").json()["x-forwarded-for"]
        claimed = client.get("/api/v1/logs", headers={"X-Forwarded-For": "203.0.113.9"}).json()["x-forwarded-for"]
    assert ipaddress.ip_address(told)  # for loopback, Envoy reports the machine's own address
    assert claimed.replace(" ", "") == f"203.0.113.9,{told}"


def test_trace_continues_through_the_edge(port: int) -> None:
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}", headers={"Host": ECHOING, "traceparent": caller}, timeout=60
    ) as client:
        assert client.get("/api/v1/logs").json()["traceparent"] == caller


def assert_held(flood: Flood, per_minute: int) -> None:
    """Assert that the limit plus the refill passed, within 5 %, and that the rest was refused."""
    assert flood.passed == pytest.approx(per_minute * (1 + flood.seconds / 60), rel=0.05)
    assert {answer.headers.get("retry-after") for answer in flood.refused} == {RETRY_AFTER}


async def test_edge_limits_log_routes_separately_and_sends_retry_after(port: int, dev: Dev) -> None:
    assert_held(await drain(port, HOST, OTHERS, at_most=20 * OTHERS_PER_MINUTE), OTHERS_PER_MINUTE)
    with through(port, dev) as client:
        for _ in range(OTHERS_PER_MINUTE + 20):
            assert client.get("/api/v1/logs/stats").status_code == 200  # with no budget left for the other routes
        # A flood without credentials.
        assert_held(await drain(port, HOST, LOGS, at_most=10 * LOGS_PER_MINUTE), LOGS_PER_MINUTE)
        assert client.get("/api/v1/whoami").status_code == 200  # by the refill in the meantime


async def test_edge_refuses_a_flooding_client_and_serves_the_others(port: int, dev: Dev) -> None:
    flooding, other = "127.0.0.2", "127.0.0.3"
    drained = asyncio.Event()
    served = asyncio.Event()

    async def flood() -> list[Flood]:
        floods = []
        while not served.is_set():
            floods.append(await drain(port, EACH, OTHERS, at_most=20 * OTHERS_PER_MINUTE, client=flooding))
            drained.set()
        return floods

    began = datetime.now(UTC)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(flood())
        await drained.wait()
        transport = httpx.AsyncHTTPTransport(local_address=other)
        key = dev.content["tenants"]["globex"]["admin"]
        headers = {"Host": EACH, "Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=headers, transport=transport, timeout=60
        ) as client:
            for _ in range(OTHERS_PER_MINUTE - 20):
                assert (await client.get("/api/v1/whoami")).status_code == 200
                assert (await client.post("/api/v1/logs", json=RECORD)).status_code == 201
        served.set()
    floods = running.result()
    # The service counts exactly, per minute of the clock.
    first, last = (moment.replace(second=0, microsecond=0) for moment in (began, datetime.now(UTC)))
    windows = 1 + (last - first) // timedelta(minutes=1)
    passed = sum(each.passed for each in floods)
    assert max(1, windows - 1) * OTHERS_PER_MINUTE <= passed <= windows * OTHERS_PER_MINUTE
    for answer in (answer for each in floods for answer in each.refused):
        assert 1 <= int(answer.headers["x-ratelimit-reset"]) <= 60


async def test_edge_limits_each_client_by_the_second_on_log_routes(port: int) -> None:
    began = int(time.time())
    floods = [await drain(port, EACH, LOGS, at_most=20 * LOGS_PER_SECOND, client="127.0.0.4") for _ in range(5)]
    seconds = int(time.time()) - began + 1
    assert LOGS_PER_SECOND <= sum(each.passed for each in floods) <= seconds * LOGS_PER_SECOND
    assert {answer.headers["x-ratelimit-reset"] for each in floods for answer in each.refused} == {"1"}


async def test_envoy_gateway_limits_each_client_separately_per_route_group(gated: int, dev: Dev) -> None:
    flooding, other = "127.0.0.5", "127.0.0.6"
    assert_held(await drain(gated, HOST, OTHERS[:1], at_most=20 * OTHERS_PER_MINUTE, client=flooding), OTHERS_PER_MINUTE)
    began = time.monotonic()
    floods = [await drain(gated, HOST, LOGS, at_most=20 * LOGS_PER_SECOND, client=flooding) for _ in range(5)]
    seconds = time.monotonic() - began
    assert sum(each.passed for each in floods) == pytest.approx(LOGS_PER_SECOND * (1 + seconds), rel=0.05)
    assert {answer.headers["retry-after"] for each in floods for answer in each.refused} == {RETRY_AFTER}
    with through(gated, dev, tenant="globex", address=other) as client:
        assert client.get("/api/v1/whoami").status_code == 200
        assert client.post("/api/v1/logs", json=RECORD).status_code == 201
