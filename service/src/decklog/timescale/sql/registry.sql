-- The registry, as the service's role reads it; and the processes that use its tables.

-- name: tenants
SELECT id, name, uid, isolation, schema, index, queue, retention_days, state, display_name,
       (spec #>> '{quotas,streams}')::integer AS streams,
       (spec #>> '{ingest,recordBytesMax}')::integer AS record_bytes_max,
       (spec #>> '{retention,searchDays}')::integer AS search_days
  FROM decklog.tenants WHERE state <> $1

-- name: keys
-- A key of a deleted tenant is revoked as well; the join holds before that has happened.
SELECT k.id, k.tenant_id, k.role, k.hash, k.expires_at
  FROM decklog.api_keys AS k LEFT JOIN decklog.tenants AS t ON t.id = k.tenant_id
 WHERE k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now()) AND (k.tenant_id IS NULL OR t.state <> $1)

-- name: listing
-- The caller adds a condition.
SELECT name, uid, isolation, retention_days, state, display_name, generation, created_at, deleted_at, schema, index, queue,
       cell, spec, conditions
  FROM decklog.tenants

-- name: older_processes
-- Connections of Decklog, by its roles $1, whose process knows no migration from $3 on. A process names the newest one that it knows
-- behind a slash in its application name $2; versions from before that naming count as 0.
SELECT usename AS role, application_name AS name, count(*) AS connections FROM pg_stat_activity
 WHERE datname = current_database() AND usename = ANY ($1::text[]) AND split_part(application_name, '/', 1) = $2
   AND coalesce(substring(application_name FROM '/([0-9]+)$')::integer, 0) < $3
 GROUP BY 1, 2 ORDER BY 1, 2
