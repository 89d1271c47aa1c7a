-- Definitions that a cell has once: clock, heads of all logs, cursors of all consumers, list of schemas with records. Functions for the
-- worker's role are in `worker.sql`.
-- Applied as decklog_owner. Every statement may run again, and while processes of the previous version serve: it must not drop, rename
-- or narrow anything that they use. So rights that only they need are not granted to a new database, and a `post` migration revokes them.

CREATE SCHEMA IF NOT EXISTS decklog;
GRANT USAGE ON SCHEMA decklog TO decklog_service;

-- The clock of receipt times. A function, so that tests can replace it.
CREATE OR REPLACE FUNCTION decklog.clock() RETURNS timestamptz
    LANGUAGE sql VOLATILE PARALLEL SAFE AS 'SELECT clock_timestamp()';

-- The row of a log that orders and admits its writers. Locking it makes `seq` gapless.
-- The fillfactor leaves room on the page, so each append is a HOT update and changes no index.
CREATE TABLE IF NOT EXISTS decklog.heads (
    tenant_id     bigint      NOT NULL,
    log           smallint    NOT NULL,
    epoch         integer     NOT NULL DEFAULT 1,
    next_seq      bigint      NOT NULL DEFAULT 0,
    received_at   timestamptz NOT NULL DEFAULT 'epoch',
    state         smallint    NOT NULL DEFAULT 0,
    per_second    float8      NOT NULL,
    burst         integer     NOT NULL,
    tokens        float8      NOT NULL,
    refilled_at   timestamptz NOT NULL DEFAULT 'epoch',
    dedup_window  interval    NOT NULL,
    PRIMARY KEY (tenant_id, log)
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
GRANT SELECT ON decklog.heads TO decklog_service;

-- Columns added after the first version. ALTER TABLE locks out writers even if it changes nothing, so it runs only where a column is
-- missing. The defaults keep functions of the previous version working.
-- per_day: records that one day of receipt (UTC) may have; 0 for no limit.
-- day, day_seq: the day of the newest record and the `seq` of its first record, so `next_seq - day_seq` records were stored on it.
-- storage_used_up: the tenant has reached its storage quota, so the log stores no new records.
-- schema_name: the schema that holds the log's records. Empty where a process of a previous version made the head; see `decklog.place`.
DO $heads$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'decklog.heads'::regclass AND attname = 'per_day') THEN
        ALTER TABLE decklog.heads
            ADD COLUMN per_day bigint NOT NULL DEFAULT 0,
            ADD COLUMN day     date   NOT NULL DEFAULT 'epoch',
            ADD COLUMN day_seq bigint NOT NULL DEFAULT 0;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'decklog.heads'::regclass AND attname = 'storage_used_up') THEN
        ALTER TABLE decklog.heads ADD COLUMN storage_used_up boolean NOT NULL DEFAULT false;
        -- Definitions 1 stored the flag as the bitwise complement of per_day.
        UPDATE decklog.heads SET storage_used_up = true, per_day = ~per_day WHERE per_day < 0;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'decklog.heads'::regclass AND attname = 'schema_name') THEN
        ALTER TABLE decklog.heads ADD COLUMN schema_name text COLLATE "C" NOT NULL DEFAULT '';
    END IF;
END $heads$;

