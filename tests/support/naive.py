"""The meaning of a query tree, written down a second time over the JSON of a record, as plainly as it can be.

Only the tokenizer, the text of a scalar and the reading of an address are shared with the code that is tested.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

from decklog.domain.search import tree
from decklog.domain.search.terms import parse_ip, scalar
from decklog.domain.search.words import tokens

_NO_TEXTS = ("occurred_at", "severity", "outcome", "seq", "received_at")
_TREES = ("metadata", "before", "after")


def scalars(value: Any) -> Iterator[Any]:
    """Every scalar of a JSON value but null."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from scalars(item)
    elif value is not None:
        yield value


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every scalar of a JSON value but null, with its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, path)
    elif value is not None:
        yield path, value


def texts(record: dict[str, Any], field: str) -> list[tuple[str, ...]]:
    """The words of each text of a record, or of one field."""
    if field:
        return [tokens(value) for value in values(record, field)]
    members = [value for name, value in record.items() if name not in _NO_TEXTS]
    return [tokens(scalar(value)) for value in scalars(members) if not isinstance(value, bool)]


def values(record: dict[str, Any], field: str) -> list[str]:
    """The values of a field, as texts."""
    root, _, name = field.partition(".")
    if root in _TREES:
        return [scalar(value) for path, value in leaves(record.get(root), root) if path == field]
    found = record.get(root)
    items = found if isinstance(found, list) else [found]
    if name:
        items = [item.get(name) for item in items if item is not None]
    return [item for item in items if item is not None]


def fits(parts: tree.Parts, text: str) -> bool:
    """Whether a text has a pattern: `reached` are the places in the text up to which the pattern so far fits."""
    reached = {0}
    for part in parts:
        if part is tree.Wild.MANY:
            reached = set(range(min(reached), len(text) + 1)) if reached else set()
        elif part is tree.Wild.ONE:
            reached = {at + 1 for at in reached if at < len(text)}
        else:
            reached = {at + len(part) for at in reached if text.startswith(part, at)}
    return len(text) in reached


def holds(words: tuple[str, ...], text: tuple[str, ...]) -> bool:
    """Whether these words stand next to each other in a text."""
    return any(text[at : at + len(words)] == words for at in range(len(text)))


def _in_network(address: str, network: str) -> bool:
    found = parse_ip(address)
    return found is not None and ipaddress.ip_address(found) in ipaddress.ip_network(network)


def _exists(record: dict[str, Any], path: str) -> bool:
    root = path.partition(".")[0]
    if root in _TREES:
        return path in _paths(record.get(root), root)
    if path == "source.ip":
        return any(parse_ip(value) is not None for value in values(record, path))
    return values(record, path) != []


def _paths(value: Any, path: str) -> Iterator[str]:
    """The path of every value but null."""
    if isinstance(value, list):
        for item in value:
            yield from _paths(item, path)
    if value is not None:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, f"{path}.{key}")


def _between(node: tree.Numbers, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    number = Decimal(scalar(value))
    above = not node.low or number > Decimal(node.low) or (number == Decimal(node.low) and not node.above)
    return above and (not node.high or number < Decimal(node.high) or (number == Decimal(node.high) and not node.below))


def _in_bounds(node: tree.Since | tree.Until | tree.Received | tree.Seqs, record: dict[str, Any]) -> bool:
    match node:
        case tree.Since():
            return datetime.fromisoformat(record["occurred_at"]) >= node.at
        case tree.Until():
            return datetime.fromisoformat(record["occurred_at"]) < node.at
        case tree.Received():
            received: datetime = record["received_at"]
            return received < node.at if node.before else received >= node.at
        case tree.Seqs():
            return bool(node.first <= record["seq"] < node.end)


def satisfies(node: tree.Node, record: dict[str, Any]) -> bool:
    """Whether a record satisfies a tree."""
    match node:
        case tree.Everything():
            return True
        case tree.And():
            return all(satisfies(child, record) for child in node.children)
        case tree.Or():
            return any(satisfies(child, record) for child in node.children)
        case tree.Not():
            return not satisfies(node.child, record)
        case tree.Since() | tree.Until() | tree.Received() | tree.Seqs():
            return _in_bounds(node, record)
        case tree.Equal():
            return node.value in values(record, node.field)
        case tree.Pattern():
            return any(fits(node.parts, value) for value in values(record, node.field))
        case tree.Exists():
            return _exists(record, node.field)
        case tree.Network():
            return any(_in_network(value, node.network) for value in values(record, node.field))
        case tree.Numbers():
            root = node.field.partition(".")[0]
            found = [value for path, value in leaves(record.get(root), root) if path == node.field]
            return any(_between(node, value) for value in found)
        case tree.Phrase():
            return any(holds(node.words, text) for text in texts(record, node.field))
        case tree.WordPattern():
            return any(fits(node.parts, word) for text in texts(record, node.field) for word in text)
