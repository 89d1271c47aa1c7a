"""`Conversations` in memory, for tests of services."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

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


class MemoryConversations:
    def __init__(self) -> None:
        self._held: dict[tuple[int, str], tuple[bytes, Conversation]] = {}
        self.later = timedelta(0)
        """What this clock is ahead of the real one."""

    def owners(self) -> set[bytes]:
        return {owner for owner, _ in self._held.values()}

    def _now(self) -> datetime:
        return datetime.now(UTC) + self.later

    async def begin(self, tenant: Tenant, number: str, owner: bytes, turn: Turn, *, days: int) -> None:
        for most, whose in ((PER_OWNER_MAX, {owner}), (PER_TENANT_MAX, None)):
            held = [(each.last_at, key) for key, (by, each) in self._held.items() if key[0] == tenant.id]
            held = [(at, key) for at, key in held if whose is None or self._held[key][0] in whose]
            for _, key in sorted(held)[: max(0, len(held) - most + 1)]:
                del self._held[key]
        now = self._now()
        made = Conversation(
            number, title_of(turn.question), 1, now, now, now + timedelta(days=days), turns=decoded(encoded(turn))
        )
        self._held[tenant.id, number] = (owner, made)

    async def go_on(self, tenant: Tenant, number: str, owner: bytes, turn: Turn, *, days: int) -> bool:
        found = await self.get(tenant, number, owner)
        if found is None or found.length >= TURNS_MAX:
            return False
        turns = (*found.turns, *decoded(encoded(turn)))
        if sum(len(encoded(each)) for each in turns) >= CONVERSATION_BYTES_MAX:
            return False
        now = self._now()
        changed = msgspec.structs.replace(
            found, turns=turns, length=found.length + 1, last_at=now, ends_at=now + timedelta(days=days)
        )
        self._held[tenant.id, number] = (owner, changed)
        return True

    async def all(self, tenant: Tenant, owner: bytes) -> list[ConversationHead]:
        found = [await self.get(tenant, number, owner) for at, number in self._held if at == tenant.id]
        heads = [
            ConversationHead(*(getattr(each, name) for name in ConversationHead.__struct_fields__)) for each in found if each
        ]
        return sorted(heads, key=lambda head: head.last_at, reverse=True)

    async def get(self, tenant: Tenant, number: str, owner: bytes) -> Conversation | None:
        by, found = self._held.get((tenant.id, number), (b"", None))
        return found if found is not None and by == owner and found.ends_at > self._now() else None

    async def delete(self, tenant: Tenant, number: str, owner: bytes) -> bool:
        by, _ = self._held.get((tenant.id, number), (b"", None))
        if by != owner:
            return False
        del self._held[tenant.id, number]
        return True