-- Positions of consumers in logs, and their leases.
CREATE TABLE IF NOT EXISTS decklog.cursors (
    consumer      text        NOT NULL,
    tenant_id     bigint      NOT NULL,
    log           smallint    NOT NULL,
    epoch         integer     NOT NULL DEFAULT 1,
    next_seq      bigint      NOT NULL DEFAULT 0,
    owner         text,
    leased_until  timestamptz NOT NULL DEFAULT 'epoch',
    PRIMARY KEY (consumer, tenant_id, log)
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
GRANT SELECT ON decklog.cursors TO decklog_service;

-- Generations of the search indices: their state (`GenerationState`), and the first day and the uuid of the index of each range, in
-- order. The cursor `indexer.<generation>` counts for one of them. Only the owner, and the functions of `worker.sql`, write it.
CREATE TABLE IF NOT EXISTS decklog.search_generations (
    index         text        NOT NULL,
    generation    text        NOT NULL,
    state         smallint    NOT NULL,
    starts        date[]      NOT NULL,
    uuids         text[]      NOT NULL,
    changed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (index, generation),
    CHECK (cardinality(starts) > 0 AND cardinality(starts) = cardinality(uuids))
);
-- Searches read one generation of an index, and workers build one at most.
CREATE UNIQUE INDEX IF NOT EXISTS search_generations_used ON decklog.search_generations (index, state) WHERE state IN (0, 1);
GRANT SELECT ON decklog.search_generations TO decklog_service;

-- Every process follows the generations by the registry, as if the tenants of the index had changed.
CREATE OR REPLACE FUNCTION decklog.log_generation_changes() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tenants bigint[];
BEGIN
    IF to_regclass('decklog.registry_changes') IS NOT NULL THEN
        tenants := ARRAY(SELECT id FROM decklog.tenants AS tenant WHERE tenant.index = coalesce(NEW.index, OLD.index));
        IF cardinality(tenants) > 0 THEN
            INSERT INTO decklog.registry_changes (version, tenant_id) SELECT bumped, unnest(tenants)
              FROM decklog.next_registry_version() AS bumped;
        END IF;
    END IF;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION decklog.log_generation_changes() FROM PUBLIC;
CREATE OR REPLACE TRIGGER changes AFTER INSERT OR UPDATE OR DELETE ON decklog.search_generations
    FOR EACH ROW EXECUTE FUNCTION decklog.log_generation_changes();

-- Parts of the archive of a tenant that was deleted with deletionPolicy Archive. Each was read back and compared; the parts end
-- where the cursor of the consumer `archiver` is.
CREATE TABLE IF NOT EXISTS decklog.archive_parts (
    tenant_id     bigint      NOT NULL,
    log           smallint    NOT NULL,
    first_seq     bigint      NOT NULL,
    part          jsonb       NOT NULL,
    PRIMARY KEY (tenant_id, log, first_seq)
);
-- Records of a log that a verified manifest covers. Compared with the head, under its lock, before anything is removed.
CREATE TABLE IF NOT EXISTS decklog.archives (
    tenant_id     bigint      NOT NULL,
    log           smallint    NOT NULL,
    next_seq      bigint      NOT NULL,
    manifest      text        NOT NULL,
    PRIMARY KEY (tenant_id, log)
);
-- The place that workers archive to, and the result of their last check; `reason` is empty if it was readable and writable.
CREATE TABLE IF NOT EXISTS decklog.archive_place (
    id            smallint    PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    place         text        NOT NULL,
    locked        boolean     NOT NULL,
    reason        text        NOT NULL,
    message       text        NOT NULL,
    told_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- A record as a parameter of the append functions. One array of these takes half the time, on both sides, of one array per column.
-- A change needs a new name, because processes of the previous version use this one.
DO $type$ BEGIN
    IF to_regtype('decklog.new_record') IS NULL THEN
        CREATE TYPE decklog.new_record AS (
            request integer, id text, fingerprint bytea, occurred_at timestamptz, severity smallint, outcome smallint,
            action text, actor_type text, actor_id text, resource_type text, resource_id text, ip text, session_id text,
            correlation_id text, digest bytea, content text
        );
    END IF;
END $type$;

-- Maximum lead of a receipt time over the clock.
CREATE OR REPLACE FUNCTION decklog.skew() RETURNS interval
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT interval '5 minutes' $$;

-- The one place that decides whether a locked head admits a request: 0 where it does, else the reason as a number of `Refusal`
-- (refusals.py; a test compares the two).
-- present: the head exists. conflict: the request is atomic and one of its ids belongs to a record with other content.
-- counted: records of the request. fresh: those of them that are not stored yet; only these count against a quota.
-- today: records that were stored on the day of the next one. A burst of 0 means no rate limit.
-- Scalars and STABLE, so that the planner inlines it: an IMMUTABLE function with a time zone dependent `+` is never inlined.
CREATE OR REPLACE FUNCTION decklog.admission(
    present boolean, state smallint, received_at timestamptz, burst integer, tokens float8, storage_used_up boolean,
    per_day bigint, today bigint, metered boolean, conflict boolean, counted integer, fresh integer, at timestamptz
) RETURNS smallint LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN NOT present OR (state = 2 AND metered) THEN 4                      -- NO_LOG
        WHEN state <> 0 AND metered THEN 3                                      -- SUSPENDED
        WHEN received_at > at + decklog.skew() THEN 6                           -- CLOCK_BEHIND
        WHEN metered AND burst > 0 AND counted > burst THEN 2                   -- BATCH_EXCEEDS_BURST
        WHEN metered AND burst > 0 AND counted > tokens THEN 1                  -- RATE_LIMITED
        WHEN conflict THEN 5                                                    -- CONFLICT
        WHEN metered AND storage_used_up AND fresh > 0 THEN 8                   -- STORAGE_USED_UP
        WHEN metered AND per_day > 0 AND fresh > 0 AND today + fresh > per_day THEN 7  -- DAY_FULL
        ELSE 0 END::smallint $$;

-- Return a locked head with the day of its next record, and store that day if it is a new one.
CREATE OR REPLACE FUNCTION decklog.on_day(h decklog.heads, stamp timestamptz) RETURNS decklog.heads
    LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    IF (stamp AT TIME ZONE 'UTC')::date > h.day THEN
        h.day := (stamp AT TIME ZONE 'UTC')::date;
        h.day_seq := h.next_seq;
        UPDATE decklog.heads SET day = h.day, day_seq = h.day_seq WHERE heads.tenant_id = h.tenant_id AND heads.log = h.log;
    END IF;
    RETURN h;
END $function$;
REVOKE ALL ON FUNCTION decklog.on_day FROM PUBLIC;

-- Return the schema of a head that does not name it yet, and store the name; an unknown tenant has none.
CREATE OR REPLACE FUNCTION decklog.place(h decklog.heads) RETURNS text LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    place text;
BEGIN
    SELECT tenant.schema INTO place FROM decklog.tenants AS tenant WHERE tenant.id = h.tenant_id;
    UPDATE decklog.heads SET schema_name = coalesce(place, '') WHERE heads.tenant_id = h.tenant_id AND heads.log = h.log;
    RETURN coalesce(place, '');
END $function$;
REVOKE ALL ON FUNCTION decklog.place FROM PUBLIC;

-- Whether these arrays describe requests. The append functions index them by position and add up the counts, so a null, a negative
-- count or another lower bound would give a number twice.
CREATE OR REPLACE FUNCTION decklog.are_requests(r_tenant bigint[], r_log smallint[], r_count integer[], r_metered boolean[])
    RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(array_dims(r_tenant) = '[1:' || cardinality(r_tenant) || ']' AND array_dims(r_log) = array_dims(r_tenant)
                    AND array_dims(r_count) = array_dims(r_tenant) AND array_dims(r_metered) = array_dims(r_tenant)
                    AND array_position(r_tenant, NULL) IS NULL AND array_position(r_log, NULL) IS NULL AND 0 <= ALL (r_count), false) $$;

-- Whether the records belong to requests with these numbers of records, in this order. A record's `request` decides its tenant, and its
-- position decides its number; where the two differ, one tenant would get numbers that another one counted.
CREATE OR REPLACE FUNCTION decklog.are_items_of(r_count integer[], items decklog.new_record[]) RETURNS boolean
    LANGUAGE plpgsql STABLE AS $function$
DECLARE
    item integer := 0;
BEGIN
    IF cardinality(items) > 64 THEN
        RETURN (SELECT array_agg(request) FROM (SELECT (unnest(items)).request) AS item)
               IS NOT DISTINCT FROM
               (SELECT array_agg(r) FROM generate_subscripts(r_count, 1) AS r, generate_series(1, r_count[r]));
    END IF;
    -- An element of such an array is found by walking it, which takes less time than a query only for a few.
    FOR r IN 1 .. cardinality(r_count) LOOP
        FOR _ IN 1 .. r_count[r] LOOP
            item := item + 1;
            IF (items[item]).request IS DISTINCT FROM r THEN
                RETURN false;
            END IF;
        END LOOP;
    END LOOP;
    RETURN item = cardinality(items);
END $function$;
REVOKE ALL ON FUNCTION decklog.are_items_of FROM PUBLIC;

-- Lock the heads of these logs, in the order in which every writer locks them, for a transaction that appends to several schemas.
CREATE OR REPLACE FUNCTION decklog.lock_heads(r_tenant bigint[], r_log smallint[]) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*) FROM (
        SELECT FROM decklog.heads WHERE (tenant_id, log) IN (SELECT * FROM unnest(r_tenant, r_log))
         ORDER BY tenant_id, log FOR UPDATE) AS locked $$;
REVOKE ALL ON FUNCTION decklog.lock_heads FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.lock_heads TO decklog_service;

-- Append requests of several schemas, like the `append` of a schema, if no id has to be looked up. If one of the ids is stored
-- already, or decides whether a quota is exceeded, it stores nothing (SQLSTATE DL001); then call the `append` of each schema.
--
-- Requests are ordered by tenant and log, the order in which heads are locked. They come in runs (s_*) of one schema each, with the
-- numbers of requests, records and ids in it. The `request` of a record counts from 1 within its run.
--
-- It runs as the owner, because its caller may not write heads and records. So it believes nothing that a number or a receipt time
-- depends on: it refuses arrays that do not fit together, and a schema that is not the one in the head (SQLSTATE 22023).
CREATE OR REPLACE FUNCTION decklog.append_new(
    s_schema text[], s_requests integer[], s_items integer[], s_ids integer[],
    r_tenant bigint[], r_log smallint[], r_count integer[], r_metered boolean[], ids text[], items decklog.new_record[],
    OUT request_status smallint[], OUT per_second float8[], OUT burst integer[], OUT remaining float8[],
    OUT epoch integer[], OUT first_seq bigint[], OUT received_at timestamptz[]
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    requests constant integer := cardinality(r_tenant);
    heads_   decklog.heads[];
    k        integer := 0;
    h        decklog.heads;
    tenant   bigint := -1;
    log_     smallint := -1;
    present  boolean;
    metered  boolean;
    of_run   decklog.new_record[];
    changed  boolean := false;
    widest   interval;
    at       timestamptz;
    stamp    timestamptz;
    r        integer := 0;
    item     integer;
    id_      integer := 0;
    all_     integer := 0;
    refused  smallint;
    storing  boolean[] := array_fill(false, ARRAY[cardinality(s_schema)]);
    n_before bigint[] := array_fill(NULL::bigint, ARRAY[requests]);
    u_tenant bigint[]; u_log smallint[]; u_next bigint[]; u_received timestamptz[]; u_tokens float8[];
BEGIN
    IF NOT decklog.are_requests(r_tenant, r_log, r_count, r_metered) OR (
        array_dims(s_requests) = array_dims(s_schema) AND array_dims(s_items) = array_dims(s_schema)
        AND array_dims(s_ids) = array_dims(s_schema) AND 0 <= ALL (s_requests) AND 0 <= ALL (s_items) AND 0 <= ALL (s_ids)) IS NOT TRUE THEN
        RAISE EXCEPTION 'the arrays do not describe the same requests' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM set_config('decklog.tenants', array_to_string(r_tenant, ','), true);
    SELECT array_agg(locked.head), max((locked.head).dedup_window) INTO heads_, widest
      FROM (SELECT heads AS head FROM decklog.heads WHERE (heads.tenant_id, heads.log) IN (SELECT * FROM unnest(r_tenant, r_log))
             ORDER BY heads.tenant_id, heads.log FOR UPDATE) AS locked;
    at := decklog.clock(); stamp := at;
    request_status := array_fill(0::smallint, ARRAY[requests]);
    per_second := array_fill(NULL::float8, ARRAY[requests]);
    burst := array_fill(NULL::integer, ARRAY[requests]);
    remaining := array_fill(NULL::float8, ARRAY[requests]);
    epoch := array_fill(NULL::integer, ARRAY[requests]);
    first_seq := array_fill(NULL::bigint, ARRAY[requests]);
    received_at := array_fill(at, ARRAY[requests]);

    FOR s IN 1 .. cardinality(s_schema) LOOP
        item := 0;
        FOR _ IN 1 .. s_requests[s] LOOP
            r := r + 1;
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
                END IF;
            END IF;
            metered := r_metered[r] OR r_log[r] = 0;
            refused := decklog.admission(present, h.state, h.received_at, h.burst, h.tokens, h.storage_used_up, h.per_day,
                                         h.next_seq - h.day_seq, metered, false, r_count[r], r_count[r], at);
            IF refused IN (7, 8) AND s_ids[s] > 0 THEN                          -- DAY_FULL, STORAGE_USED_UP
                RAISE EXCEPTION 'a quota counts only records that are not stored yet' USING ERRCODE = 'DL001';
            END IF;
            request_status[r] := refused; received_at[r] := stamp;
            IF refused = 0 THEN
                IF h.schema_name IS DISTINCT FROM s_schema[s] THEN
                    RAISE EXCEPTION 'records of tenant % are not stored in the schema %', tenant, s_schema[s]
                          USING ERRCODE = 'invalid_parameter_value';
                END IF;
                h.received_at := stamp;
                epoch[r] := h.epoch; first_seq[r] := h.next_seq;
                n_before[r] := h.next_seq - item - 1;
                h.next_seq := h.next_seq + r_count[r];
                IF metered THEN
                    h.tokens := h.tokens - r_count[r];
                END IF;
                changed := true;
                storing[s] := true;
            END IF;
            IF present AND metered AND h.burst > 0 THEN
                per_second[r] := h.per_second; burst[r] := h.burst; remaining[r] := h.tokens;
            END IF;
            item := item + r_count[r];
        END LOOP;
    END LOOP;
    IF changed THEN
        u_tenant := u_tenant || tenant; u_log := u_log || log_; u_next := u_next || h.next_seq;
        u_received := u_received || h.received_at; u_tokens := u_tokens || h.tokens;
    END IF;
    UPDATE decklog.heads SET next_seq = u.next_seq, received_at = u.received_at, tokens = u.tokens, refilled_at = at
      FROM unnest(u_tenant, u_log, u_next, u_received, u_tokens) AS u (tenant_id, log, next_seq, received_at, tokens)
     WHERE heads.tenant_id = u.tenant_id AND heads.log = u.log;

    r := 0;
    FOR s IN 1 .. cardinality(s_schema) LOOP
        IF storing[s] THEN
            of_run := items[all_ + 1 : all_ + s_items[s]];
            IF NOT decklog.are_items_of(r_count[r + 1 : r + s_requests[s]], of_run) THEN
                RAISE EXCEPTION 'the records do not belong to the requests by their order' USING ERRCODE = 'invalid_parameter_value';
            END IF;
            EXECUTE format('SELECT %I.store($1, $2, $3, $4, $5, NULL, $6, $7, $8, $9)', s_schema[s])
              USING r_tenant[r + 1 : r + s_requests[s]], r_log[r + 1 : r + s_requests[s]], epoch[r + 1 : r + s_requests[s]],
                    received_at[r + 1 : r + s_requests[s]], n_before[r + 1 : r + s_requests[s]],
                    of_run, ids[id_ + 1 : id_ + s_ids[s]], at - widest, at + decklog.skew();
        END IF;
        r := r + s_requests[s]; all_ := all_ + s_items[s]; id_ := id_ + s_ids[s];
    END LOOP;
    IF (r, all_, id_) IS DISTINCT FROM (requests, cardinality(items), cardinality(ids)) THEN
        RAISE EXCEPTION 'the runs do not cover the requests' USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $function$;
REVOKE ALL ON FUNCTION decklog.append_new FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.append_new TO decklog_service;

-- Schemas with records, and their partitioning.
CREATE TABLE IF NOT EXISTS decklog.relations (
    schema_name    text    PRIMARY KEY,
    shared         boolean NOT NULL,
    partition_days integer NOT NULL CHECK (partition_days BETWEEN 1 AND 366),
    hypertable     boolean NOT NULL,
    template       text    NOT NULL DEFAULT ''  -- the version of the template that was applied last
);
-- `things`: objects that the template made, by name, with their definitions. A difference from them is drift.
DO $relations$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'decklog.relations'::regclass AND attname = 'things') THEN
        ALTER TABLE decklog.relations ADD COLUMN things jsonb NOT NULL DEFAULT '{}';
    END IF;
END $relations$;
GRANT SELECT ON decklog.relations TO decklog_service;

-- Native partitions of every schema with their bounds: starts <= received_at < ends.
CREATE OR REPLACE VIEW decklog.partitions AS
    SELECT schema_name, substring(bound FROM $q$FROM \('([^']+)'\)$q$)::timestamptz AS starts,
           substring(bound FROM $q$ TO \('([^']+)'\)$q$)::timestamptz AS ends
      FROM (SELECT relation.schema_name, pg_get_expr(part.relpartbound, part.oid) AS bound
              FROM decklog.relations AS relation
              JOIN pg_namespace AS schema ON schema.nspname = relation.schema_name
              JOIN pg_class AS parent ON parent.relnamespace = schema.oid AND parent.relname = 'records'
              JOIN pg_inherits AS inherits ON inherits.inhparent = parent.oid
              JOIN pg_class AS part ON part.oid = inherits.inhrelid
             WHERE NOT relation.hypertable) AS parts;
GRANT SELECT ON decklog.partitions TO decklog_service;

-- Create a native partition. TimescaleDB creates chunks itself, inside the insert that needs one.
-- The partition is created apart from its parent and then attached, which does not block writers.
CREATE OR REPLACE FUNCTION decklog.make_partition_of(relation decklog.relations, moment timestamptz) RETURNS boolean
    LANGUAGE plpgsql AS $$
DECLARE
    span      constant bigint := relation.partition_days * 86400;
    starts    constant timestamptz := to_timestamp(floor(extract(epoch FROM moment) / span) * span);
    ends      constant timestamptz := starts + make_interval(secs => span);
    partition constant text := 'records_' || to_char(starts AT TIME ZONE 'UTC', 'YYYYMMDD');
    found     regclass;
BEGIN
    IF relation.hypertable THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('decklog.partition.' || relation.schema_name, 0));
    found := to_regclass(format('%I.%I', relation.schema_name, partition));
    IF to_regclass(format('%I.records', relation.schema_name)) IS NULL THEN -- dropped, while this waited for the lock
        RETURN false;
    END IF;
    IF EXISTS (SELECT FROM pg_inherits WHERE inhrelid = found) THEN
        RETURN false;
    END IF;
    IF found IS NULL THEN -- else it was detached
        EXECUTE format('CREATE TABLE %1$I.%2$I (LIKE %1$I.records INCLUDING ALL)', relation.schema_name, partition);
        -- It belongs to the partition alone: an index of the whole relation could be unique only together with the time. Readers use it
        -- to find numbers, so the relation has no other index for them. Schemas of older versions have one, and keep it.
        EXECUTE format('CREATE UNIQUE INDEX %3$I ON %1$I.%2$I (tenant_id, log, seq, epoch)',
                       relation.schema_name, partition, partition || '_number');
    END IF;
    EXECUTE format('ALTER TABLE %1$I.records ATTACH PARTITION %1$I.%2$I FOR VALUES FROM (%3$L) TO (%4$L)',
                   relation.schema_name, partition, starts, ends);
    RETURN true;
