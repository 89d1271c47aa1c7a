"""Modules that take long to import, loaded where they are first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


def transport() -> ModuleType:
    """Return the module of HTTP."""
    from decklog_client import transport as module

    return module
