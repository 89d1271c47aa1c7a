-- What the worker's role may change, each by one function of the owner: cursors with their leases, and archives. The API's role reads
-- cursors and cannot execute any of these, so a process of the API cannot move a consumer or declare an archive complete.
-- Applied as decklog_owner after `cell.sql`; the same rules hold.

GRANT USAGE ON SCHEMA decklog TO decklog_worker;
GRANT SELECT ON decklog.heads, decklog.cursors, decklog.archive_parts, decklog.archives, decklog.archive_place, decklog.relations,
    decklog.partitions TO decklog_worker;
REVOKE ALL ON FUNCTION decklog.make_partitions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.make_partitions() TO decklog_worker;

-- Lease a log that nobody has leased. The log must exist, and a lease ends after an hour at most, so no caller fills the relation or
-- stops a consumer for good.
CREATE OR REPLACE FUNCTION decklog.lease_cursor(of_consumer text, of_tenant bigint, of_log smallint, by text, seconds float8)
    RETURNS TABLE (epoch integer, next_seq bigint)
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO decklog.cursors AS c (consumer, tenant_id, log, owner, leased_until)
    SELECT of_consumer, of_tenant, of_log, by, clock_timestamp() + make_interval(secs => least(seconds, 3600))
    ON CONFLICT (consumer, tenant_id, log) DO UPDATE SET owner = excluded.owner, leased_until = excluded.leased_until
     WHERE c.owner IS NULL OR c.owner = excluded.owner OR c.leased_until <= clock_timestamp()
    RETURNING c.epoch, c.next_seq $$;

-- Move a leased cursor from one position to another, which may be lower but not beyond the head.
CREATE OR REPLACE FUNCTION decklog.move_cursor(
    of_consumer text, of_tenant bigint, of_log smallint, by text, from_seq bigint, to_seq bigint, seconds float8
) RETURNS TABLE (epoch integer, next_seq bigint)
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE decklog.cursors AS c SET next_seq = to_seq, leased_until = clock_timestamp() + make_interval(secs => least(seconds, 3600))
     WHERE c.consumer = of_consumer AND c.tenant_id = of_tenant AND c.log = of_log AND c.owner = by AND c.next_seq = from_seq
       AND to_seq BETWEEN 0 AND (SELECT h.next_seq FROM decklog.heads AS h WHERE h.tenant_id = of_tenant AND h.log = of_log)
    RETURNING c.epoch, c.next_seq $$;

CREATE OR REPLACE FUNCTION decklog.release_cursor(of_consumer text, of_tenant bigint, of_log smallint, by text) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE decklog.cursors SET owner = NULL, leased_until = 'epoch'
     WHERE consumer = of_consumer AND tenant_id = of_tenant AND log = of_log AND owner = by $$;

-- The same for many logs in one statement each. Rows are locked in the order of tenant and log, so workers wait and never deadlock. No log
-- may be given twice.

-- Lease those logs that are behind and that nobody else has leased. Returns the cursor and the head of every log that exists.
CREATE OR REPLACE FUNCTION decklog.lease_cursors(of_consumer text, of_tenants bigint[], of_logs smallint[], by text, seconds float8)
    RETURNS TABLE (tenant_id bigint, log smallint, epoch integer, next_seq bigint, head_seq bigint, leased boolean)
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH wanted AS MATERIALIZED (
        SELECT h.tenant_id, h.log, h.next_seq AS head_seq, coalesce(c.epoch, 1) AS epoch, coalesce(c.next_seq, 0) AS next_seq
          FROM unnest(of_tenants, of_logs) AS given (tenant_id, log)
          JOIN decklog.heads AS h ON h.tenant_id = given.tenant_id AND h.log = given.log
          LEFT JOIN decklog.cursors AS c ON c.consumer = of_consumer AND c.tenant_id = h.tenant_id AND c.log = h.log
    ), taken AS (
        INSERT INTO decklog.cursors AS c (consumer, tenant_id, log, owner, leased_until)
        SELECT of_consumer, w.tenant_id, w.log, by, clock_timestamp() + make_interval(secs => least(seconds, 3600))
          FROM wanted AS w WHERE w.next_seq < w.head_seq ORDER BY w.tenant_id, w.log
        ON CONFLICT (consumer, tenant_id, log) DO UPDATE SET owner = excluded.owner, leased_until = excluded.leased_until
         WHERE c.owner IS NULL OR c.owner = excluded.owner OR c.leased_until <= clock_timestamp()
        RETURNING c.tenant_id, c.log, c.epoch, c.next_seq
    )
    SELECT w.tenant_id, w.log, coalesce(t.epoch, w.epoch), coalesce(t.next_seq, w.next_seq), w.head_seq, t.epoch IS NOT NULL
      FROM wanted AS w LEFT JOIN taken AS t ON t.tenant_id = w.tenant_id AND t.log = w.log $$;

