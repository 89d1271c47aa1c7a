"""Modules that take long to import, loaded where they are first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


def transport() -> ModuleType:
    """Return the module that sends by HTTP."""
    from decklog_client import transport as module

    return module


def aio() -> ModuleType:
    """Return the module of the client for asyncio."""
    from decklog_client import aio as module

    return module


def readers() -> ModuleType:
    """Return the module of the readers."""
    from decklog_client import readers as module

    return module
