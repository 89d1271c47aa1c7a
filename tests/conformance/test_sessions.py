"""Conformance of `SessionStore`: in memory and on PostgreSQL, sessions are bounded, and a one-time code is had once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from decklog.domain.identity import session as bounds
from decklog.domain.identity.access import Role
from decklog.domain.identity.session import CodeKind, Held, OneTimeCode, Session, SessionStore, hashed, new_id, new_token
from decklog.timescale.connection import WORKER_ROLE
from decklog.timescale.control.sessions import PostgresSessions
from tests.support.memory_sessions import MemorySessions
from tests.support.stores import drop_database, new_database

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IDLE, WHOLE = timedelta(hours=8), timedelta(days=7)


@pytest.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest) -> Any:
    if request.param == "memory":
        yield MemorySessions()
        return
    database = await new_database(request.getfixturevalue("postgres_server"))
    pool = await database.pool()
    yield PostgresSessions(pool, lookups=pool)
    await drop_database(database)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower bounds, in both stores."""
    for name, most in {
        "SESSIONS_PER_IDENTITY_MAX": 3,
        "SESSIONS_PER_TENANT_MAX": 5,
        "SESSIONS_MAX": 8,
        "CODES_PER_TENANT_MAX": 3,
        "CODES_MAX": 5,
    }.items():
        monkeypatch.setattr(bounds, name, most)
        monkeypatch.setattr(f"decklog.timescale.control.sessions.{name}", most)


def key(name: str, tenant: int = 1) -> Held:
    return Held("api_key", name, Role.AUDITOR, tenant, f"tenant-{tenant}")


def session(*identities: Held, minutes: float = 0) -> Session:
    at = NOW + timedelta(minutes=minutes)
    return Session(new_id(), hashed(new_token()), identities, at, at, at + IDLE, at + WHOLE, "192.0.2.1", "Firefox")


def code(held: Held, kind: CodeKind = CodeKind.LINK, *, seconds: float = 60, by: str | None = None) -> OneTimeCode:
    return OneTimeCode(hashed(new_token()), kind, (held,), NOW + timedelta(seconds=seconds), by)


async def ids(store: SessionStore, held: Held, tenant: int | None = None, *, minutes: float = 1) -> list[str]:
    return [each.id for each in await store.list(held.id, tenant, NOW + timedelta(minutes=minutes))]


async def test_session_is_found_by_token_and_id_used_and_ended(store: SessionStore) -> None:
    token = Held("jwt", "alice", Role.ADMIN, 2, "tenant-2", "https://issuer.example", 1_800_000_000.5)
    one, two = session(key("a"), token, Held("api_key", "p", Role.PLATFORM, 0)), session(key("b"))
    assert await store.open(one, replaces=None)
    assert await store.open(two, replaces=None)
    assert await store.find(tokens=[one.token, hashed("x")]) == [one]
    assert sorted(each.id for each in await store.find(tokens=[one.token], ids=[one.id, two.id])) == sorted([one.id, two.id])
    assert await store.find(ids=["0" * 16]) == []

    later = NOW + timedelta(minutes=5)
    await store.touch(one.id, later, later + IDLE)
    await store.touch(one.id, NOW, NOW + IDLE)
    [used] = await store.find(ids=[one.id])
    assert (used.last_used_at, used.idle_ends_at, used.ends_at) == (later, later + IDLE, one.ends_at)
    assert await ids(store, key("a"), 1) == [one.id, two.id]
    assert await ids(store, key("b")) == [two.id]
    assert await ids(store, key("none"), 2) == [one.id]
    assert await ids(store, key("none"), 3) == []
    assert await ids(store, key("b"), minutes=8 * 60) == []
    assert await store.end(one.id)
    assert not await store.end(one.id)
    assert await store.find(tokens=[one.token]) == []


async def test_sessions_are_bounded_for_identity_tenant_and_cell(store: SessionStore) -> None:
    mine = [session(key("a"), minutes=number) for number in range(4)]
    for each in mine:
        assert await store.open(each, replaces=None)
    assert await ids(store, key("a"), minutes=5) == [each.id for each in mine[:0:-1]]
    for number in range(4):
        assert await store.open(session(key(f"other{number}"), minutes=10 + number), replaces=None)
    assert len(await ids(store, key("a"), 1, minutes=20)) == 5
    assert await ids(store, key("a"), minutes=20) == [mine[3].id]

    for number in range(3):
        assert await store.open(session(key("x", 2), minutes=20 + number), replaces=None)
    assert not await store.open(session(key("y", 3), minutes=30), replaces=None)
    assert await store.open(session(key("y", 3), minutes=30), replaces=mine[3].id)
    assert await ids(store, key("a"), minutes=40) == []
    # Those that are over make room.
    assert await store.open(session(key("z", 4), minutes=8 * 60 + 40), replaces=None)
    assert await ids(store, key("x", 2), 1, minutes=8 * 60 + 41) == []


async def test_one_time_code_is_had_once_and_only_as_what_it_is(store: SessionStore) -> None:
    link, ticket = code(key("a")), code(key("a"), CodeKind.TICKET, by="5f0c2b7d91aa0c1c")
    assert await store.put_code(link, NOW)
    assert await store.put_code(ticket, NOW)
    assert await store.take_code(link.code, CodeKind.TICKET) is None
    taken = await asyncio.gather(*(store.take_code(link.code, CodeKind.LINK) for _ in range(8)))
    assert [each for each in taken if each is not None] == [link]
    assert await store.take_code(ticket.code, CodeKind.TICKET) == ticket
    assert await store.take_code(ticket.code, CodeKind.TICKET) is None


async def test_one_time_codes_are_bounded_for_tenant_and_cell(store: SessionStore) -> None:
    mine = [code(key("a"), seconds=60 + number) for number in range(4)]
    for each in mine:
        assert await store.put_code(each, NOW)
    assert await store.take_code(mine[0].code, CodeKind.LINK) is None
    others = [code(key("b", 2), seconds=100 + number) for number in range(2)]
    for each in others:
        assert await store.put_code(each, NOW)
    assert not await store.put_code(code(key("c", 3)), NOW)
    later = NOW + timedelta(seconds=70)
    assert await store.put_code(code(key("c", 3), seconds=200), later)
    assert await store.take_code(mine[3].code, CodeKind.LINK) is None
    assert await store.take_code(others[0].code, CodeKind.LINK) == others[0]


async def test_ended_sessions_and_codes_are_swept(request: pytest.FixtureRequest) -> None:
    database = await new_database(request.getfixturevalue("postgres_server"))
    try:
        pool = await database.pool()
        store = PostgresSessions(pool, lookups=pool)
        over, alive = session(key("a")), session(key("b"), minutes=(datetime.now(UTC) - NOW).total_seconds() / 60)
        await store.open(over, replaces=None)
        await store.put_code(code(key("a")), NOW)
        async with (await database.pool(WORKER_ROLE)).connection() as worker:
            await worker.execute("SELECT decklog.forget_sessions()")
        assert await store.find(ids=[over.id]) == []
        assert await store.take_code(hashed("x"), CodeKind.LINK) is None
        await store.open(alive, replaces=None)
        async with (await database.pool(WORKER_ROLE)).connection() as worker:
            await worker.execute("SELECT decklog.forget_sessions()")
        assert await store.find(ids=[alive.id]) == [alive]
    finally:
        await drop_database(database)
