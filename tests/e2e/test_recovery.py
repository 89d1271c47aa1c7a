"""Disaster recovery: a database restored from a copy, without indices and queues, and tenants whose objects are lost."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import httpx
import msgspec
import pytest

from decklog.assembly import control_plane
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.spec import parse_spec
from tests.backends import PostgresServer, Servers, timescale
from tests.backends.backend import LocalServer
from tests.backends.cache import UnavailableError, last_lines, make_folder
from tests.backends.fixtures import PrivatePostgres
from tests.backends.opensearch import OpenSearchServer
from tests.backends.postgres import LocalPostgres
from tests.backends.sqs import SqsServer
from tests.backends.timescale import LocalTimescale
from tests.e2e.conftest import own_prefix, queue_variables, search_variables
from tests.support.stack import Stack, installed
from tests.support.stores import Database, drop_database, new_database
from tests.support.traffic import Service, indexed, record, traffic
from tests.support.vaults import MemoryVault

pytestmark = pytest.mark.slow

ROOMY = {"eventsPerSecond": 100_000, "burst": 100_000}
TENANTS: dict[str, dict[str, Any]] = {
    "dedicated": {"retention": {"days": 90}, "quotas": ROOMY},
    "shared": {"isolation": "Shared", "retention": {"days": 30}, "quotas": ROOMY},
}


class Copy(LocalTimescale):
    """A server over a base backup of another one that was in use, with the write-ahead log up to the backup's end."""

    def __init__(self, folder: Path, of: LocalPostgres) -> None:
        super().__init__(folder, durable=False)
        self._of = of

    def _initialise(self) -> None:
        make_folder(self.data)
        self.own_data()
        into = ["--pgdata", f"{self.data_seen()}/cluster", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]
        with self.log("copy").open("wb") as log:
            command = self.command("pg_basebackup", *into, "--dbname", self._of.address.dsn)
            if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, cwd="/").returncode:
                raise UnavailableError(f"pg_basebackup failed: {last_lines(self.log('copy'))}")
        self.address = replace(self.address, password=self._of.address.password)


def decklog(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", **stack.variables}
    argv = [sys.executable, "-m", "decklog", *words]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)


async def lose_queues(stack: Stack) -> None:
    prefix, queue = stack.settings.prefix, stack.settings.queue
    sqs = boto3.client(
        "sqs",
        endpoint_url=queue.endpoint_url,
        region_name=queue.region,
        aws_access_key_id=queue.access_key_id,
        aws_secret_access_key=queue.secret_access_key,
    )
    for url in (await asyncio.to_thread(sqs.list_queues, QueueNamePrefix=prefix)).get("QueueUrls", ()):
        await asyncio.to_thread(sqs.delete_queue, QueueUrl=url)


async def rotate(stack: Stack, name: str) -> None:
    async with control_plane.open_provisioner(stack.settings) as provisioner:
        manifest = await provisioner.manifest(name, parse_spec(TENANTS[name]))
        assert (await provisioner.reconcile(msgspec.structs.replace(manifest, rotate="again"), stack.vault)).ready


async def test_recover_database_keeps_records_of_the_copy_and_begins_new_epochs(
    private_postgres: PrivatePostgres,
    servers: Servers,
    opensearch_server: OpenSearchServer,
    sqs_server: SqsServer,
    tmp_path: Path,
) -> None:
    lost = await asyncio.to_thread(private_postgres, "timescale", durable=False)
    database = await new_database(lost.address)
    variables = {**search_variables(opensearch_server), **queue_variables(sqs_server), **own_prefix()}
    async with installed(tmp_path, service_dsn=database.service_dsn, owner_dsn=database.owner_dsn, **variables) as stack:
        await stack.provision(**TENANTS)
        service = Service()
        await service.add(await stack.api())
        await stack.worker()
        async with traffic(stack, service, *TENANTS) as clients:
            await clients.more(100)
            before = {tenant: dict(places) for tenant, places in clients.acknowledged.items()}
            make = servers.run.private
            copy: LocalServer[PostgresServer] = await asyncio.to_thread(
                make, timescale.BACKEND, lambda folder: Copy(folder, lost)
            )
            await rotate(stack, "dedicated")
            await clients.more(50)
        for program in stack.programs:
            program.kill()
        lost.kill9()
        await lose_queues(stack)

        restored = Database(copy.address, database.name, database.password)
        stack.variables |= {"DECKLOG_DATABASE_DSN": restored.service_dsn, "DECKLOG_DATABASE_OWNER_DSN": restored.owner_dsn}
        assert (await asyncio.to_thread(decklog, stack, "migrate")).returncode == 0
        done = await asyncio.to_thread(decklog, stack, "recover", "database")
        assert done.returncode == 0, done.stderr
        told = done.stdout.splitlines()
        assert told[0] == "6 logs have begun a new epoch."  # each tenant has two, and so has the platform
        assert [line.split()[:3] for line in told[1:]] == [["removed", "the", "index"]] * 3  # they know what is lost
        held = stack.key("dedicated", "writer")
        await stack.provision(**TENANTS)
        assert stack.key("dedicated", "writer") != held  # the registry does not know what was handed out after the copy
        api, _ = await stack.api(), await stack.worker()
        for tenant in TENANTS:
            await holds(stack, api.url, tenant, before[tenant], clients.acknowledged[tenant])
        noted = "SELECT FROM shared_365.records WHERE action = 'database.recover' AND epoch = 2"
        assert len(await restored.execute(noted)) == 1


