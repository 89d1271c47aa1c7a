"""Reading of the query language: from text to a tree.

Words that are apart must all occur; NOT binds closest, then AND, then OR. What is not understood is refused with its place, and
nothing that looks like syntax is taken as words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TypeAlias

from decklog.domain.errors import DecklogError
from decklog.domain.search import conditions, grammar, lexemes, names, tree
from decklog.domain.search.conditions import Edge, Source, Text
from decklog.domain.search.fields import PLACES
from decklog.domain.search.grammar import Parsed, end_of, kind_of, parts_of, start_of
from decklog.domain.search.terms import parse_network

_BOUNDS = {"since": True, "from": True, "until": False, "to": False}
"""Names that bound the time, and whether from below."""
_SCHEMES = frozenset({"http", "https", "arn", "urn", "s3", "ftp", "file", "mailto", "ssh", "ws", "wss", "git", "jdbc"})
"""Beginnings of texts with a colon that are no fields."""
_COMPARED = re.compile(r"((?:[^\\<>=]|\\.)+)(<=|>=|<|>|==?)(.+)", re.DOTALL)

_OfText: TypeAlias = Callable[[Text], tree.Node]


def read(query: str, now: datetime) -> tree.Node:
    """Return the tree of a query; `now` is what its relative times refer to.

    Raises:
        DecklogError: `invalid-query`, with the place of what was not understood and, where there is one, a suggestion.
    """
    return _Reader(Source(query, now)).node(grammar.parse(query))


def _text(part: Parsed) -> Text:
    return Text(str(part), kind_of(part) == "QUOTED", start_of(part), end_of(part))


class _Reader:
    """Gives the parse tree of one query its meaning."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def node(self, part: Parsed) -> tree.Node:
        """Return the node of a part outside of a field."""
        match kind_of(part):
            case "WORD" | "QUOTED":
                return self._word(_text(part))
            case "field":
                return self._field(part)
            case kind:
                return _combined(kind, [self.node(child) for child in parts_of(part)])

    def _refused(self, part: Parsed, why: str, suggestion: str | None = None) -> DecklogError:
        return self._source.refused(start_of(part), end_of(part), why, suggestion)

    def _word(self, text: Text) -> tree.Node:
        found = None if text.quoted else _COMPARED.fullmatch(text.raw)
        if found is None:
            return conditions.words(self._source, text)
        name, operator, value = found.groups()
        name = name if names.resolve(lexemes.unescaped(name)) else names.nearest(name)
        why = "Field and value have a colon between them, also in front of >, >=, < and <=. A text with these signs is quoted."
        meant = f"{name}:{operator.strip('=') and operator}{value}"
        raise self._source.refused(text.start, text.end, why, meant)

    def _field(self, part: Parsed) -> tree.Node:
        head, condition = parts_of(part)
        name = lexemes.unescaped(str(head)[:-1])
        if name == names.EXISTS:
            return self._condition(condition, self._exists, None)
        named = names.resolve(name)
        if named is None:
            raise self._unknown(part, head, name)
        if name in _BOUNDS:
            if kind_of(condition) not in ("VALUE", "QUOTED"):
                raise self._refused(condition, f"One time stands behind {name}, as in {name}:2026-01-31 or {name}:24h")
            return conditions.bound(self._source, _text(condition), since=_BOUNDS[name])
        return self._condition(condition, partial(conditions.value, self._source, named), named)

    def _condition(self, part: Parsed, of_text: _OfText, named: names.Named | None) -> tree.Node:
        """Return the node of what stands behind the colon; without `named`, it can be no range."""
        match kind_of(part):
            case "VALUE" | "QUOTED" | "EDGE":
                return of_text(_text(part))
            case "compared" if named is not None:
                return self._compared(part, named)
            case "range" if named is not None:
                return self._range(part, named)
            case "compared" | "range":
                raise self._refused(part, "The name of a field stands behind exists, as in exists:session_id")
            case kind:
                self._check_group(kind, part, named)
                return _combined(kind, [self._condition(child, of_text, named) for child in parts_of(part)])

    def _check_group(self, kind: str, part: Parsed, named: names.Named | None) -> None:
        """Refuse what can never match, or would be read as something else."""
        children = parts_of(part)
        if kind == "negation" and kind_of(children[0]) == "VALUE" and str(children[0])[0].isdigit():
            number = f'"-{children[0]}"'
            raise self._refused(
                part, f"Within parentheses a minus excludes a value. A negative number is quoted: {number}", number
            )
        plain = [child for child in children if kind_of(child) in ("VALUE", "QUOTED")]
        if kind == "both" and len(plain) > 1 and named is not None and conditions.single_valued(named.field):
            first, second = plain[:2]
            why = f"One field has one value only, so {str(first)[:40]} and {str(second)[:40]} cannot both be it."
            raise self._source.refused(start_of(first), end_of(second), why, f"{first} OR {second}")

    def _compared(self, part: Parsed, named: names.Named) -> tree.Node:
        operator, value = parts_of(part)
        edge = Edge(_text(value), strict=len(str(operator)) == 1)
        above = str(operator).startswith(">")
        return conditions.within(self._source, named, edge if above else None, None if above else edge)

    def _range(self, part: Parsed, named: names.Named) -> tree.Node:
        first, low, high, last = parts_of(part)
        ends = (Edge(_text(low), first == "{"), Edge(_text(high), last == "}"))
        below, above = (None if end.text.raw == "*" else end for end in ends)
        if below is None and above is None:
            raise self._refused(part, f"A range needs at least one end. A field that has a value: exists:{named.path}")
        return conditions.within(self._source, named, below, above)

    def _exists(self, text: Text) -> tree.Node:
        name = lexemes.unquoted(text.raw) if text.quoted else lexemes.unescaped(text.raw)
        if names.is_root(name):
            return tree.Exists(name)
        named = names.resolve(name)
        if named is None or name in _BOUNDS:
            raise self._source.refused(text.start, text.end, _no_field(name), names.nearest(name))
        if named.field in PLACES:
            raise self._source.refused(text.start, text.end, f"Every record has a {named.path}.")
        return tree.Exists(named.path)

    def _unknown(self, part: Parsed, head: Parsed, name: str) -> DecklogError:
        """Return the refusal of a field that does not exist."""
        whole = self._source.query[start_of(part) : end_of(part)]
        if parse_network(whole) is not None:
            return self._refused(part, "An address with colons belongs to a field, or is quoted.", f"source.ip:{whole}")
        if name.lower() in _SCHEMES or name.isdigit():
            why = f"There is no field {name!r}. A text with a colon is quoted."
            return self._refused(part, why, lexemes.quoted(lexemes.unescaped(whole)))
        if names.is_root(name):
            return self._refused(part, f"{name} has leaves, each with a path of its own, as in {name}.key:value")
        if name == "log":
            return self._refused(part, "The log is no field of a record. It is chosen by the parameter `log`.")
        why = _no_field(name)
        start = start_of(head)
        return self._source.refused(start, end_of(head) - 1, why, lexemes.escaped(names.nearest(name)))


def _no_field(name: str) -> str:
    return f"There is no field {name[:80]!r}. Fields are {', '.join(names.SHOWN)} and leaves, like metadata.reason."


def _combined(kind: str, children: list[tree.Node]) -> tree.Node:
    if kind == "negation":
        return tree.negation(children[0])
    return tree.disjunction(children) if kind == "either" else tree.conjunction(children)
