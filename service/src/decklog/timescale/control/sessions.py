"""`SessionStore` in PostgreSQL. The service's role has no right on the relations: functions of the owner read and change them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg
import msgspec

from decklog.domain.identity.session import (
    CODES_MAX,
    CODES_PER_TENANT_MAX,
    SESSIONS_MAX,
    SESSIONS_PER_IDENTITY_MAX,
    SESSIONS_PER_TENANT_MAX,
    CodeKind,
    Held,
    OneTimeCode,
    Session,
)
from decklog.timescale.connection import Pool

_OPEN = "SELECT decklog.open_session($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
_FIND = "SELECT * FROM decklog.find_sessions($1, $2)"
_LIST = "SELECT * FROM decklog.list_sessions($1, $2, $3, $4)"
_TOUCH = "SELECT decklog.touch_session($1, $2, $3)"
_END = "SELECT decklog.end_session($1)"
_PUT_CODE = "SELECT decklog.put_session_code($1, $2, $3, $4, $5, $6, $7, $8, $9)"
_TAKE_CODE = "SELECT * FROM decklog.take_session_code($1, $2)"

_decode = msgspec.json.Decoder(tuple[Held, ...]).decode


class PostgresSessions:
    """The sessions of one cell; see the protocol for what each method promises. `lookups` is the pool of `find`, which decides who asks."""

    def __init__(self, pool: Pool, *, lookups: Pool) -> None:
        self._pool = pool
        self._lookups = lookups

    async def open(self, session: Session, *, replaces: str | None) -> bool:
        """See the protocol."""
        async with self._pool.connection() as connection:
            opened: bool = await connection.fetchval(
                _OPEN,
                session.id,
                session.token,
                _encode(session.identities),
                [each.id for each in session.identities],
                sorted({each.tenant_id for each in session.identities}),
                session.created_at,
                session.idle_ends_at,
                session.ends_at,
                session.address,
                session.user_agent,
                replaces,
                SESSIONS_PER_IDENTITY_MAX,
                SESSIONS_PER_TENANT_MAX,
                SESSIONS_MAX,
            )
        return opened

    async def find(self, *, tokens: Sequence[bytes] = (), ids: Sequence[str] = ()) -> list[Session]:
        """See the protocol."""
        async with self._lookups.connection() as connection:
            return [_session(row) for row in await connection.fetch(_FIND, tokens, ids)]

    async def touch(self, number: str, at: datetime, idle_ends_at: datetime) -> None:
        """See the protocol."""
        async with self._pool.connection() as connection:
            await connection.execute(_TOUCH, number, at, idle_ends_at)

    async def end(self, number: str) -> bool:
        """See the protocol."""
        async with self._pool.connection() as connection:
            ended: bool = await connection.fetchval(_END, number)
        return ended

    async def list(self, identity: str, tenant_id: int | None, now: datetime) -> list[Session]:
        """See the protocol."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(_LIST, identity, tenant_id, now, SESSIONS_PER_TENANT_MAX)
        return [_session(row) for row in rows]

    async def put_code(self, code: OneTimeCode, now: datetime) -> bool:
        """See the protocol."""
        async with self._pool.connection() as connection:
            put: bool = await connection.fetchval(
                _PUT_CODE,
                code.code,
                code.kind.value,
                _encode(code.identities),
                code.identities[0].tenant_id,
                code.session,
                now,
                code.ends_at,
                CODES_PER_TENANT_MAX,
                CODES_MAX,
            )
        return put

    async def take_code(self, code: bytes, kind: CodeKind) -> OneTimeCode | None:
        """See the protocol."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(_TAKE_CODE, code, kind.value)
        if row is None:
            return None
        return OneTimeCode(row["code"], CodeKind(row["kind"]), _decode(row["identities"]), row["ends_at"], row["session_id"])


def _encode(identities: Sequence[Held]) -> str:
    return msgspec.json.encode(identities).decode()


def _session(row: asyncpg.Record) -> Session:
    return Session(
        row["id"],
        row["token"],
        _decode(row["identities"]),
        row["created_at"],
        row["last_used_at"],
        row["idle_ends_at"],
        row["ends_at"],
        row["address"],
        row["user_agent"],
    )
