-- Heads of tenants, as provisioning sets and reads them.

-- name: set
-- `next_seq`, epoch and receipt time of existing heads stay. A bucket that is new is full.
INSERT INTO decklog.heads AS h (tenant_id, log, state, per_second, burst, tokens, per_day, storage_used_up, dedup_window, schema_name)
SELECT $1, given.log, $3, given.per_second, given.burst, given.burst, given.per_day, given.used_up, make_interval(secs => $8), $9
  FROM unnest($2::smallint[], $4::float8[], $5::integer[], $6::bigint[], $7::boolean[])
       AS given (log, per_second, burst, per_day, used_up)
ON CONFLICT (tenant_id, log) DO UPDATE SET state = excluded.state, per_second = excluded.per_second, burst = excluded.burst,
    per_day = excluded.per_day, storage_used_up = excluded.storage_used_up, dedup_window = excluded.dedup_window,
    tokens = CASE WHEN h.burst = 0 THEN excluded.burst ELSE least(h.tokens, excluded.burst) END, schema_name = excluded.schema_name
 WHERE (h.state, h.per_second, h.burst, h.per_day, h.storage_used_up, h.dedup_window, h.schema_name) IS DISTINCT FROM
       (excluded.state, excluded.per_second, excluded.burst, excluded.per_day, excluded.storage_used_up, excluded.dedup_window,
        excluded.schema_name)

-- name: settings
-- Only of tenants whose two heads agree as the statement above makes them.
SELECT tenant_id, e.state, e.per_second, e.burst, extract(epoch FROM e.dedup_window)::float8 AS window, e.per_day,
       e.storage_used_up, a.burst AS queries
  FROM decklog.heads AS e JOIN decklog.heads AS a USING (tenant_id)
 WHERE tenant_id = ANY($1::bigint[]) AND e.log = $2 AND a.log = $3
   AND (a.state, a.dedup_window, a.per_second, a.per_day, a.storage_used_up)
     = (e.state, e.dedup_window, a.burst / 60.0::float8, 0, false)

-- name: begin_epochs
-- Locks all heads in the order in which every writer locks them.
UPDATE decklog.heads AS head SET epoch = head.epoch + 1
  FROM (SELECT tenant_id, log FROM decklog.heads ORDER BY tenant_id, log FOR UPDATE) AS locked
 WHERE (head.tenant_id, head.log) = (locked.tenant_id, locked.log) RETURNING head.tenant_id

-- name: stored
-- Per tenant: records of both logs, those that the live generation of its index does not hold yet, and the rejected ones with the last.
SELECT head.tenant_id, sum(head.next_seq)::bigint AS records,
       sum(greatest(head.next_seq - coalesce(cursor.next_seq, 0), 0))::bigint AS unindexed,
       coalesce(max(r.rejected), 0) AS rejected, max(r.last_at) AS rejected_at, coalesce(max(r.last_code), '') AS rejected_code
  FROM decklog.heads AS head
  LEFT JOIN decklog.rejections AS r ON r.tenant_id = head.tenant_id
  JOIN decklog.tenants AS tenant ON tenant.id = head.tenant_id
  LEFT JOIN decklog.search_generations AS live ON live.index = tenant.index AND live.state = 1
  LEFT JOIN decklog.cursors AS cursor
         ON cursor.consumer = 'indexer.' || live.generation AND cursor.tenant_id = head.tenant_id AND cursor.log = head.log
 WHERE head.tenant_id = ANY($1::bigint[]) GROUP BY head.tenant_id

-- name: stopped
-- Of a tenant that is marked as deleted: seconds since then, and the receipt time of its newest record.
SELECT extract(epoch FROM clock_timestamp() - tenant.deleted_at)::float8 AS seconds,
       (SELECT max(received_at) FROM decklog.heads AS head WHERE head.tenant_id = tenant.id AND head.next_seq > 0) AS last_received
  FROM decklog.tenants AS tenant WHERE name = $1 AND state = $2 AND deleted_at IS NOT NULL
