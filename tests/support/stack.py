"""Decklog as in production, for tests: processes over real backends that can be killed and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from decklog import settings
from decklog.assembly import control_plane, maintenance
from decklog.domain.identity.access import Role
from decklog.domain.tenancy.spec import parse_spec
from decklog.timescale.connection import SERVICE_ROLE, WORKER_ROLE
from tests.support.records import FINGERPRINT_KEY
from tests.support.vaults import MemoryVault

READY_SECONDS_MAX = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Program:
    """One `decklog` process. `start` after `kill` runs it again on the same port."""

    verb: str
    environment: dict[str, str]
    log: Path
    port: int = 0
    words: tuple[str, ...] = ()
    python: str | Path = sys.executable
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.python, "-m", "decklog", self.verb, *self.words],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def ready(self) -> None:
        """Wait until it answers. Raises AssertionError, with its log, if it ends."""
        async with httpx.AsyncClient() as client, asyncio.timeout(READY_SECONDS_MAX):
            while True:
                assert self.process is not None
                assert self.process.poll() is None, self.log.read_text()[-3000:]
                try:
                    if (await client.get(f"{self.url}/healthz")).status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.05)

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> int | None:
        if self.process is None:
            return None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()
            return None


@dataclass
class Stack:
    """An installation: settings, keys of tenants, and processes."""

    variables: dict[str, str]
    folder: Path
    vault: MemoryVault = field(default_factory=MemoryVault)
    platform_key: str = ""
    python: str | Path = sys.executable
    """The interpreter of processes that are started later."""
    programs: list[Program] = field(default_factory=list)

    @property
    def settings(self) -> settings.Settings:
        return settings.load(self.variables)

    async def provision(self, **specs: Mapping[str, object]) -> None:
        """Create or update tenants by name (`_` stands for `-`), and check that each is ready."""
        async with control_plane.open_provisioner(self.settings) as provisioner:
            status = await provisioner.ensure_platform_tenant()
            assert status.ready, status
            self.platform_key = await provisioner.ensure_platform_key(self.platform_key or None)
            for name, spec in specs.items():
                manifest = await provisioner.manifest(name.replace("_", "-"), parse_spec(spec))
                status = await provisioner.reconcile(manifest, self.vault)
                assert status.ready, status

    def key(self, tenant: str, role: str) -> str:
        return self.vault.keys[tenant][Role(role)]

    def client(self, url: str, key: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60)

    async def api(self, **variables: str) -> Program:
        return await self._start("api", **variables)

    async def worker(self, **variables: str) -> Program:
        return await self._start("worker", **variables)

    async def provisioner(self, *words: str, **variables: str) -> Program:
        """Start `decklog provision` with these options and a port for its probes."""
        port = free_port()
        return await self._run("provision", port, (*words, "--health-port", str(port)), variables)

    async def _start(self, verb: str, **variables: str) -> Program:
        port = free_port()
        name = "DECKLOG_API_PORT" if verb == "api" else "DECKLOG_WORKER_METRICS_PORT"
        if verb == "worker" and self.python == sys.executable:  # in the release, API and workers shared a role
            variables = {
                "DECKLOG_DATABASE_DSN": self.variables["DECKLOG_DATABASE_DSN"].replace(SERVICE_ROLE, WORKER_ROLE),
                **variables,
            }
        return await self._run(verb, port, (), {name: str(port), **variables})

    async def _run(self, verb: str, port: int, words: tuple[str, ...], variables: Mapping[str, str]) -> Program:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("DECKLOG_") or k.startswith("DECKLOG_TEST_")}
        environment = {**inherited, **self.variables, **variables}
        program = Program(verb, environment, self.folder / f"{verb}-{port}.log", port, words, self.python)
        self.programs.append(program)
        program.start()
        await program.ready()
        return program

    def close(self) -> None:
        for program in self.programs:
            program.stop()


@asynccontextmanager
async def installed(folder: Path, *, service_dsn: str, owner_dsn: str, **variables: str) -> AsyncIterator[Stack]:
    """Make an installation over a database that has the roles, and migrate it to this version."""
    stack = Stack(
        {
            "DECKLOG_DATABASE_DSN": service_dsn,
            "DECKLOG_DATABASE_OWNER_DSN": owner_dsn,
            "DECKLOG_IDENTITY_FINGERPRINT_KEY": FINGERPRINT_KEY.decode(),
            **variables,
        },
        folder,
    )
    await maintenance.migrate(stack.settings)
    try:
        yield stack
    finally:
        await asyncio.to_thread(stack.close)
