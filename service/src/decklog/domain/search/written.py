"""A tree as text of the query language: one text for each tree, and reading it gives the same tree."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from decklog.domain.search import lexemes, patterns, tree

_PLAIN = re.compile(r"[\w./@+-]+", re.ASCII)
_PLAIN_WORD = re.compile(r"[\w]+")
_RESERVED = frozenset({"and", "or", "not", "to"})


def written(node: tree.Node) -> str:
    """Return a tree as text; empty for every record."""
    match node:
        case tree.Everything():
            return ""
        case tree.And():
            return " AND ".join(_inner(child, tree.Or) for child in node.children)
        case tree.Or():
            return " OR ".join(_inner(child, tree.And) for child in node.children)
        case tree.Not():
            return f"NOT {_inner(node.child, tree.And | tree.Or)}"
        case tree.Since() | tree.Until():
            return _bound(node)
        case tree.Received():
            return f"received_at:{'<' if node.before else '>='}{node.ago or rfc3339(node.at)}"
        case tree.Seqs():
            return f"seq:{_seqs(node)}"
        case tree.Phrase():
            return _named(node.field, _phrase(node.words))
        case tree.WordPattern():
            return _named(node.field, patterns.written(node.parts, str))
        case tree.Exists():
            return f"exists:{lexemes.escaped(node.field)}"
        case tree.Equal():
            return _named(node.field, _value(node.value))
        case tree.Pattern():
            return _named(node.field, patterns.written(node.parts, lexemes.escaped))
        case tree.Network():
            return _named(node.field, node.network)
        case tree.Numbers():
            return _named(node.field, _numbers(node))


def _inner(node: tree.Node, grouped: object) -> str:
    text = written(node)
    return f"({text})" if isinstance(node, grouped) else text  # type: ignore[arg-type]


def _named(field: str, text: str) -> str:
    return f"{lexemes.escaped(field)}:{text}" if field else text


def _value(value: str) -> str:
    plain = _PLAIN.fullmatch(value) and value.lower() not in _RESERVED
    return value if plain else lexemes.quoted(value)


def _phrase(words: tuple[str, ...]) -> str:
    plain = len(words) == 1 and _PLAIN_WORD.fullmatch(words[0]) and words[0] not in _RESERVED
    return words[0] if plain else lexemes.quoted(" ".join(words))


def rfc3339(moment: datetime) -> str:
    """Return a time in UTC with as many digits as it needs."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _bound(node: tree.Since | tree.Until) -> str:
    since = isinstance(node, tree.Since)
    if node.ago:
        return f"{'since' if since else 'until'}:{node.ago}"
    return f"occurred_at:{'>=' if since else '<'}{rfc3339(node.at)}"


def _seqs(node: tree.Seqs) -> str:
    first, end = node.first, node.end
    if end == tree.Seqs().end:
        return f">={first}"
    if end - first == 1:
        return str(first)
    return f"[{first} TO {end - 1}]" if first else f"<{end}"


def _numbers(node: tree.Numbers) -> str:
    if not node.high:
        return f">{'' if node.above else '='}{node.low}"
    if not node.low:
        return f"<{'' if node.below else '='}{node.high}"
    return f"{'{' if node.above else '['}{node.low} TO {node.high}{'}' if node.below else ']'}"
