-- The template of one schema that holds records: a Dedicated tenant's own, or one shared by a retention class.
-- {schema} is a quoted name. Every statement may run again, and while processes of the version before serve: nothing that they use is
-- dropped, renamed or narrowed, and an index that is new must not come from here, as writers would wait for it to be built.

CREATE SCHEMA IF NOT EXISTS {schema};
-- Here as below, rights that somebody added go: the service may do what is granted here and nothing else.
REVOKE ALL ON SCHEMA {schema} FROM PUBLIC, decklog_service;
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
-- Keys are looked up by all ids of a group at once, so the id comes first.
CREATE INDEX IF NOT EXISTS records_id       ON {schema}.records (id, tenant_id, log) WHERE id IS NOT NULL;
CREATE INDEX IF NOT EXISTS records_actor    ON {schema}.records (tenant_id, log, actor_id, seq);
CREATE INDEX IF NOT EXISTS records_action   ON {schema}.records (tenant_id, log, action, seq);
CREATE INDEX IF NOT EXISTS records_resource ON {schema}.records (tenant_id, log, resource_id, seq) WHERE resource_id IS NOT NULL;
-- What went wrong is rare and looked for: small indexes, which most records are not in.
CREATE INDEX IF NOT EXISTS records_outcome  ON {schema}.records (tenant_id, log, outcome, seq) WHERE outcome IN (1, 2);
CREATE INDEX IF NOT EXISTS records_severity ON {schema}.records (tenant_id, log, severity, seq) WHERE severity >= 2;
CREATE INDEX IF NOT EXISTS records_occurred ON {schema}.records (tenant_id, log, occurred_at);

REVOKE ALL ON {schema}.records FROM PUBLIC, decklog_service;
GRANT SELECT, INSERT ON {schema}.records TO decklog_service;
DO $policies$ DECLARE
    strange name;
BEGIN
    FOR strange IN SELECT polname FROM pg_policy WHERE polrelid = '{schema}.records'::regclass LOOP
        EXECUTE format('DROP POLICY %I ON {schema}.records', strange);
    END LOOP;
END $policies$;

-- Puts records in that have their numbers: n_seq where it is given, else those that follow r_before, which is null for a
-- request that was refused. Where `ids` are given, none of them may be there already (SQLSTATE DL001: nothing is stored).
CREATE OR REPLACE FUNCTION {schema}.store(
    r_tenant bigint[], r_log smallint[], r_epoch integer[], r_received timestamptz[], r_before bigint[], n_seq bigint[],
    items decklog.new_record[], ids text[], since timestamptz, until timestamptz
) RETURNS void LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    IF ids <> '{}' AND EXISTS (
        SELECT FROM {schema}.records
         WHERE records.id = ANY (ids) AND records.tenant_id = ANY (r_tenant)
           AND records.received_at > since AND records.received_at <= until
    ) THEN
        RAISE EXCEPTION 'a record with one of these ids is there' USING ERRCODE = 'DL001';
    END IF;
    INSERT INTO {schema}.records (
        tenant_id, seq, received_at, occurred_at, epoch, log, severity, outcome, id, action, actor_type, actor_id,
        resource_type, resource_id, session_id, correlation_id, ip, fingerprint, digest, content)
    SELECT r_tenant[i.request], CASE WHEN n_seq IS NULL THEN r_before[i.request] + i.n ELSE n_seq[i.n] END, r_received[i.request],
           i.occurred_at, r_epoch[i.request], r_log[i.request], i.severity, i.outcome, i.id, i.action, i.actor_type, i.actor_id,
           i.resource_type, i.resource_id, i.session_id, i.correlation_id, i.ip::inet, i.fingerprint, i.digest, i.content
      FROM unnest(items) WITH ORDINALITY AS i (
               request, id, fingerprint, occurred_at, severity, outcome, action, actor_type, actor_id, resource_type,
               resource_id, ip, session_id, correlation_id, digest, content, n)
     WHERE CASE WHEN n_seq IS NULL THEN r_before[i.request] ELSE n_seq[i.n] END IS NOT NULL;
END $function$;
REVOKE ALL ON FUNCTION {schema}.store FROM PUBLIC, decklog_service;
GRANT EXECUTE ON FUNCTION {schema}.store TO decklog_service;

