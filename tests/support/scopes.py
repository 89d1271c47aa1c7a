"""Scopes of viewer tokens for tests, and what they show of a record, written down a second time over its JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from decklog.domain.identity.access import Principal, Role
from decklog.domain.identity.scope import Scope
from decklog.domain.search import syntax, tree
from decklog.domain.search.query import Query
from decklog.domain.tenant import Tenant

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
FIELDS = (
    *("occurred_at", "action", "actor", "resource", "related", "severity", "outcome", "message", "source", "metadata"),
    *("session_id", "correlation_id", "id", "before", "after", "masked", "recorded_by", "received_at"),
    *("actor.id", "actor.name", "actor.type", "resource.name", "source.ip", "source.user_agent", "recorded_by.id"),
    *("metadata.a", "metadata.a.b", "metadata.b", "metadata.b.c", "before.a", "after.a.b", "after.k", "metadata.key"),
)
"""Fields that a scope may show, without those that say how many other records there are."""
WORDS = ("actor.name", "resource.name", "source.user_agent", "message")


def fields_of_scopes() -> st.SearchStrategy[tuple[str, ...]]:
    """Fields of a scope: most of them, or few."""
    few = st.lists(st.sampled_from(FIELDS), min_size=1, max_size=6, unique=True)
    many = st.lists(st.sampled_from(FIELDS), max_size=6, unique=True).map(
        lambda out: [path for path in FIELDS if path not in out]
    )
    return st.one_of(few, many, many).map(tuple)


def viewer(tenant: Tenant, query: Query | str, *fields: str, subject: str = "customer-1") -> Principal:
    """The principal of a viewer token."""
    read = Query(syntax.read(query, NOW)) if isinstance(query, str) else query
    scope = Scope("token-1", "key-1", read, fields)
    return Principal(kind="viewer", subject=subject, role=Role.VIEWER, tenant=tenant, scope=scope)


def seen(value: Any, fields: tuple[str, ...], path: str = "") -> Any:
    """Return the part of a JSON value at a path that these fields show; None where they show nothing of it."""
    if path and any(path == field or path.startswith(f"{field}.") for field in fields):
        return value
    if isinstance(value, dict):
        found = {key: seen(item, fields, f"{path}.{key}" if path else key) for key, item in value.items()}
        nulls = {key for key, item in value.items() if item is None and shows(fields, f"{path}.{key}" if path else key)}
        return {key: item for key, item in found.items() if item is not None or key in nulls} or None
    if isinstance(value, list):
        return [shown for item in value if (shown := seen(item, fields, path)) is not None] or None
    return None


def shows(fields: tuple[str, ...], path: str) -> bool:
    """Return whether these fields show the value at a path."""
    return any(path == field or path.startswith(f"{field}.") for field in fields)


def may_ask(node: tree.Node, fields: tuple[str, ...]) -> bool:
    """Return whether a query compares visible fields alone."""
    match node:
        case tree.And() | tree.Or():
            return all(may_ask(child, fields) for child in node.children)
        case tree.Not():
            return may_ask(node.child, fields)
        case tree.Everything():
            return True
        case tree.Since() | tree.Until():
            return shows(fields, "occurred_at")
        case tree.Received():
            return shows(fields, "received_at")
        case tree.Seqs():
            return shows(fields, "seq")
        case tree.Phrase(field="") | tree.WordPattern(field=""):
            return any(shows(fields, path) for path in WORDS)
        case _:
            return shows(fields, node.field)


def only_texts(record: dict[str, Any]) -> dict[str, Any]:
    """The texts of a record whose words a viewer finds."""
    found: dict[str, Any] = {"occurred_at": record.get("occurred_at")}
    for path in WORDS:
        root, _, name = path.partition(".")
        if name and isinstance(record.get(root), dict) and name in record[root]:
            found.setdefault(root, {})[name] = record[root][name]
        elif not name and root in record:
            found[root] = record[root]
    return found
