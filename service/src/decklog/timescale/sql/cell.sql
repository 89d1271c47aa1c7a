-- What every cell has once: the clock, the heads of all logs, the cursors of all consumers, and the list of relations.
-- Applied by the role that owns it all (decklog_owner); every statement may run again.

CREATE SCHEMA IF NOT EXISTS decklog;
GRANT USAGE ON SCHEMA decklog TO decklog_service;

-- The one clock of receipt times. A function, so that tests can put another in its place.
CREATE OR REPLACE FUNCTION decklog.clock() RETURNS timestamptz
    LANGUAGE sql VOLATILE PARALLEL SAFE AS 'SELECT clock_timestamp()';

-- The row that orders the writers of a log, and admits them: locking it is what makes `seq` gapless.
-- fillfactor leaves room on the page, so that each append is a HOT update and no index is touched.
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
GRANT SELECT, UPDATE ON decklog.heads TO decklog_service;

-- How far each consumer of each log is, and who is at work.
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
GRANT SELECT, INSERT, UPDATE ON decklog.cursors TO decklog_service;

-- A record on its way into the append functions: one array of these is half the work, for both sides, of an array for
-- each column. A change of it needs another name, as processes of the version before go on using this one.
DO $type$ BEGIN
    IF to_regtype('decklog.new_record') IS NULL THEN
        CREATE TYPE decklog.new_record AS (
            request integer, id text, fingerprint bytea, occurred_at timestamptz, severity smallint, outcome smallint,
            action text, actor_type text, actor_id text, resource_type text, resource_id text, ip text, session_id text,
            correlation_id text, digest bytea, content text
        );
    END IF;
END $type$;

-- The schemas that hold records, and how each is partitioned.
CREATE TABLE IF NOT EXISTS decklog.relations (
    schema_name    text    PRIMARY KEY,
    shared         boolean NOT NULL,
    partition_days integer NOT NULL CHECK (partition_days BETWEEN 1 AND 366),
    hypertable     boolean NOT NULL,
    template       text    NOT NULL DEFAULT ''  -- the version of relations.sql that was applied last
);
GRANT SELECT ON decklog.relations TO decklog_service;

-- Native partitions only: TimescaleDB makes its chunks by itself, inside the insert that needs one.
-- Made beside the parent and then attached, which does not lock out writers.
CREATE OR REPLACE FUNCTION decklog.make_partition_of(relation decklog.relations, moment timestamptz) RETURNS boolean
    LANGUAGE plpgsql AS $$
DECLARE
    span      constant bigint := relation.partition_days * 86400;
    starts    constant timestamptz := to_timestamp(floor(extract(epoch FROM moment) / span) * span);
    ends      constant timestamptz := starts + make_interval(secs => span);
    partition constant text := 'records_' || to_char(starts AT TIME ZONE 'UTC', 'YYYYMMDD');
BEGIN
    IF relation.hypertable THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('decklog.partition.' || relation.schema_name, 0));
    IF to_regclass(format('%I.%I', relation.schema_name, partition)) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %1$I.%2$I (LIKE %1$I.records INCLUDING ALL)', relation.schema_name, partition);
    EXECUTE format('ALTER TABLE %1$I.records ATTACH PARTITION %1$I.%2$I FOR VALUES FROM (%3$L) TO (%4$L)',
                   relation.schema_name, partition, starts, ends);
    RETURN true;
END $$;
REVOKE ALL ON FUNCTION decklog.make_partition_of(decklog.relations, timestamptz) FROM PUBLIC;

-- What the service may call: the partition that a receipt time of about now needs.
CREATE OR REPLACE FUNCTION decklog.make_partition(name text, moment timestamptz) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    relation decklog.relations;
BEGIN
    IF moment NOT BETWEEN decklog.clock() - interval '2 days' AND decklog.clock() + interval '2 days' THEN
        RAISE EXCEPTION 'a partition is only made for a receipt time of about now' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT * INTO STRICT relation FROM decklog.relations WHERE schema_name = name;
    RETURN decklog.make_partition_of(relation, moment);
END $$;
REVOKE ALL ON FUNCTION decklog.make_partition(text, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.make_partition(text, timestamptz) TO decklog_service;

-- The partitions of the coming days, for every schema: seven days of daily ones, else the next one. Returns how many.
CREATE OR REPLACE FUNCTION decklog.make_partitions() RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    relation decklog.relations;
    ahead    integer;
    made     integer := 0;
BEGIN
    FOR relation IN SELECT * FROM decklog.relations ORDER BY schema_name LOOP
        FOR ahead IN 0 .. CASE WHEN relation.partition_days = 1 THEN 7 ELSE 1 END LOOP
            IF decklog.make_partition_of(relation, decklog.clock() + make_interval(days => ahead * relation.partition_days)) THEN
                made := made + 1;
            END IF;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;
REVOKE ALL ON FUNCTION decklog.make_partitions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.make_partitions() TO decklog_service;
