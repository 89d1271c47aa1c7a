"""Add the parts of a tenant that were in order for its generation, so that a later difference counts as drift."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.columns.column_types import Array, Text

ID = "m0005_settled"
VERSION = "1.38.0"
DESCRIPTION = "parts that were in order"


async def forwards() -> MigrationManager:
    """Return the new column. Its default keeps processes of the previous version writing."""
    manager = MigrationManager(migration_id=ID, app_name="decklog", description=DESCRIPTION)
    manager.add_column(
        table_class_name="TenantRow",
        tablename="tenants",
        column_name="settled",
        db_column_name="settled",
        column_class_name="Array",
        column_class=Array,
        params={"base_column": Text(), "default": list},
        schema="decklog",
    )
    return manager
