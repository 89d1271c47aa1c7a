"""`Conversations` in PostgreSQL. The service's role has no right on the relation: functions of the owner read and change it."""

from __future__ import annotations

import msgspec

from decklog.domain.ask.conversation import (
    CONVERSATION_BYTES_MAX,
    PER_OWNER_MAX,
    PER_TENANT_MAX,
    TURNS_MAX,
    Conversation,
    ConversationHead,
    Turn,
    decoded,
    encoded,
    title_of,
)
from decklog.domain.tenant import Tenant
from decklog.timescale.connection import Pool

_BEGIN = "SELECT decklog.begin_conversation($1, $2, $3, $4, $5, $6, $7, $8)"
_GO_ON = "SELECT decklog.continue_conversation($1, $2, $3, $4, $5, $6, $7)"
_ALL = "SELECT * FROM decklog.list_conversations($1, $2, $3)"
_GET = "SELECT * FROM decklog.read_conversation($1, $2, $3)"
_DELETE = "SELECT decklog.delete_conversation($1, $2, $3)"


class PostgresConversations:
    """The conversations of one cell; see the protocol for what each method promises."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def begin(self, tenant: Tenant, number: str, owner: bytes, turn: Turn, *, days: int) -> None:
        """See the protocol."""
        title, line = title_of(turn.question), encoded(turn)
        async with self._pool.connection() as connection:
            await connection.execute(_BEGIN, tenant.id, number, owner, title, line, days, PER_OWNER_MAX, PER_TENANT_MAX)

    async def go_on(self, tenant: Tenant, number: str, owner: bytes, turn: Turn, *, days: int) -> bool:
        """See the protocol."""
        async with self._pool.connection() as connection:
            added: bool = await connection.fetchval(
                _GO_ON, tenant.id, number, owner, encoded(turn), days, TURNS_MAX, CONVERSATION_BYTES_MAX
            )
        return added

    async def all(self, tenant: Tenant, owner: bytes) -> list[ConversationHead]:
        """See the protocol."""
        async with self._pool.connection() as connection:
            return [ConversationHead(*row) for row in await connection.fetch(_ALL, tenant.id, owner, PER_OWNER_MAX)]

    async def get(self, tenant: Tenant, number: str, owner: bytes) -> Conversation | None:
        """See the protocol."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(_GET, tenant.id, number, owner)
        if row is None:
            return None
        return msgspec.convert({**row, "turns": decoded(row["turns"])}, Conversation)

    async def delete(self, tenant: Tenant, number: str, owner: bytes) -> bool:
        """See the protocol."""
        async with self._pool.connection() as connection:
            deleted: bool = await connection.fetchval(_DELETE, tenant.id, number, owner)
        return deleted
