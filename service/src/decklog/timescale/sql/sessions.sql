-- Sessions of browsers and one-time codes of a cell. Applied as decklog_owner after `cell.sql`; the same rules hold.

-- `token` is the SHA-256 of the token, `identities` is JSON that names credentials and contains none. `owners` are the ids of the
-- identities, `tenants` the numbers of their tenants (0 for the platform). A session spans tenants, so row-level security does not apply:
-- no role but the owner's has a right on the relation, and each function returns only what its arguments name.
CREATE TABLE IF NOT EXISTS decklog.sessions (
    id           text        PRIMARY KEY CHECK (id ~ '^[0-9a-f]{16}$'),
    token        bytea       NOT NULL UNIQUE CHECK (length(token) = 32),
    identities   text        NOT NULL CHECK (octet_length(identities) <= 131072),
    owners       text[]      NOT NULL CHECK (cardinality(owners) BETWEEN 1 AND 20),
    tenants      bigint[]    NOT NULL CHECK (cardinality(tenants) BETWEEN 1 AND 20),
    created_at   timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL,
    idle_ends_at timestamptz NOT NULL,
    ends_at      timestamptz NOT NULL,
    address      text        NOT NULL CHECK (length(address) <= 256),
    user_agent   text        NOT NULL CHECK (length(user_agent) <= 512)
);
CREATE INDEX IF NOT EXISTS sessions_owners ON decklog.sessions USING gin (owners);
CREATE INDEX IF NOT EXISTS sessions_tenants ON decklog.sessions USING gin (tenants);

