-- What the template makes in each of the schemas $1, each thing with its definition, but for the columns of the relation; and
-- what nobody but the template should add: policies, and rights of the service's role $2 or of everybody.
WITH schemas AS (
    SELECT oid, nspname AS schema, nspacl FROM pg_namespace WHERE nspname = ANY($1::text[])
), records AS (
    SELECT schema, pg_class.* FROM schemas JOIN pg_class ON relnamespace = schemas.oid AND relname = 'records'
), functions AS (
    SELECT schema, pg_proc.* FROM schemas JOIN pg_proc ON pronamespace = schemas.oid AND proname IN ('append', 'store')
), rights AS (
    SELECT schema, 'schema' AS place, nspacl AS acl FROM schemas
    UNION ALL SELECT schema, 'records', relacl FROM records
    UNION ALL SELECT schema, 'records.' || attname, attacl FROM pg_attribute JOIN records ON attrelid = records.oid WHERE attacl IS NOT NULL
    UNION ALL SELECT schema, proname, coalesce(proacl, acldefault('f', proowner)) FROM functions
), things AS (
    SELECT schema, 'index ' || of_index.relname AS thing, concat_ws(' ', pg_get_indexdef(of_index.oid), indisvalid) AS definition
      FROM pg_index JOIN records ON indrelid = records.oid JOIN pg_class AS of_index ON of_index.oid = indexrelid
    UNION ALL
    SELECT schema, 'function ' || proname, concat_ws(' ', proargnames, pronargs, prosecdef, provolatile, proconfig, md5(prosrc))
      FROM functions
    UNION ALL
    SELECT schema, 'row-level security', concat_ws(' ', relrowsecurity, relforcerowsecurity) FROM records
    UNION ALL
    SELECT schema, 'policy ' || polname,
           concat_ws(' ', polpermissive, polcmd, polroles, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
      FROM pg_policy JOIN records ON polrelid = records.oid
    UNION ALL
    SELECT schema, format('grant %s on %s%s', privilege_type, place, CASE grantee WHEN 0 THEN ' to everybody' ELSE '' END), ''
      FROM rights, aclexplode(acl)
     WHERE grantee IN (0, (SELECT oid FROM pg_roles WHERE rolname = $2))
)
SELECT schema, thing, string_agg(definition, ' ' ORDER BY definition) AS definition FROM things GROUP BY schema, thing
