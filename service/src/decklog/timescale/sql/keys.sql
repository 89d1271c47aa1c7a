-- Keys of one tenant: provisioned ones, and those that its admins make over the API.

-- name: of_tenant
-- Keys of the tenant $1 that are in force, newest first, then the $2 others that ended last.
WITH every AS (
  SELECT id, role, NULL AS name, 'provisioned' AS source, created_at, NULL AS created_by, expires_at, revoked_at, last_used_at
    FROM decklog.api_keys WHERE tenant_id = $1
   UNION ALL
  SELECT id, role, name, 'api', created_at, created_by, expires_at, revoked_at, last_used_at
    FROM decklog.made_keys WHERE tenant_id = $1
), dated AS (
  SELECT *, coalesce(least(revoked_at, expires_at) <= now(), false) AS ended FROM every
), ranked AS (
  SELECT *, row_number() OVER (PARTITION BY ended ORDER BY least(revoked_at, expires_at) DESC, id) AS place FROM dated
)
SELECT id, role, name, source, created_at, created_by, expires_at, revoked_at, last_used_at
  FROM ranked WHERE NOT ended OR place <= $2 ORDER BY ended, created_at DESC, id

-- name: source
SELECT 'api' WHERE EXISTS (SELECT FROM decklog.made_keys WHERE tenant_id = $1 AND id = $2)
 UNION ALL
SELECT 'provisioned' WHERE EXISTS (SELECT FROM decklog.api_keys WHERE tenant_id = $1 AND id = $2)

-- name: make
SELECT refusal, created_at, expires_at FROM decklog.make_key($1, $2, $3, $4, $5, $6, $7)

-- name: revoke
SELECT decklog.revoke_key($1, $2)

-- name: note_uses
SELECT decklog.note_key_uses($1)
