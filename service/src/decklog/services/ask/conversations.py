"""Conversations over the API: read, continued and deleted by the user who asked, and by nobody else, with the access record of each request.

A role gives no right to the conversations of others. Those of a tenant go with it, and each one after its time.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from prometheus_client import Counter

from decklog.domain.ask.conversation import TURNS_MAX, Conversation, ConversationHead, Conversations, Turn, owner_of
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Permission, Principal, RequestContext, acting_tenant
from decklog.domain.records.record import Outcome
from decklog.domain.tenant import Tenant
from decklog.services.records.access_log import CONVERSATIONS_DELETE, CONVERSATIONS_READ, AccessLog
from decklog.services.turns import Turns

_TURN_SECONDS = 5.0
_NUMBER_BYTES = 8
_NUMBER = re.compile(f"[0-9a-f]{{{2 * _NUMBER_BYTES}}}")
"""The form of the id of a conversation. Another text goes neither to the database nor into an access record."""

_changes = Counter(
    "decklog_ask_conversations_total",
    "Conversations begun, questions added to one, and conversations deleted by their user.",
    ["change"],
)


class OwnConversations:
    """The conversations of the users of one process. `turns` are those at the database.

    Args:
        conversations: Where they are stored.
        access_log: Where each request about them is recorded.
        turns: Turns at the database.
        days: Days for which a conversation is kept after its last question; 0 keeps none.
    """

    def __init__(self, conversations: Conversations, access_log: AccessLog, turns: Turns, *, days: int) -> None:
        self._conversations = conversations
        self._access_log = access_log
        self._turns = turns
        self._days = days

    async def recall(self, principal: Principal, number: str) -> Sequence[Turn]:
        """Return the turns of the conversation that a question continues.

        The access record of the question names the conversation, so this writes none.

        Raises:
            DecklogError: `not-found` where this user has none of this number, `conflict` where it has no room for a question.
        """
        tenant = acting_tenant(principal, Permission.READ)
        found = await self._find(principal, tenant, number)
        if found is None:
            raise _no_conversation(number)
        if found.length >= TURNS_MAX:
            raise _no_room()
        return found.turns

    async def keep(self, principal: Principal, number: str | None, turn: Turn) -> str | None:
        """Add a turn to a conversation, or to a new one, and return the id of it.

        Returns None where none is kept: by the setting, and for viewers and the platform, who have no conversations.

        Raises:
            DecklogError: `not-found` where the conversation was deleted meanwhile, `conflict` where it has no room.
        """
        if not self._days or principal.tenant is None or Permission.READ not in principal.permissions:
            return None
        owner, tenant = owner_of(principal), principal.tenant
        days = min(self._days, tenant.retention_days)
        async with self._turns.turn(tenant.id, seconds=_TURN_SECONDS):
            if number is None:
                number = secrets.token_hex(_NUMBER_BYTES)
                await self._conversations.begin(tenant, number, owner, turn, days=days)
                _changes.labels("begun").inc()
                return number
            if await self._conversations.go_on(tenant, number, owner, turn, days=days):
                _changes.labels("continued").inc()
                return number
        raise _no_room() if await self._find(principal, tenant, number) else _no_conversation(number)

    async def list(self, principal: Principal, request: RequestContext) -> Sequence[ConversationHead]:
        """Return the user's conversations without their turns, the one used last first."""
        tenant = acting_tenant(principal, Permission.READ)
        async with self._turns.turn(tenant.id, seconds=_TURN_SECONDS):
            found = await self._conversations.all(tenant, owner_of(principal))
        await self._read(principal, request, None, count=len(found))
        return found

    async def get(self, principal: Principal, request: RequestContext, number: str) -> Conversation:
        """Return a conversation of the user. Raises `not-found`, also for that of another one."""
        tenant = acting_tenant(principal, Permission.READ)
        found = await self._find(principal, tenant, number)
        if _NUMBER.fullmatch(number):
            await self._read(principal, request, number, count=int(found is not None))
        if found is None:
            raise _no_conversation(number)
        return found

    async def delete(self, principal: Principal, request: RequestContext, number: str) -> None:
        """Delete a conversation of the user. Raises `not-found`, also for that of another one."""
        tenant = acting_tenant(principal, Permission.READ)
        if not _NUMBER.fullmatch(number):
            raise _no_conversation(number)
        await self._access_log.write(principal, request, CONVERSATIONS_DELETE, resource=("conversation", number), details={})
        async with self._turns.turn(tenant.id, seconds=_TURN_SECONDS):
            if not await self._conversations.delete(tenant, number, owner_of(principal)):
                raise _no_conversation(number)
        _changes.labels("deleted").inc()

    async def _find(self, principal: Principal, tenant: Tenant, number: str) -> Conversation | None:
        if not _NUMBER.fullmatch(number):
            return None
        async with self._turns.turn(tenant.id, seconds=_TURN_SECONDS):
            return await self._conversations.get(tenant, number, owner_of(principal))

    async def _read(self, principal: Principal, request: RequestContext, number: str | None, *, count: int) -> None:
        outcome = Outcome.SUCCESS if count or number is None else Outcome.FAILURE
        await self._access_log.write(
            principal, request, CONVERSATIONS_READ, resource=("conversation", number), details={"count": count}, outcome=outcome
        )


def _no_conversation(number: str) -> DecklogError:
    return DecklogError(
        Code.NOT_FOUND,
        f"This credential has no conversation {number[:40]!r}. List its conversations with GET /api/v1/conversations.",
    )


def _no_room() -> DecklogError:
    return DecklogError(
        Code.CONFLICT,
        f"The conversation is full: it may have {TURNS_MAX} questions. Ask without `conversation` to begin another one.",
    )
