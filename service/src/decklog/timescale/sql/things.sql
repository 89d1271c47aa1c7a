-- What the template makes in the schema $1, each thing with its definition, but for the columns of the relation; and what
-- nobody but the template should add: policies, and rights of the service's role $2 or of everybody.
WITH records AS (
    SELECT pg_class.* FROM pg_class WHERE oid = to_regclass(format('%I.records', $1::text))
), functions AS (
    SELECT pg_proc.* FROM pg_proc WHERE pronamespace = to_regnamespace(format('%I', $1::text)) AND proname IN ('append', 'store')
), rights AS (
    SELECT 'schema' AS place, nspacl AS acl FROM pg_namespace WHERE nspname = $1
    UNION ALL SELECT 'records', relacl FROM records
    UNION ALL SELECT 'records.' || attname, attacl FROM pg_attribute JOIN records ON attrelid = records.oid
    UNION ALL SELECT proname, coalesce(proacl, acldefault('f', proowner)) FROM functions
), things AS (
    SELECT 'index ' || of_index.relname AS thing, concat_ws(' ', pg_get_indexdef(of_index.oid), indisvalid) AS definition
      FROM pg_index JOIN records ON indrelid = records.oid JOIN pg_class AS of_index ON of_index.oid = indexrelid
    UNION ALL
    SELECT 'function ' || proname, concat_ws(' ', proargnames, pronargs, prosecdef, provolatile, proconfig, md5(prosrc)) FROM functions
    UNION ALL
    SELECT 'row-level security', concat_ws(' ', relrowsecurity, relforcerowsecurity) FROM records
    UNION ALL
    SELECT 'policy ' || polname,
           concat_ws(' ', polpermissive, polcmd, polroles, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
      FROM pg_policy JOIN records ON polrelid = records.oid
    UNION ALL
    SELECT format('grant %s on %s%s', privilege_type, place, CASE grantee WHEN 0 THEN ' to everybody' ELSE '' END), ''
      FROM rights, aclexplode(acl)
     WHERE grantee IN (0, (SELECT oid FROM pg_roles WHERE rolname = $2))
)
SELECT thing, string_agg(definition, ' ' ORDER BY definition) AS definition FROM things GROUP BY thing
