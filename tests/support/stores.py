"""Databases for tests: each a new copy of a template on a shared server, with the real roles, and with tenants made directly."""

from __future__ import annotations

import hashlib
import itertools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from decklog import timescale
from decklog.domain.store import RecordStore
from decklog.domain.tenancy.names import index_name, schema_name
from decklog.domain.tenancy.parts.database import partition_days
from decklog.domain.tenancy.registered import HeadSettings
from decklog.domain.tenancy.spec import parse_spec
from decklog.domain.tenant import Isolation, State, Tenant
from decklog.timescale.connection import OWNER_ROLE, SERVICE_ROLE, WORKER_ROLE, Pool
from decklog.timescale.control.heads import ensure_heads
from decklog.timescale.control.schema import bootstrap, ensure_relations, grant_rights, migrate_cell
from decklog.timescale.control.tables import migrate_control
from decklog.timescale.records.announcements import PostgresAnnouncements
from decklog.timescale.records.append import Appender
from decklog.timescale.records.cursors import PostgresCursors
from decklog.timescale.records.records import PostgresRecords
from decklog.timescale.records.rejected import PostgresRejected
from tests.backends.postgres import PostgresServer

VARIANTS = ("postgres", "timescale")
_ids = itertools.count(1)


@dataclass
class Database:
    """A database with Decklog's roles. Roles belong to the whole server, so all databases share their passwords."""

    server: PostgresServer
    name: str
    password: str
    _opened: list[Any] = field(default_factory=list)
    _owner: asyncpg.Connection | None = None

    @property
    def admin_dsn(self) -> str:
        return self.server.dsn_for(self.name)

    @property
    def owner_dsn(self) -> str:
        return self.server.dsn_for(self.name, OWNER_ROLE, self.password)

    @property
    def service_dsn(self) -> str:
        return self.server.dsn_for(self.name, SERVICE_ROLE, self.password)

    @property
    def worker_dsn(self) -> str:
        return self.server.dsn_for(self.name, WORKER_ROLE, self.password)

    async def execute(self, sql: str, *values: object) -> list[asyncpg.Record]:
        """Run a statement as the superuser, who bypasses every policy, and return its rows."""
        connection = await asyncpg.connect(self.admin_dsn)
        try:
            rows: list[asyncpg.Record] = await connection.fetch(sql, *values)
            return rows
        finally:
            await connection.close()

    async def tenant(
        self,
        name: str | None = None,
        *,
        isolation: Isolation = Isolation.DEDICATED,
        days: int = 90,
        per_second: int = 1_000_000,
        burst: int = 1_000_000,
        dedup_seconds: int = 86_400,
        events_per_day: int = 0,
        queries_per_minute: int = 0,
        storage_used_up: bool = False,
        schema: str | None = None,
    ) -> Tenant:
        """Make a tenant with relations and heads, without a registry row.

        `schema` names relations that exist already, made for a tenant of the same isolation and retention that is not used any more.
        """
        number = next(_ids)
        name = name or f"tenant-{number}-{secrets.token_hex(2)}"
        spec = parse_spec({"isolation": isolation.value, "retention": {"days": days}})
        owner = await self.owner()
        if schema is None:
            schema = schema_name(name, spec)
            await ensure_relations(owner, schema, shared=isolation is Isolation.SHARED, partition_days=partition_days(days))
        quotas = (per_second, burst, dedup_seconds, events_per_day, queries_per_minute, storage_used_up)
        await ensure_heads(owner, number, schema, HeadSettings(State.ACTIVE, *quotas))
        index = index_name(name, spec)
        return Tenant(number, name, isolation, schema, index, index, days, State.ACTIVE)

    async def empty(self, tenants: Sequence[Tenant]) -> None:
        """Empty the logs of these tenants, which is faster than making new tenants."""
        for schema in {tenant.schema for tenant in tenants}:
            await self.execute(f'DELETE FROM "{schema}".records WHERE tenant_id = ANY ($1)', [tenant.id for tenant in tenants])
        await self.execute(
            "UPDATE decklog.heads SET next_seq = 0, received_at = 'epoch', tokens = burst, refilled_at = 'epoch',"
            " day = 'epoch', day_seq = 0 WHERE tenant_id = ANY ($1)",
            [tenant.id for tenant in tenants],
        )

    async def owner(self) -> asyncpg.Connection:
        """Return a connection as the owner, open until `close`."""
        if self._owner is None or self._owner.is_closed():
            self._owner = await asyncpg.connect(self.owner_dsn)
        return self._owner

    async def pool(self, role: str = SERVICE_ROLE) -> Pool:
        pool = Pool(self.server.dsn_for(self.name, role, self.password), size_max=8, role=role)
        await pool.open()
        self._opened.append(pool)
        return pool

    async def records(self) -> PostgresRecords:
        """Open a store as a process of the service does. Several may be open."""
        appender = Appender(self.service_dsn)
        self._opened.append(appender)
        return PostgresRecords(appender, await self.pool())

    async def rejected(self) -> PostgresRejected:
        rejected = PostgresRejected(self.service_dsn, await self.pool())
        self._opened.append(_Closing(rejected))
        return rejected

    async def cursors(self) -> PostgresCursors:
        return PostgresCursors(await self.pool(WORKER_ROLE))

    async def announcements(self) -> PostgresAnnouncements:
        announcements = PostgresAnnouncements(self.service_dsn, await self.pool())
        await announcements.start()
        self._opened.append(_Stopping(announcements))
        return announcements

    async def close(self) -> None:
        for opened in reversed(self._opened):
            await opened.close()
        self._opened.clear()
        if self._owner is not None:
            owner, self._owner = self._owner, None
            await owner.close()


