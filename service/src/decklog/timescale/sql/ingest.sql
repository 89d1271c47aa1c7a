-- What a cell keeps of ingest beside the records: the content of the keys of bulks, and rejected records.
-- Applied as decklog_owner after `cell.sql`; the same rules hold.

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

-- Rejected records, until an admin replays or deletes them. `content` is their JSON with secrets masked; null where they were not JSON or
-- too large. `record_id` is the id that a bulk's key gave them, `recorder` the credential that sent them.
CREATE TABLE IF NOT EXISTS decklog.rejected_records (
    tenant_id   bigint      NOT NULL,
    id          bigint      NOT NULL,
    rejected_at timestamptz NOT NULL,
    code        text        NOT NULL CHECK (length(code) <= 64),
    detail      text        NOT NULL CHECK (length(detail) <= 1000),
    record_id   text,
    recorder    text        NOT NULL,
    request_id  text        NOT NULL,
    size        integer     NOT NULL,  -- bytes of the record as sent
    content     text COLLATE "C" CHECK (octet_length(content) <= 524288),
    PRIMARY KEY (tenant_id, id)
);
-- Per tenant: how many records were rejected, how many of them were not kept, how many kept ones went to make room or by age, and the last
-- rejection. `kept` and `bytes` are what is kept now. Counts only, as heads have them, so it has no row-level security.
CREATE TABLE IF NOT EXISTS decklog.rejections (
    tenant_id bigint      PRIMARY KEY,
    next_id   bigint      NOT NULL DEFAULT 1,
    rejected  bigint      NOT NULL DEFAULT 0,
    unkept    bigint      NOT NULL DEFAULT 0,
    dropped   bigint      NOT NULL DEFAULT 0,
    kept      integer     NOT NULL DEFAULT 0,
    bytes     bigint      NOT NULL DEFAULT 0,
    last_at   timestamptz NOT NULL,
    last_code text        NOT NULL
);
REVOKE ALL ON decklog.rejected_records, decklog.rejections FROM PUBLIC, decklog_service, decklog_worker;
GRANT SELECT ON decklog.rejected_records, decklog.rejections TO decklog_service;

-- Row-level security of the relations of this file, as `shared.sql` has it for those of a schema.
DO $security$ DECLARE
    place text;
BEGIN
    FOREACH place IN ARRAY ARRAY['bulk_keys', 'rejected_records'] LOOP
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

-- Count rejected records of one tenant and keep those that are given, by numbers in their order. The oldest go where the tenant has more than
-- 1,000 or more than 8 MiB, and those that are older than 30 days or than `days`, for which the tenant's records are kept.
CREATE OR REPLACE FUNCTION decklog.keep_rejected(
    of_tenant bigint, days integer, count_ bigint, unkept_ bigint, newest timestamptz, newest_code text,
    ats timestamptz[], codes text[], details text[], record_ids text[], recorders text[], requests text[], sizes integer[], contents text[]
) RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    added   constant integer := coalesce(cardinality(ats), 0);
    first   bigint;
    oldest  constant timestamptz := decklog.clock() - make_interval(days => least(30, days));
    gone    integer;