-- Renew the leases that the caller still holds. Returns their logs.
CREATE OR REPLACE FUNCTION decklog.renew_cursors(of_consumer text, of_tenants bigint[], of_logs smallint[], by text, seconds float8)
    RETURNS TABLE (tenant_id bigint, log smallint)
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH mine AS MATERIALIZED (
        SELECT c.tenant_id, c.log FROM unnest(of_tenants, of_logs) AS given (tenant_id, log)
          JOIN decklog.cursors AS c ON c.consumer = of_consumer AND c.tenant_id = given.tenant_id AND c.log = given.log
         WHERE c.owner = by ORDER BY c.tenant_id, c.log FOR UPDATE OF c
    )
    UPDATE decklog.cursors AS c SET leased_until = clock_timestamp() + make_interval(secs => least(seconds, 3600))
      FROM mine WHERE c.consumer = of_consumer AND c.tenant_id = mine.tenant_id AND c.log = mine.log
    RETURNING c.tenant_id, c.log $$;

-- Move each leased cursor that stands where the caller says; the others stay, and are not returned. A lease ends with the head of its log.
CREATE OR REPLACE FUNCTION decklog.move_cursors(
    of_consumer text, of_tenants bigint[], of_logs smallint[], by text, from_seqs bigint[], to_seqs bigint[], seconds float8
) RETURNS TABLE (tenant_id bigint, log smallint, epoch integer, next_seq bigint, head_seq bigint, leased boolean)
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH mine AS MATERIALIZED (
        SELECT c.tenant_id, c.log, given.to_seq, h.next_seq AS head_seq
          FROM unnest(of_tenants, of_logs, from_seqs, to_seqs) AS given (tenant_id, log, from_seq, to_seq)
          JOIN decklog.cursors AS c ON c.consumer = of_consumer AND c.tenant_id = given.tenant_id AND c.log = given.log
          JOIN decklog.heads AS h ON h.tenant_id = c.tenant_id AND h.log = c.log
         WHERE c.owner = by AND c.next_seq = given.from_seq AND given.to_seq BETWEEN 0 AND h.next_seq
         ORDER BY c.tenant_id, c.log FOR UPDATE OF c
    )
    UPDATE decklog.cursors AS c
       SET next_seq = mine.to_seq,
           owner = CASE WHEN mine.to_seq < mine.head_seq THEN by END,
           leased_until = CASE WHEN mine.to_seq < mine.head_seq
                               THEN clock_timestamp() + make_interval(secs => least(seconds, 3600)) ELSE 'epoch' END
      FROM mine WHERE c.consumer = of_consumer AND c.tenant_id = mine.tenant_id AND c.log = mine.log
    RETURNING c.tenant_id, c.log, c.epoch, c.next_seq, mine.head_seq, mine.to_seq < mine.head_seq $$;

CREATE OR REPLACE FUNCTION decklog.release_cursors(of_consumer text, of_tenants bigint[], of_logs smallint[], by text) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH mine AS MATERIALIZED (
        SELECT c.tenant_id, c.log FROM unnest(of_tenants, of_logs) AS given (tenant_id, log)
          JOIN decklog.cursors AS c ON c.consumer = of_consumer AND c.tenant_id = given.tenant_id AND c.log = given.log
         WHERE c.owner = by ORDER BY c.tenant_id, c.log FOR UPDATE OF c
    )
    UPDATE decklog.cursors AS c SET owner = NULL, leased_until = 'epoch'
      FROM mine WHERE c.consumer = of_consumer AND c.tenant_id = mine.tenant_id AND c.log = mine.log $$;

