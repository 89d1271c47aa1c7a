"""Let the filterer make its filters anew: those of earlier versions lack words, and hold the terms of `metadata` by other names."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from decklog.timescale.control.sql_migration import in_order

ID = "m0015_post_term_filters"
VERSION = "1.38.0"
DESCRIPTION = "filters of terms are made anew"

STATEMENTS = ("UPDATE decklog.cursors SET next_seq = 0, owner = NULL, leased_until = 'epoch' WHERE consumer = 'filterer'",)


async def forwards() -> MigrationManager:
    """Return the statements, to run in order."""
    return in_order(ID, DESCRIPTION, STATEMENTS)
