"""Revoke rights that the service's role has only for workers of older versions: on cursors, archives and partitions ahead."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from decklog.timescale.control.sql_migration import in_order

ID = "m0011_post_worker"
VERSION = "1.38.0"
DESCRIPTION = "cursors and archives belong to the worker's role"

STATEMENTS = (
    "REVOKE INSERT, UPDATE ON decklog.cursors FROM decklog_service",
    "REVOKE ALL ON decklog.archive_parts, decklog.archives, decklog.archive_place FROM decklog_service",
    "REVOKE ALL ON FUNCTION decklog.make_partitions() FROM decklog_service",
)


async def forwards() -> MigrationManager:
    """Return the statements, to run in order."""
    return in_order(ID, DESCRIPTION, STATEMENTS)
