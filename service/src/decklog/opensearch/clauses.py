"""Translation of the tree of a query to clauses of an index.

The values are those of `domain/search/terms.py`, in the form in which an index holds them. It holds values of more than
`terms.KEYWORD_CHARS_MAX` characters by their beginning and a hash. Patterns cannot decide about those, so a translation finds a little
more than the query where such values exist: the caller compares what it finds, and counts only where `undecided` finds nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from decklog.domain.log import microseconds
from decklog.domain.search import decided, patterns, tree
from decklog.domain.search.fields import Kind
from decklog.domain.search.names import field_at, is_root
from decklog.domain.search.terms import KEYWORD_CHARS_MAX, keyword, leaf, ordered_text, path_term

Clause: TypeAlias = dict[str, Any]

_IPV4_AS_IPV6 = ipaddress.IPv6Network("::ffff:0:0/96")
_WORDS, _LEAVES, _NUMBERS, _PATHS = "words", "leaves", "numbers", "paths"
"""Fields of a document that belong to no single field of a record."""
REFUSED = "index_refused"
"""Field with the names of the fields that an index refused of a document, and name of the clause that finds them."""
_CUT = "\0"
"""Character that the forms of long values have, and no other value."""
_AFTER_NUMBERS = "3"
"""Greater than the first character of every number."""
_WILDCARDS = str.maketrans({"*": r"\*", "?": r"\?", "\\": r"\\"})


def term(name: str, value: str | int) -> Clause:
    """Return the clause of one value of a field."""
    return {"term": {name: {"value": value}}}


def _all(clauses: list[Clause]) -> Clause:
    return clauses[0] if len(clauses) == 1 else {"bool": {"filter": clauses}}


def _some(clauses: list[Clause]) -> Clause:
    return clauses[0] if len(clauses) == 1 else {"bool": {"should": clauses, "minimum_should_match": 1}}


def _without(clause: Clause) -> Clause:
    return {"bool": {"must_not": [clause]}}


def clauses(nodes: Iterable[tree.Node], *, more: bool = True) -> list[Clause]:
    """Return the clauses of nodes, all of which must hold.

    Where an index cannot decide, they find records that may match with `more`, and leave them out without it.
    """
    bounds: dict[str, int] = {}
    found: list[Clause] = []
    for node in nodes:
        if isinstance(node, tree.Since):
            bounds["gte"] = max(bounds.get("gte", microseconds(node.at)), microseconds(node.at))
        elif isinstance(node, tree.Until):
            bounds["lt"] = min(bounds.get("lt", microseconds(node.at)), microseconds(node.at))
        else:
            found.append(_clause(node, more=more))
    return [*found, {"range": {"occurred_at": bounds}}] if bounds else found


def _clause(node: tree.Node, *, more: bool) -> Clause:
    match node:
        case tree.And():
            return _all(clauses(node.children, more=more))
        case tree.Or():
            return _any(node, more=more)
        case tree.Not():
            return _without(_clause(node.child, more=not more))
        case tree.Since() | tree.Until():
            return _all(clauses([node]))
        case tree.Pattern():
            return _pattern(node, more=more)
        case _:
            return _leaf(node)


def _any(node: tree.Or, *, more: bool) -> Clause:
    """Return the clause of alternatives; values of one field become one clause."""
    values: dict[str, list[str]] = {}
    others: list[Clause] = []
    for child in node.children:
        if isinstance(child, tree.Equal):
            name, value = _indexed(child)
            values.setdefault(name, []).append(value)
        else:
            others.append(_clause(child, more=more))
    alike = [term(name, found[0]) if len(found) == 1 else {"terms": {name: found}} for name, found in values.items()]
    return _some([*alike, *others])


def _indexed(node: tree.Equal) -> tuple[str, str]:
    """Return the field of a document that holds a value, and the form in which it does."""
    field = field_at(node.field)
    if field.kind is Kind.LEAVES:
        return _LEAVES, keyword(leaf(node.field, node.value))
    return field.indexed, keyword(node.value)


def _leaf(node: tree.Leaf) -> Clause:
    match node:
        case tree.Everything():
            return {"match_all": {}}
        case tree.Equal():
            return term(*_indexed(node))
        case tree.Phrase():
            return _phrase(_texts(node.field), node.words)
        case tree.WordPattern():
            return _wildcard(_texts(node.field), "", node.parts)
        case tree.Exists():
            return _exists(node.field)
        case tree.Network():
            return _in_network(field_at(node.field).indexed, node.network)
        case tree.Numbers():
            return _numbers(node)
        case tree.Seqs():
            return {"range": {"seq": {"gte": node.first, "lt": node.end}}}
        case _:
            raise TypeError(f"no leaf: {node!r}")


def _texts(field: str) -> str:
    return field_at(field).indexed if field else _WORDS


def _phrase(name: str, words: Sequence[str]) -> Clause:
    if len(words) == 1:
        return term(name, words[0])
    return {"match_phrase": {name: {"query": " ".join(words), "analyzer": "whitespace"}}}


def _wildcard(name: str, start: str, parts: tree.Parts) -> Clause:
    """Return the clause of values that begin with `start` and then have this pattern."""
    if patterns.is_prefix(parts):
        return {"prefix": {name: {"value": start + patterns.beginning(parts)}}}
    return {"wildcard": {name: {"value": start.translate(_WILDCARDS) + _written(parts)}}}


def _written(parts: tree.Parts) -> str:
    return patterns.written(parts, lambda literal: literal.translate(_WILDCARDS))


def _pattern(node: tree.Pattern, *, more: bool) -> Clause:
    found = _wildcard(*_place(node), node.parts)
    if decided.by_index(node):
        return found
    long = _long(node)
    return _some([found, long]) if more else {"bool": {"filter": [found], "must_not": [long]}}


def _place(node: tree.Pattern) -> tuple[str, str]:
    """Return the field of a document that holds the values of a pattern, and what they begin with there."""
    field = field_at(node.field)
    return (_LEAVES, leaf(node.field, "")) if field.kind is Kind.LEAVES else (field.indexed, "")


def _long(node: tree.Pattern) -> Clause:
    """Return the clause of values too long to be compared with a pattern, whose beginning does not exclude it."""
    name, start = _place(node)
    beginning = (start + patterns.beginning(node.parts))[:KEYWORD_CHARS_MAX].translate(_WILDCARDS)
    return {"wildcard": {name: {"value": f"{beginning}*{_CUT}*"}}}


def undecided(node: tree.Node, counted: Iterable[str] = ()) -> Clause | None:
    """Return the clause of records about which the index cannot decide; None where there can be none.

    `counted` are fields of documents by which records are grouped.
    """
    doubts = [_long(found) for found in tree.leaves(node) if isinstance(found, tree.Pattern) and not decided.by_index(found)]
    if fields := {*needed(node), *counted}:
        doubts.append(refused(fields))
    return _some(doubts) if doubts else None


def refused(fields: Iterable[str]) -> Clause:
    """Return the clause of documents that lack one of these fields because the index refused it."""
    return {"terms": {REFUSED: sorted(fields), "_name": REFUSED}}


def needed(node: tree.Node) -> set[str]:
    """Return the fields of documents that decide about a node, and that an index may refuse."""
    return {name for leaf in tree.leaves(node) if (name := _needed(leaf))}


def _needed(node: tree.Leaf) -> str:
    match node:
        case tree.Everything() | tree.Since() | tree.Until() | tree.Received() | tree.Seqs():
            return ""
        case tree.Phrase() | tree.WordPattern():
            return _texts(node.field)
        case tree.Exists() if is_root(node.field) or field_at(node.field).kind is Kind.LEAVES:
            return _PATHS
        case tree.Numbers():
            return _NUMBERS
        case _:
            return field_at(node.field).indexed


def with_refused(nodes: Sequence[tree.Node]) -> list[Clause]:
    """Return the clauses of nodes, all of which must hold, and of records about which they are in doubt for a refused field."""
    sure = [node for node in nodes if not needed(node)]
    others = [node for node in nodes if needed(node)]
    if not others:
        return clauses(sure)
    fields = set().union(*map(needed, others))
    return [*clauses(sure), _some([_all(clauses(others)), refused(fields)])]


def _exists(path: str) -> Clause:
    if is_root(path) or field_at(path).kind is Kind.LEAVES:
        return term(_PATHS, path_term(path))
    return {"exists": {"field": field_at(path).indexed}}


def _in_network(name: str, network: str) -> Clause:
    """Return the clause of addresses within a network in CIDR notation.

    An index stores IPv4 addresses as mapped IPv6 addresses, so an IPv6 network that contains those must exclude them.
    """
    inside = term(name, network)
    parsed = ipaddress.ip_network(network)
    if isinstance(parsed, ipaddress.IPv6Network) and _IPV4_AS_IPV6.subnet_of(parsed):
        return {"bool": {"filter": [inside], "must_not": [term(name, "0.0.0.0/0")]}}
    return inside


def _numbers(node: tree.Numbers) -> Clause:
    start = leaf(node.field, "")
    low = {"gt" if node.above else "gte": start + (ordered_text(node.low) if node.low else "")}
    high = {"lt" if node.below else "lte": start + ordered_text(node.high)} if node.high else {"lt": start + _AFTER_NUMBERS}
    return {"range": {_NUMBERS: {**low, **high}}}