@dataclass
class _Stopping:
    announcements: PostgresAnnouncements

    async def close(self) -> None:
        await self.announcements.stop()


@dataclass
class _Closing:
    rejected: PostgresRejected

    async def close(self) -> None:
        self.rejected.close()


ROLE_PASSWORD = "not-a-secret-of-anything"


async def empty_database(server: PostgresServer) -> Database:
    """Create a database with roles and without definitions."""
    name = f"decklog_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(server.dsn)
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    finally:
        await admin.close()
    database = Database(server, name, ROLE_PASSWORD)
    # Parallel workers create the same roles on one server.
    admin = await asyncpg.connect(server.dsn)
    connection = await asyncpg.connect(database.admin_dsn)
    try:
        await admin.execute("SELECT pg_advisory_lock(42)")
        await bootstrap(connection, **{f"{role}_password": ROLE_PASSWORD for role in ("service", "worker", "owner")})
    finally:
        await admin.close()
        await connection.close()
    return database


async def _with_definitions(server: PostgresServer) -> Database:
    """Create a database with roles and a cell's definitions, statement by statement."""
    database = await empty_database(server)
    owner = await asyncpg.connect(database.owner_dsn)
    try:
        await migrate_cell(owner)
    finally:
        await owner.close()
    return database


async def _with_control(server: PostgresServer) -> Database:
    database = await _with_definitions(server)
    await migrate_control(database.owner_dsn)
    return database


async def new_database(server: PostgresServer) -> Database:
    """Create a database with roles and a cell's definitions, without tenants."""
    return await _copy(server, "cell", _with_definitions)


async def new_control_database(server: PostgresServer) -> Database:
    """Create a database as `new_database`, with the control tables."""
    return await _copy(server, "control", _with_control)


async def _copy(server: PostgresServer, of: str, make: Callable[[PostgresServer], Awaitable[Database]]) -> Database:
    """Copy the template of these definitions; the first caller on a server makes it."""
    template = f"decklog_{of}_{_definitions()}"
    database = Database(server, f"decklog_{secrets.token_hex(6)}", ROLE_PASSWORD)
    admin = await asyncpg.connect(server.dsn)
    try:
        if not await admin.fetchval(_IS_KNOWN, template):
            await _make_template(admin, server, template, make)
        # A copy of files takes a third of the processor time that a copy through the log does.
        await admin.execute(f"CREATE DATABASE {database.name} TEMPLATE {template} STRATEGY FILE_COPY")
        await grant_rights(admin, database.name)  # a copy has no rights of its template's
    finally:
        await admin.close()
    return database


_IS_KNOWN = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)"


async def _make_template(
    admin: asyncpg.Connection, server: PostgresServer, template: str, make: Callable[[PostgresServer], Awaitable[Database]]
) -> None:
    """Make a template whole under another name: a worker that is killed leaves none that is half made."""
    await admin.execute("SELECT pg_advisory_lock(43)")
    try:
        if not await admin.fetchval(_IS_KNOWN, template):
            made = await make(server)
            await made.close()
            await admin.execute(f"ALTER DATABASE {made.name} RENAME TO {template}")
            await admin.execute(f"ALTER DATABASE {template} ALLOW_CONNECTIONS false")
    finally:
        await admin.execute("SELECT pg_advisory_unlock(43)")


@cache
def _definitions() -> str:
    """Name the sources of the definitions by their content: a server may outlive a run."""
    folder = Path(timescale.__file__).parent
    sources = sorted(path for kind in ("sql", "py") for path in folder.rglob(f"*.{kind}"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


async def drop_database(database: Database) -> None:
    await database.close()
    admin = await asyncpg.connect(database.server.dsn)
    try:
        await admin.execute(f"DROP DATABASE IF EXISTS {database.name} WITH (FORCE)")
    finally:
        await admin.close()


async def freeze_clock(database: Database, at: str = "now") -> None:
    """Stop the clock of receipt times and of rate limits."""
    await database.execute(
        "DO $do$ BEGIN EXECUTE format('CREATE OR REPLACE FUNCTION decklog.clock() RETURNS timestamptz LANGUAGE sql VOLATILE"
        f" PARALLEL SAFE AS $f$ SELECT timestamptz %L $f$', timestamptz '{at}'); END $do$"
    )


@pytest.fixture(params=VARIANTS)
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """A new database on plain PostgreSQL, and one on TimescaleDB."""
    made = await new_database(request.getfixturevalue(f"{request.param}_server"))
    yield made
    await drop_database(made)


@pytest.fixture
async def store(database: Database) -> RecordStore:
    return await database.records()
