"""Many tenants in the registry, inserted by SQL: rows of the control tables alone, without heads and relations."""

from __future__ import annotations

import asyncpg

from decklog.services.identity.keys import key_hash, new_key

TENANTS = """
INSERT INTO decklog.tenants (name, uid, former_uids, isolation, schema, index, queue, retention_days, state, display_name, spec, generation)
SELECT 'many-' || n, 'uid-' || n, '{}', 'Shared', 'shared_90', 'decklog-shared-90', 'decklog-shared-90', 90, 0, 'Tenant ' || n,
       '{"retention": {"days": 90}, "quotas": {"streams": 50}}', 1
  FROM generate_series($1::int, $2::int) AS n
"""
KEYS = """
INSERT INTO decklog.api_keys (id, tenant_id, role, hash)
SELECT substr(md5(role || id), 1, 16), id, role, sha256((role || id)::bytea)
  FROM decklog.tenants, unnest('{writer,auditor,admin}'::text[]) AS role WHERE name LIKE 'many-%' AND id > $1
"""


async def add_tenants(owner: asyncpg.Connection, first: int, last: int) -> None:
    """Add the tenants `many-<first>` to `many-<last>` with three keys each, whose secrets nobody has."""
    before = await owner.fetchval("SELECT coalesce(max(id), 0) FROM decklog.tenants")
    await owner.execute(TENANTS, first, last)
    # Before the keys: the check of their foreign key would read the whole of a table that was small a moment ago.
    await owner.execute("ANALYZE decklog.tenants")
    await owner.execute(KEYS, before)
    await owner.execute("ANALYZE decklog.api_keys, decklog.registry_changes")


async def rotate(owner: asyncpg.Connection, tenant: str, old: str | None) -> str:
    """Add a key of the role auditor, and revoke the old one in the same transaction. Return the new key."""
    key_id, token, digest = new_key()
    async with owner.transaction():
        await owner.execute(
            "INSERT INTO decklog.api_keys (id, tenant_id, role, hash) SELECT $1, id, 'auditor', $2 FROM decklog.tenants WHERE name = $3",
            key_id,
            digest,
            tenant,
        )
        if old is not None:
            await owner.execute("UPDATE decklog.api_keys SET revoked_at = now() WHERE hash = $1", key_hash(old))
    return token
