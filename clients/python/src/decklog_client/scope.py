"""Fields that all records of a task or a thread share, kept in a context variable."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

_NONE: Mapping[str, Any] = {}
_fields: ContextVar[Mapping[str, Any]] = ContextVar("decklog_client_fields", default=_NONE)


def merged(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of both; the inner ones precede, and `metadata` is merged by its members. None is no value."""
    found = {**outer, **{name: value for name, value in inner.items() if value is not None}}
    both = outer.get("metadata"), inner.get("metadata")
    if isinstance(both[0], Mapping) and isinstance(both[1], Mapping):
        found["metadata"] = {**both[0], **both[1]}
    if callable(inner.get("actor")) and outer.get("actor") is not None:
        found["actor"] = _either(inner["actor"], outer["actor"])
    return found


def resolved(actor: Any) -> Any:
    """Return an actor, or what a function returns as one."""
    return actor() if callable(actor) else actor


def _either(inner: Any, outer: Any) -> Callable[[], Any]:
    """Return a function for the actor: the inner one, or the outer one where the inner function knows none."""

    def actor() -> Any:
        found = resolved(inner)
        return resolved(outer) if found is None else found

    return actor


def current() -> Mapping[str, Any]:
    """Return the fields of the context."""
    return _fields.get()


@contextlib.contextmanager
def context(**fields: Any) -> Iterator[None]:
    """Add fields to all records that are made inside of the block, by this thread or task and the tasks that it starts.

    Blocks nest: an inner field precedes an outer one, and a field of `record` precedes both.

    Args:
        fields: Arguments of `record`, such as `actor`, `source`, `session_id`, `correlation_id` and `metadata`.
    """
    token = _fields.set(merged(_fields.get(), fields))
    try:
        yield
    finally:
        _fields.reset(token)