-- Note a part of an archive that was read back, and move the cursor past it; both or neither.
CREATE OR REPLACE FUNCTION decklog.add_archive_part(
    of_consumer text, of_tenant bigint, of_log smallint, by text, from_seq bigint, to_seq bigint, seconds float8,
    part_seq bigint, noted jsonb
) RETURNS TABLE (epoch integer, next_seq bigint)
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH moved AS (
        SELECT m.epoch, m.next_seq FROM decklog.move_cursor(of_consumer, of_tenant, of_log, by, from_seq, to_seq, seconds) AS m
    ), part AS (
        INSERT INTO decklog.archive_parts (tenant_id, log, first_seq, part) SELECT of_tenant, of_log, part_seq, noted FROM moved
        ON CONFLICT (tenant_id, log, first_seq) DO UPDATE SET part = excluded.part
    )
    SELECT moved.epoch, moved.next_seq FROM moved $$;

-- Note that a manifest covers these logs of a deleted tenant up to these numbers, if the lease still stands and the cursors have come
-- that far. Returns whether it was noted.
CREATE OR REPLACE FUNCTION decklog.finish_archive(
    of_consumer text, of_tenant bigint, of_log smallint, by text, at_seq bigint, logs smallint[], next_seqs bigint[], told text
) RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    PERFORM FROM decklog.cursors AS c
      WHERE c.consumer = of_consumer AND c.tenant_id = of_tenant AND c.log = of_log AND c.owner = by AND c.next_seq = at_seq FOR UPDATE;
    IF NOT FOUND OR NOT EXISTS (SELECT FROM decklog.tenants AS tenant WHERE tenant.id = of_tenant AND tenant.state = 2) OR EXISTS (
        SELECT FROM unnest(logs, next_seqs) AS given (log, next_seq)
          LEFT JOIN decklog.cursors AS c ON c.consumer = of_consumer AND c.tenant_id = of_tenant AND c.log = given.log
         WHERE given.next_seq > coalesce(c.next_seq, 0)
    ) THEN
        RETURN false;
    END IF;
    INSERT INTO decklog.archives (tenant_id, log, next_seq, manifest)
    SELECT of_tenant, given.log, given.next_seq, told FROM unnest(logs, next_seqs) AS given (log, next_seq)
    ON CONFLICT (tenant_id, log) DO UPDATE SET next_seq = excluded.next_seq, manifest = excluded.manifest;
    RETURN true;
END $function$;

-- Report the place of the archive and the result of its check.
CREATE OR REPLACE FUNCTION decklog.report_archive_place(at text, is_locked boolean, why text, what text) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO decklog.archive_place (place, locked, reason, message) VALUES (at, is_locked, why, what)
    ON CONFLICT (id) DO UPDATE SET place = excluded.place, locked = excluded.locked, reason = excluded.reason,
        message = excluded.message, told_at = clock_timestamp() $$;

-- Record a generation of a search index, whose indices exist and are empty. It becomes the one that searches read where there is none,
-- or where `at_once`; the one before is retired then. Otherwise workers build it, in place of another one that they were building.
CREATE OR REPLACE FUNCTION decklog.record_search_generation(
    of_index text, of_generation text, range_starts date[], range_uuids text[], at_once boolean
) RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    live boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('decklog.generations.' || of_index, 0));
    live := at_once OR NOT EXISTS (SELECT FROM decklog.search_generations AS g WHERE g.index = of_index AND g.state = 1);
    IF EXISTS (SELECT FROM decklog.search_generations AS g WHERE g.index = of_index AND g.generation = of_generation) THEN
        RETURN false;
    END IF;
    PERFORM decklog.retire_search_generations(of_index, ARRAY(
        SELECT g.generation FROM decklog.search_generations AS g WHERE g.index = of_index AND g.state = ANY (
            CASE WHEN live THEN ARRAY[0, 1] ELSE ARRAY[0] END)));
    INSERT INTO decklog.search_generations (index, generation, state, starts, uuids)
    VALUES (of_index, of_generation, live::integer, range_starts, range_uuids);
    RETURN true;
END $function$;

