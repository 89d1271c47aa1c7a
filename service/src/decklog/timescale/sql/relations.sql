-- The template of one schema that holds records: a Dedicated tenant's own, or one shared by a retention class.
-- {schema} is a quoted name. Every statement may run again. Version 1.

CREATE SCHEMA IF NOT EXISTS {schema};
GRANT USAGE ON SCHEMA {schema} TO decklog_service;

-- Keywords compare by bytes ("C"), so that a prefix is a range of an index.
CREATE TABLE IF NOT EXISTS {schema}.records (
    tenant_id       bigint      NOT NULL,
    seq             bigint      NOT NULL,
    received_at     timestamptz NOT NULL,
    occurred_at     timestamptz NOT NULL,
    epoch           integer     NOT NULL,
    log             smallint    NOT NULL,
    severity        smallint    NOT NULL,
    outcome         smallint    NOT NULL,
    id              text COLLATE "C",
    action          text COLLATE "C" NOT NULL,
    actor_type      text COLLATE "C",
    actor_id        text COLLATE "C" NOT NULL,
    resource_type   text COLLATE "C",
    resource_id     text COLLATE "C",
    session_id      text COLLATE "C",
    correlation_id  text COLLATE "C",
    ip              inet,
    fingerprint     bytea,
    digest          bytea       NOT NULL,
    content         text COLLATE "C" NOT NULL
) {partitioning};

CREATE INDEX IF NOT EXISTS records_seq      ON {schema}.records (tenant_id, log, seq);
CREATE INDEX IF NOT EXISTS records_id       ON {schema}.records (tenant_id, log, id) WHERE id IS NOT NULL;
CREATE INDEX IF NOT EXISTS records_actor    ON {schema}.records (tenant_id, log, actor_id, seq);
CREATE INDEX IF NOT EXISTS records_action   ON {schema}.records (tenant_id, log, action, seq);
CREATE INDEX IF NOT EXISTS records_resource ON {schema}.records (tenant_id, log, resource_id, seq) WHERE resource_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS records_occurred ON {schema}.records (tenant_id, log, occurred_at);

GRANT SELECT, INSERT ON {schema}.records TO decklog_service;

-- Appends the records of several requests, in one statement, so in one transaction of one round trip.
--
-- Requests (r_*) come ordered by tenant and log, the records (i_*) request by request; no two records of one log may
-- have the same id. Heads are locked in that order by every caller, so writers wait and never deadlock. Only behind the
-- locks are keys looked up: each statement of a volatile function sees what was committed before it began.
--
-- request_status: 0 taken in, 1 rate limited, 2 more than the burst, 3 suspended, 4 no such log, 5 atomic and in
-- conflict, 6 the clock is behind the log. item_status: 0 stored, 1 duplicate, 2 conflict.
CREATE OR REPLACE FUNCTION {schema}.append(
    r_tenant bigint[], r_log smallint[], r_count integer[], r_atomic boolean[], r_metered boolean[],
    i_id text[], i_fingerprint bytea[], i_occurred_at timestamptz[], i_severity smallint[], i_outcome smallint[],
    i_action text[], i_actor_type text[], i_actor_id text[], i_resource_type text[], i_resource_id text[],
    i_ip text[], i_session_id text[], i_correlation_id text[], i_digest bytea[], i_content text[],
    OUT request_status smallint[], OUT per_second float8[], OUT burst integer[], OUT remaining float8[],
    OUT item_status smallint[], OUT item_epoch integer[], OUT item_seq bigint[], OUT item_received_at timestamptz[],
    OUT item_digest bytea[]
) LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    requests  constant integer := cardinality(r_tenant);
    items     constant integer := cardinality(i_content);
    h         decklog.heads;
    tenant    bigint := -1;
    log_      smallint := -1;
    present   boolean;
    changed   boolean := false;
    stored    integer := 0;
    stamp     timestamptz;
    at        timestamptz;
    item      integer := 0;
    refused   smallint;
    has_ids   constant boolean := EXISTS (SELECT FROM unnest(i_id) AS given (id) WHERE given.id IS NOT NULL);
    conflicts boolean;
    oldest    timestamptz;
    -- of items
    t_tenant  bigint[] := array_fill(0::bigint, ARRAY[items]);
    t_log     smallint[] := array_fill(0::smallint, ARRAY[items]);
    t_since   timestamptz[] := array_fill(NULL::timestamptz, ARRAY[items]);
    f_seq     bigint[]; f_epoch integer[]; f_received timestamptz[]; f_print bytea[]; f_digest bytea[];
    n_seq     bigint[] := array_fill(NULL::bigint, ARRAY[items]);
