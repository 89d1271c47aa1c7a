"""Upgrade from the release under traffic, and rollback: no request is refused, and no record is lost or stored twice."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from decklog.domain.identity.access import Role
from decklog.timescale.control import schema
from decklog.timescale.statements import statement
from tests.backends import PostgresServer
from tests.backends.opensearch import OpenSearchServer
from tests.backends.sqs import SqsServer
from tests.e2e.conftest import own_prefix, queue_variables, search_variables
from tests.support.catalog import catalog, taken_away
from tests.support.records import FINGERPRINT_KEY
from tests.support.stack import Program, Stack
from tests.support.stores import Database, drop_database, empty_database
from tests.support.traffic import Service, record, traffic

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("interfaces")]
"""Not beside the images' builds: processes of the release stop serving when they cannot read the registry for two seconds."""

ROOMY = {"eventsPerSecond": 100_000, "burst": 100_000}
TENANTS: dict[str, dict[str, Any]] = {
    "dedicated": {"retention": {"days": 90}, "quotas": ROOMY},
    "shared-a": {"isolation": "Shared", "retention": {"days": 30}, "quotas": ROOMY},
    "shared-b": {"isolation": "Shared", "retention": {"days": 30}, "quotas": ROOMY},
}


class Installation:
    """A database with processes of two versions."""

    def __init__(self, release: Path, database: Database, stack: Stack) -> None:
        self.database = database
        self.stack = stack
        self.service = Service()
        self._now = stack.variables
        self._before = {**stack.variables, "PYTHONPATH": str(release / "tree/service/src")}
        self._python = release / "venv/bin/python"

    def run(self, *words: str | Path, before: bool, stdin: str = "") -> str:
        python, variables = (self._python, self._before) if before else (sys.executable, self._now)
        argv = [python, *words] if str(words[0]).endswith(".py") else [python, "-m", "decklog", *words]
        done = subprocess.run(
            argv, input=stdin, env={"PATH": "/usr/bin:/bin", **variables}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def provision_before(self) -> None:
        """Create the tenants as the operator of the release does."""
        script = Path(__file__).parents[1] / "support/release_provision.py"
        told = self.run(script, before=True, stdin=json.dumps(TENANTS))
        for name, keys in json.loads(told.splitlines()[-1]).items():
            self.stack.vault.keys[name] = {Role(role): key for role, key in keys.items()}
            self.stack.vault.said[name] = None, None

    async def start(self, verb: str, *, before: bool) -> Program:
        self.stack.variables, self.stack.python = (self._before, self._python) if before else (self._now, sys.executable)
        program = await (self.stack.api() if verb == "api" else self.stack.worker())
        self.stack.variables = self._now
        return program

    async def api(self, *, before: bool) -> Program:
        program = await self.start("api", before=before)
        await self.service.add(program)
        return program

    async def end(self, program: Program) -> None:
        """End a process as Kubernetes does: it gets no more requests, and then the signal."""
        await self.service.remove(program)
        assert await asyncio.to_thread(program.stop) == 0


@asynccontextmanager
async def installation(
    folder: Path, release: Path, server: PostgresServer, search: OpenSearchServer, sqs: SqsServer
) -> AsyncIterator[Installation]:
    database = await empty_database(server)
    variables = {
        "DECKLOG_DATABASE_DSN": database.service_dsn,
        "DECKLOG_DATABASE_OWNER_DSN": database.owner_dsn,
        "DECKLOG_IDENTITY_FINGERPRINT_KEY": FINGERPRINT_KEY.decode(),
        "DECKLOG_API_SEARCH_TIMEOUT": "60",  # that a machine is slow is not what is tested
        **search_variables(search),
        **queue_variables(sqs),
        **own_prefix(),
    }
    made = Installation(release, database, Stack(variables, folder))
    try:
        yield made
    finally:
        await asyncio.to_thread(made.stack.close)
        await drop_database(database)


@pytest.mark.timeout(600)
async def test_upgrade_under_traffic_refuses_no_request_and_allows_rollback(
    release: Path,
    timescale_server: PostgresServer,
    opensearch_server: OpenSearchServer,
    sqs_server: SqsServer,
    tmp_path: Path,
) -> None:
    async with installation(tmp_path, release, timescale_server, opensearch_server, sqs_server) as at:
        await asyncio.to_thread(at.run, "migrate", before=True)
        await asyncio.to_thread(at.provision_before)
        old = await at.api(before=True)
        old_worker = await at.start("worker", before=True)
        async with traffic(at.stack, at.service, *TENANTS, writers=1) as clients:
            await clients.more()

            # The first migration removes nothing that processes of the release use.
            before = await catalog(at.database)
            await asyncio.to_thread(at.run, "migrate", before=False)
            assert taken_away(before, await catalog(at.database)) == []
            await clients.more()

            # Processes of both versions serve side by side, and then the new ones alone.
            new = await at.api(before=False)
            await clients.more()
            await at.end(old)
            await clients.more()
            worker = await at.start("worker", before=False)
            assert await asyncio.to_thread(old_worker.stop) == 0

            # Rollback: a process of the release serves alone for a while, over definitions that are newer.
            back = await at.api(before=True)
            await at.service.remove(new)
            await clients.more()
            await at.service.add(new)
            await at.end(back)

            await at.stack.provision(**{name.replace("-", "_"): spec for name, spec in TENANTS.items()})
            await asyncio.to_thread(at.run, "migrate", "--post", before=False)
            await clients.more()
            logs = await clients.finish(worker)
            assert clients.closings.total() >= len(TENANTS)  # The old process sent each follower to another one.

        # Retries of records that the release stored are recognized, and other content under their ids is refused.
        for tenant in TENANTS:
            first = logs[tenant][0]
            async with at.stack.client(new.url, at.stack.key(tenant, "writer")) as client:
                again = await client.post("/api/v1/logs", json=record(first["id"]))
                assert (again.status_code, again.json()["seq"]) == (200, 0)
                assert (await client.post("/api/v1/logs", json={**record(first["id"]), "message": "other"})).status_code == 409


def test_changed_definitions_have_a_greater_number_than_the_release(release: Path) -> None:
    """With a smaller number, the release would replace them when it is started again."""
    sources = release / "tree/service/src/decklog/timescale"
    [before] = re.findall(r"^DEFINITIONS = (\d+)$", (sources / "schema.py").read_text(), re.MULTILINE) or ["0"]
    names = ("cell", "relations", "shared")
    changed = [name for name in names if (sources / f"sql/{name}.sql").read_text() != statement(name)]
    assert int(before) + bool(changed) <= schema.DEFINITIONS, changed
