-- Ranges of logs that went with their partition.

-- name: schemas
SELECT schema_name FROM decklog.relations ORDER BY schema_name

-- name: due
SELECT dropped, ended, bytes, waiting, held, archiving FROM decklog.drop_due_partition($1)

-- name: unrecorded
-- Ranges that no access log has a record of, those that went first first.
SELECT tenant_id, log, starts, ends, first_seq, end_seq, dropped_at
  FROM decklog.dropped_ranges WHERE recorded_at IS NULL ORDER BY dropped_at LIMIT $1

-- name: note
SELECT decklog.note_drops_recorded($1, $2, $3)

-- name: of_log
-- Ranges of a log that went, newest first.
SELECT tenant_id, log, starts, ends, first_seq, end_seq, dropped_at FROM decklog.dropped_ranges
 WHERE tenant_id = $1 AND log = $2 ORDER BY starts DESC LIMIT $3
