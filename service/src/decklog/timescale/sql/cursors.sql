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

-- name: behind_of_generations
-- The same for the consumer that fills the generations in the state $1 of all indices. Each has a cursor of its own.
SELECT h.tenant_id, h.log, coalesce(c.next_seq, 0) AS next_seq, h.next_seq AS head_seq
  FROM decklog.heads AS h
  JOIN decklog.tenants AS t ON t.id = h.tenant_id AND t.state <> $3
  JOIN decklog.search_generations AS g ON g.index = t.index AND g.state = $1
  LEFT JOIN decklog.cursors AS c ON c.consumer = 'indexer.' || g.generation AND c.tenant_id = h.tenant_id AND c.log = h.log
 WHERE h.next_seq > coalesce(c.next_seq, 0) AND (c.owner IS NULL OR c.leased_until <= clock_timestamp())
 ORDER BY h.next_seq - coalesce(c.next_seq, 0) DESC
 LIMIT $2

-- name: lease
SELECT epoch, next_seq FROM decklog.lease_cursor($1, $2, $3, $4, $5)

-- name: move
SELECT epoch, next_seq FROM decklog.move_cursor($1, $2, $3, $4, $5, $6, $7)

-- name: release
SELECT decklog.release_cursor($1, $2, $3, $4)

-- name: lease_all
SELECT tenant_id, log, epoch, next_seq, head_seq, leased FROM decklog.lease_cursors($1, $2, $3, $4, $5)

-- name: renew_all
SELECT tenant_id, log FROM decklog.renew_cursors($1, $2, $3, $4, $5)

-- name: move_all
SELECT tenant_id, log, epoch, next_seq, head_seq, leased FROM decklog.move_cursors($1, $2, $3, $4, $5, $6, $7)

-- name: release_all
SELECT decklog.release_cursors($1, $2, $3, $4)
