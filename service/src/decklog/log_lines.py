"""The format of log lines: one line per event on standard error, as JSON or text, with secrets removed."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_KEY = re.compile(r"dlk_[A-Za-z0-9]+_[A-Za-z0-9_-]+")
_EXTRA = ("tenant", "generation")
"""Attributes of the standard library's log records that become fields of the line."""
_PASSWORD = re.compile(r"(://[^:/@\s]+:)[^@/\s]+@")


def without_secrets(text: str) -> str:
    """Return the text with API keys, and passwords in URLs, replaced by asterisks."""
    return _PASSWORD.sub(r"\1***@", _KEY.sub("dlk_***", text))


def _redact(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = without_secrets(value)
    return event


def configure(form: str) -> None:
    """Configure structlog and the standard library's logging alike, for this process. `form` is `json` or `text`."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, _redact, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _redact,
                renderer,
            ],
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(allow=_EXTRA)],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
