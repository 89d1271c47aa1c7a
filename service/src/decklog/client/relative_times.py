"""Queries whose times do not depend on when they are asked, so that the second half of a transfer asks what the first half asked."""

from __future__ import annotations

from datetime import datetime

import msgspec

from decklog.domain.errors import DecklogError
from decklog.domain.search import syntax, tree
from decklog.domain.search.written import written


def settled(query: str, now: datetime) -> str:
    """Return the query with the times that its relative times mean now. A query without any, or that is not understood, stays as it is."""
    try:
        found = syntax.read(query, now) if query else tree.Everything()
    except DecklogError:
        return query  # the server refuses it, or knows more than this version
    absolute = _absolute(found)
    return query if absolute == found else written(absolute)


def _absolute(node: tree.Node) -> tree.Node:
    match node:
        case tree.And() | tree.Or():
            return msgspec.structs.replace(node, children=tuple(map(_absolute, node.children)))
        case tree.Not():
            return tree.Not(_absolute(node.child))
        case tree.Since() | tree.Until() | tree.Received() if node.ago:
            return msgspec.structs.replace(node, ago="")
        case _:
            return node
