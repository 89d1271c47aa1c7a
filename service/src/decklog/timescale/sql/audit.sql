-- Checks of what the database itself holds: numbers of logs, their heads, archives, rights. They read only.

-- name: logs
-- Every log with the schema of its records. A head without a schema name is one of an older operator.
SELECT head.tenant_id, head.log, coalesce(nullif(head.schema_name, ''), tenant.schema) AS schema, tenant.name
  FROM decklog.heads AS head LEFT JOIN decklog.tenants AS tenant ON tenant.id = head.tenant_id ORDER BY 1, 2

-- name: head
SELECT epoch, next_seq, received_at FROM decklog.heads WHERE tenant_id = $1 AND log = $2

-- name: archives
-- Archives that the removal of a tenant would believe although the archiver has not come that far, or the tenant is not deleted.
SELECT archive.tenant_id, archive.log, archive.next_seq, coalesce(cursor.next_seq, 0) AS archived,
       coalesce((SELECT sum((part ->> 'rows')::bigint) FROM decklog.archive_parts AS part
                  WHERE part.tenant_id = archive.tenant_id AND part.log = archive.log), 0)::bigint AS rows,
       coalesce(tenant.state = $2, false) AS deleted
  FROM decklog.archives AS archive
  JOIN decklog.heads AS head USING (tenant_id, log)
  LEFT JOIN decklog.tenants AS tenant ON tenant.id = archive.tenant_id
  LEFT JOIN decklog.cursors AS cursor ON cursor.consumer = $1 AND cursor.tenant_id = archive.tenant_id AND cursor.log = archive.log
 ORDER BY 1, 2

-- name: cursors
SELECT cursor.consumer, cursor.tenant_id, cursor.log, cursor.next_seq, head.next_seq AS head
  FROM decklog.cursors AS cursor JOIN decklog.heads AS head USING (tenant_id, log) WHERE cursor.next_seq > head.next_seq ORDER BY 1, 2, 3

-- name: rights
-- Rights of the roles $1 to write a relation themselves.
SELECT role, relation.oid::regclass::text AS relation, array_agg(kind ORDER BY kind) AS rights
  FROM unnest($1::text[]) AS role, unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS kind, pg_class AS relation
  JOIN pg_namespace AS place ON place.oid = relation.relnamespace
 WHERE relation.relkind IN ('r', 'p') AND (place.nspname = 'decklog' OR place.nspname IN (SELECT schema_name FROM decklog.relations))
   AND (has_table_privilege(role, relation.oid, kind)
        OR (kind IN ('INSERT', 'UPDATE') AND has_any_column_privilege(role, relation.oid, kind)))
 GROUP BY role, relation.oid ORDER BY 1, 2
