"""Conversations that questions continue: whose they are, when none is kept, and what a full one does."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import msgspec
import pytest

from decklog.domain.ask.conversation import TURNS_MAX
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Principal, Role
from decklog.domain.identity.scope import Scope
from decklog.domain.search.query import Query
from decklog.domain.search.syntax import read
from decklog.services.ask.conversations import OwnConversations
from decklog.services.turns import Turns
from tests.conformance.test_conversations import number, turn
from tests.support.memory import make_tenant
from tests.support.memory_conversations import MemoryConversations

ACME = msgspec.structs.replace(make_tenant("acme"), retention_days=7)
ALICE = Principal("jwt", "alice", Role.AUDITOR, ACME, issuer="https://issuer.example.com")


def own(kept: MemoryConversations, days: int = 30) -> OwnConversations:
    # Neither `recall` nor `keep` writes an access record: that of the question names the conversation.
    return OwnConversations(kept, None, Turns(2, each=1, of="database"), days=days)  # type: ignore[arg-type]


async def refused(call: Awaitable[Any]) -> Code:
    with pytest.raises(DecklogError) as raised:
        await call
    return raised.value.code


async def test_question_continues_the_conversation_of_its_own_user_only() -> None:
    kept = MemoryConversations()
    conversations = own(kept)
    begun = await conversations.keep(ALICE, None, turn())
    assert begun is not None
    assert await conversations.keep(ALICE, begun, turn("and yesterday?")) == begun
    assert [each.question for each in await conversations.recall(ALICE, begun)] == ["who failed?", "and yesterday?"]
    assert (await kept.all(ACME, b"")) == []
    for other in (
        Principal("jwt", "alice", Role.ADMIN, ACME, issuer="https://other.example.com"),
        Principal("api_key", "alice", Role.ADMIN, ACME),
        Principal("jwt", "alice", Role.AUDITOR, make_tenant("other"), issuer="https://issuer.example.com"),
    ):
        assert await refused(conversations.recall(other, begun)) is Code.NOT_FOUND
        assert await refused(conversations.keep(other, begun, turn())) is Code.NOT_FOUND
    assert await refused(conversations.recall(ALICE, "'; --")) is Code.NOT_FOUND


async def test_conversation_is_kept_no_longer_than_the_records_of_its_tenant() -> None:
    kept = MemoryConversations()
    begun = await own(kept).keep(ALICE, None, turn())
    assert begun is not None
    (head,) = await kept.all(ACME, own_id := next(iter(kept.owners())))
    assert (head.ends_at - head.started_at).days == ACME.retention_days
    assert len(own_id) == 32


async def test_full_conversation_is_refused_before_the_question_is_answered() -> None:
    kept = MemoryConversations()
    conversations = own(kept)
    begun = await conversations.keep(ALICE, None, turn())
    assert begun is not None
    for _ in range(TURNS_MAX - 1):
        await conversations.keep(ALICE, begun, turn())
    assert await refused(conversations.recall(ALICE, begun)) is Code.CONFLICT
    assert await refused(conversations.keep(ALICE, begun, turn())) is Code.CONFLICT


async def test_nothing_is_kept_by_the_setting_and_of_viewers_and_the_platform() -> None:
    kept = MemoryConversations()
    scope = Scope("t", "k", Query(read("a", turn().asked_at)))
    assert await own(kept, days=0).keep(ALICE, None, turn()) is None
    assert await own(kept).keep(Principal("viewer", "v", Role.VIEWER, ACME, scope=scope), None, turn()) is None
    assert await own(kept).keep(Principal("api_key", "p", Role.PLATFORM, None), None, turn()) is None
    assert list(kept.owners()) == []
    assert await refused(own(kept).recall(Principal("viewer", "v", Role.VIEWER, ACME, scope=scope), number(1))) is Code.FORBIDDEN
