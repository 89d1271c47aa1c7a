"""An installation whose API owns the tenants, and one whose tenants Kubernetes owns."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.backends import OpenSearchServer, PostgresServer
from tests.backends.sqs import SqsServer
from tests.e2e.conftest import own_prefix, queue_variables, search_variables
from tests.support.stack import Stack, installed
from tests.support.stores import Database, drop_database, new_database

MANIFEST = {
    "apiVersion": "decklog.dev/v1",
    "kind": "Tenant",
    "metadata": {"name": "initech"},
    "spec": {"retention": {"days": 30}},
}
RECORD = {"action": "document.create", "actor": {"id": "alice"}}


@pytest.fixture
async def real(
    timescale_server: PostgresServer, opensearch_server: OpenSearchServer, sqs_server: SqsServer, tmp_path: Path
) -> AsyncIterator[tuple[Stack, Database]]:
    """An installation over TimescaleDB, OpenSearch and SQS that owns its tenants, with a platform key and no tenant."""
    database = await new_database(timescale_server)
    backends = {**search_variables(opensearch_server), **queue_variables(sqs_server), **own_prefix()}
    try:
        dsns = {"service_dsn": database.service_dsn, "owner_dsn": database.owner_dsn}
        async with installed(tmp_path, **dsns, **backends, DECKLOG_TENANTS_OWNER="decklog") as stack:
            told = subprocess.run(
                [sys.executable, "-m", "decklog", "platform-key"],
                env={"PATH": "/usr/bin:/bin", **stack.variables},
                capture_output=True,
                text=True,
                check=True,
            )
            stack.platform_key = told.stdout.strip()
            yield stack, database
    finally:
        await drop_database(database)


async def roles(database: Database) -> set[str]:
    """Return the database roles of all connections of Decklog."""
    sql = "SELECT DISTINCT usename FROM pg_stat_activity WHERE datname = $1 AND application_name LIKE 'decklog/%'"
    return {row["usename"] for row in await database.execute(sql, database.name)}


async def test_tenant_of_one_request_is_served_by_every_process(real: tuple[Stack, Database]) -> None:
    stack, _ = real
    first, second = await stack.api(), await stack.api()
    await stack.worker()
    async with stack.client(first.url, stack.platform_key) as platform:
        made = await platform.post("/api/v1/tenants", json=MANIFEST)
        assert made.status_code == 201, made.text
        bad = [each["type"] for each in made.json()["tenant"]["conditions"] if each["status"] != "True"]
        assert bad == ["QuotaExceeded"]  # and that is good
        keys = made.json()["keys"]
        async with stack.client(second.url, keys["writer"]) as client:
            assert (await client.post("/api/v1/logs", json=RECORD)).status_code == 201
        async with stack.client(second.url, keys["auditor"]) as client, asyncio.timeout(60):
            while (page := (await client.get("/api/v1/logs", params={"q": "alice"})).json())["indexed"] < 1:
                await asyncio.sleep(0.1)
            assert (page["engine"], len(page["items"])) == ("opensearch", 1)
        again = await platform.post("/api/v1/tenants", json=MANIFEST)
        assert (again.status_code, again.json()["keys"]) == (200, None)
    told = first.log.read_text() + second.log.read_text()
    assert not [key for key in keys.values() if key in told]


async def test_api_connects_as_owner_only_when_it_owns_the_tenants(real: tuple[Stack, Database]) -> None:
    stack, database = real
    await stack.worker()
    plain = await stack.api(DECKLOG_TENANTS_OWNER="kubernetes")
    assert await roles(database) == {"decklog_service", "decklog_worker"}
    async with stack.client(plain.url, stack.platform_key) as platform:
        refused = await platform.post("/api/v1/tenants", json=MANIFEST)
        assert (refused.status_code, refused.json()["code"]) == (409, "managed-by-kubernetes")
    assert await roles(database) == {"decklog_service", "decklog_worker"}
    owning = await stack.api()
    assert await roles(database) == {"decklog_service", "decklog_worker", "decklog_owner"}
    async with stack.client(owning.url, stack.platform_key) as platform:
        assert (await platform.post("/api/v1/tenants", json=MANIFEST)).status_code == 201


def test_api_that_owns_tenants_does_not_start_without_the_owner_dsn() -> None:
    variables = {
        "PATH": "/usr/bin:/bin",
        "DECKLOG_TENANTS_OWNER": "decklog",
        "DECKLOG_DATABASE_DSN": "postgresql://127.0.0.1:9/x",
    }
    done = subprocess.run(
        [sys.executable, "-m", "decklog", "api"], env=variables, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert "DECKLOG_DATABASE_OWNER_DSN" in done.stderr