-- One-time codes: links, which open a session, and tickets, which open one stream. `code` is the SHA-256 of the code.
CREATE TABLE IF NOT EXISTS decklog.session_codes (
    code       bytea       PRIMARY KEY CHECK (length(code) = 32),
    kind       text        NOT NULL CHECK (kind IN ('link', 'ticket')),
    identities text        NOT NULL CHECK (octet_length(identities) <= 131072),
    tenant_id  bigint      NOT NULL,
    session_id text,
    ends_at    timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS session_codes_tenant ON decklog.session_codes (tenant_id, ends_at);
REVOKE ALL ON decklog.sessions, decklog.session_codes FROM PUBLIC, decklog_service, decklog_worker;

-- Store a session, in place of `s_replaces` if it is not null. Sessions that are over go first; then, beyond the bounds of an identity and
-- of a tenant, those that were used longest ago. Returns false, and stores nothing, where the cell has `s_most` sessions.
CREATE OR REPLACE FUNCTION decklog.open_session(
    s_id text, s_token bytea, s_identities text, s_owners text[], s_tenants bigint[], s_now timestamptz, s_idle_ends_at timestamptz,
    s_ends_at timestamptz, s_address text, s_user_agent text, s_replaces text, s_owner_most integer, s_tenant_most integer, s_most integer
) RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    owner text;
    tenant bigint;
BEGIN
    -- Two callers must not both be the last one below a bound.
    PERFORM pg_advisory_xact_lock(hashtextextended('decklog.sessions', 0));
    DELETE FROM decklog.sessions AS s WHERE least(s.idle_ends_at, s.ends_at) <= s_now;
    IF (SELECT count(*) FROM decklog.sessions AS s WHERE s.id IS DISTINCT FROM s_replaces) >= s_most THEN
        RETURN false;
    END IF;
    DELETE FROM decklog.sessions AS s WHERE s.id = s_replaces;
    FOREACH owner IN ARRAY s_owners LOOP
        DELETE FROM decklog.sessions AS s WHERE s.id IN (
            SELECT t.id FROM decklog.sessions AS t WHERE t.owners @> ARRAY[owner] ORDER BY t.last_used_at DESC, t.id OFFSET s_owner_most - 1
        );
    END LOOP;
    FOREACH tenant IN ARRAY s_tenants LOOP
        DELETE FROM decklog.sessions AS s WHERE s.id IN (
            SELECT t.id FROM decklog.sessions AS t WHERE t.tenants @> ARRAY[tenant] ORDER BY t.last_used_at DESC, t.id OFFSET s_tenant_most - 1
        );
    END LOOP;
    INSERT INTO decklog.sessions
    VALUES (s_id, s_token, s_identities, s_owners, s_tenants, s_now, s_now, s_idle_ends_at, s_ends_at, s_address, s_user_agent);
    RETURN true;
END $function$;
REVOKE ALL ON FUNCTION decklog.open_session FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.open_session TO decklog_service;

-- Sessions by hashes of tokens and by ids.
CREATE OR REPLACE FUNCTION decklog.find_sessions(s_tokens bytea[], s_ids text[]) RETURNS SETOF decklog.sessions
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    SELECT * FROM decklog.sessions WHERE token = ANY (s_tokens)
    UNION
    SELECT * FROM decklog.sessions WHERE id = ANY (s_ids)
$function$;
REVOKE ALL ON FUNCTION decklog.find_sessions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.find_sessions TO decklog_service;

-- Sessions of an identity, or of a tenant if it is not null, that are not over: the one used last first.
CREATE OR REPLACE FUNCTION decklog.list_sessions(s_owner text, s_tenant bigint, s_now timestamptz, s_most integer)
    RETURNS SETOF decklog.sessions
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    SELECT * FROM decklog.sessions AS s
     WHERE (s.owners @> ARRAY[s_owner] OR s.tenants @> ARRAY[s_tenant]) AND least(s.idle_ends_at, s.ends_at) > s_now
     ORDER BY s.last_used_at DESC, s.id LIMIT s_most
$function$;
REVOKE ALL ON FUNCTION decklog.list_sessions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.list_sessions TO decklog_service;

-- Note a use of a session, unless a later one is noted.
CREATE OR REPLACE FUNCTION decklog.touch_session(s_id text, s_at timestamptz, s_idle_ends_at timestamptz) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    UPDATE decklog.sessions AS s SET last_used_at = s_at, idle_ends_at = s_idle_ends_at WHERE s.id = s_id AND s.last_used_at < s_at
$function$;
REVOKE ALL ON FUNCTION decklog.touch_session FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.touch_session TO decklog_service;

-- Delete a session; return whether there was one.
CREATE OR REPLACE FUNCTION decklog.end_session(s_id text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    DELETE FROM decklog.sessions AS s WHERE s.id = s_id;
    RETURN FOUND;
END $function$;
REVOKE ALL ON FUNCTION decklog.end_session FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.end_session TO decklog_service;

-- Store a one-time code. Codes that are over go first; then the oldest ones of the tenant beyond its bound. Returns false, and stores
-- nothing, where the cell has `c_most` codes.
CREATE OR REPLACE FUNCTION decklog.put_session_code(
    c_code bytea, c_kind text, c_identities text, c_tenant bigint, c_session text, c_now timestamptz, c_ends_at timestamptz,
    c_tenant_most integer, c_most integer
) RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('decklog.session_codes', 0));
    DELETE FROM decklog.session_codes AS c WHERE c.ends_at <= c_now;
    DELETE FROM decklog.session_codes AS c WHERE c.code IN (
        SELECT d.code FROM decklog.session_codes AS d WHERE d.tenant_id = c_tenant ORDER BY d.ends_at DESC, d.code OFFSET c_tenant_most - 1
    );
    IF (SELECT count(*) FROM decklog.session_codes) >= c_most THEN
        RETURN false;
    END IF;
    INSERT INTO decklog.session_codes VALUES (c_code, c_kind, c_identities, c_tenant, c_session, c_ends_at);
    RETURN true;
END $function$;
REVOKE ALL ON FUNCTION decklog.put_session_code FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.put_session_code TO decklog_service;

-- Delete a one-time code of a kind and return it. Of several callers at once, one gets it.
CREATE OR REPLACE FUNCTION decklog.take_session_code(c_code bytea, c_kind text) RETURNS SETOF decklog.session_codes
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    DELETE FROM decklog.session_codes AS c WHERE c.code = c_code AND c.kind = c_kind RETURNING *
$function$;
REVOKE ALL ON FUNCTION decklog.take_session_code FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.take_session_code TO decklog_service;

-- Delete the sessions and one-time codes that are over.
CREATE OR REPLACE FUNCTION decklog.forget_sessions() RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    DELETE FROM decklog.sessions AS s WHERE least(s.idle_ends_at, s.ends_at) <= decklog.clock();
    DELETE FROM decklog.session_codes AS c WHERE c.ends_at <= decklog.clock();
$function$;
REVOKE ALL ON FUNCTION decklog.forget_sessions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.forget_sessions TO decklog_worker;
