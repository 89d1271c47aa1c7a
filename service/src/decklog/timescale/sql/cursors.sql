-- Cursors of consumers, as the service's role reads and moves them.
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
INSERT INTO decklog.cursors AS c (consumer, tenant_id, log, owner, leased_until)
VALUES ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5))
ON CONFLICT (consumer, tenant_id, log) DO UPDATE SET owner = excluded.owner, leased_until = excluded.leased_until
 WHERE c.owner IS NULL OR c.owner = excluded.owner OR c.leased_until <= clock_timestamp()
RETURNING c.epoch, c.next_seq

-- name: move
UPDATE decklog.cursors SET next_seq = $6, leased_until = clock_timestamp() + make_interval(secs => $7)
 WHERE consumer = $1 AND tenant_id = $2 AND log = $3 AND owner = $4 AND next_seq = $5
RETURNING epoch, next_seq

-- name: release
UPDATE decklog.cursors SET owner = NULL, leased_until = 'epoch' WHERE consumer = $1 AND tenant_id = $2 AND log = $3 AND owner = $4

-- name: rewind
-- As the owner: the consumer $2 starts again for every tenant of the index $1.
UPDATE decklog.cursors SET next_seq = 0, owner = NULL, leased_until = 'epoch'
 WHERE consumer = $2 AND tenant_id IN (SELECT id FROM decklog.tenants WHERE index = $1)
