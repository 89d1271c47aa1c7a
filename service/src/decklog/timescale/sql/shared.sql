-- Row-level security of a schema that several tenants share. The sub-select is evaluated once per statement, not per row.
-- IS TRUE keeps the planner from using an index for the condition. Every statement names its tenant itself, and on a young partition
-- without statistics the planner would consider any index that begins with the tenant as good as the right one.
ALTER TABLE {schema}.records ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.records FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.records
    USING ((tenant_id = ANY ((SELECT string_to_array(current_setting('decklog.tenants', true), ',')::bigint[])::bigint[])) IS TRUE);
