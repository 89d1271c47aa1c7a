"""The stand of a benchmark: a PostgreSQL variant with fsync and the real roles, provisioned tenants, and the service's processes."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from decklog.assembly import control_plane, maintenance
from decklog.domain.identity.access import Role
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.names import PREFIX
from decklog.domain.tenancy.spec import parse_spec
from decklog.domain.tenant import Isolation, State, Tenant
from decklog.settings import Database, Identity, Queue, Search, Settings
from decklog.timescale.connection import SERVICE_ROLE, WORKER_ROLE
from tests.backends import OpenSearchServer, PostgresServer, SqsServer
from tests.bench.processes import HOST, Server, free_port, serving
from tests.support.stores import drop_database, empty_database
from tests.support.vaults import MemoryVault

_RATE_MAX = 1_000_000
"""Quota of the tenants in records per second, high enough never to limit a measurement."""


@dataclass(frozen=True)
class Customer:
    """A tenant and the keys of its roles."""

    tenant: Tenant
    keys: dict[Role, str]

    @property
    def writer(self) -> str:
        return self.keys[Role.WRITER]

    @property
    def auditor(self) -> str:
        return self.keys[Role.AUDITOR]


@dataclass
class Stand:
    """One database on one server."""

    server: PostgresServer
    settings: Settings
    _vault: MemoryVault = field(default_factory=MemoryVault)
    _manifests: dict[str, Manifest] = field(default_factory=dict)

    @property
    def admin_dsn(self) -> str:
        return self.settings.database.admin_dsn

    @property
    def owner_dsn(self) -> str:
        return self.settings.database.owner_dsn

    async def customers(
        self,
        count: int,
        isolation: Isolation,
        *,
        days: int = 90,
        per_second: int = _RATE_MAX,
        quotas: Mapping[str, float] | None = None,
    ) -> list[Customer]:
        """Provision new tenants; `quotas` replaces the quotas of `per_second`, and what it leaves out has the default.

        Raise RuntimeError with the condition of a tenant that is not ready.
        """
        limits = {"eventsPerSecond": per_second, "burst": 10 * per_second} if quotas is None else dict(quotas)
        spec = parse_spec({"isolation": isolation.value, "retention": {"days": days}, "quotas": limits})
        made: list[Customer] = []
        async with control_plane.open_provisioner(self.settings) as provisioner:
            for _ in range(count):
                manifest = Manifest(f"bench-{secrets.token_hex(5)}", secrets.token_hex(8), 1, spec)
                status = await provisioner.reconcile(manifest, self._vault)
                if not status.ready or status.tenant_id is None:
                    raise RuntimeError(f"a tenant is not ready: {status.conditions}")
                tenant = Tenant(
                    status.tenant_id,
                    manifest.name,
                    isolation,
                    status.schema,
                    status.index,
                    status.queue,
                    days,
                    State.ACTIVE,
                )
                made.append(Customer(tenant, self._vault.keys[manifest.name]))
                self._manifests[manifest.name] = manifest
        return made

    async def visit(self, customer: Customer) -> int:
        """Visit the tenant as the operator does from time to time, and return the bytes of its storage."""
        async with control_plane.open_provisioner(self.settings) as provisioner:
            status = await provisioner.reconcile(self._manifests[customer.tenant.name], self._vault)
        if status.usage is None:
            raise RuntimeError(f"the storage of a tenant was not measured: {status.conditions}")
        return status.usage.storage_bytes

    def environment(self, port: int) -> dict[str, str]:
        """Return the settings of a process of the service."""
        found = {
            "DECKLOG_DATABASE_DSN": self.settings.database.dsn,
            "DECKLOG_IDENTITY_FINGERPRINT_KEY": self.settings.identity.fingerprint_key,
            "DECKLOG_API_HOST": HOST,
            "DECKLOG_API_PORT": str(port),
            "DECKLOG_PREFIX": self.settings.prefix,
        }
        if self.settings.search.url:
            found["DECKLOG_SEARCH_URL"] = self.settings.search.url
        if (queue := self.settings.queue).enabled:
            found |= {
                "DECKLOG_QUEUE_ENABLED": "true",
                "DECKLOG_QUEUE_ENDPOINT_URL": queue.endpoint_url,
                "DECKLOG_QUEUE_REGION": queue.region,
                "DECKLOG_QUEUE_ACCESS_KEY_ID": queue.access_key_id,
                "DECKLOG_QUEUE_SECRET_ACCESS_KEY": queue.secret_access_key,
            }
        return found

    @asynccontextmanager
    async def api(self, *, module: str = "decklog", changes: Mapping[str, str] | None = None) -> AsyncIterator[Server]:
        """Run one API process. `module` may name another program that serves the API."""
        port = free_port()
        argv = [module, "api"] if module == "decklog" else [module]
        async with serving(argv, port, environment={**self.environment(port), **(changes or {})}, ready="/healthz") as server:
            yield server

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Server]:
        """Run one worker process."""
        port = free_port()
        dsn = self.settings.database.dsn.replace(SERVICE_ROLE, WORKER_ROLE)
        changes = {"DECKLOG_WORKER_METRICS_PORT": str(port), "DECKLOG_DATABASE_DSN": dsn}
        async with serving(
            ["decklog", "worker"], port, environment={**self.environment(0), **changes}, ready="/healthz"
        ) as server:
            yield server


@asynccontextmanager
async def stand(
    server: PostgresServer,
    search: OpenSearchServer | None = None,
    sqs: SqsServer | None = None,
    *,
    prefix: str = PREFIX,
    keep: bool = False,
) -> AsyncIterator[Stand]:
    """Open a new database with roles, cell and control tables, and drop it in the end unless it is to `keep`.

    Indices and queues stay on their servers; `prefix` separates them from those of another stand.
    """
    made = await empty_database(server)
    try:
        settings = Settings(
            database=Database(dsn=made.service_dsn, owner_dsn=made.owner_dsn, admin_dsn=made.admin_dsn),
            identity=Identity(fingerprint_key=secrets.token_hex(32)),
            search=Search(url=search.url, replicas=0) if search is not None else Search(),
            queue=Queue() if sqs is None else Queue(True, sqs.url, sqs.region, sqs.access_key, sqs.secret_key),
            prefix=prefix,
        )
        await maintenance.migrate(settings)
        async with control_plane.open_provisioner(settings) as provisioner:
            await provisioner.ensure_platform_tenant()
        yield Stand(server, settings)
    finally:
        if not keep:
            await drop_database(made)