-- Let nothing use these generations any more. Their cursors go, so that none counts for another generation of the name.
CREATE OR REPLACE FUNCTION decklog.retire_search_generations(of_index text, names text[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    UPDATE decklog.search_generations AS g SET state = 2, changed_at = clock_timestamp()
     WHERE g.index = of_index AND g.generation = ANY (names) AND g.state <> 2;
    DELETE FROM decklog.cursors AS c
     WHERE c.consumer = ANY (ARRAY(SELECT 'indexer.' || name FROM unnest(names) AS name))
       AND c.tenant_id IN (SELECT tenant.id FROM decklog.tenants AS tenant WHERE tenant.index = of_index);
END $function$;

-- Record a range that was made after the last one of a generation in use. It begins tomorrow at the earliest: until then every worker
-- has learnt of it, and no record is written to two ranges.
CREATE OR REPLACE FUNCTION decklog.add_search_range(of_index text, of_generation text, range_start date, range_uuid text) RETURNS boolean
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE decklog.search_generations AS g
       SET starts = g.starts || range_start, uuids = g.uuids || range_uuid, changed_at = clock_timestamp()
     WHERE g.index = of_index AND g.generation = of_generation AND g.state IN (0, 1)
       AND range_start > greatest(g.starts[cardinality(g.starts)], (clock_timestamp() AT TIME ZONE 'UTC')::date)
    RETURNING true $$;

-- Take the first range out of a generation, unless it is the only one. Its index may be removed when no search can read it any more.
CREATE OR REPLACE FUNCTION decklog.drop_search_range(of_index text, of_generation text, range_start date) RETURNS boolean
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE decklog.search_generations AS g SET starts = g.starts[2:], uuids = g.uuids[2:], changed_at = clock_timestamp()
     WHERE g.index = of_index AND g.generation = of_generation AND g.starts[1] = range_start AND cardinality(g.starts) > 1
    RETURNING true $$;

-- Let searches read the generation that was built, and retire the one before, once no log of the index lacks more than `lag_max`
-- records in it. PostgreSQL answers for those.
CREATE OR REPLACE FUNCTION decklog.switch_search_generation(of_index text, of_generation text, lag_max bigint) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('decklog.generations.' || of_index, 0));
    PERFORM FROM decklog.search_generations AS g WHERE g.index = of_index AND g.generation = of_generation AND g.state = 0;
    IF NOT FOUND OR EXISTS (
        SELECT FROM decklog.heads AS head
          JOIN decklog.tenants AS tenant ON tenant.id = head.tenant_id AND tenant.index = of_index AND tenant.state <> 2
          LEFT JOIN decklog.cursors AS c
                 ON c.consumer = 'indexer.' || of_generation AND c.tenant_id = head.tenant_id AND c.log = head.log
         WHERE head.next_seq - coalesce(c.next_seq, 0) > lag_max
    ) THEN
        RETURN false;
    END IF;
    PERFORM decklog.retire_search_generations(of_index, ARRAY(
        SELECT g.generation FROM decklog.search_generations AS g WHERE g.index = of_index AND g.state = 1));
    UPDATE decklog.search_generations AS g SET state = 1, changed_at = clock_timestamp()
     WHERE g.index = of_index AND g.generation = of_generation;
    RETURN true;
END $function$;

-- Forget a retired generation whose indices are removed. A worker that was late may have made a cursor of it again.
CREATE OR REPLACE FUNCTION decklog.forget_search_generation(of_index text, of_generation text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    DELETE FROM decklog.search_generations AS g WHERE g.index = of_index AND g.generation = of_generation AND g.state = 2;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM decklog.retire_search_generations(of_index, ARRAY[of_generation]);
    RETURN true;
END $function$;

REVOKE ALL ON FUNCTION decklog.record_search_generation, decklog.retire_search_generations, decklog.add_search_range,
    decklog.drop_search_range, decklog.switch_search_generation, decklog.forget_search_generation FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.record_search_generation, decklog.add_search_range, decklog.drop_search_range,
    decklog.switch_search_generation, decklog.forget_search_generation TO decklog_worker;
GRANT SELECT ON decklog.search_generations TO decklog_worker;

REVOKE ALL ON FUNCTION decklog.lease_cursor, decklog.move_cursor, decklog.release_cursor, decklog.lease_cursors, decklog.renew_cursors,
    decklog.move_cursors, decklog.release_cursors, decklog.add_archive_part, decklog.finish_archive, decklog.report_archive_place FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.lease_cursor, decklog.move_cursor, decklog.release_cursor, decklog.lease_cursors, decklog.renew_cursors,
    decklog.move_cursors, decklog.release_cursors, decklog.add_archive_part, decklog.finish_archive, decklog.report_archive_place
    TO decklog_worker;
