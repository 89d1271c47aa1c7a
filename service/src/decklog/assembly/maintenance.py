"""Open what single commands need: migrations, recovery, and the embedded database of `decklog dev`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from decklog.assembly import backends
from decklog.assembly.control_plane import open_index_provisioning
from decklog.domain.errors import Code, DecklogError
from decklog.domain.index_generation import Ranges
from decklog.services.tenancy import recovery
from decklog.settings import Settings
from decklog.timescale.connection import WORKER_ROLE, Pool, answering
from decklog.timescale.control.generations import PostgresGenerations
from decklog.timescale.control.provision import PostgresProvisioning
from decklog.timescale.control.registry import PostgresRegistry
from decklog.timescale.control.schema import make_roles
from decklog.timescale.control.schema import migrate as migrate_cell
from decklog.timescale.control.tables import contract_control, migrate_control
from decklog.timescale.embedded import running
from decklog.timescale.records.audit import PostgresAudit


async def migrate(settings: Settings, *, with_roles: bool = False, wait: float = 0.0, post: bool = False) -> None:
    """Bring the database to the definitions of this version. It is idempotent, and safe beside processes of the version before.

    Args:
        settings: Needs `database.owner_dsn`; with roles also `database.admin_dsn` and the three passwords.
        with_roles: Create the three roles first, as the superuser of `database.admin_dsn`.
        wait: Seconds for the database to answer, and for processes of older versions to disconnect.
        post: Then remove what only older versions use, once none of them is connected.

    Raises:
        DecklogError: `misconfigured`, `storage-unavailable`, or `conflict` while older processes are connected.
    """
    database = settings.database
    backends.require(database.owner_dsn, "DECKLOG_DATABASE_OWNER_DSN")
    if with_roles:
        backends.require(database.admin_dsn, "DECKLOG_DATABASE_ADMIN_DSN")
        backends.require(database.service_password, "DECKLOG_DATABASE_SERVICE_PASSWORD")
        backends.require(database.worker_password, "DECKLOG_DATABASE_WORKER_PASSWORD")
        backends.require(database.owner_password, "DECKLOG_DATABASE_OWNER_PASSWORD")
    await answering(database.admin_dsn if with_roles else database.owner_dsn, within=wait)
    if with_roles:
        await make_roles(
            database.admin_dsn,
            service_password=database.service_password,
            worker_password=database.worker_password,
            owner_password=database.owner_password,
        )
    await migrate_cell(database.owner_dsn)
    await migrate_control(database.owner_dsn)
    if post:
        await contract_control(database.owner_dsn, wait=wait)
        await migrate_cell(database.owner_dsn)  # a schema that an older process made meanwhile has an older template


async def recover_database(settings: Settings) -> recovery.Recovered:
    """Begin new epochs after a restore; see `decklog.services.tenancy.recovery`.

    Raises:
        DecklogError: `misconfigured`, or `storage-unavailable` where the database cannot be reached.
    """
    dsn = settings.database.owner_dsn
    backends.require(dsn, "DECKLOG_DATABASE_OWNER_DSN")
    async with backends.open_pool(dsn, size_max=2, role=None) as pool, open_index_provisioning(settings) as indices:
        return await recovery.recover_database(PostgresProvisioning(pool), indices, PostgresRegistry(pool))


@asynccontextmanager
async def open_audit(settings: Settings) -> AsyncIterator[PostgresAudit]:
    """Open the check of what the database holds, with the owner's role or else with the worker's.

    Raises:
        DecklogError: `misconfigured`, or `storage-unavailable` where the database cannot be reached.
    """
    async with _open_least(settings) as pool:
        yield PostgresAudit(pool)


@asynccontextmanager
async def _open_least(settings: Settings) -> AsyncIterator[Pool]:
    """Open connections as the owner, or as the worker where the settings have no owner."""
    dsn, role = settings.database.owner_dsn, None
    if not dsn:
        dsn, role = settings.database.dsn, WORKER_ROLE
        backends.require(dsn, "DECKLOG_DATABASE_OWNER_DSN")
    async with backends.open_pool(dsn, size_max=2, role=role) as pool:
        await pool.open()
        yield pool


class Rebuilding(NamedTuple):
    """What rebuilding of search indices needs."""

    generations: PostgresGenerations
    ranges: Ranges


@asynccontextmanager
async def open_rebuilding(settings: Settings) -> AsyncIterator[Rebuilding]:
    """Open the generations, with the owner's role or else with the worker's, and the search engine.

    Raises:
        DecklogError: `misconfigured`, or `storage-unavailable` where the database cannot be reached.
    """
    async with _open_least(settings) as pool, backends.open_index(settings) as search:
        if search is None:
            raise DecklogError(Code.MISCONFIGURED, "There is no search index without OpenSearch: set DECKLOG_SEARCH_URL.")
        yield Rebuilding(PostgresGenerations(pool), search.ranges)


@asynccontextmanager
async def embedded_database(folder: Path, *, password: str) -> AsyncIterator[str]:
    """Run a PostgreSQL over a folder, and yield its `host:port`; see `decklog.timescale.embedded`."""
    async with running(folder, password=password) as address:
        yield address
