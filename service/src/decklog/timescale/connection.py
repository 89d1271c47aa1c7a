"""Connections of the service: the limits each has, what the server must grant and must not, and what its errors mean."""

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
OWNER_ROLE = "decklog_owner"
CONNECT_SECONDS_MAX = 5.0
COMMAND_SECONDS_MAX = 30.0
"""For what is not bounded more tightly by its caller."""
APPLICATION = "decklog"
"""How each of our connections calls itself, with the number of the newest migration that its process knows behind a slash."""
TABLE_LOCK_WAIT = "500ms"
"""How long a change of a table may wait for those who use it: others wait behind it, the service for three seconds at most, and
a process that cannot read the registry for two seconds stops serving. Less than PostgreSQL's `deadlock_timeout`, so that of two who wait
for each other it is the change that gives way."""
_IN_THE_WAY = (asyncpg.exceptions.LockNotAvailableError, asyncpg.exceptions.DeadlockDetectedError)
"""What ends such a wait."""
_IN_THE_WAY_SECONDS_MAX = 120.0
"""After these somebody holds a transaction open for longer than the service ever does."""

PlanMode = Literal["auto", "force_custom_plan", "force_generic_plan"]

_log = structlog.get_logger("decklog.timescale")

# What a stalled process can hold is bounded by the server itself. JIT costs more than our statements take.
_SESSION = {
    "application_name": f"{APPLICATION}/{migrations.level()}",
    "lock_timeout": "3s",
    "idle_in_transaction_session_timeout": "10s",
    "jit": "off",
    "timezone": "UTC",
}
_READER = {"statement_timeout": "30s"}
# The append function looks keys up through one index, whatever the statistics of a young partition say.
_WRITER = {
    "statement_timeout": "20s",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}

# The server went away or was told to: whether a commit went through cannot be known.
_SHUTDOWN = (
    asyncpg.exceptions.AdminShutdownError,
    asyncpg.exceptions.CrashShutdownError,
    asyncpg.exceptions.CannotConnectNowError,
)
LOST = (*_SHUTDOWN, asyncpg.exceptions.PostgresConnectionError, asyncpg.exceptions.InterfaceError, OSError, TimeoutError)
"""Errors after which the state of a statement that was sent is unknown."""


def unavailable(error: BaseException) -> DecklogError:
    """`storage-unavailable`; the cause is logged, not told."""
    _log.warning("storage unavailable", error=type(error).__name__, reason=str(error)[:300])
    return DecklogError(Code.STORAGE_UNAVAILABLE, "The database cannot be reached or refused the work. Try again.", retry_after=1)


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Turn what the database client raises while reading into `storage-unavailable`."""
    try:
        yield
    except (*LOST, asyncpg.exceptions.PostgresError) as error:
        raise unavailable(error) from error


async def answering(dsn: str, *, within: float) -> None:
    """Waits until the server takes a connection, for so many seconds at most. Raises `storage-unavailable`, and what the server
    refuses the connection for where it does answer."""
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
    """Do this change of definitions, a transaction that waits for its locks no longer than `TABLE_LOCK_WAIT`: as often as it takes
    until nobody stands in its way. Raises `storage-unavailable` where somebody does for very long, and what `change` raises."""
    try:
        async for attempt in stamina.retry_context(on=_IN_THE_WAY, attempts=None, timeout=_IN_THE_WAY_SECONDS_MAX, wait_max=2.0):
            with attempt:
                await change()
    except _IN_THE_WAY as error:
        raise DecklogError(
            Code.STORAGE_UNAVAILABLE,
            "A transaction that somebody holds open in the database keeps definitions from being changed; pg_stat_activity tells whose. "
            "End it, and run this again: it goes on where it stopped.",
        ) from error


async def connect_writer(dsn: str) -> asyncpg.Connection:
    """One connection for appending. Raises what asyncpg raises."""
    return await asyncpg.connect(
        dsn,
        timeout=CONNECT_SECONDS_MAX,
        command_timeout=25,
        server_settings={**_SESSION, **_WRITER},
        statement_cache_size=1_000,
        max_cached_statement_lifetime=0,
    )


async def connect_listener(dsn: str) -> asyncpg.Connection:
    return await asyncpg.connect(dsn, timeout=CONNECT_SECONDS_MAX, command_timeout=5, server_settings=_SESSION)


async def _nothing(_: asyncpg.Connection) -> None:
    """What the service does leaves nothing behind in a session, so a round trip per use is saved. asyncpg itself still
    ends a transaction that was left open. The owner's work takes locks and settings of the session, and is cleared up."""


class Pool:
    """A pool of reading connections that opens itself when the database comes back."""

    def __init__(self, dsn: str, *, size_max: int, role_check: bool = True) -> None:
        self._dsn = dsn
        self._size_max = size_max
        self._role_check = role_check
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Connect and check the role. Raises `misconfigured` and `storage-unavailable`."""
        async with self.connection() as connection:
            if self._role_check:
                await check_role(connection)

    async def close(self) -> None:
        if self._pool is not None:
            pool, self._pool = self._pool, None
            try:
                await asyncio.wait_for(pool.close(), timeout=5)
            except TimeoutError:
                pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection in autocommit. Raises `storage-unavailable`."""
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
                            reset=_nothing if self._role_check else None,
                            server_settings={**_SESSION, **_READER},
                        )
            async with self._pool.acquire(timeout=CONNECT_SECONDS_MAX) as connection:
                # A proxy with all methods of a connection; the type stubs know the two as unrelated.
                yield cast("asyncpg.Connection", connection)

    @asynccontextmanager
    async def reading(
        self, tenant_id: int, *, timeout: float | None = None, plan: PlanMode = "auto"
    ) -> AsyncIterator[asyncpg.Connection]:
        """A read-only transaction that row-level security confines to one tenant, for at most `timeout` seconds a statement.

        `plan`: planning for the values given finds the few partitions that they concern; one plan for all values saves
        the planning where most partitions are concerned.
        """
        limit = f"SET LOCAL statement_timeout = {max(1, int(timeout * 1000))};" if timeout is not None else ""
        limit += f"SET LOCAL plan_cache_mode = {plan};" if plan != "auto" else ""
        async with self.connection() as connection:
            # One round trip; both values are numbers of ours.
            await connection.execute(f"BEGIN READ ONLY; {limit} SELECT set_config('decklog.tenants', '{int(tenant_id)}', true)")
            try:
                yield connection
            finally:
                if not connection.is_closed():
                    await connection.execute("ROLLBACK")


async def check_role(connection: asyncpg.Connection) -> None:
    """Refuse to work with more rights than are needed, or with a server that may forget commits. Raises `misconfigured`."""
    row = await only_row(
        connection,
        "SELECT rolsuper, rolbypassrls, current_user AS name, current_setting('synchronous_commit') AS commits,"
        " pg_has_role(current_user, $1, 'MEMBER') AS owner FROM pg_roles WHERE rolname = current_user",
        OWNER_ROLE,
    )
    if row["rolsuper"] or row["rolbypassrls"] or row["owner"]:
        raise DecklogError(
            Code.MISCONFIGURED,
            f"The database role {row['name']!r} is a superuser, has BYPASSRLS or is the owner of the relations. "
            f"Connect as {SERVICE_ROLE!r} (DECKLOG_DATABASE_DSN).",
        )
    if row["commits"] == "off":
        raise DecklogError(
            Code.MISCONFIGURED, "synchronous_commit is off in the database: a 201 would not be durable. Turn it on."
        )
