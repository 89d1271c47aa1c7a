"""Evaluation of a tree in memory, over the terms of one record: what OpenSearch and SQL must agree with."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import TypeAlias

from decklog.domain.search import patterns, tree
from decklog.domain.search.fields import Field, Kind
from decklog.domain.search.names import field_at, is_root
from decklog.domain.search.terms import Terms, leaf, ordered_text, path_term
from decklog.domain.search.words import tokens

Satisfied: TypeAlias = Callable[[Terms], bool]


def compiled(node: tree.Node) -> Satisfied:
    """Return the function that decides whether a record with these terms satisfies a tree."""
    match node:
        case tree.And():
            return _all([compiled(child) for child in node.children])
        case tree.Or():
            return _any([compiled(child) for child in node.children])
        case tree.Not():
            child = compiled(node.child)
            return lambda terms: not child(terms)
        case tree.Everything():
            return lambda terms: True
        case tree.Since():
            return lambda terms, at=node.at: terms.occurred_at >= at  # type: ignore[misc]
        case tree.Until():
            return lambda terms, at=node.at: terms.occurred_at < at  # type: ignore[misc]
        case _:
            return _leaf(node)


def _all(children: list[Satisfied]) -> Satisfied:
    return lambda terms: all(child(terms) for child in children)


def _any(children: list[Satisfied]) -> Satisfied:
    return lambda terms: any(child(terms) for child in children)


def _leaf(node: tree.Leaf) -> Satisfied:
    match node:
        case tree.Phrase():
            return _words(node.field, _phrase(node.words))
        case tree.WordPattern():
            fits = patterns.compiled(node.parts)
            return _words(node.field, lambda text: any(map(fits, text)))
        case tree.Equal():
            return _equal(field_at(node.field), node.field, node.value)
        case tree.Pattern():
            return _pattern(field_at(node.field), node.field, node.parts)
        case tree.Exists():
            return _exists(node.field)
        case tree.Network():
            return _network(field_at(node.field).term, node.network)
        case tree.Numbers():
            return _numbers(node)
        case tree.Received():
            return _received(node)
        case tree.Seqs():
            return lambda terms, first=node.first, end=node.end: first <= terms.seq < end  # type: ignore[misc]
        case _:
            raise TypeError(f"no leaf: {node!r}")


def _received(node: tree.Received) -> Satisfied:
    at = node.at
    if node.before:
        return lambda terms: terms.received_at < at
    return lambda terms: terms.received_at >= at


def _words(field: str, holds: Callable[[tuple[str, ...]], bool]) -> Satisfied:
    """Return the function of a condition on the tokens of one text; of any text where `field` is empty."""
    if not field:
        return lambda terms: any(map(holds, terms.texts))
    term = field_at(field).term
    return lambda terms: (text := getattr(terms, term)) is not None and holds(tokens(text))


def _phrase(words: tuple[str, ...]) -> Callable[[tuple[str, ...]], bool]:
    first, count = words[0], len(words)
    if count == 1:
        return lambda text: first in text

    def holds(text: tuple[str, ...]) -> bool:
        at, last = 0, len(text) - count
        while at <= last:
            try:
                at = text.index(first, at, last + 1)
            except ValueError:
                return False
            if text[at : at + count] == words:
                return True
            at += 1
        return False

    return holds


def _equal(field: Field, path: str, value: str) -> Satisfied:
    term = field.term
    if field.kind is Kind.LEAVES:
        wanted = leaf(path, value)
        return lambda terms: wanted in terms.leaves
    if field.kind is Kind.KEYWORDS:
        return lambda terms: value in getattr(terms, term)
    return lambda terms: getattr(terms, term) == value


def _pattern(field: Field, path: str, parts: tree.Parts) -> Satisfied:
    term, fits = field.term, patterns.compiled(parts)
    if field.kind is Kind.LEAVES:
        start = leaf(path, "")
        length = len(start)
        return lambda terms: any(each.startswith(start) and fits(each[length:]) for each in terms.leaves)
    if field.kind is Kind.KEYWORDS:
        return lambda terms: any(map(fits, getattr(terms, term)))
    return lambda terms: (found := getattr(terms, term)) is not None and bool(fits(found))


def _exists(path: str) -> Satisfied:
    if is_root(path) or field_at(path).kind is Kind.LEAVES:
        wanted = path_term(path)
        return lambda terms: wanted in terms.paths
    term = field_at(path).term
    return lambda terms: (found := getattr(terms, term)) is not None and found != frozenset()


def _network(term: str, text: str) -> Satisfied:
    network = ipaddress.ip_network(text)

    def satisfied(terms: Terms) -> bool:
        found = getattr(terms, term)
        return found is not None and ipaddress.ip_address(found) in network

    return satisfied


def between(node: tree.Numbers) -> Callable[[str], bool]:
    """Return the function that decides whether a number, as `terms.ordered` writes it, lies within the bounds of a range."""
    low = ordered_text(node.low) if node.low else None
    high = ordered_text(node.high) if node.high else None

    def inside(found: str) -> bool:
        if low is not None and (found < low or (node.above and found == low)):
            return False
        return high is None or found < high or (found == high and not node.below)

    return inside


def _numbers(node: tree.Numbers) -> Satisfied:
    start = leaf(node.field, "")
    length = len(start)
    inside = between(node)
    return lambda terms: any(each.startswith(start) and inside(each[length:]) for each in terms.numbers)