BEGIN
    PERFORM set_config('decklog.tenants', array_to_string(r_tenant, ','), true);
    PERFORM FROM decklog.heads WHERE (heads.tenant_id, heads.log) IN (SELECT * FROM unnest(r_tenant, r_log))
        ORDER BY heads.tenant_id, heads.log FOR UPDATE;
    at := decklog.clock();
    request_status := array_fill(0::smallint, ARRAY[requests]);
    per_second := array_fill(NULL::float8, ARRAY[requests]);
    burst := array_fill(NULL::integer, ARRAY[requests]);
    remaining := array_fill(NULL::float8, ARRAY[requests]);
    item_status := array_fill(0::smallint, ARRAY[items]);
    item_epoch := array_fill(0, ARRAY[items]);
    item_seq := array_fill(0::bigint, ARRAY[items]);
    item_received_at := array_fill(at, ARRAY[items]);
    item_digest := i_digest;

    IF has_ids THEN
        FOR r IN 1 .. requests LOOP
            IF r_tenant[r] <> tenant OR r_log[r] <> log_ THEN
                tenant := r_tenant[r]; log_ := r_log[r];
                SELECT at - heads.dedup_window INTO stamp FROM decklog.heads WHERE heads.tenant_id = tenant AND heads.log = log_;
                oldest := least(oldest, stamp);
            END IF;
            FOR i IN item + 1 .. item + r_count[r] LOOP
                t_tenant[i] := tenant; t_log[i] := log_; t_since[i] := stamp;
            END LOOP;
            item := item + r_count[r];
        END LOOP;
        SELECT array_agg(first.seq ORDER BY given.n), array_agg(first.epoch ORDER BY given.n),
               array_agg(first.received_at ORDER BY given.n), array_agg(first.fingerprint ORDER BY given.n),
               array_agg(first.digest ORDER BY given.n)
          INTO f_seq, f_epoch, f_received, f_print, f_digest
          FROM unnest(t_tenant, t_log, t_since, i_id) WITH ORDINALITY AS given (tenant_id, log, since, id, n)
          LEFT JOIN LATERAL (
              SELECT records.seq, records.epoch, records.received_at, records.fingerprint, records.digest
                FROM {schema}.records
               WHERE records.tenant_id = given.tenant_id AND records.log = given.log AND records.id = given.id
                 AND records.received_at > given.since AND records.received_at > oldest
               ORDER BY records.received_at DESC LIMIT 1
          ) AS first ON given.id IS NOT NULL;
    END IF;

    tenant := -1; log_ := -1; item := 0;
    FOR r IN 1 .. requests LOOP
        IF r_tenant[r] <> tenant OR r_log[r] <> log_ THEN
            IF changed THEN
                UPDATE decklog.heads SET next_seq = h.next_seq, received_at = h.received_at, tokens = h.tokens, refilled_at = h.refilled_at
                 WHERE heads.tenant_id = tenant AND heads.log = log_;
                changed := false;
            END IF;
            tenant := r_tenant[r]; log_ := r_log[r];
            SELECT * INTO h FROM decklog.heads WHERE heads.tenant_id = tenant AND heads.log = log_;
            present := FOUND;
            stamp := greatest(h.received_at, at);
            h.tokens := least(h.burst, h.tokens + h.per_second * greatest(0, extract(epoch FROM at - h.refilled_at)));
            h.refilled_at := at;
        END IF;
        refused := CASE
            WHEN NOT present OR h.state = 2 THEN 4
            WHEN h.state <> 0 THEN 3
            WHEN h.received_at > at + interval '5 minutes' THEN 6
            WHEN r_metered[r] AND r_count[r] > h.burst THEN 2
            WHEN r_metered[r] AND r_count[r] > h.tokens THEN 1
            ELSE 0 END;
        IF refused = 0 AND r_atomic[r] AND has_ids THEN
            FOR i IN item + 1 .. item + r_count[r] LOOP
                IF f_seq[i] IS NOT NULL AND f_print[i] <> i_fingerprint[i] THEN
                    refused := 5;
                END IF;
            END LOOP;
        END IF;
        request_status[r] := refused;
        IF r_metered[r] THEN
            per_second[r] := h.per_second; burst[r] := h.burst;
        END IF;
        FOR i IN item + 1 .. item + r_count[r] LOOP
            IF has_ids AND f_seq[i] IS NOT NULL THEN
                item_status[i] := CASE WHEN f_print[i] = i_fingerprint[i] THEN 1 ELSE 2 END;
                item_epoch[i] := f_epoch[i]; item_seq[i] := f_seq[i]; item_received_at[i] := f_received[i];
                item_digest[i] := f_digest[i];
            ELSIF refused = 0 THEN
                n_seq[i] := h.next_seq;
                item_epoch[i] := h.epoch; item_seq[i] := h.next_seq; item_received_at[i] := stamp;
                t_tenant[i] := tenant; t_log[i] := log_;
                h.next_seq := h.next_seq + 1; stored := stored + 1; h.received_at := stamp; changed := true;
            END IF;
        END LOOP;
        item := item + r_count[r];
        IF refused = 0 AND r_metered[r] THEN
            h.tokens := h.tokens - r_count[r]; changed := true;
        END IF;
        IF r_metered[r] THEN
            remaining[r] := h.tokens;
        END IF;
    END LOOP;
    IF changed THEN
        UPDATE decklog.heads SET next_seq = h.next_seq, received_at = h.received_at, tokens = h.tokens, refilled_at = h.refilled_at
         WHERE heads.tenant_id = tenant AND heads.log = log_;
    END IF;

    IF stored > 0 THEN
        INSERT INTO {schema}.records (
            tenant_id, seq, received_at, occurred_at, epoch, log, severity, outcome, id, action, actor_type, actor_id,
            resource_type, resource_id, session_id, correlation_id, ip, fingerprint, digest, content)
        SELECT n.tenant_id, n.seq, n.received_at, n.occurred_at, n.epoch, n.log, n.severity, n.outcome, n.id, n.action, n.actor_type,
               n.actor_id, n.resource_type, n.resource_id, n.session_id, n.correlation_id, n.ip::inet, n.fingerprint, n.digest, n.content
          FROM unnest(t_tenant, n_seq, item_received_at, i_occurred_at, item_epoch, t_log, i_severity, i_outcome, i_id, i_action,
                      i_actor_type, i_actor_id, i_resource_type, i_resource_id, i_session_id, i_correlation_id, i_ip, i_fingerprint,
                      i_digest, i_content)
               AS n (tenant_id, seq, received_at, occurred_at, epoch, log, severity, outcome, id, action, actor_type, actor_id,
                     resource_type, resource_id, session_id, correlation_id, ip, fingerprint, digest, content)
         WHERE n.seq IS NOT NULL;
    END IF;
END $function$;
REVOKE ALL ON FUNCTION {schema}.append FROM PUBLIC;
GRANT EXECUTE ON FUNCTION {schema}.append TO decklog_service;
