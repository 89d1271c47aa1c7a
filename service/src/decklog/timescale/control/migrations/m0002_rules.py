"""Add what Piccolo cannot express: checks, the trigger that counts versions, and the rights of the service's role."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from decklog.timescale.control.sql_migration import in_order

ID = "m0002_rules"
VERSION = "1.38.0"
DESCRIPTION = "checks, version trigger, rights"

STATEMENTS = (
    """ALTER TABLE decklog.tenants
         ADD CONSTRAINT tenants_isolation CHECK (isolation IN ('Dedicated', 'Shared')),
         ADD CONSTRAINT tenants_state CHECK (state IN (0, 1, 2)),
         ADD CONSTRAINT tenants_retention CHECK (retention_days BETWEEN 1 AND 3650),
         ADD CONSTRAINT tenants_conditions CHECK (jsonb_typeof(conditions) = 'array')""",
    """ALTER TABLE decklog.api_keys
         ADD CONSTRAINT api_keys_role CHECK ((role = 'platform') = (tenant_id IS NULL)
                                             AND role IN ('writer', 'auditor', 'admin', 'platform')),
         ADD CONSTRAINT api_keys_hash CHECK (octet_length(hash) = 32)""",
    "ALTER TABLE decklog.registry_version ADD CONSTRAINT registry_version_one CHECK (id = 1)",
    "INSERT INTO decklog.registry_version (id, version) VALUES (1, 1)",
    # Writers of the registry wait for each other on this one row, so versions have the order of commits.
    """CREATE FUNCTION decklog.count_registry_version() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
       BEGIN
         UPDATE decklog.registry_version SET version = version + 1;
         RETURN NULL;
       END $$""",
    "REVOKE ALL ON FUNCTION decklog.count_registry_version() FROM PUBLIC",
    # Only columns that the service uses: a change of conditions must not make every process load the registry again.
    """CREATE TRIGGER version AFTER INSERT OR DELETE OR TRUNCATE
         OR UPDATE OF id, name, uid, isolation, schema, index, queue, retention_days, state, display_name
         ON decklog.tenants FOR EACH STATEMENT EXECUTE FUNCTION decklog.count_registry_version()""",
    """CREATE TRIGGER version AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE
         ON decklog.api_keys FOR EACH STATEMENT EXECUTE FUNCTION decklog.count_registry_version()""",
    "REVOKE ALL ON decklog.tenants, decklog.api_keys, decklog.registry_version, decklog.search_indices FROM PUBLIC",
    "GRANT SELECT ON decklog.tenants, decklog.api_keys, decklog.registry_version TO decklog_service",
)


async def forwards() -> MigrationManager:
    """Return the statements, to run in order."""
    return in_order(ID, DESCRIPTION, STATEMENTS)