BEGIN
    IF added > 1000 OR count_ < 0 OR unkept_ < 0 THEN
        RAISE EXCEPTION 'at most 1000 records are kept at once' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT EXISTS (SELECT FROM decklog.heads WHERE heads.tenant_id = of_tenant) THEN
        RETURN;  -- removed meanwhile
    END IF;
    PERFORM set_config('decklog.tenants', of_tenant::text, true);
    INSERT INTO decklog.rejections AS r (tenant_id, next_id, rejected, unkept, last_at, last_code)
    VALUES (of_tenant, 1 + added, count_, unkept_, newest, newest_code)
        ON CONFLICT (tenant_id) DO UPDATE SET next_id = r.next_id + added, rejected = r.rejected + count_, unkept = r.unkept + unkept_,
           last_at = newest, last_code = newest_code
    RETURNING r.next_id - added INTO first;
    INSERT INTO decklog.rejected_records (tenant_id, id, rejected_at, code, detail, record_id, recorder, request_id, size, content)
    SELECT of_tenant, first + given.n - 1, given.at, given.code, given.detail, given.record_id, given.recorder, given.request, given.size,
           given.content
      FROM unnest(ats, codes, details, record_ids, recorders, requests, sizes, contents) WITH ORDINALITY
           AS given (at, code, detail, record_id, recorder, request, size, content, n);
    DELETE FROM decklog.rejected_records AS r USING (
        SELECT id, row_number() OVER newest_first AS place, sum(coalesce(octet_length(content), 0)) OVER newest_first AS held
          FROM decklog.rejected_records WHERE tenant_id = of_tenant WINDOW newest_first AS (ORDER BY id DESC)) AS held
     WHERE r.tenant_id = of_tenant AND r.id = held.id AND (held.place > 1000 OR held.held > 8388608 OR r.rejected_at < oldest);
    GET DIAGNOSTICS gone = ROW_COUNT;
    PERFORM decklog.measure_rejected(of_tenant, gone);
END $function$;

-- Note how many rejected records a tenant has, after `gone` of them went.
CREATE OR REPLACE FUNCTION decklog.measure_rejected(of_tenant bigint, gone integer) RETURNS void
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    UPDATE decklog.rejections AS r SET dropped = r.dropped + gone, kept = there.kept, bytes = there.bytes
      FROM (SELECT count(*) AS kept, coalesce(sum(octet_length(content)), 0) AS bytes
              FROM decklog.rejected_records WHERE tenant_id = of_tenant) AS there
     WHERE r.tenant_id = of_tenant $$;
REVOKE ALL ON FUNCTION decklog.measure_rejected FROM PUBLIC;

-- Delete one rejected record, after it was replayed or because an admin asked for it. Returns whether it was there.
CREATE OR REPLACE FUNCTION decklog.delete_rejected(of_tenant bigint, of_id bigint) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    gone boolean;
BEGIN
    PERFORM set_config('decklog.tenants', of_tenant::text, true);
    PERFORM FROM decklog.rejections WHERE rejections.tenant_id = of_tenant FOR UPDATE;
    DELETE FROM decklog.rejected_records AS r WHERE r.tenant_id = of_tenant AND r.id = of_id;
    gone := FOUND;
    PERFORM decklog.measure_rejected(of_tenant, 0);
    RETURN gone;
END $function$;
REVOKE ALL ON FUNCTION decklog.keep_rejected, decklog.delete_rejected FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.keep_rejected, decklog.delete_rejected TO decklog_service;

-- Delete what is too old, also of tenants that reject nothing any more. It visits tenants of which something is kept. Called by the
-- worker's keeper.
CREATE OR REPLACE FUNCTION decklog.forget_rejected() RETURNS integer
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    tenant  record;
    gone    integer;
    total   integer := 0;
BEGIN
    IF to_regclass('decklog.tenants') IS NULL THEN
        RETURN 0;
    END IF;
    FOR tenant IN
        SELECT t.id, t.retention_days FROM decklog.rejections AS r JOIN decklog.tenants AS t ON t.id = r.tenant_id
         WHERE r.kept > 0 AND t.state <> 2
    LOOP
        PERFORM set_config('decklog.tenants', tenant.id::text, true);
        DELETE FROM decklog.rejected_records AS r WHERE r.tenant_id = tenant.id
           AND r.rejected_at < decklog.clock() - make_interval(days => least(30, tenant.retention_days));
        GET DIAGNOSTICS gone = ROW_COUNT;
        IF gone > 0 THEN
            PERFORM decklog.measure_rejected(tenant.id, gone);
            total := total + gone;
        END IF;
    END LOOP;
    RETURN total;
END $function$;
REVOKE ALL ON FUNCTION decklog.forget_rejected FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.forget_rejected TO decklog_worker;
