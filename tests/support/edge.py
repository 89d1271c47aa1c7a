"""Contour and Envoy as they stand before the API: real ones, on loopback, told by the objects of one namespace."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tests.backends import KubernetesServer
from tests.backends.server import LOOPBACK, Process, free_ports, http_status, spawn, stop_all, wait_ready

START_MAX = timedelta(seconds=120)
CONNECTIONS = 8
AFTER_REFUSED = 40  # that many refusals say that nothing is left


class Edge:
    """A Contour that sees one namespace, and its Envoy, which listens on `port`. What leads to loopback is a Service by name."""

    def __init__(self, programs: Path, server: KubernetesServer, namespace: str, folder: Path) -> None:
        self._programs, self._server, self.namespace, self._folder = programs, server, namespace, folder
        self._processes: list[Process] = []
        self.port = 0

    def start(self) -> None:
        xds, health, metrics, debug, stats, admin, https, self.port = free_ports(8)
        config = self._folder / "contour.yaml"
        config.write_text(f"enableExternalNameService: true\nnetwork: {{admin-port: {admin}}}\n")
        told = ["--xds-address", LOOPBACK, "--xds-port", str(xds)]
        listening = {
            "health": health,
            "http": metrics,
            "debug-http": debug,
            "stats": stats,
            "envoy-service-http": self.port,
            "envoy-service-https": https,
        }
        for name, port in listening.items():
            told += [f"--{name}-address", LOOPBACK, f"--{name}-port", str(port)]
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
        self._run("contour", [contour, *words, "--insecure", "--disable-leader-election", *told])
        self._ready("Contour", f"http://{LOOPBACK}:{health}/healthz")
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
        self._ready("Envoy", f"http://{LOOPBACK}:{stats}/ready")  # it listens for others once there is a route

    def close(self) -> None:
        stop_all(self._processes)

    def _run(self, name: str, argv: list[str | Path]) -> None:
        self._processes.append(
            spawn(argv, pid_file=self._folder / f"{name}.pid", log=self._folder / f"{name}.log", cwd=self._folder)
        )

    def _ready(self, what: str, url: str) -> None:
        log = self._folder / f"{what.lower()}.log"
        wait_ready(what, lambda: http_status(url) == 200, self._processes, log, START_MAX)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Flood:
    """What became of as many requests as were needed to be refused for good."""

    passed: int
    refused: list[Answer]
    seconds: float


async def drain(port: int, host: str, path: str, at_most: int) -> Flood:
    """Asks until nothing is left of a limit; raises `AssertionError` when `at_most` requests do not do it. Refused is what the edge says 429 to."""
    began = time.monotonic()
    passed, asked, refused = 0, 0, list[Answer]()
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()

    async def ask() -> None:
        nonlocal passed, asked
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        while len(refused) < AFTER_REFUSED:
            asked += 1
            assert asked <= at_most, f"{passed} requests passed and {len(refused)} were refused"
            writer.write(request)
            answer = await _answer(reader)
            if answer.status == 429 and answer.body == b"local_rate_limited":
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
