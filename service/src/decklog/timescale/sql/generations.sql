-- Generations of search indices, as provisioning and workers read and change them. The functions are in `worker.sql`.

-- name: of_indices
SELECT index, generation, state, starts, uuids FROM decklog.search_generations WHERE index = ANY($1::text[]) ORDER BY index, generation

-- name: indexed_from
-- Per index, a day before which no tenant of it has received a record: clocks of two machines may differ.
SELECT index, ((min(created_at) - interval '1 hour') AT TIME ZONE 'UTC')::date AS day FROM decklog.tenants WHERE index = ANY($1::text[]) GROUP BY index

-- name: record
SELECT decklog.record_search_generation($1, $2, $3::date[], $4::text[], $5)

-- name: retire
SELECT decklog.retire_search_generations($1, $2::text[])

-- name: forget
DELETE FROM decklog.search_generations WHERE index = $1

-- name: tended
-- Every index with its generations, the length of its partitions, and the most days that one of its tenants may search it for: a tenant
-- that is kept after its deletion may be adopted, and counts. `idle_seconds`: since a generation changed.
SELECT t.index, max(coalesce((t.spec #>> '{retention,searchDays}')::integer, t.retention_days)) AS kept_days,
       min(r.partition_days) AS partition_days, g.generation, g.state, g.starts, g.uuids,
       extract(epoch FROM clock_timestamp() - g.changed_at)::float8 AS idle_seconds
  FROM decklog.tenants AS t
  JOIN decklog.relations AS r ON r.schema_name = t.schema
  JOIN decklog.search_generations AS g ON g.index = t.index
 GROUP BY t.index, g.index, g.generation ORDER BY t.index, g.generation

-- name: progress
-- The state of a generation, the records of all logs of its index, and how many of them its cursors have passed.
SELECT g.state, coalesce(sum(head.next_seq), 0)::bigint AS records, coalesce(sum(least(c.next_seq, head.next_seq)), 0)::bigint AS done
  FROM decklog.search_generations AS g
  LEFT JOIN decklog.tenants AS t ON t.index = g.index AND t.state <> $3
  LEFT JOIN decklog.heads AS head ON head.tenant_id = t.id
  LEFT JOIN decklog.cursors AS c
         ON c.consumer = 'indexer.' || g.generation AND c.tenant_id = head.tenant_id AND c.log = head.log
 WHERE g.index = $1 AND g.generation = $2 GROUP BY g.state

-- name: add_range
SELECT decklog.add_search_range($1, $2, $3, $4)

-- name: drop_range
SELECT decklog.drop_search_range($1, $2, $3)

-- name: switch
SELECT decklog.switch_search_generation($1, $2, $3)

-- name: forget_retired
SELECT decklog.forget_search_generation($1, $2)
