-- Archives of deleted tenants: what the archiver writes as the worker's role (by functions in `worker.sql`), and what provisioning compares as the owner.

-- name: due
-- Deleted tenants with a log that no verified manifest covers, the first deleted first.
SELECT id, name, uid, isolation, schema, index, queue, retention_days, state, display_name,
       (spec #>> '{retention,archiveDays}')::integer AS keep_days
  FROM decklog.tenants AS tenant
 WHERE state = $1 AND spec ->> 'deletionPolicy' = $2 AND deleted_at <= clock_timestamp() - make_interval(secs => $3)
   AND EXISTS (SELECT FROM decklog.heads AS head LEFT JOIN decklog.archives AS archive USING (tenant_id, log)
                WHERE tenant_id = tenant.id AND head.next_seq IS DISTINCT FROM archive.next_seq)
 ORDER BY deleted_at, id LIMIT $4

-- name: add
-- Note a part that was read back and move the cursor past it, both or neither.
SELECT epoch, next_seq FROM decklog.add_archive_part($1, $2, $3, $4, $5, $6, $7, $8, $9::jsonb)

-- name: parts
SELECT part::text FROM decklog.archive_parts AS part JOIN decklog.cursors AS cursor USING (tenant_id, log)
 WHERE consumer = $1 AND tenant_id = $2 AND log = $3 AND first_seq < cursor.next_seq ORDER BY first_seq

-- name: finish
-- Note the manifest $8 for the logs $6 up to the numbers $7, if the lease still stands.
SELECT decklog.finish_archive($1, $2, $3, $4, $5, $6, $7, $8)

-- name: report_place
SELECT decklog.report_archive_place($1, $2, $3, $4)

-- name: place
SELECT place, locked, reason, message FROM decklog.archive_place WHERE told_at > clock_timestamp() - $1::text::interval

-- name: progress
-- `complete` is null for a tenant without heads: a removal that was interrupted had compared them before it deleted them.
SELECT tenant.id, coalesce(sum(head.next_seq), 0)::bigint AS records,
       coalesce(sum(least(coalesce(cursor.next_seq, 0), head.next_seq)), 0)::bigint AS archived,
       bool_and(head.next_seq IS NOT DISTINCT FROM archive.next_seq) AS complete,
       (SELECT max(manifest) FROM decklog.archives WHERE tenant_id = tenant.id) AS manifest
  FROM unnest($1::bigint[]) AS tenant (id)
  LEFT JOIN decklog.heads AS head ON head.tenant_id = tenant.id
  LEFT JOIN decklog.archives AS archive ON archive.tenant_id = head.tenant_id AND archive.log = head.log
  LEFT JOIN decklog.cursors AS cursor ON cursor.consumer = $2 AND cursor.tenant_id = head.tenant_id AND cursor.log = head.log
 GROUP BY tenant.id

-- name: lacking
-- Logs of a tenant that the manifest $2 does not cover, under the locks of their heads.
SELECT count(*) FROM (SELECT * FROM decklog.heads WHERE tenant_id = $1 ORDER BY log FOR UPDATE) AS head
  LEFT JOIN decklog.archives AS archive USING (tenant_id, log)
 WHERE (head.next_seq, $2::text) IS DISTINCT FROM (archive.next_seq, archive.manifest)
