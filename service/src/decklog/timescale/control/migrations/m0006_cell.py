"""Add the cell of each tenant. Existing tenants are in the default cell."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.columns.column_types import Text

ID = "m0006_cell"
VERSION = "1.38.0"
DESCRIPTION = "cells"


async def forwards() -> MigrationManager:
    """Return the new column. Its default keeps processes of the previous version writing."""
    manager = MigrationManager(migration_id=ID, app_name="decklog", description=DESCRIPTION)
    manager.add_column(
        table_class_name="TenantRow",
        tablename="tenants",
        column_name="cell",
        db_column_name="cell",
        column_class_name="Text",
        column_class=Text,
        params={"default": "default"},
        schema="decklog",
    )
    return manager
