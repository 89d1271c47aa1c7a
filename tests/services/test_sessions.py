"""Sessions as processes use them: remembered for two seconds, within bounds, and ended everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Principal, Role
from decklog.domain.identity.session import Session, hashed, held, new_token
from decklog.services.identity import sessions as module
from decklog.services.identity.identity import Identity
from decklog.services.identity.issuers import Issuers
from decklog.services.identity.registry import RegistryCache
from decklog.services.identity.sessions import REMEMBERED_SECONDS, Sessions
from decklog.services.turns import Turns
from tests.support.memory import MemoryRegistry, make_tenant
from tests.support.memory_sessions import MemorySessions


class Gated(MemorySessions):
    """Look-ups wait after they have read, while `open` is cleared."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def find(self, *, tokens: Sequence[bytes] = (), ids: Sequence[str] = ()) -> list[Session]:
        found = await super().find(tokens=tokens, ids=ids)
        await self.goes_on.wait()
        return found


class Stand:
    """Two processes over one store, with one clock that tests move."""

    def __init__(self) -> None:
        self.registry = MemoryRegistry()
        self.tenant = self.registry.add_tenant(make_tenant("acme"))
        self.cache = RegistryCache(self.registry, interval=0.02, max_age=30)
        self.identity = Identity(self.cache, Issuers([], fetch=_nothing))
        self.store = Gated()
        self.clock = 1_000.0
        self.one, self.two = (
            Sessions(self.store, self.identity, Turns(10, each=5, of="database"), monotonic=lambda: self.clock) for _ in range(2)
        )

    async def principal(self) -> Principal:
        return await self.identity.authenticate(self.registry.add_key(self.tenant, Role.AUDITOR))

    async def opened(self, principal: Principal) -> tuple[str, Session]:
        return await self.one.open((held(principal),), address="192.0.2.1", user_agent=None, replaces=None)


async def _nothing(url: str) -> bytes:
    raise OSError(url)


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    made = Stand()
    await made.cache.start()
    yield made
    await made.cache.stop()


async def refusal(call: Any) -> str:
    with pytest.raises(DecklogError) as refused:
        await call
    return refused.value.code.value


async def test_session_that_one_process_ends_is_over_in_another_within_two_seconds(stand: Stand) -> None:
    token, session = await stand.opened(await stand.principal())
    for process in (stand.one, stand.two):
        assert (await process.of(token)).id == session.id
    by_session = await stand.two.principal(session)
    assert await stand.two.still_valid(by_session)

    assert await stand.one.end(session.id, 1)
    assert await refusal(stand.one.of(token)) == Code.UNAUTHENTICATED.value
    stand.clock += REMEMBERED_SECONDS
    assert await refusal(stand.two.of(token)) == Code.UNAUTHENTICATED.value
    assert not await stand.two.still_valid(by_session)


async def test_requests_of_a_session_cost_one_query_in_two_seconds(stand: Stand) -> None:
    tokens = [(await stand.opened(await stand.principal()))[0] for _ in range(20)]
    for token in tokens:
        await stand.two.of(token)
    before = stand.store.finds
    for _ in range(50):
        await asyncio.gather(*(stand.two.of(token) for token in tokens))
    assert stand.store.finds == before
    # Sessions that are used often are looked up again together.
    stand.clock += REMEMBERED_SECONDS
    for token in tokens:
        await stand.two.of(token)
    assert stand.store.finds == before + 1


async def test_session_that_ends_while_it_is_looked_up_stays_ended(stand: Stand) -> None:
    token, session = await stand.opened(await stand.principal())
    stand.store.goes_on.clear()
    looking = asyncio.create_task(stand.one.of(token))
    while stand.store.finds == 0:
        await asyncio.sleep(0)
    await stand.one.end(session.id, 1)
    stand.store.goes_on.set()
    assert await refusal(looking) == Code.UNAUTHENTICATED.value
    assert await refusal(stand.one.of(token)) == Code.UNAUTHENTICATED.value


async def test_process_remembers_a_bounded_number(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED_MAX", 50)
    principal = await stand.principal()
    monkeypatch.setattr("decklog.domain.identity.session.SESSIONS_PER_IDENTITY_MAX", 5_000)
    monkeypatch.setattr("decklog.domain.identity.session.SESSIONS_PER_TENANT_MAX", 2_000)
    for _ in range(2_050):
        token, _ = await stand.opened(principal)
    assert len(stand.store.held) == 2_000
    for each in list(stand.store.held)[:200]:
        assert await stand.two._get(each) is not None
    assert len(stand.two._seen) <= 50
    assert len(stand.two._ids) <= 50
    await asyncio.gather(*(stand.two._get(hashed(new_token())) for _ in range(300)))
    assert len(stand.two._unknown) <= 50
    assert (await stand.two.of(token)).id in stand.store.held


async def test_unknown_token_costs_one_query_and_a_malformed_one_none(stand: Stand) -> None:
    unknown = new_token()
    for _ in range(20):
        assert await refusal(stand.one.of(unknown)) == Code.UNAUTHENTICATED.value
    assert stand.store.finds == 1
    for malformed in ("", "x", "A" * 42, "A" * 44, "\udc80" * 43, "A" * 10_000):
        assert await refusal(stand.one.of(malformed)) == Code.UNAUTHENTICATED.value
    assert stand.store.finds == 1


async def test_outage_of_the_database_is_no_refusal_of_the_session(stand: Stand) -> None:
    token, session = await stand.opened(await stand.principal())
    await stand.two.of(token)
    stand.store.error = DecklogError(Code.STORAGE_UNAVAILABLE, "down")
    assert (await stand.two.of(token)).id == session.id
    stand.clock += REMEMBERED_SECONDS
    assert await refusal(stand.two.of(token)) == Code.REGISTRY_STALE.value
    stand.store.error = None
    assert (await stand.two.of(token)).id == session.id


async def test_credential_that_needs_its_own_token_opens_no_session() -> None:
    with pytest.raises(DecklogError) as refused:
        held(Principal("viewer", "x", Role.AUDITOR, make_tenant("acme")))
    assert refused.value.code is Code.FORBIDDEN


async def test_session_of_a_key_of_another_role_or_tenant_is_not_its_session(stand: Stand) -> None:
    principal = await stand.principal()
    own = held(principal)
    assert await stand.identity.named(own) is not None
    other = stand.registry.add_tenant(make_tenant("other"))
    for changes in ({"role": Role.ADMIN}, {"tenant_id": other.id}, {"tenant": "other"}, {"kind": "jwt", "issuer": "https://x"}):
        changed = type(own)(**{**{name: getattr(own, name) for name in own.__struct_fields__}, **changes})
        assert await stand.identity.named(changed) is None
        assert changed.id != own.id or "tenant" in changes
    past = type(own)(own.kind, own.subject, own.role, own.tenant_id, own.tenant, None, datetime.now(UTC).timestamp() - 1)
    assert await stand.identity.named(past) is None
