"""A client of Decklog: records are kept on disk until the server has stored them."""

from __future__ import annotations

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
from decklog_client.options import Options
from decklog_client.scope import context

__all__ = [
    "ClosedError",
    "ConfigurationError",
    "Decklog",
    "DecklogError",
    "InvalidRecordError",
    "NotStoredYetError",
    "Options",
    "RecordTooLargeError",
    "Refusal",
    "RefusedError",
    "ServerError",
    "SpoolError",
    "SpoolFullError",
    "Statistics",
    "context",
]
