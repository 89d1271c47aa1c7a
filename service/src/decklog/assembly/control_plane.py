"""Open the control plane: the provisioner, and the directory of tenants."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from decklog.assembly import backends
from decklog.domain.errors import Code, DecklogError
from decklog.opensearch import mapping
from decklog.services.tenancy.ports import IndexProvisioning, QueueProvisioning, TenantDirectory
from decklog.services.tenancy.provisioning import Provisioner
from decklog.settings import Settings
from decklog.timescale.control.provision import CONNECTIONS_MAX, PostgresProvisioning
from decklog.timescale.control.registry import PostgresRegistry

MAPPING_VERSION = mapping.VERSION
"""Version of the mapping of the search indices that this version of Decklog makes."""


@asynccontextmanager
async def open_provisioner(settings: Settings) -> AsyncIterator[Provisioner]:
    """Open the provisioner, which connects as the role that owns the relations. It migrates nothing.

    Raises:
        DecklogError: `misconfigured`, or `storage-unavailable` where the database cannot be reached.
    """
    backends.require(settings.database.owner_dsn, "DECKLOG_DATABASE_OWNER_DSN")
    async with AsyncExitStack() as stack:
        opening = backends.open_pool(settings.database.owner_dsn, size_max=CONNECTIONS_MAX, role=None)
        pool = await stack.enter_async_context(opening)
        yield Provisioner(
            PostgresProvisioning(pool),
            await stack.enter_async_context(open_index_provisioning(settings)),
            _queue_provisioning(settings),
            directory=PostgresRegistry(pool),
            prefix=settings.prefix,
            cell=settings.cell,
        )


@asynccontextmanager
async def open_owner(settings: Settings) -> AsyncIterator[Provisioner | None]:
    """Open the provisioner for the API and create the reserved tenant; None where Kubernetes owns the tenants.

    With None, the process has no more rights than the service's role. Raises `misconfigured`.
    """
    if settings.tenants.owner != "decklog":
        yield None
        return
    if not settings.database.owner_dsn:
        raise DecklogError(
            Code.MISCONFIGURED, "DECKLOG_TENANTS_OWNER is decklog, so the API creates tenants: set DECKLOG_DATABASE_OWNER_DSN."
        )
    async with open_provisioner(settings) as provisioner:
        await provisioner.ensure_platform_tenant()
        yield provisioner


@asynccontextmanager
async def open_directory(settings: Settings) -> AsyncIterator[TenantDirectory]:
    """Open the directory of tenants with the least role that the settings name. Raises `misconfigured`."""
    dsn = settings.database.dsn or settings.database.owner_dsn
    if not dsn:
        raise DecklogError(Code.MISCONFIGURED, "Neither DECKLOG_DATABASE_DSN nor DECKLOG_DATABASE_OWNER_DSN is set.")
    async with backends.open_pool(dsn, size_max=1, role=None) as pool:
        yield PostgresRegistry(pool)


@asynccontextmanager
async def open_index_provisioning(settings: Settings) -> AsyncIterator[IndexProvisioning | None]:
    """Open what creates and removes search indices; None where no search is configured."""
    if not settings.search.url:
        yield None
        return
    from decklog.opensearch import client, provision  # noqa: PLC0415 - an optional extra

    connection = client.connect(settings.search)
    try:
        yield provision.OpenSearchProvisioning(connection, replicas=settings.search.replicas)
    finally:
        await connection.close()


def _queue_provisioning(settings: Settings) -> QueueProvisioning | None:
    if not settings.queue.enabled:
        return None
    from decklog.sqs import provision, queue  # noqa: PLC0415 - an optional extra

    return provision.SqsProvisioning(queue.connect(settings.queue))
