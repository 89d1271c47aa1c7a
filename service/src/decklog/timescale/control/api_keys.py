"""`ApiKeys` in PostgreSQL, and the last uses of keys: read as the service's role, and changed by functions of the owner."""

from __future__ import annotations

from collections.abc import Sequence

from decklog.domain.identity.access import Role
from decklog.domain.tenancy.api_keys import ENDED_KEYS_MAX, KeyRefusal, KeySource, ListedKey, NewKey
from decklog.domain.tenant import Tenant
from decklog.timescale.connection import Pool
from decklog.timescale.statements import only_row, statement

_ALL = statement("keys.of_tenant")
_SOURCE = statement("keys.source")
_MAKE = statement("keys.make")
_REVOKE = statement("keys.revoke")
_NOTE_USES = statement("keys.note_uses")


class PostgresApiKeys:
    """Keys of the tenants of one database; see the protocol for what each method promises."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def all(self, tenant: Tenant) -> list[ListedKey]:
        """See the protocol."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(_ALL, tenant.id, ENDED_KEYS_MAX)
        return [ListedKey(**{**row, "role": Role(row["role"]), "source": KeySource(row["source"])}) for row in rows]

    async def source(self, tenant: Tenant, key_id: str) -> KeySource | None:
        """See the protocol."""
        async with self._pool.connection() as connection:
            found = await connection.fetchval(_SOURCE, tenant.id, key_id)
        return None if found is None else KeySource(found)

    async def make(self, tenant: Tenant, key: NewKey) -> ListedKey | KeyRefusal:
        """See the protocol."""
        values = (key.id, key.role.value, key.hash, key.name, key.created_by, key.seconds)
        async with self._pool.connection() as connection:
            row = await only_row(connection, _MAKE, tenant.id, *values)
        if row["refusal"] is not None:
            return KeyRefusal(row["refusal"])
        made, ends = row["created_at"], row["expires_at"]
        return ListedKey(key.id, key.role, key.name, KeySource.API, made, key.created_by, ends, None, None)

    async def revoke(self, tenant: Tenant, key_id: str) -> bool:
        """See the protocol."""
        async with self._pool.connection() as connection:
            revoked: bool = await connection.fetchval(_REVOKE, tenant.id, key_id)
        return revoked


class PostgresKeyUses:
    """The last uses of keys; `services.identity.uses` says what is promised."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def note_uses(self, ids: Sequence[str]) -> None:
        """Set the last use of these keys to now; it never moves back."""
        async with self._pool.connection() as connection:
            await connection.execute(_NOTE_USES, ids)
