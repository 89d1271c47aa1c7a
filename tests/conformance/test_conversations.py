"""Conformance of `Conversations`: in memory and on PostgreSQL, only the owner reads, continues and deletes, within bounds and a time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decklog.domain.ask import conversation
from decklog.domain.ask.conversation import Conversations, Turn, decoded, encoded, owner_of, title_of
from decklog.domain.ask.understanding import Expert, Piece, Understanding, Unread
from decklog.domain.identity.access import Principal, Role
from decklog.domain.tenant import Isolation, Tenant
from decklog.timescale.connection import WORKER_ROLE
from decklog.timescale.records.conversations import PostgresConversations
from tests.support.memory import make_tenant
from tests.support.memory_conversations import MemoryConversations
from tests.support.stores import drop_database, new_database

World = tuple[Conversations, Tenant, Tenant]
ALICE, BOB = b"a" * 32, b"b" * 32


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest) -> Any:
    if request.param == "memory":
        yield MemoryConversations(), make_tenant("one"), make_tenant("two")
        return
    database = await new_database(request.getfixturevalue("postgres_server"))
    tenants = [await database.tenant(isolation=Isolation.SHARED) for _ in range(2)]
    yield PostgresConversations(await database.pool()), *tenants
    await drop_database(database)


def turn(question: str = "who failed?", **changes: Any) -> Turn:
    understanding = Understanding(
        expert=Expert.FIND,
        query="outcome:failure",
        understood=(Piece(4, 10, "failed", "outcome:failure"),),
        not_understood=(Unread(0, 3, "who"),),
    )
    asked_at = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
    return Turn(
        **{
            "asked_at": asked_at,
            "question": question,
            "understanding": understanding,
            "answer": "2 records.",
            "engine": "grammar",
            "records": (7, 3),
            **changes,
        }
    )


def number(value: int) -> str:
    return f"{value:016x}"


async def numbers(conversations: Conversations, tenant: Tenant, owner: bytes) -> list[str]:
    return [head.id for head in await conversations.all(tenant, owner)]


async def test_conversation_is_read_continued_and_deleted_by_its_owner_in_its_tenant_only(world: World) -> None:
    conversations, one, two = world
    await conversations.begin(one, number(1), ALICE, turn(), days=30)
    assert await conversations.go_on(one, number(1), ALICE, turn("and\u2028yesterday?"), days=30)
    found = await conversations.get(one, number(1), ALICE)
    assert found is not None
    assert found.turns == (turn(), turn("and\u2028yesterday?"))
    assert (found.title, found.length, (found.ends_at - found.last_at).days) == ("who failed?", 2, 30)
    for tenant, owner in ((one, BOB), (two, ALICE)):
        assert await conversations.get(tenant, number(1), owner) is None
        assert not await conversations.go_on(tenant, number(1), owner, turn(), days=30)
        assert not await conversations.delete(tenant, number(1), owner)
        assert await numbers(conversations, tenant, owner) == []
    assert await numbers(conversations, one, ALICE) == [number(1)]
    assert await conversations.delete(one, number(1), ALICE)
    assert not await conversations.delete(one, number(1), ALICE)


async def test_conversations_are_bounded_by_owner_tenant_turns_and_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    conversations, one, _ = world
    size = len(encoded(turn()))
    bounds = {"PER_OWNER_MAX": 2, "PER_TENANT_MAX": 3, "TURNS_MAX": 3, "CONVERSATION_BYTES_MAX": 2 * size + 500}
    for module in ("decklog.timescale.records.conversations", "tests.support.memory_conversations"):
        for name, value in bounds.items():
            monkeypatch.setattr(f"{module}.{name}", value)
    for each in range(1, 4):
        await conversations.begin(one, number(each), ALICE, turn(), days=30)
    assert await numbers(conversations, one, ALICE) == [number(3), number(2)]
    await conversations.begin(one, number(4), BOB, turn(), days=30)
    assert await conversations.go_on(one, number(2), ALICE, turn(), days=30)
    await conversations.begin(one, number(5), BOB, turn(), days=30)
    assert await numbers(conversations, one, ALICE) == [number(2)]
    assert await numbers(conversations, one, BOB) == [number(5), number(4)]
    assert not await conversations.go_on(one, number(2), ALICE, turn(answer="x" * 600), days=30)
    assert await conversations.go_on(one, number(2), ALICE, turn(), days=30)
    assert not await conversations.go_on(one, number(2), ALICE, turn(), days=30)


async def test_conversation_is_over_after_its_days_and_is_forgotten_by_the_worker(postgres_server: Any) -> None:
    database = await new_database(postgres_server)
    try:
        one, two = [await database.tenant(isolation=Isolation.SHARED) for _ in range(2)]
        conversations = PostgresConversations(await database.pool())
        for tenant in (one, two):
            await conversations.begin(tenant, number(1), ALICE, turn(), days=0)
            await conversations.begin(tenant, number(2), ALICE, turn(), days=1)
            assert await conversations.get(tenant, number(1), ALICE) is None
            assert not await conversations.go_on(tenant, number(1), ALICE, turn(), days=30)
            assert await numbers(conversations, tenant, ALICE) == [number(2)]
        async with (await database.pool(WORKER_ROLE)).connection() as worker:
            assert await worker.fetchval("SELECT decklog.forget_conversations()") == 2
            assert await worker.fetchval("SELECT decklog.forget_conversations()") == 0
        assert await numbers(conversations, two, ALICE) == [number(2)]
    finally:
        await drop_database(database)


def test_owner_is_the_whole_identity() -> None:
    def owner(kind: str, subject: str, issuer: str | None) -> bytes:
        return owner_of(Principal(kind, subject, Role.ADMIN, None, issuer=issuer))

    owners = {owner("jwt", "c", "a:b"), owner("jwt", "b:c", "a"), owner("jwt", "x" * 3_000, "a"), owner("jwt", "x" * 3_001, "a")}
    assert len({*owners, owner("api_key", "c", None)}) == 5
    assert owner("api_key", "c", None) == owner("api_key", "c", None)


@given(st.text(max_size=300), st.text(max_size=20_000), st.lists(st.integers(0, 2**53), max_size=200))
def test_turn_is_kept_in_one_bounded_line(question: str, answer: str, records: list[int]) -> None:
    line = encoded(turn(question, answer=answer, records=tuple(records)))
    assert len(line.encode()) <= conversation.TURN_BYTES_MAX
    assert "\n" not in line
    (kept,) = decoded(line)
    assert (kept.question, kept.understanding) == (question, turn().understanding)
    assert len(kept.answer) <= conversation.ANSWER_CHARS_MAX
    assert set(kept.records) in ({*records}, set())
    assert title_of(question).isprintable()