END $$;
REVOKE ALL ON FUNCTION decklog.make_partition_of(decklog.relations, timestamptz) FROM PUBLIC;

-- For the service: create the partition of a receipt time within two days of now.
CREATE OR REPLACE FUNCTION decklog.make_partition(name text, moment timestamptz) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    relation decklog.relations;
BEGIN
    IF moment NOT BETWEEN decklog.clock() - interval '2 days' AND decklog.clock() + interval '2 days' THEN
        RAISE EXCEPTION 'a partition is created only for a receipt time within 2 days of now' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT * INTO STRICT relation FROM decklog.relations WHERE schema_name = name;
    RETURN decklog.make_partition_of(relation, moment);
END $$;
REVOKE ALL ON FUNCTION decklog.make_partition(text, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.make_partition(text, timestamptz) TO decklog_service;

-- Create the future partitions of one schema: those of 7 days if they are daily, else the next one. Returns how many were missing.
CREATE OR REPLACE FUNCTION decklog.make_partitions_of(relation decklog.relations) RETURNS integer
    LANGUAGE plpgsql AS $$
DECLARE
    made integer := 0;
BEGIN
    FOR ahead IN 0 .. CASE WHEN relation.partition_days = 1 THEN 7 ELSE 1 END LOOP
        IF decklog.make_partition_of(relation, decklog.clock() + make_interval(days => ahead * relation.partition_days)) THEN
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END $$;
REVOKE ALL ON FUNCTION decklog.make_partitions_of(decklog.relations) FROM PUBLIC;

-- Create the future partitions of every schema, in a fixed order, so that two callers cannot deadlock.
CREATE OR REPLACE FUNCTION decklog.make_partitions() RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    relation decklog.relations;
    made     integer := 0;
BEGIN
    FOR relation IN SELECT * FROM decklog.relations ORDER BY schema_name LOOP
        made := made + decklog.make_partitions_of(relation);
    END LOOP;
    RETURN made;
END $$;
