"""The registry in memory, with functions that make tenants and keys."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.store import REGISTRY_CHANGES_MAX, ApiKey, Registered, RegistryChanges
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
    """The `Registry` protocol over dictionaries. `broken` makes every read fail; `polls` and `finds` count them."""

    def __init__(self) -> None:
        self.version = 1
        self.tenants: dict[int, Tenant] = {}
        self.keys: dict[str, ApiKey] = {}
        self.log: list[tuple[int, int | str]] = []
        self.broken = False
        self.polls = 0
        self.finds = 0
        self.rows = 0

    def _check(self) -> None:
        if self.broken:
            raise DecklogError(Code.STORAGE_UNAVAILABLE, "The registry is broken on purpose.")

    async def changes(self, known: int | None) -> RegistryChanges:
        self.polls += 1
        self._check()
        listed = [] if known is None else [entry for entry in self.log if entry[0] > known]
        versions = {version for version, _ in listed}
        if known is None or len(versions) != self.version - known or len(listed) > REGISTRY_CHANGES_MAX:
            return RegistryChanges(self.version, complete=False)
        return RegistryChanges(
            self.version,
            frozenset(what for _, what in listed if isinstance(what, int)),
            frozenset(what for _, what in listed if isinstance(what, str)),
        )

    async def find(self, *, tenants: Sequence[int] = (), names: Sequence[str] = (), keys: Sequence[str] = ()) -> Registered:
        self.finds += 1
        self._check()
        now = datetime.now(UTC)
        valid = [key for each in keys if (key := self.keys.get(each)) and (key.expires_at is None or key.expires_at > now)]
        wanted = {*tenants, *(key.tenant_id for key in valid)}
        found = [
            tenant
            for tenant in self.tenants.values()
            if tenant.state is not State.DELETED and (tenant.id in wanted or tenant.name in names)
        ]
        known = {None, *(tenant.id for tenant in found)}
        served = [key for key in valid if key.tenant_id in known]
        self.rows += len(found) + len(served)
        return Registered(self.version, found, served)

    async def queues(self) -> set[str]:
        self._check()
        return {tenant.queue for tenant in self.tenants.values() if tenant.state is not State.DELETED}

    async def searching(self, *, after: int, limit: int) -> list[Tenant]:
        self._check()
        found = (tenant for number, tenant in sorted(self.tenants.items()) if number > after and tenant.limits.search_days)
        return [tenant for tenant in found if tenant.state is not State.DELETED][:limit]

    async def of_index(self, index: str, *, after: int, limit: int) -> list[Tenant]:
        self._check()
        found = (tenant for number, tenant in sorted(self.tenants.items()) if number > after and tenant.index == index)
        return list(found)[:limit]

    def _change(self, what: int | str) -> None:
        self.version += 1
        self.log.append((self.version, what))

    def add_tenant(self, tenant: Tenant) -> Tenant:
        """Add a tenant, or replace the one with its number."""
        self.tenants[tenant.id] = tenant
        self._change(tenant.id)
        return tenant

    def remove_tenant(self, tenant: Tenant) -> None:
        del self.tenants[tenant.id]
        self._change(tenant.id)

    def add_key(self, tenant: Tenant | None, role: Role, *, expires_at: datetime | None = None) -> str:
        """Add a new key, and return its token."""
        key_id, token, digest = new_key()
        self.keys[key_id] = ApiKey(
            id=key_id, tenant_id=None if tenant is None else tenant.id, role=role, hash=digest, expires_at=expires_at
        )
        self._change(key_id)
        return token

    def put_key(self, key: ApiKey) -> None:
        """Add a key, or replace the one with its id."""
        self.keys[key.id] = key
        self._change(key.id)

    def revoke(self, token: str) -> None:
        self.drop_key(token.split("_")[1])

    def drop_key(self, key_id: str) -> None:
        del self.keys[key_id]
        self._change(key_id)
