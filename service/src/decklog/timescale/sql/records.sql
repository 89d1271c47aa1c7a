-- name: first_since
-- The number of the first record of log $2 of tenant $1 received at $4 or later; $3, the head, if there is none. Receipt times never
-- decrease along the numbers. Dropped records are older than all that are there.
WITH RECURSIVE halves (low, high) AS (
    SELECT 0::bigint, $3::bigint
    UNION ALL
    SELECT CASE WHEN earlier THEN middle + 1 ELSE low END, CASE WHEN earlier THEN high ELSE middle END
    FROM (
        SELECT low, high, (low + high) / 2 AS middle FROM halves WHERE low < high
    ) AS step
    CROSS JOIN LATERAL (
        SELECT coalesce(
            (SELECT received_at < $4 FROM {schema}.records WHERE tenant_id = $1 AND log = $2 AND seq = middle), true
        ) AS earlier
    ) AS found
)
SELECT low FROM halves WHERE low = high

-- name: of_logs
-- The first records of several logs received since $7: of log $2 of tenant $1 those from $3 to before $4, at most $5, and none beyond its
-- retention of $6 days. Each row has the place of its log among the logs, and the number of records found of it; a log without any has one
-- row of nulls. Every log gets its first record before any gets its second, up to $8 bytes.
SELECT place, found, epoch, seq, received_at, digest, content FROM (
    SELECT *, sum(octet_length(content)) OVER (ORDER BY turn, place ROWS UNBOUNDED PRECEDING) AS held FROM (
        SELECT wanted.place, rows.*, count(rows.seq) OVER (PARTITION BY wanted.place) AS found,
               row_number() OVER (PARTITION BY wanted.place ORDER BY rows.seq) AS turn
          FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::bigint[], $5::integer[], $6::integer[])
               WITH ORDINALITY AS wanted (tenant_id, log, first_seq, end_seq, room, days, place)
          LEFT JOIN LATERAL (
              SELECT epoch, seq, received_at, digest, content FROM {schema}.records
               WHERE tenant_id = wanted.tenant_id AND log = wanted.log AND seq >= wanted.first_seq AND seq < wanted.end_seq
                 AND received_at > $7 AND received_at > now() - make_interval(days => wanted.days)
               ORDER BY seq LIMIT wanted.room
          ) AS rows ON true
    ) AS turns
) AS bounded
 WHERE seq IS NULL OR held - octet_length(content) < $8
 ORDER BY place, seq
