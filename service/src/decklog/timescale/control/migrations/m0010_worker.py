"""Let the worker's role read what the service's role reads of the control tables."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from decklog.timescale.control.sql_migration import in_order

ID = "m0010_worker"
VERSION = "1.38.0"
DESCRIPTION = "rights of the worker's role"

STATEMENTS = (
    "GRANT SELECT ON decklog.tenants, decklog.api_keys, decklog.registry_version, decklog.registry_changes TO decklog_worker",
)


async def forwards() -> MigrationManager:
    """Return the statements, to run in order."""
    return in_order(ID, DESCRIPTION, STATEMENTS)
