"""Run a real Contour and Envoy on loopback, configured by the objects of one namespace."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import yaml

from tests.backends import KubernetesServer
from tests.backends.server import LOOPBACK, Process, free_ports, http_status, spawn, stop_all, wait_ready
from tests.support.charts import WAIT_MAX, Json, of
from tests.support.operators import until

START_MAX = timedelta(seconds=120)
CONNECTIONS = 8
AFTER_REFUSED = 40  # this many refusals in a row mean that the limit is used up
DOMAIN = "contour"  # the chart's default
COUNTING = "ratelimit"


class Edge:
    """A Contour that watches one namespace, and its Envoy on `port`. Services of type ExternalName lead to loopback."""

    def __init__(self, programs: Path, server: KubernetesServer, namespace: str, folder: Path) -> None:
        self._programs, self._server, self.namespace, self._folder = programs, server, namespace, folder
        self._processes: list[Process] = []
        self._counting = ""
        self.port = 0

    def count(self, program: Path, limits: str) -> None:
        """Start the rate limit service with these limits. Call before `start`, because Contour reads its address once."""
        place = self._folder / "limits/config"
        place.mkdir(parents=True)
        (place / "limits.yaml").write_text(limits)
        http, grpc, debug = free_ports(3)
        address = _own_address()
        environ = {
            "RUNTIME_ROOT": str(self._folder), "RUNTIME_SUBDIRECTORY": "limits", "RUNTIME_WATCH_ROOT": "false", "USE_STATSD": "false",
            "HOST": LOOPBACK, "PORT": str(http), "DEBUG_HOST": LOOPBACK, "DEBUG_PORT": str(debug),
            "GRPC_HOST": address, "GRPC_PORT": str(grpc), "LOCAL_CACHE_SIZE_IN_BYTES": "1048576",
        }  # fmt: skip
        self._run(COUNTING, [program], environ)
        self._ready(COUNTING, f"http://{LOOPBACK}:{http}/healthcheck")
        self._server.kubectl("apply", "-f", "-", stdin=json.dumps(_extension(self.namespace, address, grpc)))
        service = {"extensionService": f"{self.namespace}/{COUNTING}", "domain": DOMAIN, "enableXRateLimitHeaders": True}
        self._counting = yaml.safe_dump({"rateLimitService": service})

    def start(self) -> None:
        xds, health, metrics, debug, stats, admin, https, self.port = free_ports(8)
        config = self._folder / "contour.yaml"
        config.write_text(f"enableExternalNameService: true\nnetwork: {{admin-port: {admin}}}\n{self._counting}")
        addresses = ["--xds-address", LOOPBACK, "--xds-port", str(xds)]
        listening = {
            "health": health,
            "http": metrics,
            "debug-http": debug,
            "stats": stats,
            "envoy-service-http": self.port,
            "envoy-service-https": https,
        }
        for name, port in listening.items():
            addresses += [f"--{name}-address", LOOPBACK, f"--{name}-port", str(port)]
        contour = self._programs / "contour"
        words: list[str | Path] = [
            "serve",
            "--config-path",
            config,
            "--kubeconfig",
            self._server.kubeconfig,
            "--watch-namespaces",
            self.namespace,
        ]
        self._run("contour", [contour, *words, "--insecure", "--disable-leader-election", *addresses])
        self._ready("contour", f"http://{LOOPBACK}:{health}/healthz")
        first = self._folder / "envoy.json"
        words = ["bootstrap", first, "--admin-address", self._folder / "admin.sock"]
        bootstrap = [contour, *words, "--xds-address", LOOPBACK, "--xds-port", str(xds), "--dns-lookup-family", "v4"]
        subprocess.run(bootstrap, check=True, capture_output=True, timeout=START_MAX.total_seconds())
        words = [
            "-c",
            first,
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--service-cluster",
            "edge",
            "--service-node",
            "edge",
        ]
        self._run("envoy", [self._programs / "envoy", *words, "--log-level", "warning"])
        self._ready("envoy", f"http://{LOOPBACK}:{stats}/ready")  # it listens on this port once a route exists

    def close(self) -> None:
        stop_all(self._processes)

    def lead(self, host: str, objects: list[Json]) -> None:
        """Apply the HTTPProxy and the API's Service of a release, and wait until Envoy serves its host.

        There is no node, so the Service leads to a port of loopback by name."""
        [proxy] = of(objects, "HTTPProxy")
        [service] = of(objects, "Service", proxy["metadata"]["name"])
        del service["spec"]["selector"]
        service["spec"] |= {"type": "ExternalName", "externalName": LOOPBACK}
        self._server.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all([service, proxy]))
        self.await_served(host, proxy["metadata"]["name"])

    def await_served(self, host: str, proxy: str) -> None:
        """Wait until requests to this host reach the backend of the HTTPProxy of this name."""
        valid = "--for=jsonpath={.status.currentStatus}=valid"
        self._server.kubectl("wait", valid, "httpproxy", proxy, "-n", self.namespace, "--timeout=90s")
        until(f"{host} is served", lambda: serves(self.port, host), longest=WAIT_MAX)

    def _run(self, name: str, argv: list[str | Path], environ: Mapping[str, str] | None = None) -> None:
        pid, log = self._folder / f"{name}.pid", self._folder / f"{name}.log"
        self._processes.append(spawn(argv, pid_file=pid, log=log, cwd=self._folder, environ=environ))

    def _ready(self, name: str, url: str) -> None:
        wait_ready(name, lambda: http_status(url) == 200, self._processes, self._folder / f"{name}.log", START_MAX)


def serves(port: int, host: str) -> bool:
    """Return whether Envoy serves the route. Contour reports a route before Envoy serves it."""
    with contextlib.suppress(httpx.TransportError):  # it does not listen without a route
        url = f"http://{LOOPBACK}:{port}/api/v1/logs/stats"
        return httpx.get(url, headers={"Host": host}, timeout=60).status_code in (200, 401)
    return False


def limits_of(objects: list[Json]) -> str:
    """Return the rate limit service's configuration of a release with limits per client."""
    [proxy] = of(objects, "HTTPProxy")
    [limits] = of(objects, "ConfigMap", f"{proxy['metadata']['name']}-limits")
    [text] = limits["data"].values()
    return str(text)


