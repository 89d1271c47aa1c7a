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
