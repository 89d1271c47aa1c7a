"""A handler of `logging` that records what an application logs with a field `audit`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from decklog_client.errors import DecklogError

if TYPE_CHECKING:
    from decklog_client.client import Decklog
    from decklog_client.making import Severity

_SEVERITIES: tuple[tuple[int, Severity], ...] = (
    (logging.CRITICAL, "CRITICAL"),
    (logging.ERROR, "ERROR"),
    (logging.WARNING, "WARNING"),
)


class AuditHandler(logging.Handler):
    """Records the log lines that have `extra={"audit": {…}}`: `action`, and the fields of a record. Other lines are left alone.

    The message and the level become `message` and `severity`. An error of a record is handled as `logging` handles errors: it is
    shown, and not raised in the application. Use `Decklog.record` where an action must not happen without its record.
    """

    def __init__(self, audit: Decklog, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self._audit = audit

    def emit(self, record: logging.LogRecord) -> None:
        """Record a line."""
        fields = getattr(record, "audit", None)
        if not isinstance(fields, dict):
            return
        try:
            self._audit.record(**{"message": record.getMessage(), "severity": _severity(record.levelno), **fields})
        except (DecklogError, TypeError, ValueError):  # `logging` never raises in the code that logs
            self.handleError(record)


def _severity(level: int) -> Severity:
    return next((severity for least, severity in _SEVERITIES if level >= least), "INFO")