def _own_address() -> str:
    """Return a non-loopback address of this machine, because endpoints must not be loopback. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def _extension(namespace: str, address: str, port: int) -> Json:
    """Return the objects with which Contour reaches the rate limit service at this address."""
    metadata = {"name": COUNTING, "namespace": namespace}
    of_service = {"labels": {"kubernetes.io/service-name": COUNTING}}
    ports = [{"name": "grpc", "port": port, "protocol": "TCP"}]
    extension = {"protocol": "h2c", "services": [{"name": COUNTING, "port": port}], "timeoutPolicy": {"response": "10s"}}
    items = [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, **of_service},
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        },
        {"apiVersion": "projectcontour.io/v1alpha1", "kind": "ExtensionService", "metadata": metadata, "spec": extension},
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Flood:
    """The result of sending requests until a limit is used up."""

    passed: int
    refused: list[Answer]
    seconds: float


async def drain(port: int, host: str, paths: Sequence[str], at_most: int, *, client: str = LOOPBACK) -> Flood:
    """Send requests from one address, over the paths in turn, until a limit is used up. The edge refuses with 429.

    Raises `AssertionError` when `at_most` requests do not use up the limit."""
    began = time.monotonic()
    passed, sent, refused = 0, 0, list[Answer]()
    requests = itertools.cycle([f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode() for path in paths])

    async def ask() -> None:
        nonlocal passed, sent
        reader, writer = await asyncio.open_connection(LOOPBACK, port, local_addr=(client, 0))
        while len(refused) < AFTER_REFUSED:
            sent += 1
            assert sent <= at_most, f"{passed} requests passed and {len(refused)} were refused"
            writer.write(next(requests))
            answer = await _answer(reader)
            if answer.status == 429 and answer.headers.get("content-type") != "application/problem+json":  # not the API's 429
                refused.append(answer)
            else:
                passed += 1
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(ask())
    return Flood(passed, refused, time.monotonic() - began)


async def _answer(reader: asyncio.StreamReader) -> Answer:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(first.split()[1]), headers, await reader.readexactly(int(headers["content-length"])))
