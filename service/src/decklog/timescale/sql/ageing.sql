-- The end of partitions: which closed ones are beyond retention, and their removal. One function does it and checks every condition itself,
-- whatever its caller says.
-- Applied as decklog_owner after `worker.sql`; the same rules hold.

-- Partitions beyond retention, since when they are. One is dropped a day later at the earliest: a clock that jumped ahead is noticed meanwhile.
CREATE TABLE IF NOT EXISTS decklog.due_partitions (
    schema_name   text        NOT NULL,
    starts        timestamptz NOT NULL,
    due_since     timestamptz NOT NULL,
    PRIMARY KEY (schema_name, starts)
);
-- Ranges of logs that went with their partition. `recorded_at` is null until the log's access log has a record of it.
CREATE TABLE IF NOT EXISTS decklog.dropped_ranges (
    tenant_id     bigint      NOT NULL,
    log           smallint    NOT NULL,
    starts        timestamptz NOT NULL,
    ends          timestamptz NOT NULL,
    first_seq     bigint      NOT NULL,
    end_seq       bigint      NOT NULL,
    dropped_at    timestamptz NOT NULL,
    recorded_at   timestamptz,
    PRIMARY KEY (tenant_id, log, starts)
);
CREATE INDEX IF NOT EXISTS dropped_ranges_at ON decklog.dropped_ranges (dropped_at);
CREATE INDEX IF NOT EXISTS dropped_ranges_unrecorded ON decklog.dropped_ranges (dropped_at) WHERE recorded_at IS NULL;
GRANT SELECT ON decklog.dropped_ranges TO decklog_service;
GRANT SELECT ON decklog.due_partitions TO decklog_worker;

-- All partitions of a schema with their bounds: starts <= received_at < ends.
CREATE OR REPLACE FUNCTION decklog.partitions_of(relation decklog.relations)
    RETURNS TABLE (part regclass, starts timestamptz, ends timestamptz) LANGUAGE plpgsql STABLE AS $function$
BEGIN
    IF relation.hypertable THEN
        -- Only servers with TimescaleDB have this view.
        RETURN QUERY EXECUTE $q$
            SELECT format('%I.%I', chunk_schema, chunk_name)::regclass, range_start, range_end FROM timescaledb_information.chunks
             WHERE hypertable_schema = $1 AND hypertable_name = 'records' $q$ USING relation.schema_name;
    ELSE
        RETURN QUERY SELECT format('%I.%I', p.schema_name, 'records_' || to_char(p.starts AT TIME ZONE 'UTC', 'YYYYMMDD'))::regclass,
                            p.starts, p.ends
                       FROM decklog.partitions AS p WHERE p.schema_name = relation.schema_name;
    END IF;
END $function$;
REVOKE ALL ON FUNCTION decklog.partitions_of FROM PUBLIC;

-- How long the partitions of a schema are kept after their end: the days of its class, which its name has, and no less than the retention
-- of any tenant in it. Null where no tenant says.
CREATE OR REPLACE FUNCTION decklog.kept_for(relation decklog.relations) RETURNS interval LANGUAGE plpgsql STABLE AS $function$
BEGIN
    RETURN make_interval(days => greatest(
        CASE WHEN relation.shared THEN substring(relation.schema_name FROM '[0-9]+$')::integer END,
        (SELECT max(tenant.retention_days) FROM decklog.tenants AS tenant WHERE tenant.schema = relation.schema_name)));
END $function$;
REVOKE ALL ON FUNCTION decklog.kept_for FROM PUBLIC;

-- Why a partition must stay although it is due: a tenant with records in it has a legal hold, or was deleted and its archive is not
-- complete. Null if it may go.
CREATE OR REPLACE FUNCTION decklog.withheld_by(relation decklog.relations, part regclass) RETURNS text
    LANGUAGE plpgsql STABLE AS $function$
DECLARE
    tenant record;
    inside boolean;
BEGIN
    FOR tenant IN
        SELECT t.id, coalesce((t.spec ->> 'legalHold')::boolean, false) AS held FROM decklog.tenants AS t
         WHERE t.schema = relation.schema_name
           AND (coalesce((t.spec ->> 'legalHold')::boolean, false)
                OR (t.state = 2 AND t.spec ->> 'deletionPolicy' = 'Archive' AND EXISTS (
                        SELECT FROM decklog.heads AS head LEFT JOIN decklog.archives AS archive USING (tenant_id, log)
                         WHERE head.tenant_id = t.id AND head.next_seq IS DISTINCT FROM archive.next_seq)))
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE tenant_id = $1)', part) INTO inside USING tenant.id;
        IF inside THEN
            RETURN CASE WHEN tenant.held THEN 'legal-hold' ELSE 'archive' END;
        END IF;
    END LOOP;
    RETURN NULL;
END $function$;
REVOKE ALL ON FUNCTION decklog.withheld_by FROM PUBLIC;

