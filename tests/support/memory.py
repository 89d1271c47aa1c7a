"""The registry in memory, with functions that make tenants and keys."""

from __future__ import annotations

import itertools
from datetime import datetime

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.store import ApiKey, Snapshot
from decklog.domain.tenant import Isolation, Limits, State, Tenant
from decklog.services.identity.keys import new_key

_numbers = itertools.count(1)


def make_tenant(
    name: str, *, isolation: Isolation = Isolation.DEDICATED, state: State = State.ACTIVE, limits: Limits | None = None
) -> Tenant:
    """Make a tenant with a new number."""
    return Tenant(
        id=next(_numbers),
        name=name,
        isolation=isolation,
        schema="t_" + name.replace("-", "_"),
        index=f"decklog-t-{name}",
        queue=f"decklog-t-{name}",
        retention_days=30,
        state=state,
        limits=limits or Limits(),
    )


class MemoryRegistry:
    """The `Registry` protocol over dictionaries. `broken` makes every read fail; `loads` counts them."""

    def __init__(self) -> None:
        self.version = 1
        self.tenants: dict[int, Tenant] = {}
        self.keys: dict[str, ApiKey] = {}
        self.broken = False
        self.loads = 0

    async def load(self, known: int | None) -> Snapshot | None:
        self.loads += 1
        if self.broken:
            raise DecklogError(Code.STORAGE_UNAVAILABLE, "The registry is broken on purpose.")
        if known == self.version:
            return None
        return Snapshot(version=self.version, tenants=dict(self.tenants), keys=dict(self.keys))

    def add_tenant(self, tenant: Tenant) -> Tenant:
        """Add a tenant, or replace the one with its number."""
        self.tenants[tenant.id] = tenant
        self.version += 1
        return tenant

    def remove_tenant(self, tenant: Tenant) -> None:
        del self.tenants[tenant.id]
        self.version += 1

    def add_key(self, tenant: Tenant | None, role: Role, *, expires_at: datetime | None = None) -> str:
        """Add a new key, and return its token."""
        key_id, token, digest = new_key()
        self.keys[key_id] = ApiKey(
            id=key_id, tenant_id=None if tenant is None else tenant.id, role=role, hash=digest, expires_at=expires_at
        )
        self.version += 1
        return token

    def revoke(self, token: str) -> None:
        del self.keys[token.split("_")[1]]
        self.version += 1
