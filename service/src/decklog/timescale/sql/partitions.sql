-- Sizes of a Dedicated tenant's partitions.

-- name: native_bytes
-- Bytes of the native partitions of the schema $1 that start at $2, with their indexes; null for one that does not exist.
SELECT pg_total_relation_size(to_regclass(format('%I.%I', $1::text, 'records_' || to_char(starts AT TIME ZONE 'UTC', 'YYYYMMDD'))))
       AS bytes FROM unnest($2::timestamptz[]) WITH ORDINALITY AS part (starts, place) ORDER BY place

-- name: chunk_bytes
-- The same of the chunks of a hypertable.
SELECT pg_total_relation_size(format('%I.%I', chunk_schema, chunk_name)::regclass) AS bytes
  FROM unnest($2::timestamptz[]) WITH ORDINALITY AS part (starts, place)
  LEFT JOIN timescaledb_information.chunks
         ON hypertable_schema = $1 AND hypertable_name = 'records' AND range_start = part.starts
 ORDER BY place
