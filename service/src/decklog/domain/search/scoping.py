"""A query within a scope: the records of the scope alone, compared by visible fields alone.

A condition on a hidden field would reveal its value by the answers to many guesses, so it is refused. The scope itself may compare
any field.
"""

from __future__ import annotations

from decklog.domain.errors import Code, DecklogError
from decklog.domain.records.visible import Visible
from decklog.domain.search import tree
from decklog.domain.search.fields import FIELDS, Kind
from decklog.domain.search.grammar import CLAUSES_MAX
from decklog.domain.search.query import Query

WORDS = tuple(field.path for field in FIELDS if field.kind is Kind.TEXT)
"""Fields whose words are found where some fields are hidden: an engine finds words in all texts of a record, or in one of these."""


def within(query: Query, scope: Query, visible: Visible | None) -> Query:
    """Return the query of the records that satisfy a query and a scope. `visible` is None where whole records are visible.

    Raises:
        DecklogError: `invalid-query` for a condition on a hidden field, and for too many conditions.
    """
    root = query.root if visible is None else _visible(query.root, visible)
    combined = tree.conjunction((scope.root, root))
    if sum(1 for _ in tree.leaves(combined)) > CLAUSES_MAX:
        raise _refused(f"This query has more than {CLAUSES_MAX} conditions, with those of the viewer token. Shorten it.")
    return Query(combined)


def require_visible(path: str, visible: Visible | None) -> None:
    """Raise `invalid-query` where the field at this path is hidden."""
    if visible is not None and not visible.shows(path):
        shown = ", ".join(visible.fields)
        raise _refused(f"The viewer token does not show the field {path[:80]!r}, so it finds nothing by it. It shows: {shown}.")


def _visible(node: tree.Node, visible: Visible) -> tree.Node:
    match node:
        case tree.And():
            return tree.conjunction(_visible(child, visible) for child in node.children)
        case tree.Or():
            return tree.disjunction(_visible(child, visible) for child in node.children)
        case tree.Not():
            return tree.negation(_visible(node.child, visible))
        case tree.Everything():
            return node
        case tree.Since() | tree.Until():
            require_visible("occurred_at", visible)
            return node
        case tree.Received():
            require_visible("received_at", visible)
            return node
        case tree.Seqs():
            require_visible("seq", visible)
            return node
        case tree.Phrase(words=words, field=""):
            return tree.disjunction(tree.Phrase(words, path) for path in _texts(visible))
        case tree.WordPattern(parts=parts, field=""):
            return tree.disjunction(tree.WordPattern(parts, path) for path in _texts(visible))
        case _:
            require_visible(node.field, visible)
            return node


def _texts(visible: Visible) -> list[str]:
    """Return the visible fields whose words are found. Raises `invalid-query` where there are none."""
    found = [path for path in WORDS if visible.shows(path)]
    if not found:
        raise _refused(
            f"Words are found in {', '.join(WORDS)}, and the viewer token shows none of them. Search a field: action:user.*"
        )
    return found


def _refused(why: str) -> DecklogError:
    return DecklogError(Code.INVALID_QUERY, why)
