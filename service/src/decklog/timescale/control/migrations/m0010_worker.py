"""Let the worker's role read what the service's role reads of the control tables."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from decklog.timescale.control.piccolo_engine import ENGINE

ID = "m0010_worker"
VERSION = "1.38.0"
DESCRIPTION = "rights of the worker's role"

STATEMENTS = (
    "GRANT SELECT ON decklog.tenants, decklog.api_keys, decklog.registry_version, decklog.registry_changes TO decklog_worker",
)


async def forwards() -> MigrationManager:
    """Return the statements, to run in order."""
    manager = MigrationManager(migration_id=ID, app_name="decklog", description=DESCRIPTION)

    async def run() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(run)
    return manager
