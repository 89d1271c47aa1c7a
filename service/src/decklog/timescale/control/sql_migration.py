"""A migration that consists of SQL statements: what every such module of `migrations` returns to Piccolo."""

from __future__ import annotations

from collections.abc import Sequence

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from decklog.timescale.control.piccolo_engine import ENGINE


def in_order(migration_id: str, description: str, statements: Sequence[str]) -> MigrationManager:
    """Return the migration that runs these statements in order."""
    manager = MigrationManager(migration_id=migration_id, app_name="decklog", description=description)

    async def run() -> None:
        for statement in statements:
            await ENGINE.run_ddl(statement)

    manager.add_raw(run)
    return manager
