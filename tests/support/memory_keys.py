"""`ApiKeys` and `Usages` in memory, for tests of services: keys that are made are served by the registry at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from decklog.domain.log import LogName
from decklog.domain.store import ApiKey
from decklog.domain.tenancy.api_keys import (
    ENDED_KEYS_MAX,
    KEYS_MAX,
    KEYS_PER_HOUR_MAX,
    KeyRefusal,
    KeySource,
    ListedKey,
    NewKey,
)
from decklog.domain.tenancy.status import StoredUsage
from decklog.domain.tenant import State, Tenant
from tests.support.memory import MemoryRegistry
from tests.support.memory_store import MemoryStore

_AFTER_ALL = datetime.max.replace(tzinfo=UTC)


class MemoryKeys:
    """Keys of the tenants of a registry in memory. Those that it has not made itself are provisioned."""

    def __init__(self, registry: MemoryRegistry) -> None:
        self._registry = registry
        self._made: dict[tuple[int, str], ListedKey] = {}
        self.used: dict[str, datetime] = {}

    async def all(self, tenant: Tenant) -> Sequence[ListedKey]:
        now = datetime.now(UTC)
        listed = [key for (number, _), key in self._made.items() if number == tenant.id]
        listed += [_provisioned(key) for key in self._provisioned(tenant)]
        listed = [replace(key, last_used_at=self.used.get(key.id)) for key in sorted(listed, key=lambda key: key.id)]
        newest_first = sorted(listed, key=lambda key: key.created_at, reverse=True)
        ended = sorted((key for key in listed if _end(key) <= now), key=_end, reverse=True)[:ENDED_KEYS_MAX]
        return [key for key in newest_first if _end(key) > now] + [key for key in newest_first if key in ended]

    async def source(self, tenant: Tenant, key_id: str) -> KeySource | None:
        if (tenant.id, key_id) in self._made:
            return KeySource.API
        return KeySource.PROVISIONED if any(key.id == key_id for key in self._provisioned(tenant)) else None

    async def make(self, tenant: Tenant, key: NewKey) -> ListedKey | KeyRefusal:
        now = datetime.now(UTC)
        mine = [each for (number, _), each in self._made.items() if number == tenant.id]
        known = self._registry.tenants.get(tenant.id)
        if known is None or known.state is not State.ACTIVE:
            return KeyRefusal.GONE
        if sum(_end(each) > now for each in mine) >= KEYS_MAX:
            return KeyRefusal.FULL
        if sum(each.created_at > now - timedelta(hours=1) for each in mine) >= KEYS_PER_HOUR_MAX:
            return KeyRefusal.TOO_FAST
        ends = None if key.seconds is None else now + timedelta(seconds=key.seconds)
        made = ListedKey(key.id, key.role, key.name, KeySource.API, now, key.created_by, ends, None, None)
        self._made[tenant.id, key.id] = made
        self._registry.put_key(ApiKey(key.id, tenant.id, key.role, key.hash, ends))
        return made

    async def revoke(self, tenant: Tenant, key_id: str) -> bool:
        made = self._made.get((tenant.id, key_id))
        if made is None:
            return False
        if made.revoked_at is None:
            self._made[tenant.id, key_id] = replace(made, revoked_at=datetime.now(UTC))
            self._registry.drop_key(key_id)
        return True

    async def note_uses(self, ids: Sequence[str]) -> None:
        self.used |= dict.fromkeys(ids, datetime.now(UTC))

    def _provisioned(self, tenant: Tenant) -> list[ApiKey]:
        found = (key for key in self._registry.keys.values() if key.tenant_id == tenant.id)
        return [key for key in found if (tenant.id, key.id) not in self._made]


def _end(key: ListedKey) -> datetime:
    return min(key.revoked_at or _AFTER_ALL, key.expires_at or _AFTER_ALL)


def _provisioned(key: ApiKey) -> ListedKey:
    made = datetime(2026, 1, 1, tzinfo=UTC)
    return ListedKey(key.id, key.role, None, KeySource.PROVISIONED, made, None, key.expires_at, None, None)


class MemoryUsages:
    """`Usages` over the heads of a store in memory, without sizes and rejected records."""

    def __init__(self, registry: MemoryRegistry, store: MemoryStore) -> None:
        self._registry = registry
        self._store = store

    async def usage(self, name: str) -> StoredUsage | None:
        found = next((tenant for tenant in self._registry.tenants.values() if tenant.name == name), None)
        if found is None:
            return None
        events, access = [(await self._store.head(found, log)).next_seq for log in LogName]
        return StoredUsage(events, access, None)
