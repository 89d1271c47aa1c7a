"""`SessionStore` in memory, for tests of services and of the API."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from decklog.domain.errors import DecklogError
from decklog.domain.identity import session as bounds
from decklog.domain.identity.session import CodeKind, OneTimeCode, Session


class MemorySessions:
    """`error` is raised by every method while it is set; `finds` counts look-ups, `touches` notes of use."""

    def __init__(self) -> None:
        self.held: dict[str, Session] = {}
        self.codes: dict[bytes, OneTimeCode] = {}
        self.error: DecklogError | None = None
        self.finds = 0
        self.touches = 0

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    async def open(self, session: Session, *, replaces: str | None) -> bool:
        self._check()
        self.held = {each.id: each for each in self.held.values() if not each.over(session.created_at)}
        if len(self.held.keys() - {replaces}) >= bounds.SESSIONS_MAX:
            return False
        self.held.pop(replaces or "", None)
        for own in session.identities:
            self._end_beyond([each for each in self.held.values() if own in each.identities], bounds.SESSIONS_PER_IDENTITY_MAX)
        for tenant in {each.tenant_id for each in session.identities}:
            of_tenant = [each for each in self.held.values() if tenant in {one.tenant_id for one in each.identities}]
            self._end_beyond(of_tenant, bounds.SESSIONS_PER_TENANT_MAX)
        self.held[session.id] = session
        return True

    def _end_beyond(self, found: list[Session], most: int) -> None:
        for gone in sorted(found, key=lambda each: each.last_used_at, reverse=True)[most - 1 :]:
            del self.held[gone.id]

    async def find(self, *, tokens: Sequence[bytes] = (), ids: Sequence[str] = ()) -> list[Session]:
        self._check()
        self.finds += 1
        return [each for each in self.held.values() if each.token in tokens or each.id in ids]

    async def touch(self, number: str, at: datetime, idle_ends_at: datetime) -> None:
        self._check()
        self.touches += 1
        if (found := self.held.get(number)) is not None and found.last_used_at < at:
            self.held[number] = msgspec.structs.replace(found, last_used_at=at, idle_ends_at=idle_ends_at)

    async def end(self, number: str) -> bool:
        self._check()
        return self.held.pop(number, None) is not None

    async def list(self, identity: str, tenant_id: int | None, now: datetime) -> list[Session]:
        self._check()
        found = [
            each
            for each in self.held.values()
            if not each.over(now) and any(one.id == identity or one.tenant_id == tenant_id for one in each.identities)
        ]
        return sorted(found, key=lambda each: (each.last_used_at, each.id), reverse=True)[: bounds.SESSIONS_PER_TENANT_MAX]

    async def put_code(self, code: OneTimeCode, now: datetime) -> bool:
        self._check()
        self.codes = {each.code: each for each in self.codes.values() if each.ends_at > now}
        own = [each for each in self.codes.values() if each.identities[0].tenant_id == code.identities[0].tenant_id]
        for gone in sorted(own, key=lambda each: each.ends_at, reverse=True)[bounds.CODES_PER_TENANT_MAX - 1 :]:
            del self.codes[gone.code]
        if len(self.codes) >= bounds.CODES_MAX:
            return False
        self.codes[code.code] = code
        return True

    async def take_code(self, code: bytes, kind: CodeKind) -> OneTimeCode | None:
        self._check()
        found = self.codes.get(code)
        return self.codes.pop(code) if found is not None and found.kind is kind else None
