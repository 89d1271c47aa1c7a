"""How log lines look: JSON for machines, text for people, one line an event, on standard error, never a secret."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_KEY = re.compile(r"dlk_[A-Za-z0-9]+_[A-Za-z0-9_-]+")
_EXTRA = ("tenant", "generation")
"""What is taken over from lines of the standard library's logging beside their text."""
_PASSWORD = re.compile(r"(://[^:/@\s]+:)[^@/\s]+@")


def without_secrets(text: str) -> str:
    """The text with API keys and passwords in URLs blotted out, whatever library wrote it."""
    return _PASSWORD.sub(r"\1***@", _KEY.sub("dlk_***", text))


def _blot(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = without_secrets(value)
    return event


def configure(form: str) -> None:
    """`form` is json or text. Everything that uses the standard library's logging comes out the same way."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, _blot, renderer],
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
                _blot,
                renderer,
            ],
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(allow=_EXTRA)],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
