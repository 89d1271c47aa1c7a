"""What columns of a record, and an index, decide by themselves, without the content of the record."""

from __future__ import annotations

from decklog.domain.search import patterns, tree
from decklog.domain.search.fields import CONTENT, Kind
from decklog.domain.search.names import field_at, is_root
from decklog.domain.search.terms import COLUMN_CHARS_MAX, KEYWORD_CHARS_MAX, column_decides, leaf


class UndecidedError(Exception):
    """An index cannot decide which records match, so the records must be compared."""


def by_columns(node: tree.Node) -> bool:
    """Return whether the columns of a record decide whether it satisfies a tree."""
    match node:
        case tree.And() | tree.Or():
            return all(map(by_columns, node.children))
        case tree.Not():
            return by_columns(node.child)
        case tree.Everything() | tree.Since() | tree.Until() | tree.Received() | tree.Seqs() | tree.Network():
            return True
        case tree.Phrase() | tree.WordPattern() | tree.Numbers():
            return False
        case _:
            return _value_by_columns(node)


def _value_by_columns(node: tree.Equal | tree.Pattern | tree.Exists) -> bool:
    if is_root(node.field) or (field := field_at(node.field)).column == CONTENT:
        return False
    match node:
        case tree.Equal():
            return field.kind is not Kind.KEYWORD or column_decides(node.value)
        case tree.Pattern():
            return patterns.is_prefix(node.parts) and len(patterns.beginning(node.parts)) <= COLUMN_CHARS_MAX
        case tree.Exists():
            return True


def by_index(node: tree.Leaf) -> bool:
    """Return whether an index decides about a leaf, also for long values, which it holds by their beginning and a hash."""
    if not isinstance(node, tree.Pattern) or (kind := field_at(node.field).kind) is Kind.KEYWORD:
        return True  # no field of one value has values that long
    start = leaf(node.field, "") if kind is Kind.LEAVES else ""
    return patterns.is_prefix(node.parts) and len(start) + len(patterns.beginning(node.parts)) <= KEYWORD_CHARS_MAX
