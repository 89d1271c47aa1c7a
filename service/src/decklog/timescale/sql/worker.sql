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

REVOKE ALL ON FUNCTION decklog.lease_cursor, decklog.move_cursor, decklog.release_cursor, decklog.add_archive_part,
    decklog.finish_archive, decklog.report_archive_place FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decklog.lease_cursor, decklog.move_cursor, decklog.release_cursor, decklog.add_archive_part,
    decklog.finish_archive, decklog.report_archive_place TO decklog_worker;
