"""Runs the migrations of the control tables. Apart from `control.py`, as Piccolo's machinery for it takes half a second
to import, and most starts have nothing to migrate."""

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
        """As modules of our package: Piccolo would put the folder on `sys.path`."""
        modules = [importlib.import_module(name) for name in self._modules]
        return {module.ID: module for module in modules}


async def run(app: str, package: str, names: list[str]) -> None:
    """Run those of these migrations that were not run yet; inside `piccolo_engine.on`, with the schema in `search_path`."""
    os.environ.setdefault(ENVIRONMENT_VARIABLE, "decklog.timescale.control.piccolo_conf")
    told = io.StringIO()
    # Piccolo tells its progress to people at a terminal.
    with contextlib.redirect_stdout(told):
        result = await _Forwards(app, package, names).run()
    _log.debug("control tables migrated", told=told.getvalue())
    if not result.success:
        raise RuntimeError(f"the control tables could not be migrated: {result.message}")
