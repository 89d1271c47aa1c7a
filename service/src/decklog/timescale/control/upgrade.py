"""Running of migrations of the control tables.

Import this module only to run one: Piccolo's machinery takes half a second to import, and most starts have nothing to migrate.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from typing import Any

import structlog
from piccolo.apps.migrations.commands.forwards import ForwardsMigrationManager
from piccolo.conf.apps import ENVIRONMENT_VARIABLE

_log = structlog.get_logger("decklog.timescale")


class _Forwards(ForwardsMigrationManager):
    def __init__(self, app: str, package: str, names: list[str]) -> None:
        super().__init__(app)
        self._modules = [f"{package}.{name}" for name in names]

    def get_migration_modules(self, folder_path: str) -> dict[str, Any]:
        """Return modules of this package; Piccolo itself would put the folder on `sys.path`."""
        modules = [importlib.import_module(name) for name in self._modules]
        return {module.ID: module for module in modules}


async def run(app: str, package: str, names: list[str]) -> None:
    """Run those of these migrations that have not run yet.

    The caller is inside `piccolo_engine.on`, with the schema in `search_path`.

    Args:
        app: Name of Piccolo's app.
        package: Package of the migrations.
        names: Modules in it, in order.

    Raises:
        RuntimeError: A migration failed.
    """
    os.environ.setdefault(ENVIRONMENT_VARIABLE, "decklog.timescale.control.piccolo_conf")
    printed = io.StringIO()
    # Piccolo prints its progress.
    with contextlib.redirect_stdout(printed):
        result = await _Forwards(app, package, names).run()
    _log.debug("control tables migrated", output=printed.getvalue())
    if not result.success:
        raise RuntimeError(f"the control tables could not be migrated: {result.message}")
