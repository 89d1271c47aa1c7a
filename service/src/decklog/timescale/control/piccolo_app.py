"""What Piccolo has to know of our control tables: where their classes and their migrations are."""

from pathlib import Path

from piccolo.conf.apps import AppConfig

from decklog.timescale.control.tables import ApiKeyRow, IndexRow, RegistryVersion, TenantRow

APP_CONFIG = AppConfig(
    app_name="decklog",
    migrations_folder_path=str(Path(__file__).parent / "migrations"),
    table_classes=[TenantRow, ApiKeyRow, RegistryVersion, IndexRow],
)
