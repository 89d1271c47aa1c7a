"""Add the keys that tenants' admins make over the API, in a relation of their own, and the last use of every key.

Provisioning of earlier versions revokes each key in `api_keys` that it has not made itself, so these keys are not there. The triggers
that number the changes of `api_keys` number those of `made_keys` as well, so processes follow both alike. The relation is written by
functions alone, so no class of Piccolo has it.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.columns.column_types import Timestamptz

from decklog.timescale.control.sql_migration import in_order

ID = "m0016_made_keys"
VERSION = "1.38.0"
DESCRIPTION = "keys made over the API, and the last use of keys"

_PINNED = "SECURITY DEFINER SET search_path = pg_catalog, pg_temp"
_EVENTS = {
    "INSERT": "REFERENCING NEW TABLE AS added",
    "UPDATE": "REFERENCING NEW TABLE AS added OLD TABLE AS removed",
    "DELETE": "REFERENCING OLD TABLE AS removed",
}

STATEMENTS = (
    """CREATE TABLE decklog.made_keys (
         id           text        PRIMARY KEY CHECK (id ~ '^[0-9a-z]{8,32}$'),
         tenant_id    bigint      NOT NULL REFERENCES decklog.tenants (id) ON DELETE CASCADE,
         role         text        NOT NULL CHECK (role IN ('writer', 'auditor', 'admin')),
         hash         bytea       NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
         name         text        NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
         created_by   text        NOT NULL CHECK (length(created_by) BETWEEN 1 AND 2200),
         created_at   timestamptz NOT NULL,
         expires_at   timestamptz,
         revoked_at   timestamptz,
         last_used_at timestamptz
       )""",
    "CREATE INDEX made_keys_tenant ON decklog.made_keys (tenant_id)",
    "REVOKE ALL ON decklog.made_keys FROM PUBLIC",
    "GRANT SELECT ON decklog.made_keys TO decklog_service, decklog_worker",
    *(
        f"""CREATE TRIGGER changes_{event.lower()} AFTER {event} ON decklog.made_keys {rows}
           FOR EACH STATEMENT EXECUTE FUNCTION decklog.log_key_changes()"""
        for event, rows in _EVENTS.items()
    ),
    """CREATE TRIGGER changes_truncate AFTER TRUNCATE ON decklog.made_keys
       FOR EACH STATEMENT EXECUTE FUNCTION decklog.count_registry_version()""",
    # By a trigger, because a provisioner of an earlier version may delete the tenant. A tenant that is adopted later gets none back.
    """CREATE FUNCTION decklog.end_made_keys() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
       BEGIN
         UPDATE decklog.made_keys SET revoked_at = clock_timestamp() WHERE tenant_id = NEW.id AND revoked_at IS NULL;
         RETURN NULL;
       END $$""",
    "REVOKE ALL ON FUNCTION decklog.end_made_keys() FROM PUBLIC",
    """CREATE TRIGGER end_made_keys AFTER UPDATE OF state ON decklog.tenants
       FOR EACH ROW WHEN (NEW.state = 2) EXECUTE FUNCTION decklog.end_made_keys()""",
    # Accept a key of an active tenant. `refusal` says why it is not accepted: `gone`, `full` (100 in force) or `too-fast` (100 in an
    # hour). Of the keys no longer in force, the 200 that ended last stay.
    f"""CREATE FUNCTION decklog.make_key(
         k_tenant bigint, k_id text, k_role text, k_hash bytea, k_name text, k_created_by text, k_seconds integer,
         OUT refusal text, OUT created_at timestamptz, OUT expires_at timestamptz
       ) LANGUAGE plpgsql VOLATILE {_PINNED} AS $$
       DECLARE
         at constant timestamptz := clock_timestamp();
       BEGIN
         -- Two callers must not both make the last key, and a deletion must find every key.
         PERFORM FROM decklog.tenants AS t WHERE t.id = k_tenant AND t.state = 0 FOR NO KEY UPDATE;
         IF NOT FOUND THEN
           refusal := 'gone';
         ELSIF (SELECT count(*) FROM decklog.made_keys AS k WHERE k.tenant_id = k_tenant AND k.revoked_at IS NULL
                   AND (k.expires_at IS NULL OR k.expires_at > at)) >= 100 THEN
           refusal := 'full';
         ELSIF (SELECT count(*) FROM decklog.made_keys AS k
                 WHERE k.tenant_id = k_tenant AND k.created_at > at - interval '1 hour') >= 100 THEN
           refusal := 'too-fast';
         ELSIF EXISTS (SELECT FROM decklog.api_keys AS k WHERE k.id = k_id OR k.hash = k_hash) THEN
           RAISE EXCEPTION 'there is a key of this id' USING ERRCODE = 'unique_violation';
         ELSE
           created_at := at;
           expires_at := at + make_interval(secs => k_seconds);
           DELETE FROM decklog.made_keys WHERE id IN (
             SELECT k.id FROM decklog.made_keys AS k WHERE k.tenant_id = k_tenant AND least(k.revoked_at, k.expires_at) <= at
              ORDER BY least(k.revoked_at, k.expires_at) DESC OFFSET 200);
           INSERT INTO decklog.made_keys (id, tenant_id, role, hash, name, created_by, created_at, expires_at)
             VALUES (k_id, k_tenant, k_role, k_hash, k_name, k_created_by, at, expires_at);
         END IF;
       END $$""",
    "REVOKE ALL ON FUNCTION decklog.make_key FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION decklog.make_key TO decklog_service",
    # Revoke a key that was made over the API; return whether the tenant has it. A provisioned key is not touched.
    f"""CREATE FUNCTION decklog.revoke_key(k_tenant bigint, k_id text) RETURNS boolean LANGUAGE plpgsql VOLATILE {_PINNED} AS $$
       BEGIN
         UPDATE decklog.made_keys AS k SET revoked_at = coalesce(k.revoked_at, clock_timestamp())
          WHERE k.tenant_id = k_tenant AND k.id = k_id;
         RETURN FOUND;
       END $$""",
    "REVOKE ALL ON FUNCTION decklog.revoke_key FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION decklog.revoke_key TO decklog_service",
    # Set the last use of these keys to now, at most once in half a minute each: several processes note the same key. Rows are locked in
    # the order of their ids, so that two callers never wait for each other.
    f"""CREATE FUNCTION decklog.note_key_uses(k_ids text[]) RETURNS void LANGUAGE plpgsql VOLATILE {_PINNED} AS $$
       DECLARE
         at constant timestamptz := clock_timestamp();
         due constant timestamptz := at - interval '30 seconds';
       BEGIN
         IF cardinality(k_ids) > 10000 THEN
           RAISE EXCEPTION 'more than 10,000 keys' USING ERRCODE = 'invalid_parameter_value';
         END IF;
         UPDATE decklog.api_keys AS k SET last_used_at = at FROM (
           SELECT u.id FROM decklog.api_keys AS u WHERE u.id = ANY (k_ids) AND (u.last_used_at IS NULL OR u.last_used_at < due)
            ORDER BY u.id FOR NO KEY UPDATE) AS used WHERE used.id = k.id;
         UPDATE decklog.made_keys AS k SET last_used_at = at FROM (
           SELECT u.id FROM decklog.made_keys AS u WHERE u.id = ANY (k_ids) AND (u.last_used_at IS NULL OR u.last_used_at < due)
            ORDER BY u.id FOR NO KEY UPDATE) AS used WHERE used.id = k.id;
       END $$""",
    "REVOKE ALL ON FUNCTION decklog.note_key_uses FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION decklog.note_key_uses TO decklog_service",
)


async def forwards() -> MigrationManager:
    """Return the new column of `api_keys`, and the statements to run in order."""
    manager = in_order(ID, DESCRIPTION, STATEMENTS)
    manager.add_column(
        table_class_name="ApiKeyRow",
        tablename="api_keys",
        column_name="last_used_at",
        db_column_name="last_used_at",
        column_class_name="Timestamptz",
        column_class=Timestamptz,
        params={"null": True, "default": None},
        schema="decklog",
    )
    return manager
