"""`SavedSearches` in memory, for tests of services."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from decklog.domain.search.saved import SavedSearch
from decklog.domain.tenant import Tenant


class MemorySearches:
    def __init__(self) -> None:
        self._held: dict[tuple[int, str], SavedSearch] = {}

    async def all(self, tenant: Tenant) -> list[SavedSearch]:
        found = [search for (number, _), search in self._held.items() if number == tenant.id]
        return sorted(found, key=lambda search: (search.name, search.id))

    async def add(self, tenant: Tenant, search: SavedSearch, *, most: int) -> datetime | None:
        if len(await self.all(tenant)) >= most:
            return None
        self._held[tenant.id, search.id] = search
        return search.saved_at

    async def replace(self, tenant: Tenant, search: SavedSearch, *, any_owner: bool) -> datetime | None:
        old = self._held.get((tenant.id, search.id))
        if old is None or not (any_owner or old.owner == search.owner):
            return None
        at = datetime.now(UTC)
        self._held[tenant.id, search.id] = msgspec.structs.replace(search, owner=old.owner, saved_at=at)
        return at

    async def delete(self, tenant: Tenant, number: str, owner: str, *, any_owner: bool) -> bool:
        old = self._held.get((tenant.id, number))
        if old is None or not (any_owner or old.owner == owner):
            return False
        del self._held[tenant.id, number]
        return True
