"""Connections to PostgreSQL: their limits, the check of their role, and the meaning of their errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal, cast

import asyncpg
import stamina
import structlog

from decklog.domain.errors import Code, DecklogError
from decklog.timescale.control import migrations
from decklog.timescale.statements import only_row

SERVICE_ROLE = "decklog_service"
"""The role of the API, which reads and appends."""
WORKER_ROLE = "decklog_worker"
"""The role of workers, which read, move cursors and note archives."""
OWNER_ROLE = "decklog_owner"
LEAST_ROLES = (SERVICE_ROLE, WORKER_ROLE)
"""The roles of processes that serve; each is refused where the other one is needed."""
CONNECT_SECONDS_MAX = 5.0
COMMAND_SECONDS_MAX = 30.0
"""Seconds of a statement, unless its caller sets a lower limit."""
APPLICATION = "decklog"
"""`application_name` of every connection, followed by a slash and the number of the newest migration that the process knows."""
TABLE_LOCK_WAIT = "500ms"
"""Maximum wait of a change of a table for its users, because other users queue behind it.

The service waits 3 seconds at most, and a process that cannot read the registry for 2 seconds stops serving. It is less than
PostgreSQL's `deadlock_timeout`, so in a deadlock the change gives way.
"""
_IN_THE_WAY = (asyncpg.exceptions.LockNotAvailableError, asyncpg.exceptions.DeadlockDetectedError)
"""Errors that end such a wait."""
_IN_THE_WAY_SECONDS_MAX = 120.0
"""Seconds after which a transaction has been open for longer than any of the service."""

PlanMode = Literal["auto", "force_custom_plan", "force_generic_plan"]

_log = structlog.get_logger("decklog.timescale")

# The server bounds how long a stalled process holds locks. JIT compilation takes longer than these statements.
_SESSION = {
    "application_name": f"{APPLICATION}/{migrations.level()}",
    "lock_timeout": "3s",
    "idle_in_transaction_session_timeout": "10s",
    "jit": "off",
    "timezone": "UTC",
}
_READER = {"statement_timeout": "30s"}
# The append functions must look ids up through one index, whatever the statistics of a young partition suggest.
_WRITER = {
    "statement_timeout": "20s",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}

# The server ended or was told to end: the outcome of a commit is unknown.
_SHUTDOWN = (
    asyncpg.exceptions.AdminShutdownError,
    asyncpg.exceptions.CrashShutdownError,
    asyncpg.exceptions.CannotConnectNowError,
)
LOST = (*_SHUTDOWN, asyncpg.exceptions.PostgresConnectionError, asyncpg.exceptions.InterfaceError, OSError, TimeoutError)
"""Errors after which the state of a statement that was sent is unknown."""


def unavailable(error: BaseException) -> DecklogError:
    """Return `storage-unavailable`, and log the cause, which the client does not see."""
    _log.warning("storage unavailable", error=type(error).__name__, reason=str(error)[:300] or "no answer in time")
    return DecklogError(Code.STORAGE_UNAVAILABLE, "The database cannot be reached or refused the work. Try again.", retry_after=1)


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Turn errors of the database and of the connection into `storage-unavailable`."""
    try:
        yield
    except (*LOST, asyncpg.exceptions.PostgresError) as error:
        raise unavailable(error) from error


