-- The template of the filters of terms in a schema with records; see domain/search/term_filters.py. {schema} is a quoted name.
-- Every statement may run again, and while processes of the previous version serve.

-- One row per block of records. `size` is the place of its number of bits among the sizes, from 1. The relation has no partitions: its
-- rows take a few hundredths of the records' bytes, every look-up is by number, and what is in it can be made again.
-- A new relation is filled from the first record on, even if an earlier one was filled before.
DO $relation$ BEGIN
    IF to_regclass('{schema}.term_filters') IS NULL THEN
        CREATE TABLE {schema}.term_filters (
            tenant_id bigint   NOT NULL,
            first_seq bigint   NOT NULL,
            end_seq   bigint   NOT NULL,
            log       smallint NOT NULL,
            version   smallint NOT NULL,
            size      smallint NOT NULL,
            filter    varbit   NOT NULL,
            CHECK (first_seq >= 0 AND end_seq > first_seq AND end_seq - first_seq <= 256),
            CHECK (length(filter) = 64 << size)
        );
        -- Random bits cannot be compressed.
        ALTER TABLE {schema}.term_filters ALTER COLUMN filter SET STORAGE EXTERNAL;
        IF to_regclass('decklog.tenants') IS NOT NULL THEN
            UPDATE decklog.cursors SET next_seq = 0, owner = NULL, leased_until = 'epoch'
             WHERE consumer = 'filterer'
               AND tenant_id IN (SELECT id FROM decklog.tenants WHERE '"' || tenants.schema || '"' = '{schema}');
        END IF;
    END IF;
END $relation$;
CREATE UNIQUE INDEX IF NOT EXISTS term_filters_first ON {schema}.term_filters (tenant_id, log, first_seq);

REVOKE ALL ON {schema}.term_filters FROM PUBLIC, decklog_service, decklog_worker;
GRANT SELECT ON {schema}.term_filters TO decklog_service, decklog_worker;
DO $policies$ DECLARE
    strange name;
BEGIN
    FOR strange IN SELECT polname FROM pg_policy WHERE polrelid = '{schema}.term_filters'::regclass LOOP
        EXECUTE format('DROP POLICY %I ON {schema}.term_filters', strange);
    END LOOP;
END $policies$;

-- Store the filters of blocks of one log, in place of those that begin within the same numbers.
-- A filter for records that do not exist yet would hide them from searches, so it is refused (SQLSTATE 22023).
CREATE OR REPLACE FUNCTION {schema}.add_term_filters(
    of_tenant bigint, of_log smallint, of_version smallint, firsts bigint[], ends bigint[], sizes smallint[], filters varbit[]
) RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    PERFORM set_config('decklog.tenants', of_tenant::text, true);
    -- A removal of the tenant deletes its filters under this lock, with its heads, and none may come after it.
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('decklog.term_filters.' || of_tenant, 0));
    IF NOT EXISTS (SELECT FROM decklog.heads WHERE heads.tenant_id = of_tenant AND heads.log = of_log
                      AND heads.next_seq >= (SELECT max(given) FROM unnest(ends) AS given)) THEN
        RAISE EXCEPTION 'the log does not have these records' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    DELETE FROM {schema}.term_filters
     WHERE term_filters.tenant_id = of_tenant AND term_filters.log = of_log
       AND term_filters.first_seq >= (SELECT min(given) FROM unnest(firsts) AS given)
       AND term_filters.first_seq < (SELECT max(given) FROM unnest(ends) AS given);
    INSERT INTO {schema}.term_filters AS stored (tenant_id, log, version, first_seq, end_seq, size, filter)
    SELECT of_tenant, of_log, of_version, given.* FROM unnest(firsts, ends, sizes, filters) AS given
        ON CONFLICT (tenant_id, log, first_seq) DO UPDATE
           SET version = excluded.version, end_seq = excluded.end_seq, size = excluded.size, filter = excluded.filter;
END $function$;
REVOKE ALL ON FUNCTION {schema}.add_term_filters FROM PUBLIC, decklog_service, decklog_worker;
GRANT EXECUTE ON FUNCTION {schema}.add_term_filters TO decklog_worker;
