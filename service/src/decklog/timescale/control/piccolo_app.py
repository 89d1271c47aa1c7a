"""Piccolo's configuration of the control tables: their classes and migrations."""

from pathlib import Path

from piccolo.conf.apps import AppConfig

from decklog.timescale.control.tables import ApiKeyRow, IndexRow, RegistryVersion, TenantRow

APP_CONFIG = AppConfig(
    app_name="decklog",
    migrations_folder_path=str(Path(__file__).parent / "migrations"),
    table_classes=[TenantRow, ApiKeyRow, RegistryVersion, IndexRow],
)
