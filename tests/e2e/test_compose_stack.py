"""The programs of the compose file, run with its commands and variables, over real servers in place of its own.

Only places are others: the addresses of the servers, ports of this machine that are free, and folders for the volumes.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from decklog.assembly import maintenance
from tests.backends import OpenSearchServer
from tests.backends.sqs import SqsServer
from tests.e2e.conftest import own_prefix
from tests.support.compose import DOCKERFILE, PROGRAMS, make_secrets, mounts, variables
from tests.support.images import source_in_checkout
from tests.support.stack import Program, free_port

LONGEST = 120.0
LISTENING = {"api": 8321, "worker": 9321, "provision": 8080}


class Machine:
    """A machine with the volumes of the compose file in `folder`. `places` maps addresses and paths of the file to real ones."""

    def __init__(self, folder: Path, places: dict[str, str]) -> None:
        self.folder = folder
        self.ports = {name: free_port() for name in LISTENING}
        self._places = places | {f"127.0.0.1:{port}": f"127.0.0.1:{self.ports[name]}" for name, port in LISTENING.items()}
        self._places["--health-port=8080"] = f"--health-port={self.ports['provision']}"
        examples = "/opt/decklog/examples"
        self._places[f"={examples}"] = f"={source_in_checkout(DOCKERFILE, examples)}"
        self._places |= {f"={inside}": f"={folder / source}" for inside, source in mounts(PROGRAMS["provision"]).items()}
        self._prefix = own_prefix()
        self.started: dict[str, Program] = {}

    def moved(self, text: str) -> str:
        for place, real in self._places.items():
            text = text.replace(place, real)
        return text

    def environment(self, name: str) -> dict[str, str]:
        found = {key: self.moved(value) for key, value in variables(PROGRAMS[name], self.folder).items()}
        if name == "api":
            found["DECKLOG_API_PORT"] = str(self.ports[name])
        if name == "worker":
            found["DECKLOG_WORKER_METRICS_PORT"] = str(self.ports[name])
        return {"PATH": os.environ["PATH"], **found, **self._prefix}

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "decklog", *words]
        given = {"PATH": os.environ["PATH"], **environment}
        return subprocess.run(argv, env=given, cwd="/", capture_output=True, text=True, check=False, timeout=LONGEST)

    def start(self, name: str) -> None:
        verb, *words = map(self.moved, PROGRAMS[name]["command"])
        program = Program(verb, self.environment(name), self.folder / f"{name}.log", words=tuple(words))
        program.start()
        self.started[name] = program

    def probe(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run the service's own probe."""
        _, _, *words = map(self.moved, PROGRAMS[name]["healthcheck"]["test"])
        return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=LONGEST)

    async def healthy(self, name: str) -> None:
        """Wait until the probe succeeds."""
        async with asyncio.timeout(LONGEST):
            while (told := await asyncio.to_thread(self.probe, name)).returncode != 0:
                process = self.started[name].process
                assert process is not None
                assert process.poll() is None, (self.folder / f"{name}.log").read_text()
                assert told.returncode == 1, told.stderr


@asynccontextmanager
async def installed(folder: Path, search: OpenSearchServer, queue: SqsServer) -> AsyncIterator[Machine]:
    """Make the secrets, and migrate the database."""
    make_secrets(folder)
    password = (folder / "admin/password").read_text()
    async with maintenance.embedded_database(folder / "postgres", password=password) as address:
        servers = {"opensearch:9200": urlsplit(search.url).netloc, "elasticmq:9324": urlsplit(queue.url).netloc}
        machine = Machine(folder, {"timescale:5432": address, **servers})
        for path in folder.glob("*/dsn"):
            path.chmod(0o600)
            path.write_text(machine.moved(path.read_text()))
        migrated = machine.run(*PROGRAMS["migrate"]["command"], **machine.environment("migrate"))
        assert migrated.returncode == 0, migrated.stderr
        try:
            yield machine
        finally:
            await asyncio.gather(*(asyncio.to_thread(program.stop) for program in machine.started.values()))


@pytest.mark.slow
async def test_compose_stack_starts_and_passes_the_doctor(
    opensearch_server: OpenSearchServer, sqs_server: SqsServer, tmp_path: Path
) -> None:
    async with installed(tmp_path, opensearch_server, sqs_server) as machine:
        for name in LISTENING:
            machine.start(name)
        for name in LISTENING:
            await machine.healthy(name)
        kept = json.loads((tmp_path / "keys/keys.json").read_text())
        assert kept["url"] == f"http://127.0.0.1:{machine.ports['api']}"
        assert {"acme", "globex", "minimal"} <= kept["tenants"].keys()
        told = machine.run("doctor", DECKLOG_URL=kept["url"], DECKLOG_KEY=kept["tenants"]["acme"]["admin"])
        assert told.returncode == 0, told.stdout
        assert "Indexed after" in told.stdout
        machine.started["worker"].kill()
        assert machine.probe("worker").returncode == 1
        secrets = {path.read_text() for group in ("admin", "owner", "service") for path in (tmp_path / group).iterdir()}
        logs = "".join(path.read_text() for path in tmp_path.glob("*.log"))
        assert not [secret for secret in secrets if secret in logs]
        assert "dlk_" not in logs
