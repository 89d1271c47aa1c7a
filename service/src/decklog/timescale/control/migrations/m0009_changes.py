"""Number every change of a tenant and of a key, so that a process can follow the registry without reading all of it.

The relation is written by triggers alone, so no class of Piccolo has it. The version still grows with every change, by which
processes of the previous version load the whole registry.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from decklog.timescale.control.sql_migration import in_order

ID = "m0009_changes"
VERSION = "1.38.0"
DESCRIPTION = "changes of the registry by version"

_TENANT = "name, uid, isolation, schema, index, queue, retention_days, state, display_name, spec"
_KEY = "tenant_id, role, hash, created_at, expires_at, revoked_at"


def _columns(alias: str, columns: str) -> str:
    return ", ".join(f"{alias}.{column}" for column in columns.split(", "))


def _function(name: str, kind: str, target: str, columns: str) -> str:
    """Return the trigger function of one table. Only columns that the service uses count: conditions change at every visit."""
    return f"""CREATE FUNCTION decklog.{name}() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
       DECLARE
         changed {kind}[];
         bumped bigint;
       BEGIN
         IF TG_OP = 'INSERT' THEN
           SELECT array_agg(id) INTO changed FROM added;
         ELSIF TG_OP = 'DELETE' THEN
           SELECT array_agg(id) INTO changed FROM removed;
         ELSE
           SELECT array_agg(coalesce(added.id, removed.id)) INTO changed FROM added FULL JOIN removed ON removed.id = added.id
            WHERE added.id IS NULL OR removed.id IS NULL
               OR ({_columns("added", columns)}) IS DISTINCT FROM ({_columns("removed", columns)});
         END IF;
         IF changed IS NOT NULL THEN
           bumped := decklog.next_registry_version();
           INSERT INTO decklog.registry_changes (version, {target}) SELECT bumped, unnest(changed);
         END IF;
         RETURN NULL;
       END $$"""


def _triggers(table: str, function: str) -> list[str]:
    """Return the triggers of one table, in place of the one of older versions. Transition tables need one for each event."""
    events = {
        "INSERT": "REFERENCING NEW TABLE AS added",
        "UPDATE": "REFERENCING NEW TABLE AS added OLD TABLE AS removed",
        "DELETE": "REFERENCING OLD TABLE AS removed",
    }
    made = [f"CREATE TRIGGER changes_{event.lower()} AFTER {event} ON decklog.{table} {rows}" for event, rows in events.items()]
    return [
        f"DROP TRIGGER version ON decklog.{table}",
        *(f"{each} FOR EACH STATEMENT EXECUTE FUNCTION decklog.{function}()" for each in made),
        f"""CREATE TRIGGER changes_truncate AFTER TRUNCATE ON decklog.{table}
           FOR EACH STATEMENT EXECUTE FUNCTION decklog.count_registry_version()""",
    ]


STATEMENTS = (
    "CREATE TABLE decklog.registry_changes (version bigint NOT NULL, tenant_id bigint, key_id text)",
    "CREATE INDEX registry_changes_version ON decklog.registry_changes (version)",
    "REVOKE ALL ON decklog.registry_changes FROM PUBLIC",
    "GRANT SELECT ON decklog.registry_changes TO decklog_service",
    # Writers of the registry wait for each other on this one row, so versions have the order of commits. A notice is sent with the
    # commit. A process that is more versions behind than are kept forgets all it knows.
    """CREATE FUNCTION decklog.next_registry_version() RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
       DECLARE
         bumped bigint;
       BEGIN
         UPDATE decklog.registry_version SET version = version + 1 RETURNING version INTO bumped;
         DELETE FROM decklog.registry_changes WHERE version <= bumped - 10000;
         PERFORM pg_notify('decklog_registry', '');
         RETURN bumped;
       END $$""",
    # A version without listed changes: anything may have changed.
    """CREATE OR REPLACE FUNCTION decklog.count_registry_version() RETURNS trigger LANGUAGE plpgsql
       SET search_path = pg_catalog, pg_temp AS $$
       BEGIN
         PERFORM decklog.next_registry_version();
         RETURN NULL;
       END $$""",
    _function("log_tenant_changes", "bigint", "tenant_id", _TENANT),
    _function("log_key_changes", "text", "key_id", _KEY),
    "REVOKE ALL ON FUNCTION decklog.next_registry_version(), decklog.log_tenant_changes(), decklog.log_key_changes() FROM PUBLIC",
    *_triggers("tenants", "log_tenant_changes"),
    *_triggers("api_keys", "log_key_changes"),
)


async def forwards() -> MigrationManager:
    """Return the statements, to run in order."""
    return in_order(ID, DESCRIPTION, STATEMENTS)