-- Appends the records of several requests, in one statement, so in one transaction of one round trip.
--
-- Requests (r_*) come ordered by tenant and log, the records request by request (`request` is the number of a record's
-- request, from 1); no two records of one log may have the same id, and `ids` are all that are not null. Heads are
-- locked in that order by every caller, so writers wait and never deadlock. Only behind the locks are keys looked up:
-- each statement of a volatile function sees what was committed before it began.
--
-- request_status: 0 taken in, 1 rate limited, 2 more than the burst, 3 suspended, 4 no such log, 5 atomic and in
-- conflict, 6 the clock is behind the log, 7 the day would have more than it may (received_at tells the day; what was there
-- before does not count), 8 the storage is used up (nor does it then). Where no record of the group was there before, item_* are null and the
-- records of request r have the numbers from first_seq[r] on, all with epoch[r] and received_at[r]. Else item_* tell of
-- each record; item_status: 0 stored, 1 duplicate, 2 conflict.
CREATE OR REPLACE FUNCTION {schema}.append(
    r_tenant bigint[], r_log smallint[], r_count integer[], r_atomic boolean[], r_metered boolean[],
    ids text[], items decklog.new_record[],
    OUT request_status smallint[], OUT per_second float8[], OUT burst integer[], OUT remaining float8[],
    OUT epoch integer[], OUT first_seq bigint[], OUT received_at timestamptz[],
    OUT item_status smallint[], OUT item_epoch integer[], OUT item_seq bigint[], OUT item_received_at timestamptz[],
    OUT item_digest bytea[] -- of what was there before
) LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    requests constant integer := cardinality(r_tenant);
    counted  constant integer := cardinality(items);
    heads_   decklog.heads[];
    k        integer := 0;
    h        decklog.heads;
    tenant   bigint := -1;
    log_     smallint := -1;
    present  boolean;
    changed  boolean := false;
    widest   interval;
    at       timestamptz;
    stamp    timestamptz;
    item     integer := 0;
    refused  smallint;
    conflict boolean;
    fresh    integer;
    known    boolean := false;
    storing  boolean := false;
    -- of requests: the number before that of the request's first record, less the records before it
    n_before bigint[] := array_fill(NULL::bigint, ARRAY[requests]);
    -- of items that were there before
    f_seq    bigint[]; f_epoch integer[]; f_received timestamptz[]; f_same boolean[]; f_digest bytea[];
    -- of items, where some were there before: the number of one that is stored
    n_seq    bigint[];
    -- of heads that changed
    u_tenant bigint[]; u_log smallint[]; u_next bigint[]; u_received timestamptz[]; u_tokens float8[];
