-- Saved searches of a cell's tenants. Applied as decklog_owner after `cell.sql`; the same rules hold.

-- `parameters` is JSON, as the service has checked it. `owner` names the credential that saved the search; others see it if it is shared.
-- Row-level security applies to the owner too.
CREATE TABLE IF NOT EXISTS decklog.saved_searches (
    tenant_id  bigint      NOT NULL,
    id         text        NOT NULL CHECK (id ~ '^[0-9a-f]{16}$'),
    name       text        NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    parameters text        NOT NULL CHECK (octet_length(parameters) <= 32768),
    owner      text        NOT NULL CHECK (length(owner) BETWEEN 1 AND 2200),
    shared     boolean     NOT NULL,
    saved_at   timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
REVOKE ALL ON decklog.saved_searches FROM PUBLIC, decklog_service, decklog_worker;
GRANT SELECT ON decklog.saved_searches TO decklog_service;

DO $security$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = 'decklog.saved_searches'::regclass AND polname = 'tenant') THEN
        ALTER TABLE decklog.saved_searches ENABLE ROW LEVEL SECURITY;
        ALTER TABLE decklog.saved_searches FORCE ROW LEVEL SECURITY;
        CREATE POLICY tenant ON decklog.saved_searches
            USING ((tenant_id = ANY ((SELECT string_to_array(current_setting('decklog.tenants', true), ',')::bigint[])::bigint[])) IS TRUE);
    END IF;
END $security$;

-- Save a search of a tenant, new or in the place of the one with this id. Without `s_new`, only that of this owner, or any of them with
-- `s_all`. Returns the time, or null where there is no such search, or where the tenant has `s_most` of them already.
CREATE OR REPLACE FUNCTION decklog.save_search(
    s_tenant bigint, s_id text, s_name text, s_parameters text, s_owner text, s_shared boolean, s_new boolean, s_all boolean, s_most integer
) RETURNS timestamptz LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    at constant timestamptz := decklog.clock();
BEGIN
    IF s_tenant IS NULL OR s_new IS NULL THEN
        RAISE EXCEPTION 'a search needs its tenant' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM set_config('decklog.tenants', s_tenant::text, true);
    IF NOT s_new THEN
        UPDATE decklog.saved_searches AS s SET name = s_name, parameters = s_parameters, shared = s_shared, saved_at = at
         WHERE s.tenant_id = s_tenant AND s.id = s_id AND (s.owner = s_owner OR s_all);
        RETURN CASE WHEN FOUND THEN at END;
    END IF;
    -- Two callers must not both be the last one below the bound.
    PERFORM pg_advisory_xact_lock(hashtextextended('decklog.saved_searches.' || s_tenant, 0));
    IF (SELECT count(*) FROM decklog.saved_searches AS s WHERE s.tenant_id = s_tenant) >= s_most THEN
        RETURN NULL;
    END IF;
    INSERT INTO decklog.saved_searches VALUES (s_tenant, s_id, s_name, s_parameters, s_owner, s_shared, at);
    RETURN at;
END $function$;
REVOKE ALL ON FUNCTION decklog.save_search FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.save_search TO decklog_service;

-- Delete a search of this owner, or any with `s_all`; return whether there was one.
CREATE OR REPLACE FUNCTION decklog.delete_search(s_tenant bigint, s_id text, s_owner text, s_all boolean) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    PERFORM set_config('decklog.tenants', s_tenant::text, true);
    DELETE FROM decklog.saved_searches AS s WHERE s.tenant_id = s_tenant AND s.id = s_id AND (s.owner = s_owner OR s_all);
    RETURN FOUND;
END $function$;
REVOKE ALL ON FUNCTION decklog.delete_search FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.delete_search TO decklog_service;
