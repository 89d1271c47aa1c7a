-- The template of a schema with records: a Dedicated tenant's own, or one shared by a retention class. {schema} is its name in quotes,
-- and {name} without them.
-- Every statement may run again, and while processes of the previous version serve: it must not drop, rename or narrow anything that they
-- use. A new index must not be added here, because writers would wait until it is built.

CREATE SCHEMA IF NOT EXISTS {schema};
-- Here and below, REVOKE removes rights that were added: the service has the rights that are granted here and no others.
REVOKE ALL ON SCHEMA {schema} FROM PUBLIC, decklog_service, decklog_worker;
GRANT USAGE ON SCHEMA {schema} TO decklog_service, decklog_worker;

-- Keywords compare by bytes ("C"), so a prefix is a range of an index.
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

-- One look-up has all ids of a group, so the id comes first.
CREATE INDEX IF NOT EXISTS records_id       ON {schema}.records (id, tenant_id, log) WHERE id IS NOT NULL;
CREATE INDEX IF NOT EXISTS records_actor    ON {schema}.records (tenant_id, log, actor_id, seq);
CREATE INDEX IF NOT EXISTS records_action   ON {schema}.records (tenant_id, log, action, seq);
CREATE INDEX IF NOT EXISTS records_resource ON {schema}.records (tenant_id, log, resource_id, seq) WHERE resource_id IS NOT NULL;
-- Failures are rare and often searched for. These partial indexes are small, because most records are not in them.
CREATE INDEX IF NOT EXISTS records_outcome  ON {schema}.records (tenant_id, log, outcome, seq) WHERE outcome IN (1, 2);
CREATE INDEX IF NOT EXISTS records_severity ON {schema}.records (tenant_id, log, severity, seq) WHERE severity >= 2;
CREATE INDEX IF NOT EXISTS records_occurred ON {schema}.records (tenant_id, log, occurred_at);
-- A native partition has an index of its own by number, which is unique; see decklog.make_partition_of. TimescaleDB has no unique index
-- without the time, and its chunks are made inside the insert, so a hypertable has one that is not unique.
DO $seq$ BEGIN
    IF EXISTS (SELECT FROM decklog.relations WHERE schema_name = '{name}' AND hypertable) THEN
        CREATE INDEX IF NOT EXISTS records_seq ON {schema}.records (tenant_id, log, seq);
    END IF;
END $seq$;

REVOKE ALL ON {schema}.records FROM PUBLIC, decklog_service, decklog_worker;
GRANT SELECT ON {schema}.records TO decklog_service, decklog_worker;
DO $policies$ DECLARE
    strange name;
BEGIN
    FOR strange IN SELECT polname FROM pg_policy WHERE polrelid = '{schema}.records'::regclass LOOP
        EXECUTE format('DROP POLICY %I ON {schema}.records', strange);
    END LOOP;
END $policies$;

-- Insert records with the numbers n_seq, or, if that is null, with the numbers after r_before. A null r_before or n_seq skips the record.
-- If `ids` are given and one of them is stored already, it raises SQLSTATE DL001 and stores nothing.
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
        RAISE EXCEPTION 'a record with one of these ids is stored already' USING ERRCODE = 'DL001';
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
REVOKE ALL ON FUNCTION {schema}.store FROM PUBLIC, decklog_service, decklog_worker;

-- Processes of the previous version insert with the rights of their own role, until a `post` migration revokes them everywhere.
DO $rights$ BEGIN
    IF has_table_privilege('decklog_service', 'decklog.heads', 'UPDATE') THEN
        GRANT INSERT ON {schema}.records TO decklog_service;
        GRANT EXECUTE ON FUNCTION {schema}.store TO decklog_service;
    END IF;
END $rights$;

