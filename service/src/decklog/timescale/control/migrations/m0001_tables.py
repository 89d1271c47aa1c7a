"""Create the control tables: tenants, API keys, the registry's version, and the uuids of indexes."""

from typing import Any

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.columns.base import Column, OnDelete
from piccolo.columns.column_types import (
    JSONB,
    Array,
    BigInt,
    BigSerial,
    Bytea,
    ForeignKey,
    Integer,
    SmallInt,
    Text,
    Timestamptz,
)
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.table import Table

ID = "m0001_tables"
VERSION = "1.38.0"
DESCRIPTION = "control tables"
SCHEMA = "decklog"


class TenantRow(Table, tablename="tenants", schema=SCHEMA):
    """Target of the foreign key of API keys."""

    id = BigSerial(primary_key=True)


_OPTIONAL = {"null": True, "default": None}

TABLES: dict[tuple[str, str], dict[str, tuple[type[Column], dict[str, Any]]]] = {
    ("TenantRow", "tenants"): {
        "id": (BigSerial, {"primary_key": True}),
        "name": (Text, {"unique": True}),
        "uid": (Text, {}),
        "former_uids": (Array, {"base_column": Text(), "default": list}),
        "isolation": (Text, {}),
        "schema": (Text, {}),
        "index": (Text, {}),
        "queue": (Text, {}),
        "retention_days": (Integer, {}),
        "state": (SmallInt, {}),
        "display_name": (Text, {}),
        "spec": (JSONB, {}),
        "generation": (BigInt, {}),
        "conditions": (JSONB, {"default": "[]"}),
        "created_at": (Timestamptz, {"default": TimestamptzNow()}),
        "deleted_at": (Timestamptz, _OPTIONAL),
    },
    ("ApiKeyRow", "api_keys"): {
        "id": (Text, {"primary_key": True}),
        "tenant_id": (ForeignKey, {"references": TenantRow, "on_delete": OnDelete.restrict, **_OPTIONAL, "index": True}),
        "role": (Text, {}),
        "hash": (Bytea, {"unique": True}),
        "created_at": (Timestamptz, {"default": TimestamptzNow()}),
        "expires_at": (Timestamptz, _OPTIONAL),
        "revoked_at": (Timestamptz, _OPTIONAL),
    },
    ("RegistryVersion", "registry_version"): {
        "id": (SmallInt, {"primary_key": True, "default": 1}),
        "version": (BigInt, {"default": 1}),
    },
    ("IndexRow", "search_indices"): {
        "name": (Text, {"primary_key": True}),
        "uuid": (Text, _OPTIONAL),
    },
}


async def forwards() -> MigrationManager:
    """Return the creation of the tables."""
    manager = MigrationManager(migration_id=ID, app_name="decklog", description=DESCRIPTION)
    for (class_name, tablename), columns in TABLES.items():
        manager.add_table(class_name=class_name, tablename=tablename, schema=SCHEMA, columns=None)
        for name, (kind, parameters) in columns.items():
            manager.add_column(
                table_class_name=class_name,
                tablename=tablename,
                column_name=name,
                db_column_name=name,
                column_class_name=kind.__name__,
                column_class=kind,
                params=parameters,
                schema=SCHEMA,
            )
    return manager