async def answering(dsn: str, *, within: float) -> None:
    """Wait until the server accepts a connection, at most `within` seconds.

    Raises:
        DecklogError: `storage-unavailable` after that time.
        asyncpg.PostgresError: The server answers and refuses the connection.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + within
    while True:
        try:
            connection = await asyncpg.connect(dsn, timeout=CONNECT_SECONDS_MAX)
        except LOST as error:
            if clock() >= end:
                raise unavailable(error) from error
            await asyncio.sleep(1)
        else:
            await connection.close()
            return


async def giving_way(change: Callable[[], Awaitable[None]]) -> None:
    """Repeat a change of definitions until it gets its locks.

    Args:
        change: A transaction that waits for its locks no longer than `TABLE_LOCK_WAIT`.

    Raises:
        DecklogError: `storage-unavailable` if locks are held for more than 2 minutes.
    """
    try:
        async for attempt in stamina.retry_context(on=_IN_THE_WAY, attempts=None, timeout=_IN_THE_WAY_SECONDS_MAX, wait_max=2.0):
            with attempt:
                await change()
    except _IN_THE_WAY as error:
        raise DecklogError(
            Code.STORAGE_UNAVAILABLE,
            "An open transaction in the database prevents the change of definitions. Find it in pg_stat_activity, end it, and run this "
            "again: it continues where it stopped.",
        ) from error


async def connect_writer(dsn: str) -> asyncpg.Connection:
    """Return a connection for appending. Raises what asyncpg raises."""
    return await asyncpg.connect(
        dsn,
        timeout=CONNECT_SECONDS_MAX,
        command_timeout=25,
        server_settings={**_SESSION, **_WRITER},
        statement_cache_size=1_000,
        max_cached_statement_lifetime=0,
    )


async def connect_listener(dsn: str) -> asyncpg.Connection:
    """Return a connection for LISTEN. Raises what asyncpg raises."""
    return await asyncpg.connect(dsn, timeout=CONNECT_SECONDS_MAX, command_timeout=5, server_settings=_SESSION)


async def _nothing(_: asyncpg.Connection) -> None:
    """Reset nothing, which saves a round trip per use.

    The service leaves no state in a session, and asyncpg itself ends an open transaction. The owner's sessions have locks and
    settings, so they are reset.
    """


class Pool:
    """A pool of connections that opens on first use, so it recovers when the database returns."""

    def __init__(self, dsn: str, *, size_max: int, role: str | None = SERVICE_ROLE) -> None:
        self._dsn = dsn
        self._size_max = size_max
        self._role = role
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Connect and check the role.

        Raises:
            DecklogError: `misconfigured`, `storage-unavailable`.
        """
        async with self.connection() as connection:
            if self._role is not None:
                await check_role(connection, self._role)

    async def check(self) -> None:
        """Check that the database answers, with the role and the durability that `open` checks.

        Raises:
            DecklogError: `misconfigured`, `storage-unavailable`.
        """
        await self.open()

    async def close(self) -> None:
        """Close all connections, after 5 seconds by force."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            try:
                await asyncio.wait_for(pool.close(), timeout=5)
            except TimeoutError:
                pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection in autocommit.

        Raises:
            DecklogError: `storage-unavailable`.
        """
        async with translated():
            if self._pool is None:
                async with self._opening:
                    if self._pool is None:
                        self._pool = await asyncpg.create_pool(
                            self._dsn,
                            min_size=1,
                            max_size=self._size_max,
                            timeout=CONNECT_SECONDS_MAX,
                            command_timeout=COMMAND_SECONDS_MAX,
                            reset=_nothing if self._role is not None else None,
                            server_settings={**_SESSION, **_READER},
                        )
            async with self._pool.acquire(timeout=CONNECT_SECONDS_MAX) as connection:
                # The proxy has all methods of a connection, but the type stubs do not relate the two.
                yield cast("asyncpg.Connection", connection)

    @asynccontextmanager
    async def reading(
        self, *tenant_ids: int, timeout: float | None = None, plan: PlanMode = "auto"
    ) -> AsyncIterator[asyncpg.Connection]:
        """Open a read-only transaction that row-level security confines to these tenants.

        Args:
            tenant_ids: The tenants; one, except for consumers, which read several logs at once.
            timeout: Seconds of each statement; None for the pool's limit.
            plan: A custom plan leaves out partitions by the values; a generic one saves planning where most partitions are read.

        Raises:
            DecklogError: `storage-unavailable`.
        """
        limit = f"SET LOCAL statement_timeout = {max(1, int(timeout * 1000))};" if timeout is not None else ""
        limit += f"SET LOCAL plan_cache_mode = {plan};" if plan != "auto" else ""
        async with self.connection() as connection:
            # One round trip. All values are numbers, so they cannot inject SQL.
            tenants = ",".join(map(str, map(int, tenant_ids)))
            await connection.execute(f"BEGIN READ ONLY; {limit} SELECT set_config('decklog.tenants', '{tenants}', true)")
            try:
                yield connection
            finally:
                if not connection.is_closed():
                    await connection.execute("ROLLBACK")


async def check_role(connection: asyncpg.Connection, role: str = SERVICE_ROLE) -> None:
    """Check that the session's role has the rights of this least role and no more, and that commits are durable.

    Raises:
        DecklogError: `misconfigured`.
    """
    row = await only_row(
        connection,
        "SELECT rolsuper, rolbypassrls, current_user AS name, current_setting('synchronous_commit') AS commits,"
        " coalesce((SELECT array_agg(given.name) FROM unnest($1::text[]) AS given (name) JOIN pg_roles ON rolname = given.name"
        " WHERE pg_has_role(current_user, pg_roles.oid, 'MEMBER')), '{}') AS roles FROM pg_roles WHERE rolname = current_user",
        [OWNER_ROLE, *LEAST_ROLES],
    )
    connect = f"Connect as {role!r} (DECKLOG_DATABASE_DSN)."
    if row["rolsuper"] or row["rolbypassrls"] or OWNER_ROLE in row["roles"]:
        raise DecklogError(
            Code.MISCONFIGURED,
            f"The database role {row['name']!r} is a superuser, has BYPASSRLS or is the owner of the relations. {connect}",
        )
    if row["roles"] != [role]:
        others = " and ".join(each for each in row["roles"] if each != role)
        has = f"has the rights of {others}, which this process must not have" if others else f"has not the rights of {role}"
        raise DecklogError(Code.MISCONFIGURED, f"The database role {row['name']!r} {has}. {connect}")
    if row["commits"] == "off":
        raise DecklogError(
            Code.MISCONFIGURED, "synchronous_commit is off in the database: a 201 would not be durable. Turn it on."
        )
