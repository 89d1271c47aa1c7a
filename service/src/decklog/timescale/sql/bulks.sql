-- What a cell keeps of bulks beside their records. Applied as decklog_owner after `cell.sql`; the same rules hold.

-- The content that the key of each bulk (`Idempotency-Key`) belongs to. `key` and `content` are 16 bytes of an HMAC. No role but the
-- owner's has a right on it, and row-level security applies to the owner too.
CREATE TABLE IF NOT EXISTS decklog.bulk_keys (
    tenant_id bigint      NOT NULL,
    key       bytea       NOT NULL CHECK (length(key) = 16),
    content   bytea       NOT NULL CHECK (length(content) = 16),
    bound_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, key)
);
CREATE INDEX IF NOT EXISTS bulk_keys_age ON decklog.bulk_keys (tenant_id, bound_at);
REVOKE ALL ON decklog.bulk_keys FROM PUBLIC, decklog_service, decklog_worker;

-- Row-level security of the relations of this file, as `shared.sql` has it for those of a schema.
DO $security$ DECLARE
    place text;
BEGIN
    FOREACH place IN ARRAY ARRAY['bulk_keys'] LOOP
        IF NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = ('decklog.' || place)::regclass AND polname = 'tenant') THEN
            EXECUTE format('ALTER TABLE decklog.%I ENABLE ROW LEVEL SECURITY', place);
            EXECUTE format('ALTER TABLE decklog.%I FORCE ROW LEVEL SECURITY', place);
            EXECUTE format($$CREATE POLICY tenant ON decklog.%I
                USING ((tenant_id = ANY ((SELECT string_to_array(current_setting('decklog.tenants', true), ',')::bigint[])::bigint[])) IS TRUE)$$,
                place);
        END IF;
    END LOOP;
END $security$;

-- Bind the keys of bulks to their content; return for each whether it belongs to this content. Keys are ordered by tenant and key.
-- A binding ends ten minutes after the dedup window, so that it outlives the ids of its items: a bulk is stored in less time. Each call
-- deletes more bindings that ended than it adds, so their number follows the bulks of one window.
CREATE OR REPLACE FUNCTION decklog.bind_bulk_keys(b_tenant bigint[], b_key bytea[], b_content bytea[]) RETURNS boolean[]
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    at     constant timestamptz := decklog.clock();
    bound  boolean[] := '{}';
    ended  timestamptz;
BEGIN
    IF (array_dims(b_key) = array_dims(b_tenant) AND array_dims(b_content) = array_dims(b_tenant)) IS NOT TRUE THEN
        RAISE EXCEPTION 'the arrays do not describe the same keys' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM set_config('decklog.tenants', array_to_string(b_tenant, ','), true);
    FOR i IN 1 .. cardinality(b_tenant) LOOP
        -- The log 0 holds the events. A tenant without it stores nothing, and its append is refused.
        SELECT at - heads.dedup_window - interval '10 minutes' INTO ended
          FROM decklog.heads WHERE heads.tenant_id = b_tenant[i] AND heads.log = 0;
        IF NOT FOUND THEN
            bound := bound || true;
            CONTINUE;
        END IF;
        INSERT INTO decklog.bulk_keys AS k (tenant_id, key, content, bound_at) VALUES (b_tenant[i], b_key[i], b_content[i], at)
            ON CONFLICT (tenant_id, key) DO UPDATE SET content = excluded.content, bound_at = excluded.bound_at
             WHERE k.content = excluded.content OR k.bound_at <= ended;
        bound := bound || FOUND;
    END LOOP;
    -- Last, and past locked rows: a call that waits holds no row that another one deletes.
    DELETE FROM decklog.bulk_keys WHERE (tenant_id, key) IN (
        SELECT old.tenant_id, old.key FROM (SELECT DISTINCT unnest(b_tenant) AS id) AS given
          JOIN decklog.heads ON heads.tenant_id = given.id AND heads.log = 0
         CROSS JOIN LATERAL (
             SELECT k.tenant_id, k.key FROM decklog.bulk_keys AS k
              WHERE k.tenant_id = given.id AND k.bound_at <= at - heads.dedup_window - interval '10 minutes'
              ORDER BY k.bound_at LIMIT 2 * cardinality(b_tenant) FOR UPDATE SKIP LOCKED) AS old);
    RETURN bound;
END $function$;
REVOKE ALL ON FUNCTION decklog.bind_bulk_keys FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.bind_bulk_keys TO decklog_service;
