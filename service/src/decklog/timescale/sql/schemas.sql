-- Schemas that hold records: what is in them compared with the template, their partitions, their size.

-- name: missing
-- Per schema: the version of its template, the objects that the template made, and whether the relation exists.
SELECT schema, relation.template, relation.things::text, to_regclass(format('%I.records', schema)) IS NOT NULL
  FROM unnest($1::text[]) AS schema LEFT JOIN decklog.relations AS relation ON relation.schema_name = schema

-- name: objects
-- Objects that the template makes in each of the schemas $1, each with its definition, except the columns of relations; and
-- what only the template should add: policies, and rights of the roles $2 or of everybody. The first of these roles is not named.
WITH schemas AS (
    SELECT oid, nspname AS schema, nspacl FROM pg_namespace WHERE nspname = ANY($1::text[])
), relations AS (
    SELECT schema, CASE relname WHEN 'records' THEN '' ELSE ' of ' || relname END AS of_relation, pg_class.*
      FROM schemas JOIN pg_class ON relnamespace = schemas.oid AND relname IN ('records', 'term_filters')
), functions AS (
    SELECT schema, pg_proc.* FROM schemas JOIN pg_proc ON pronamespace = schemas.oid AND proname IN ('append', 'store', 'add_term_filters')
), rights AS (
    SELECT schema, 'schema' AS place, nspacl AS acl FROM schemas
    UNION ALL SELECT schema, relname::text, relacl FROM relations
    UNION ALL SELECT schema, relname || '.' || attname, attacl FROM pg_attribute JOIN relations ON attrelid = relations.oid WHERE attacl IS NOT NULL
    UNION ALL SELECT schema, proname, coalesce(proacl, acldefault('f', proowner)) FROM functions
), things AS (
    SELECT schema, 'index ' || of_index.relname AS thing, concat_ws(' ', pg_get_indexdef(of_index.oid), indisvalid) AS definition
      FROM pg_index JOIN relations ON indrelid = relations.oid JOIN pg_class AS of_index ON of_index.oid = indexrelid
    UNION ALL
    SELECT schema, 'function ' || proname, concat_ws(' ', proargnames, pronargs, prosecdef, provolatile, proconfig, md5(prosrc))
      FROM functions
    UNION ALL
    SELECT schema, 'row-level security' || of_relation, concat_ws(' ', relrowsecurity, relforcerowsecurity) FROM relations
    UNION ALL
    SELECT schema, 'policy ' || polname || of_relation,
           concat_ws(' ', polpermissive, polcmd, polroles, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
      FROM pg_policy JOIN relations ON polrelid = relations.oid
    UNION ALL
    SELECT schema, format('grant %s on %s%s', privilege_type, place,
                          CASE WHEN grantee = 0 THEN ' to everybody' WHEN rolname <> ($2::text[])[1] THEN ' to ' || rolname ELSE '' END), ''
      FROM rights, aclexplode(acl) LEFT JOIN pg_roles ON pg_roles.oid = grantee
     WHERE grantee = 0 OR rolname = ANY ($2)
)
SELECT schema, thing, string_agg(definition, ' ' ORDER BY definition) AS definition FROM things GROUP BY schema, thing

-- name: partitions
-- Per schema: `ahead`, whether the partitions reach further than $2 into the future (always for a hypertable, whose chunks
-- TimescaleDB makes inside the insert that needs one), and `gaps`, the partitions that are missing before the last one.
WITH bounds AS (
    SELECT * FROM decklog.partitions WHERE schema_name = ANY($1::text[])
), last AS (
    SELECT schema_name, max(starts) AS starts, max(ends) AS ends FROM bounds GROUP BY schema_name
), spans AS (
    SELECT relation.*, to_timestamp((floor(extract(epoch FROM decklog.clock()) / span) + n) * span) AS starts
      FROM (SELECT schema_name, hypertable, partition_days * 86400 AS span
              FROM decklog.relations WHERE schema_name = ANY($1)) AS relation,
           generate_series(0, 7) AS n
)
SELECT schema_name AS schema,
       bool_or(hypertable) OR coalesce(max(last.ends) > decklog.clock() + $2::text::interval, false) AS ahead,
       coalesce(array_agg('partition records_' || to_char(spans.starts AT TIME ZONE 'UTC', 'YYYYMMDD') ORDER BY spans.starts)
                FILTER (WHERE NOT hypertable AND spans.starts < last.starts
                          AND NOT EXISTS (SELECT FROM bounds WHERE bounds.schema_name = spans.schema_name
                                           AND bounds.starts <= spans.starts AND spans.starts < bounds.ends)),
                '{}') AS gaps
  FROM spans LEFT JOIN last USING (schema_name) GROUP BY schema_name

-- name: partitions_until
-- Until when the native partitions of every schema reach; null where there are none.
SELECT min(ends) FROM (SELECT max(ends) AS ends FROM decklog.partitions GROUP BY schema_name) AS schemas

-- name: size
-- Bytes of a schema's relation with its partitions and indexes, and the records of all tenants in it.
SELECT (SELECT coalesce(sum(pg_total_relation_size(part)), 0)
          FROM (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass(format('%I.records', $1::text))
                UNION ALL SELECT to_regclass(format('%I.records', $1::text))) AS parts (part))::bigint AS bytes,
       (SELECT coalesce(sum(head.next_seq), 0) FROM decklog.heads AS head JOIN decklog.tenants AS tenant ON tenant.id = head.tenant_id
         WHERE tenant.schema = $1)::bigint AS records

-- name: sample
-- Per log of the tenant $1: the number of its records, and the average bytes of the content of about $2 of them, chosen at random.
WITH chosen AS MATERIALIZED (
    SELECT log, next_seq, ARRAY(SELECT floor(random() * next_seq)::bigint FROM generate_series(1, $2)) AS seqs
      FROM decklog.heads WHERE tenant_id = $1
)
SELECT chosen.log, chosen.next_seq AS records, coalesce(avg(pg_column_size(record.content)), 0)::float8 AS content_bytes
  FROM chosen LEFT JOIN {schema}.records AS record
    ON record.tenant_id = $1 AND record.log = chosen.log AND record.seq = ANY (chosen.seqs)
 GROUP BY chosen.log, chosen.next_seq
