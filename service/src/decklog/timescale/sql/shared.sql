-- Row-level security of {relation}, in a schema that several tenants share. The sub-select is evaluated once per statement, not per row.
-- IS TRUE keeps the planner from using an index for the condition. Every statement names its tenant itself, and on a young partition
-- without statistics the planner would consider any index that begins with the tenant as good as the right one.
ALTER TABLE {relation} ENABLE ROW LEVEL SECURITY;
ALTER TABLE {relation} FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {relation}
    USING ((tenant_id = ANY ((SELECT string_to_array(current_setting('decklog.tenants', true), ',')::bigint[])::bigint[])) IS TRUE);
