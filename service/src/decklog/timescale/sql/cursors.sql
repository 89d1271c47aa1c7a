-- Cursors of consumers, as the worker's role reads and moves them; the functions are in `worker.sql`.
-- Leases end by the database's clock; a cursor moves only if its owner and its position are those that the caller knows.

-- name: behind
-- Logs that this consumer has not finished and that nobody has leased, the furthest behind first.
SELECT h.tenant_id, h.log, coalesce(c.next_seq, 0) AS next_seq, h.next_seq AS head_seq
  FROM decklog.heads AS h
  LEFT JOIN decklog.cursors AS c ON c.consumer = $1 AND c.tenant_id = h.tenant_id AND c.log = h.log
 WHERE h.next_seq > coalesce(c.next_seq, 0) AND (c.owner IS NULL OR c.leased_until <= clock_timestamp())
 ORDER BY h.next_seq - coalesce(c.next_seq, 0) DESC
 LIMIT $2

-- name: lease
SELECT epoch, next_seq FROM decklog.lease_cursor($1, $2, $3, $4, $5)

-- name: move
SELECT epoch, next_seq FROM decklog.move_cursor($1, $2, $3, $4, $5, $6, $7)

-- name: release
SELECT decklog.release_cursor($1, $2, $3, $4)

-- name: rewind
-- As the owner: the consumer $2 starts again for every tenant of the index $1.
UPDATE decklog.cursors SET next_seq = 0, owner = NULL, leased_until = 'epoch'
 WHERE consumer = $2 AND tenant_id IN (SELECT id FROM decklog.tenants WHERE index = $1)