-- Append the records of several requests in one statement: one transaction in one round trip.
--
-- Requests (r_*) are ordered by tenant and log, and records by request; the `request` of a record counts from 1. No two records of one log
-- have the same id, and `ids` are all ids that are not null. Every caller locks heads in that order, so writers wait and never deadlock.
-- Ids are looked up after the locks: each statement of a volatile function sees what was committed before it began.
--
-- It runs as the owner and refuses what `decklog.append_new` refuses. Row-level security is forced, so it applies to the owner too.
--
-- request_status: 0, or a number of `Refusal` (see decklog.admission).
-- If no id of the group was stored before, item_* are null, and the records of request r have the numbers from first_seq[r] on, all
-- with epoch[r] and received_at[r]. Else item_* describe each record; item_status: 0 stored, 1 duplicate, 2 conflict.
CREATE OR REPLACE FUNCTION {schema}.append(
    r_tenant bigint[], r_log smallint[], r_count integer[], r_atomic boolean[], r_metered boolean[],
    ids text[], items decklog.new_record[],
    OUT request_status smallint[], OUT per_second float8[], OUT burst integer[], OUT remaining float8[],
    OUT epoch integer[], OUT first_seq bigint[], OUT received_at timestamptz[],
    OUT item_status smallint[], OUT item_epoch integer[], OUT item_seq bigint[], OUT item_received_at timestamptz[],
    OUT item_digest bytea[] -- of the record that was stored before
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    requests constant integer := cardinality(r_tenant);
    counted  constant integer := cardinality(items);
    heads_   decklog.heads[];
    k        integer := 0;
    h        decklog.heads;
    tenant   bigint := -1;
    log_     smallint := -1;
    present  boolean;
    metered  boolean;
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
    -- per request: the `seq` before its first record, less the records of earlier requests
    n_before bigint[] := array_fill(NULL::bigint, ARRAY[requests]);
    -- per item: the record that was stored before
    f_seq    bigint[]; f_epoch integer[]; f_received timestamptz[]; f_same boolean[]; f_digest bytea[];
    -- per item, if some were stored before: the `seq` of a new record
    n_seq    bigint[];
    -- per changed head
    u_tenant bigint[]; u_log smallint[]; u_next bigint[]; u_received timestamptz[]; u_tokens float8[];
BEGIN
    IF NOT (decklog.are_requests(r_tenant, r_log, r_count, r_metered) AND array_dims(r_atomic) IS NOT DISTINCT FROM array_dims(r_tenant)) THEN
        RAISE EXCEPTION 'the arrays do not describe the same requests' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- A group of one record is frequent, and needs no call of a function.
    IF (cardinality(items) = 1 AND r_count = '{1}' AND (items[1]).request = 1) IS NOT TRUE AND NOT decklog.are_items_of(r_count, items) THEN
        RAISE EXCEPTION 'the records do not belong to the requests by their order' USING ERRCODE = 'invalid_parameter_value';
    END IF;
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

    -- First all ids at once, because hardly ever is one stored. Receipt times beyond the skew are refused below.
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
                IF h.schema_name = '' THEN
                    h.schema_name := decklog.place(h);
                END IF;
                IF h.schema_name <> '{name}' THEN
                    RAISE EXCEPTION 'records of tenant % are not stored in the schema {name}', tenant
                          USING ERRCODE = 'invalid_parameter_value';
                END IF;
            END IF;
        END IF;
        metered := r_metered[r] OR r_log[r] = 0;
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
                                     h.next_seq - h.day_seq, metered, conflict, r_count[r], fresh, at);
        request_status[r] := refused; received_at[r] := stamp;
        IF refused = 0 THEN
            epoch[r] := h.epoch; first_seq[r] := h.next_seq;
            IF NOT known THEN
                n_before[r] := h.next_seq - item - 1;
                h.next_seq := h.next_seq + r_count[r]; h.received_at := stamp;
                storing := true;
            END IF;
            IF metered THEN
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
        IF present AND metered AND h.burst > 0 THEN
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
REVOKE ALL ON FUNCTION {schema}.append FROM PUBLIC, decklog_service, decklog_worker;
GRANT EXECUTE ON FUNCTION {schema}.append TO decklog_service;
