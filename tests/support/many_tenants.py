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


COPIES = """
INSERT INTO decklog.tenants
SELECT (jsonb_populate_record(tenant, jsonb_build_object('id', nextval('decklog.tenants_id_seq'), 'name', called, 'uid', called))).*
  FROM decklog.tenants AS tenant, unnest($2::text[]) AS called WHERE tenant.id = $1
RETURNING id, name
"""
HEADS = """
INSERT INTO decklog.heads
SELECT (jsonb_populate_record(head, jsonb_build_object('tenant_id', number, 'next_seq', 0))).*
  FROM decklog.heads AS head, unnest($2::bigint[]) AS number WHERE head.tenant_id = $1
"""


async def copy_tenant(owner: asyncpg.Connection, tenant_id: int, names: list[str]) -> list[tuple[int, str]]:
    """Copy a provisioned Shared tenant with its heads under other names; return the id and a key of the role writer of each."""
    rows = await owner.fetch(COPIES, tenant_id, names)
    await owner.execute(HEADS, tenant_id, [row["id"] for row in rows])
    made = [(row["id"], *new_key()) for row in rows]
    await owner.executemany(
        "INSERT INTO decklog.api_keys (id, tenant_id, role, hash) VALUES ($1, $2, 'writer', $3)",
        [(key_id, number, digest) for number, key_id, _, digest in made],
    )
    await owner.execute("ANALYZE decklog.tenants, decklog.api_keys, decklog.heads")
    return [(number, token) for number, _, token, _ in made]