-- Drop the oldest partition of a schema that may go, and note what was in it; `dropped` is its beginning, null if none may go.
-- `waiting`, `held` and `archiving` count the partitions that are due and stay: for the rest of their day, under a legal hold, until an
-- archive is complete.
--
-- Numbers have no gaps, so two look-ups by number know what a log has in a partition. Writers wait for the drop itself only, and it waits
-- half a second at most for those before it. Tenants cannot change while it looks for the last time, so no hold comes too late.
CREATE OR REPLACE FUNCTION decklog.drop_due_partition(
    of_schema text, OUT dropped timestamptz, OUT ended timestamptz, OUT bytes bigint, OUT waiting integer, OUT held integer, OUT archiving integer
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    at       constant timestamptz := decklog.clock();
    relation decklog.relations;
    keep     interval;
    due      record;
    goes     record;
    reason   text;
BEGIN
    waiting := 0; held := 0; archiving := 0;
    PERFORM pg_advisory_xact_lock(hashtextextended('decklog.ageing.' || of_schema, 0));
    SELECT * INTO relation FROM decklog.relations WHERE schema_name = of_schema;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    keep := decklog.kept_for(relation);
    -- A longer retention, or a clock that was put right, ends the wait. So does a removal by another hand.
    DELETE FROM decklog.due_partitions AS d
     WHERE d.schema_name = of_schema AND (keep IS NULL OR d.due_since > at OR NOT EXISTS (
               SELECT FROM decklog.partitions_of(relation) AS p WHERE p.starts = d.starts AND p.ends + keep <= at));
    INSERT INTO decklog.due_partitions (schema_name, starts, due_since)
    SELECT of_schema, p.starts, at FROM decklog.partitions_of(relation) AS p WHERE p.ends + keep <= at
    ON CONFLICT DO NOTHING;
    FOR due IN
        SELECT p.part, p.starts, p.ends, d.due_since FROM decklog.due_partitions AS d
          JOIN decklog.partitions_of(relation) AS p USING (starts) WHERE d.schema_name = of_schema ORDER BY p.starts
    LOOP
        reason := decklog.withheld_by(relation, due.part);
        IF reason = 'legal-hold' THEN
            held := held + 1;
        ELSIF reason = 'archive' THEN
            archiving := archiving + 1;
        ELSIF due.due_since > at - interval '1 day' THEN
            waiting := waiting + 1;
        ELSIF goes IS NULL THEN
            goes := due;
        ELSE
            waiting := waiting + 1;
        END IF;
    END LOOP;
    IF goes IS NULL THEN
        RETURN;
    END IF;
    PERFORM set_config('lock_timeout', '500ms', true);
    LOCK TABLE decklog.tenants IN SHARE MODE;
    IF decklog.kept_for(relation) IS DISTINCT FROM keep OR decklog.withheld_by(relation, goes.part) IS NOT NULL THEN
        RAISE EXCEPTION 'the tenants of the schema % changed meanwhile', of_schema USING ERRCODE = 'serialization_failure';
    END IF;
    EXECUTE format($q$
        INSERT INTO decklog.dropped_ranges (tenant_id, log, starts, ends, first_seq, end_seq, dropped_at)
        SELECT head.tenant_id, head.log, $2, $3, first.seq, last.seq + 1, $4
          FROM decklog.heads AS head,
               LATERAL (SELECT r.seq FROM %1$s AS r WHERE r.tenant_id = head.tenant_id AND r.log = head.log ORDER BY r.seq LIMIT 1) AS first,
               LATERAL (SELECT r.seq FROM %1$s AS r WHERE r.tenant_id = head.tenant_id AND r.log = head.log ORDER BY r.seq DESC LIMIT 1) AS last
         WHERE head.schema_name = $1 $q$, goes.part) USING of_schema, goes.starts, goes.ends, at;
    -- Filters of terms hide blocks of records that exist no more. Row-level security applies to the owner too.
    PERFORM set_config('decklog.tenants', coalesce((SELECT string_agg(DISTINCT gone.tenant_id::text, ',') FROM decklog.dropped_ranges AS gone
        JOIN decklog.heads AS head USING (tenant_id, log) WHERE head.schema_name = of_schema AND gone.starts = goes.starts), ''), true);
    EXECUTE format($q$
        DELETE FROM %1$I.term_filters AS f USING decklog.dropped_ranges AS gone
         WHERE gone.tenant_id = f.tenant_id AND gone.log = f.log AND gone.starts = $1 AND f.end_seq <= gone.end_seq $q$, of_schema)
        USING goes.starts;
    bytes := pg_total_relation_size(goes.part);
    IF relation.hypertable THEN
        EXECUTE format('SELECT %1$I.drop_chunks(%2$L::regclass, older_than => $1, newer_than => $2)',
                       (SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'timescaledb'),
                       format('%I.records', of_schema)) USING goes.ends, goes.starts;
    ELSE
        EXECUTE format('DROP TABLE %s', goes.part);
    END IF;
    DELETE FROM decklog.due_partitions AS d WHERE d.schema_name = of_schema AND d.starts = goes.starts;
    -- The access log has what went earlier.
    DELETE FROM decklog.dropped_ranges AS gone WHERE gone.dropped_at < at - interval '400 days' AND gone.recorded_at IS NOT NULL;
    dropped := goes.starts; ended := goes.ends;
END $function$;
REVOKE ALL ON FUNCTION decklog.drop_due_partition FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.drop_due_partition TO decklog_worker;

-- Note that access logs have a record of these ranges.
CREATE OR REPLACE FUNCTION decklog.note_drops_recorded(of_tenants bigint[], of_logs smallint[], of_starts timestamptz[]) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE decklog.dropped_ranges AS gone SET recorded_at = clock_timestamp()
      FROM unnest(of_tenants, of_logs, of_starts) AS given (tenant_id, log, starts)
     WHERE gone.tenant_id = given.tenant_id AND gone.log = given.log AND gone.starts = given.starts AND gone.recorded_at IS NULL $$;
REVOKE ALL ON FUNCTION decklog.note_drops_recorded FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.note_drops_recorded TO decklog_service;
