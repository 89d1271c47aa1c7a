"""Revoke rights of the service's role that only processes before the SECURITY DEFINER functions use: to write records and heads."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from decklog.timescale.control.sql_migration import in_order

ID = "m0008_post_rights"
VERSION = "1.38.0"
DESCRIPTION = "the service's role writes no record and no head"

STATEMENTS = (
    "REVOKE INSERT, UPDATE ON decklog.heads FROM decklog_service",
    "REVOKE ALL ON FUNCTION decklog.on_day FROM decklog_service",
    # Schemas apply what they lack of the template later; this one keeps their stored definitions true, so that it is no drift.
    """DO $rights$ DECLARE
         place name;
       BEGIN
         FOR place IN SELECT schema_name FROM decklog.relations WHERE to_regclass(format('%I.records', schema_name)) IS NOT NULL LOOP
           EXECUTE format('REVOKE INSERT ON %I.records FROM decklog_service', place);
           EXECUTE format('REVOKE ALL ON FUNCTION %I.store FROM decklog_service', place);
         END LOOP;
         UPDATE decklog.relations SET things = things - '{grant INSERT on records,grant EXECUTE on store}'::text[];
       END $rights$""",
)


async def forwards() -> MigrationManager:
    """Return the statements, to run in order."""
    return in_order(ID, DESCRIPTION, STATEMENTS)
