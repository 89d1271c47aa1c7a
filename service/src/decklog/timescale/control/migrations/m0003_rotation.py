"""Add the state of key rotation to tenants: a counter of issued revisions, and the last request that was fulfilled."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.columns.base import Column
from piccolo.columns.column_types import BigInt, Text

ID = "m0003_rotation"
VERSION = "1.38.0"
DESCRIPTION = "rotation of keys"

COLUMNS: dict[str, tuple[type[Column], dict[str, object]]] = {
    "keys_revision": (BigInt, {"default": 0}),
    "keys_request": (Text, {"default": ""}),
}


async def forwards() -> MigrationManager:
    """Return the new columns. Their defaults keep processes of the previous version writing."""
    manager = MigrationManager(migration_id=ID, app_name="decklog", description=DESCRIPTION)
    for name, (kind, parameters) in COLUMNS.items():
        manager.add_column(
            table_class_name="TenantRow",
            tablename="tenants",
            column_name=name,
            db_column_name=name,
            column_class_name=kind.__name__,
            column_class=kind,
            params=parameters,
            schema="decklog",
        )
    return manager
