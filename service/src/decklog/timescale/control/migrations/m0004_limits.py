"""Count changes of a tenant's spec as new versions: the service uses its limits, so every process must load it again."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from decklog.timescale.control.piccolo_engine import ENGINE

ID = "m0004_limits"
VERSION = "1.38.0"
DESCRIPTION = "versions count changes of the spec"

STATEMENT = """CREATE OR REPLACE TRIGGER version AFTER INSERT OR DELETE OR TRUNCATE
     OR UPDATE OF id, name, uid, isolation, schema, index, queue, retention_days, state, display_name, spec
     ON decklog.tenants FOR EACH STATEMENT EXECUTE FUNCTION decklog.count_registry_version()"""


async def forwards() -> MigrationManager:
    """Return the statement."""
    manager = MigrationManager(migration_id=ID, app_name="decklog", description=DESCRIPTION)

    async def run() -> None:
        await ENGINE.run_ddl(STATEMENT)

    manager.add_raw(run)
    return manager