async def holds(stack: Stack, url: str, tenant: str, before: dict[str, int], acknowledged: dict[str, int]) -> None:
    """Check that records acknowledged before the copy are stored and found, and that lost ones get numbers of a new epoch."""
    async with stack.client(url, stack.key(tenant, "admin")) as client:
        records = await exported(client)
        kept = {each["id"]: each["seq"] for each in records}
        assert list(kept.values()) == list(range(len(records)))
        assert before.items() <= kept.items() <= acknowledged.items()
        gone = acknowledged.keys() - kept.keys()
        assert gone
        newest = max(acknowledged.values())
        refused = await client.get("/api/v1/logs/stream", params={"after": f"1.1700000000000000.{newest}"})
        assert (refused.status_code, "restored" in refused.json()["detail"]) == (422, True), refused.text

        answer = (await client.post("/api/v1/logs/bulk", json=[record(each) for each in acknowledged])).json()
        assert (answer["stored"], answer["duplicates"]) == (len(gone), len(kept))
        again = await exported(client)
        assert again[: len(records)] == records
        assert [each["seq"] for each in again] == list(range(len(acknowledged)))
        assert {each["epoch"] for each in again[: len(records)]} == {1}
        assert {each["epoch"] for each in again[len(records) :]} == {2}
        await indexed(client, len(again))


async def exported(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (await client.get("/api/v1/logs/export", params={"format": "ndjson"})).text.splitlines()]


async def test_recover_tenants_lets_new_objects_adopt_the_data(timescale_server: PostgresServer, tmp_path: Path) -> None:
    database = await new_database(timescale_server)
    spec = parse_spec({**TENANTS["dedicated"], "legalHold": True})
    try:
        async with installed(tmp_path, service_dsn=database.service_dsn, owner_dsn=database.owner_dsn) as stack:
            await stack.provision(acme=msgspec.to_builtins(spec), beta=TENANTS["shared"])
            api = await stack.api()
            async with stack.client(api.url, stack.key("acme", "writer")) as client:
                assert [(await client.post("/api/v1/logs", json=record(str(n)))).json()["seq"] for n in range(3)] == [0, 1, 2]
            new, vault = Manifest("acme", str(uuid.uuid4()), 1, spec), MemoryVault()
            async with control_plane.open_provisioner(stack.settings) as provisioner:
                [ready] = [each for each in (await provisioner.reconcile(new, vault)).conditions if each.type == "Ready"]
                assert (ready.status, ready.reason) == ("False", "Conflict")

                for words, code, told in (
                    ((), 2, ""),
                    (
                        ("acme", "nobody"),
                        1,
                        "acme: kept, for the next Tenant of this name to take over\nnobody: There is no such tenant.\n",
                    ),
                    (("--all",), 0, "acme: kept, for the next Tenant of this name to take over\nbeta: kept,"),
                ):
                    done = await asyncio.to_thread(decklog, stack, "recover", "tenants", *words)
                    assert (done.returncode, done.stdout[: len(told)]) == (code, told), done.stderr

                assert (await provisioner.reconcile(new, vault)).ready
            stack.vault = vault
            async with stack.client(api.url, stack.key("acme", "writer")) as client, asyncio.timeout(60):
                while (answer := await client.post("/api/v1/logs", json=record("later"))).status_code == 401:
                    await asyncio.sleep(0.1)  # until the registry is read again
                assert (answer.json()["seq"], answer.json()["epoch"]) == (3, 1)
    finally:
        await drop_database(database)
