-- Row-level security of a schema that several tenants share. The sub-select is evaluated once per statement, not per row.
ALTER TABLE {schema}.records ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.records FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS tenant ON {schema}.records;
CREATE POLICY tenant ON {schema}.records
    USING (tenant_id = ANY ((SELECT string_to_array(current_setting('decklog.tenants', true), ',')::bigint[])::bigint[]));
