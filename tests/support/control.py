"""A control plane for tests: a database with the control tables, and provisioners over any set of real backends."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import boto3
import pytest
from opensearchpy import AsyncOpenSearch

from decklog.domain.errors import DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.append import Appended, AppendRequest
from decklog.domain.store import ApiKey
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.spec import parse_spec
from decklog.domain.tenant import Tenant
from decklog.opensearch.client import connect
from decklog.opensearch.provision import OpenSearchProvisioning
from decklog.services.tenancy.provisioning import Provisioner
from decklog.settings import Search
from decklog.sqs.provision import SqsProvisioning
from decklog.timescale.connection import Pool
from decklog.timescale.control.provision import CONNECTIONS_MAX, PostgresProvisioning
from decklog.timescale.control.registry import PostgresRegistry
from tests.backends import OpenSearchServer, PostgresServer, SqsServer
from tests.support.records import prepared
from tests.support.stores import VARIANTS, Database, drop_database, new_control_database

NOBODY_LISTENS = "127.0.0.1:9"


class Snapshot(NamedTuple):
    """The whole registry at one version, by id, without revoked keys and deleted tenants."""

    version: int
    tenants: dict[int, Tenant]
    keys: dict[str, ApiKey]


class Control:
    """One installation with a prefix of its own, so that parallel tests share no index and no queue."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.prefix = "x" + secrets.token_hex(6)
        self.uid = f"uid-{secrets.token_hex(4)}"
        self._closing: list[Any] = []
        self._indices: list[AsyncOpenSearch] = []
        self._queues: list[Any] = []

    def manifest(self, name: str = "acme", *, uid: str | None = None, generation: int = 1, **spec: Any) -> Manifest:
        """Return a manifest without deletion protection, unless `spec` sets it."""
        return Manifest(
            name, uid or self.uid, generation, parse_spec({"retention": {"days": 30}, "deletionProtection": False, **spec})
        )

    def provisioner(
        self, search: AsyncOpenSearch | None = None, queue: Any = None, *, owner_dsn: str | None = None, **options: Any
    ) -> Provisioner:
        """Return a provisioner for one process. It has search and queue only if their clients are given."""
        pool = Pool(owner_dsn or self.database.owner_dsn, size_max=CONNECTIONS_MAX, role=None)
        self._closing.append(pool)
        return Provisioner(
            PostgresProvisioning(pool),
            None if search is None else OpenSearchProvisioning(search, replicas=0),
            None if queue is None else SqsProvisioning(queue),
            directory=PostgresRegistry(pool),
            prefix=self.prefix,
            **options,
        )

    def search(self, server: OpenSearchServer) -> AsyncOpenSearch:
        client = connect(Search(url=server.url))
        self._indices.append(client)
        return client

    def broken_search(self) -> AsyncOpenSearch:
        client = connect(Search(url=f"http://{NOBODY_LISTENS}"))
        self._closing.append(client)
        return client

    def queue(self, server: SqsServer) -> Any:
        client = boto3.session.Session().client(
            "sqs",
            region_name=server.region,
            endpoint_url=server.url,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
        )
        self._queues.append(client)
        return client

    def broken_queue(self) -> Any:
        return self.queue(SqsServer(f"http://{NOBODY_LISTENS}", "us-east-1", "a", "b"))

    def broken_owner_dsn(self) -> str:
        return f"postgresql://decklog_owner@{NOBODY_LISTENS}/decklog"

    async def registry(self) -> PostgresRegistry:
        """The registry as the service reads it, with its own role."""
        return PostgresRegistry(await self.database.pool())

    async def snapshot(self) -> Snapshot:
        """Return all that the service's role finds in the registry, at one version."""
        names = [row["name"] for row in await self.database.execute("SELECT name FROM decklog.tenants")]
        keys = [row["id"] for row in await self.database.execute("SELECT id FROM decklog.api_keys")]
        found = await (await self.registry()).find(names=names, keys=keys)
        return Snapshot(found.version, {tenant.id: tenant for tenant in found.tenants}, {key.id: key for key in found.keys})

    async def tenant(self, name: str = "acme") -> Tenant:
        """Return the tenant as the service reads it."""
        [tenant] = [tenant for tenant in (await self.snapshot()).tenants.values() if tenant.name == name]
        return tenant

    async def append(self, name: str = "acme") -> Appended | DecklogError:
        """One record, as the service's role stores it."""
        store, tenant = await self.database.records(), await self.tenant(name)
        [result] = await store.append([AppendRequest(tenant, LogName.EVENTS, [prepared()])])
        return result

    async def close(self) -> None:
        for client in self._indices:
            await client.indices.delete(index=f"{self.prefix}-*")
            await client.close()
        for client in self._queues:
            await asyncio.to_thread(self._drop_queues, client)
        for opened in self._closing:
            await opened.close()

    def _drop_queues(self, client: Any) -> None:
        if NOBODY_LISTENS not in client.meta.endpoint_url:
            for url in client.list_queues(QueueNamePrefix=self.prefix).get("QueueUrls", ()):
                client.delete_queue(QueueUrl=url)
        client.close()


@asynccontextmanager
async def installation(server: PostgresServer) -> AsyncIterator[Control]:
    """A new database with control tables and without tenants; dropped afterwards, with its indices and queues."""
    database = await new_control_database(server)
    made = Control(database)
    try:
        yield made
    finally:
        await made.close()
        await drop_database(database)


@pytest.fixture
async def control(request: pytest.FixtureRequest) -> AsyncIterator[Control]:
    """An installation on plain PostgreSQL, with `on_each_variant` also on TimescaleDB."""
    async with installation(request.getfixturevalue(f"{getattr(request, 'param', 'postgres')}_server")) as made:
        yield made


on_each_variant = pytest.mark.parametrize("control", VARIANTS, indirect=True)
