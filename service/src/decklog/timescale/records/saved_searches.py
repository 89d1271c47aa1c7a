"""`SavedSearches` in PostgreSQL: read under row-level security, and changed by functions of the owner."""

from __future__ import annotations

from datetime import datetime

import msgspec

from decklog.domain.search.saved import SavedSearch
from decklog.domain.tenant import Tenant
from decklog.timescale.connection import Pool

_SAVE = "SELECT decklog.save_search($1, $2, $3, $4, $5, $6, $7, $8, $9)"
_DELETE = "SELECT decklog.delete_search($1, $2, $3, $4)"
_ALL = "SELECT id, name, parameters, shared, owner, saved_at FROM decklog.saved_searches WHERE tenant_id = $1 ORDER BY name, id"

_decode = msgspec.json.Decoder(dict[str, str | list[str]]).decode


class PostgresSavedSearches:
    """The saved searches of one cell; see the protocol for what each method promises."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def all(self, tenant: Tenant) -> list[SavedSearch]:
        """See the protocol."""
        async with self._pool.reading(tenant.id) as connection:
            rows = await connection.fetch(_ALL, tenant.id)
        return [
            SavedSearch(row["id"], row["name"], _decode(row["parameters"]), row["shared"], row["owner"], row["saved_at"])
            for row in rows
        ]

    async def add(self, tenant: Tenant, search: SavedSearch, *, most: int) -> datetime | None:
        """See the protocol."""
        return await self._save(tenant, search, new=True, any_owner=False, most=most)

    async def replace(self, tenant: Tenant, search: SavedSearch, *, any_owner: bool) -> datetime | None:
        """See the protocol."""
        return await self._save(tenant, search, new=False, any_owner=any_owner, most=0)

    async def _save(self, tenant: Tenant, search: SavedSearch, *, new: bool, any_owner: bool, most: int) -> datetime | None:
        parameters = msgspec.json.encode(search.parameters).decode()
        async with self._pool.connection() as connection:
            saved: datetime | None = await connection.fetchval(
                _SAVE, tenant.id, search.id, search.name, parameters, search.owner, search.shared, new, any_owner, most
            )
        return saved

    async def delete(self, tenant: Tenant, number: str, owner: str, *, any_owner: bool) -> bool:
        """See the protocol."""
        async with self._pool.connection() as connection:
            deleted: bool = await connection.fetchval(_DELETE, tenant.id, number, owner, any_owner)
        return deleted
