"""Drop `decklog.refusal`: only the append functions of older templates called it; `decklog.admission` replaces it."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from decklog.timescale.control.piccolo_engine import ENGINE

ID = "m0007_post_refusal"
VERSION = "1.38.0"
DESCRIPTION = "drop decklog.refusal"

STATEMENT = """DROP FUNCTION IF EXISTS decklog.refusal(boolean, smallint, timestamptz, integer, double precision, boolean, integer,
     timestamptz)"""


async def forwards() -> MigrationManager:
    """Return the statement."""
    manager = MigrationManager(migration_id=ID, app_name="decklog", description=DESCRIPTION)

    async def run() -> None:
        await ENGINE.run_ddl(STATEMENT)

    manager.add_raw(run)
    return manager