BEGIN
    PERFORM set_config('decklog.tenants', array_to_string(r_tenant, ','), true);
    IF r_tenant[1] = r_tenant[requests] AND r_log[1] = r_log[requests] THEN
        SELECT heads.* INTO h FROM decklog.heads WHERE heads.tenant_id = r_tenant[1] AND heads.log = r_log[1] FOR UPDATE;
        heads_ := CASE WHEN FOUND THEN ARRAY[h] END;
        widest := h.dedup_window;
    ELSE
        SELECT array_agg(locked.head), max((locked.head).dedup_window) INTO heads_, widest
          FROM (SELECT heads AS head FROM decklog.heads WHERE (heads.tenant_id, heads.log) IN (SELECT * FROM unnest(r_tenant, r_log))
                 ORDER BY heads.tenant_id, heads.log FOR UPDATE) AS locked;
    END IF;
    at := decklog.clock(); stamp := at;
    request_status := array_fill(0::smallint, ARRAY[requests]);
    per_second := array_fill(NULL::float8, ARRAY[requests]);
    burst := array_fill(NULL::integer, ARRAY[requests]);
    remaining := array_fill(NULL::float8, ARRAY[requests]);
    epoch := array_fill(NULL::integer, ARRAY[requests]);
    first_seq := array_fill(NULL::bigint, ARRAY[requests]);
    received_at := array_fill(at, ARRAY[requests]);

    -- All keys at once first: hardly ever was one there before. Receipt times beyond the skew are refused below.
    IF ids <> '{}' AND EXISTS (
        SELECT FROM {schema}.records
         WHERE records.id = ANY (ids) AND records.tenant_id = ANY (r_tenant)
           AND records.received_at > at - widest AND records.received_at <= at + decklog.skew()
    ) THEN
        known := true;
        n_seq := array_fill(NULL::bigint, ARRAY[counted]);
        item_status := array_fill(0::smallint, ARRAY[counted]);
        item_epoch := array_fill(0, ARRAY[counted]);
        item_seq := array_fill(0::bigint, ARRAY[counted]);
        item_received_at := array_fill(at, ARRAY[counted]);
        item_digest := array_fill(NULL::bytea, ARRAY[counted]);
        SELECT array_agg(found.seq ORDER BY given.n), array_agg(found.epoch ORDER BY given.n),
               array_agg(found.received_at ORDER BY given.n),
               array_agg(found.fingerprint = given.fingerprint ORDER BY given.n), array_agg(found.digest ORDER BY given.n)
          INTO f_seq, f_epoch, f_received, f_same, f_digest
          FROM unnest(items) WITH ORDINALITY AS given (
                   request, id, fingerprint, occurred_at, severity, outcome, action, actor_type, actor_id, resource_type,
                   resource_id, ip, session_id, correlation_id, digest, content, n)
          LEFT JOIN LATERAL (
              SELECT records.seq, records.epoch, records.received_at, records.fingerprint, records.digest
                FROM {schema}.records
               WHERE records.id = given.id AND records.tenant_id = r_tenant[given.request] AND records.log = r_log[given.request]
                 AND records.received_at > at - widest AND records.received_at <= at + decklog.skew()
               ORDER BY records.received_at DESC LIMIT 1
          ) AS found ON given.id IS NOT NULL;
    END IF;

    FOR r IN 1 .. requests LOOP
        IF r_tenant[r] <> tenant OR r_log[r] <> log_ THEN
            IF changed THEN
                u_tenant := u_tenant || tenant; u_log := u_log || log_; u_next := u_next || h.next_seq;
                u_received := u_received || h.received_at; u_tokens := u_tokens || h.tokens;
                changed := false;
            END IF;
            tenant := r_tenant[r]; log_ := r_log[r];
            present := COALESCE(heads_[k + 1].tenant_id = tenant AND heads_[k + 1].log = log_, false);
            IF present THEN
                k := k + 1;
                h := heads_[k];
                stamp := greatest(h.received_at, at);
                h.tokens := least(h.burst, h.tokens + h.per_second * greatest(0, extract(epoch FROM at - h.refilled_at)));
                IF h.per_day > 0 THEN
                    h := decklog.on_day(h, stamp);
                END IF;
            END IF;
        END IF;
        fresh := r_count[r]; conflict := false;
        IF known AND present THEN
            FOR i IN item + 1 .. item + r_count[r] LOOP
                IF f_received[i] <= at - h.dedup_window THEN
                    f_seq[i] := NULL;
                END IF;
                IF f_seq[i] IS NOT NULL THEN
                    fresh := fresh - 1;
                    conflict := conflict OR (r_atomic[r] AND NOT f_same[i]);
                END IF;
            END LOOP;
        END IF;
        refused := decklog.admission(present, h.state, h.received_at, h.burst, h.tokens, h.storage_used_up, h.per_day,
                                     h.next_seq - h.day_seq, r_metered[r], conflict, r_count[r], fresh, at);
        request_status[r] := refused; received_at[r] := stamp;
        IF refused = 0 THEN
            epoch[r] := h.epoch; first_seq[r] := h.next_seq;
            IF NOT known THEN
                n_before[r] := h.next_seq - item - 1;
                h.next_seq := h.next_seq + r_count[r]; h.received_at := stamp;
                storing := true;
            END IF;
            IF r_metered[r] THEN
                h.tokens := h.tokens - r_count[r];
            END IF;
            changed := true;
        END IF;
        IF known THEN
            FOR i IN item + 1 .. item + r_count[r] LOOP
                IF f_seq[i] IS NOT NULL THEN
                    item_status[i] := CASE WHEN f_same[i] THEN 1 ELSE 2 END;
                    item_epoch[i] := f_epoch[i]; item_seq[i] := f_seq[i]; item_received_at[i] := f_received[i];
                    item_digest[i] := f_digest[i];
                ELSIF refused = 0 THEN
                    n_seq[i] := h.next_seq;
                    item_epoch[i] := h.epoch; item_seq[i] := h.next_seq; item_received_at[i] := stamp;
                    h.next_seq := h.next_seq + 1; h.received_at := stamp;
                    storing := true;
                END IF;
            END LOOP;
        END IF;
        IF present AND r_metered[r] AND h.burst > 0 THEN
            per_second[r] := h.per_second; burst[r] := h.burst; remaining[r] := h.tokens;
        END IF;
        item := item + r_count[r];
    END LOOP;

    IF changed AND u_tenant IS NULL THEN
        UPDATE decklog.heads SET next_seq = h.next_seq, received_at = h.received_at, tokens = h.tokens, refilled_at = at
         WHERE heads.tenant_id = tenant AND heads.log = log_;
    ELSIF u_tenant IS NOT NULL THEN
        IF changed THEN
            u_tenant := u_tenant || tenant; u_log := u_log || log_; u_next := u_next || h.next_seq;
            u_received := u_received || h.received_at; u_tokens := u_tokens || h.tokens;
        END IF;
        UPDATE decklog.heads SET next_seq = u.next_seq, received_at = u.received_at, tokens = u.tokens, refilled_at = at
          FROM unnest(u_tenant, u_log, u_next, u_received, u_tokens) AS u (tenant_id, log, next_seq, received_at, tokens)
         WHERE heads.tenant_id = u.tenant_id AND heads.log = u.log;
    END IF;

    IF storing THEN
        PERFORM {schema}.store(r_tenant, r_log, epoch, received_at, n_before, n_seq, items, NULL, NULL, NULL);
    END IF;
END $function$;
REVOKE ALL ON FUNCTION {schema}.append FROM PUBLIC, decklog_service;
GRANT EXECUTE ON FUNCTION {schema}.append TO decklog_service;
