-- Conversations with the answering of questions, by user. Applied as decklog_owner after `cell.sql`; the same rules hold.

-- `owner` is the SHA-256 of the identity that asked, `turns` are lines of JSON, as the service has checked them. Only functions that are
-- told the owner read and change them, so no role but the owner's has a right on the relation. Row-level security applies to it too.
CREATE TABLE IF NOT EXISTS decklog.conversations (
    tenant_id  bigint      NOT NULL,
    id         text        NOT NULL CHECK (id ~ '^[0-9a-f]{16}$'),
    owner      bytea       NOT NULL CHECK (length(owner) = 32),
    title      text        NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    turns      text        NOT NULL CHECK (octet_length(turns) <= 1048576),
    length     integer     NOT NULL CHECK (length > 0),
    started_at timestamptz NOT NULL,
    last_at    timestamptz NOT NULL,
    ends_at    timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX IF NOT EXISTS conversations_owner ON decklog.conversations (tenant_id, owner, last_at);
CREATE INDEX IF NOT EXISTS conversations_end ON decklog.conversations (ends_at);
REVOKE ALL ON decklog.conversations FROM PUBLIC, decklog_service, decklog_worker;

DO $security$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = 'decklog.conversations'::regclass AND polname = 'tenant') THEN
        ALTER TABLE decklog.conversations ENABLE ROW LEVEL SECURITY;
        ALTER TABLE decklog.conversations FORCE ROW LEVEL SECURITY;
        CREATE POLICY tenant ON decklog.conversations
            USING ((tenant_id = ANY ((SELECT string_to_array(current_setting('decklog.tenants', true), ',')::bigint[])::bigint[])) IS TRUE);
    END IF;
END $security$;

-- Begin a conversation of an owner with its first turn. Those beyond the bounds of the owner and of the tenant go first, the one used
-- longest ago first.
CREATE OR REPLACE FUNCTION decklog.begin_conversation(
    c_tenant bigint, c_id text, c_owner bytea, c_title text, c_turn text, c_days integer, c_owner_most integer, c_tenant_most integer
) RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    at constant timestamptz := decklog.clock();
BEGIN
    IF c_tenant IS NULL OR c_owner IS NULL THEN
        RAISE EXCEPTION 'a conversation needs its tenant and owner' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM set_config('decklog.tenants', c_tenant::text, true);
    -- Two callers must not both be the last one below a bound.
    PERFORM pg_advisory_xact_lock(hashtextextended('decklog.conversations.' || c_tenant, 0));
    DELETE FROM decklog.conversations AS c WHERE c.tenant_id = c_tenant AND c.id IN (
        SELECT d.id FROM decklog.conversations AS d WHERE d.tenant_id = c_tenant AND d.owner = c_owner
         ORDER BY d.last_at DESC, d.id OFFSET c_owner_most - 1
    );
    IF (SELECT count(*) FROM decklog.conversations AS c WHERE c.tenant_id = c_tenant) >= c_tenant_most THEN
        DELETE FROM decklog.conversations AS c WHERE c.tenant_id = c_tenant AND c.id IN (
            SELECT d.id FROM decklog.conversations AS d WHERE d.tenant_id = c_tenant ORDER BY d.last_at DESC, d.id OFFSET c_tenant_most - 1
        );
    END IF;
    INSERT INTO decklog.conversations
    VALUES (c_tenant, c_id, c_owner, c_title, c_turn, 1, at, at, at + make_interval(days => c_days));
END $function$;
REVOKE ALL ON FUNCTION decklog.begin_conversation FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.begin_conversation TO decklog_service;

-- Add a turn to a conversation of this owner that is not over. Returns false, and adds nothing, where there is none with room for it.
CREATE OR REPLACE FUNCTION decklog.continue_conversation(
    c_tenant bigint, c_id text, c_owner bytea, c_turn text, c_days integer, c_turns_most integer, c_bytes_most integer
) RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    at constant timestamptz := decklog.clock();
BEGIN
    PERFORM set_config('decklog.tenants', c_tenant::text, true);
    UPDATE decklog.conversations AS c
       SET turns = c.turns || E'\n' || c_turn, length = c.length + 1, last_at = greatest(c.last_at, at), ends_at = at + make_interval(days => c_days)
     WHERE c.tenant_id = c_tenant AND c.id = c_id AND c.owner = c_owner AND c.ends_at > at
       AND c.length < c_turns_most AND octet_length(c.turns) + octet_length(c_turn) < c_bytes_most;
    RETURN FOUND;
END $function$;
REVOKE ALL ON FUNCTION decklog.continue_conversation FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.continue_conversation TO decklog_service;

-- Conversations of this owner that are not over, without their turns: the one used last first.
CREATE OR REPLACE FUNCTION decklog.list_conversations(c_tenant bigint, c_owner bytea, c_most integer)
    RETURNS TABLE (id text, title text, length integer, started_at timestamptz, last_at timestamptz, ends_at timestamptz)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    PERFORM set_config('decklog.tenants', c_tenant::text, true);
    RETURN QUERY SELECT c.id, c.title, c.length, c.started_at, c.last_at, c.ends_at FROM decklog.conversations AS c
     WHERE c.tenant_id = c_tenant AND c.owner = c_owner AND c.ends_at > decklog.clock() ORDER BY c.last_at DESC, c.id LIMIT c_most;
END $function$;
REVOKE ALL ON FUNCTION decklog.list_conversations FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.list_conversations TO decklog_service;

-- One conversation of this owner that is not over, with its turns; no row where there is none.
CREATE OR REPLACE FUNCTION decklog.read_conversation(c_tenant bigint, c_id text, c_owner bytea)
    RETURNS TABLE (id text, title text, length integer, started_at timestamptz, last_at timestamptz, ends_at timestamptz, turns text)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    PERFORM set_config('decklog.tenants', c_tenant::text, true);
    RETURN QUERY SELECT c.id, c.title, c.length, c.started_at, c.last_at, c.ends_at, c.turns FROM decklog.conversations AS c
     WHERE c.tenant_id = c_tenant AND c.id = c_id AND c.owner = c_owner AND c.ends_at > decklog.clock();
END $function$;
REVOKE ALL ON FUNCTION decklog.read_conversation FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.read_conversation TO decklog_service;

-- Delete a conversation of this owner; return whether there was one.
CREATE OR REPLACE FUNCTION decklog.delete_conversation(c_tenant bigint, c_id text, c_owner bytea) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    PERFORM set_config('decklog.tenants', c_tenant::text, true);
    DELETE FROM decklog.conversations AS c WHERE c.tenant_id = c_tenant AND c.id = c_id AND c.owner = c_owner;
    RETURN FOUND;
END $function$;
REVOKE ALL ON FUNCTION decklog.delete_conversation FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.delete_conversation TO decklog_service;

-- Delete the conversations of all tenants that are over; return how many. Called by the worker's keeper.
CREATE OR REPLACE FUNCTION decklog.forget_conversations() RETURNS integer
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    gone integer;
BEGIN
    PERFORM set_config('decklog.tenants', coalesce((SELECT string_agg(DISTINCT h.tenant_id::text, ',') FROM decklog.heads AS h), ''), true);
    DELETE FROM decklog.conversations AS c WHERE c.ends_at <= decklog.clock();
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $function$;
REVOKE ALL ON FUNCTION decklog.forget_conversations FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.forget_conversations TO decklog_worker;
