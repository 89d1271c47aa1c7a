"""A client of Decklog: records are kept on disk until the server has stored them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from decklog_client import lazily
from decklog_client.client import Decklog, Statistics
from decklog_client.errors import (
    ClosedError,
    ConfigurationError,
    DecklogError,
    InvalidRecordError,
    NotStoredYetError,
    RecordTooLargeError,
    Refusal,
    RefusedError,
    ServerError,
    SpoolError,
    SpoolFullError,
)
from decklog_client.making import Fields
from decklog_client.options import Options
from decklog_client.records import Record
from decklog_client.scope import context

if TYPE_CHECKING:
    from decklog_client.aio import AsyncDecklog
    from decklog_client.readers import AsyncReader, Reader

__all__ = [
    "AsyncDecklog",
    "AsyncReader",
    "ClosedError",
    "ConfigurationError",
    "Decklog",
    "DecklogError",
    "Fields",
    "InvalidRecordError",
    "NotStoredYetError",
    "Options",
    "Reader",
    "Record",
    "RecordTooLargeError",
    "Refusal",
    "RefusedError",
    "ServerError",
    "SpoolError",
    "SpoolFullError",
    "Statistics",
    "context",
]

if not TYPE_CHECKING:  # for a type checker, it would make every name exist

    def __getattr__(name: str) -> Any:
        """Load what needs httpx or asyncio with its first use, so that the import of this package stays short."""
        if name == "AsyncDecklog":
            return lazily.aio().AsyncDecklog
        if name in ("AsyncReader", "Reader"):
            return getattr(lazily.readers(), name)
        raise AttributeError(f"module 'decklog_client' has no attribute {name!r}")
