-- The registry, as the service's role reads it; and the processes that use its tables.

-- name: changes
-- The version, and what changed after the version $1, at most $2 of it; one row where nothing did. Each version lists its changes,
-- or none where anything may have changed.
SELECT v.version, c.version AS changed_in, c.tenant_id, c.key_id
  FROM decklog.registry_version AS v
  LEFT JOIN LATERAL (SELECT version, tenant_id, key_id FROM decklog.registry_changes
                      WHERE version > $1 AND version <= v.version ORDER BY version LIMIT $2) AS c ON true

-- name: find
-- Tenants by their numbers $1 and names $2, keys by their ids $3 with their tenants; not those in the state $4. One row at least,
-- for the version. The array makes each look-up one of an index, whatever the statistics say.
WITH keys AS MATERIALIZED (
  SELECT id, tenant_id, role, hash, expires_at FROM decklog.api_keys
   WHERE id = ANY ($3::text[]) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
   UNION ALL
  SELECT id, tenant_id, role, hash, expires_at FROM decklog.made_keys
   WHERE id = ANY ($3::text[]) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
), numbers AS MATERIALIZED (
  SELECT unnest($1::bigint[]) AS id
   UNION SELECT id FROM decklog.tenants WHERE name = ANY ($2::text[])
   UNION SELECT tenant_id FROM keys WHERE tenant_id IS NOT NULL
), found AS (
  SELECT id, name, uid, isolation, schema, tenants.index, queue, retention_days, tenants.state, display_name,
         (spec #>> '{quotas,streams}')::integer AS streams,
         (spec #>> '{quotas,bytesPerSecond}')::bigint AS bytes_per_second,
         (spec #>> '{quotas,eventsPerSecond}')::bigint AS events_per_second,
         (spec #>> '{ingest,recordBytesMax}')::integer AS record_bytes_max,
         (spec #>> '{ingest,oversize}') = 'Trim' AS trims,
         (spec #>> '{ask,showRecords}')::boolean AS shows_records,
         (spec #>> '{retention,searchDays}')::integer AS search_days,
         live.generation AS live, live.starts AS live_starts, building.generation AS building, building.starts AS building_starts
    FROM decklog.tenants
    LEFT JOIN decklog.search_generations AS live ON live.index = tenants.index AND live.state = 1
    LEFT JOIN decklog.search_generations AS building ON building.index = tenants.index AND building.state = 0
   WHERE id = ANY (ARRAY(SELECT id FROM numbers)) AND tenants.state <> $4
)
SELECT v.version, f.*, k.id AS key_id, k.tenant_id AS key_tenant_id, k.role AS key_role, k.hash AS key_hash,
       k.expires_at AS key_expires_at
  FROM decklog.registry_version AS v LEFT JOIN (found AS f FULL JOIN keys AS k ON k.tenant_id = f.id) ON true

-- name: queues
SELECT DISTINCT queue FROM decklog.tenants WHERE state <> $1

-- name: searching
-- Tenants after the number $1 that bound how long records stay in the index.
SELECT id, name, uid, isolation, schema, tenants.index, queue, retention_days, tenants.state, display_name,
       (spec #>> '{quotas,streams}')::integer AS streams,
       (spec #>> '{quotas,bytesPerSecond}')::bigint AS bytes_per_second,
       (spec #>> '{quotas,eventsPerSecond}')::bigint AS events_per_second,
       (spec #>> '{ingest,recordBytesMax}')::integer AS record_bytes_max,
       (spec #>> '{ingest,oversize}') = 'Trim' AS trims,
       (spec #>> '{ask,showRecords}')::boolean AS shows_records,
       (spec #>> '{retention,searchDays}')::integer AS search_days,
       live.generation AS live, live.starts AS live_starts, building.generation AS building, building.starts AS building_starts
  FROM decklog.tenants
  LEFT JOIN decklog.search_generations AS live ON live.index = tenants.index AND live.state = 1
  LEFT JOIN decklog.search_generations AS building ON building.index = tenants.index AND building.state = 0
 WHERE id > $1 AND tenants.state <> $3 AND spec #> '{retention,searchDays}' IS NOT NULL
 ORDER BY id LIMIT $2

-- name: of_index
-- Tenants after the number $2 whose records are in the index $1, deleted ones that are kept included.
SELECT id, name, uid, isolation, schema, tenants.index, queue, retention_days, state, display_name
  FROM decklog.tenants WHERE tenants.index = $1 AND id > $2 ORDER BY id LIMIT $3

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
