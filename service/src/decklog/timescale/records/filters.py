"""Translation of a `Query` to SQL conditions over the columns of `records`.

Every match satisfies the conditions. Where columns decide (`domain.search.decided`), nothing else does; for the rest the conditions only
narrow, and the matcher of the domain must decide afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from decklog.domain.records.record import Outcome, Severity
from decklog.domain.search import decided, patterns, tree
from decklog.domain.search.fields import CONTENT, Field, Kind
from decklog.domain.search.names import field_at, is_root
from decklog.domain.search.query import Query
from decklog.domain.search.terms import COLUMN_CHARS_MAX, column_forms

RECEIPT_SLACK = timedelta(hours=1)
"""`occurred_at` is at most 5 minutes after `received_at`, by clocks that may differ. So a lower bound of `occurred_at`, less this
slack, bounds `received_at` too, and partitions can be pruned."""

_INDEXED = frozenset({"actor_id", "action", "resource_id", "id"})
"""Columns in front of `seq` in an index of `records`."""
LITERAL_CHARS_MAX = 16
"""Characters of a text that SQL looks for in the content. For each character of the content, PostgreSQL compares at most so many."""
LITERALS_MAX = 6
"""Texts that one query looks for, each in a pass of its own over the content. The matcher compares the rest."""
_LITERAL_CHARS_MIN = 2
"""A single letter is in nearly all contents, so to look for it excludes nothing."""
_VERBATIM = re.compile(r"[A-Za-z0-9 .,:;!?@#$&*()\[\]{}<>|+=~^'/-]+")
"""Characters that canonical JSON never escapes, and that are no wildcards."""
_ONE_CASE = re.compile("[a-z0-9]+")
"""Characters that are no wildcards, and that only they and their capitals fold to within ASCII."""
_NOT_ASCII = f"length({CONTENT}) <> octet_length({CONTENT})"
"""Of other characters, an accent or another form may hide a word."""
_LIKE = str.maketrans({"%": r"\%", "_": r"\_", "\\": r"\\"})
_LAST = chr(0x10FFFF) * (2 * COLUMN_CHARS_MAX)
"""In the order of bytes, every value with a prefix lies between it and it followed by the last code points."""


class Parameters:
    """The values of a statement, in the order of their numbers."""

    def __init__(self, *values: Any) -> None:
        self.values = list(values)

    def add(self, value: Any) -> str:
        """Add a value and return its placeholder: $1, $2, …."""
        self.values.append(value)
        return f"${len(self.values)}"


def conditions(query: Query, parameters: Parameters) -> list[str]:
    """Return conditions, all of which hold for every record that matches."""
    narrowing = _Narrowing(parameters)
    # The content is searched for what excludes most first, because the passes over it are few.
    by_content = sorted((node for node in query.conjuncts if not decided.by_columns(node)), key=_selectivity, reverse=True)
    found = [narrowing.of(node) for node in (*(node for node in query.conjuncts if decided.by_columns(node)), *by_content)]
    found += [f"received_at >= {parameters.add(query.since - RECEIPT_SLACK)}"] if query.since is not None else []
    return [condition for condition in found if condition is not None]


def _selectivity(node: tree.Node) -> int:
    """Return the length of the text that a conjunct looks for in the content."""
    match node:
        case tree.Phrase():
            return len(_word_literal(node.words))
        case tree.WordPattern():
            return len(_word_literal(patterns.literals(node.parts)))
        case tree.Equal() | tree.Pattern() | tree.Exists() | tree.Numbers():
            return len(_value_literal(node))
        case _:
            return 0


def _longest(texts: Iterable[str]) -> str:
    return max(texts, key=len, default="")[:LITERAL_CHARS_MAX]


def _word_literal(words: Sequence[str]) -> str:
    """Return the longest text that every content of ASCII with these words holds, if capitals count as small letters."""
    return _longest(run for word in words for run in _ONE_CASE.findall(word))


def _value_literal(node: tree.Equal | tree.Pattern | tree.Exists | tree.Numbers) -> str:
    """Return the longest text that every content with such a value holds as it is: a part of the value, or of a key."""
    texts = node.field.split(".")[1:] if is_root(node.field) or field_at(node.field).kind is Kind.LEAVES else []
    match node:
        case tree.Equal():
            texts.append(node.value)
        case tree.Pattern():
            texts += patterns.literals(node.parts)
    return _longest(run for text in texts for run in _VERBATIM.findall(text))


class _Narrowing:
    """Makes the conditions of one query, and adds their parameters."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._add = parameters.add
        self._passes = LITERALS_MAX

    def of(self, node: tree.Node) -> str | None:
        """Return a condition that holds for every match of a node, the same as the node where columns decide; None for no condition."""
        match node:
            case tree.Everything():
                return None
            case tree.And():
                found = [condition for child in node.children if (condition := self.of(child)) is not None]
                return f"({' AND '.join(found)})" if found else None
            case tree.Or():
                return self._any(node)
            case tree.Not():
                # A column without a value makes a comparison unknown, and the record satisfies the negation.
                return f"({self.of(node.child)}) IS NOT TRUE" if decided.by_columns(node.child) else None
            case tree.Since():
                return f"occurred_at >= {self._add(node.at)}"
            case tree.Until():
                return f"occurred_at < {self._add(node.at)}"
            case tree.Received():
                return f"received_at {'<' if node.before else '>='} {self._add(node.at)}"
            case tree.Seqs():
                return f"(seq >= {self._add(node.first)} AND seq < {self._add(node.end)})"
            case tree.Phrase():
                return self._content(_word_literal(node.words), "ILIKE")
            case tree.WordPattern():
                return self._content(_word_literal(patterns.literals(node.parts)), "ILIKE")
            case tree.Network():
                return f"{field_at(node.field).column} <<= {self._add(node.network)}::text::inet"
            case _:
                return self._value(node)

    def _any(self, node: tree.Or) -> str | None:
        equal = [child for child in node.children if isinstance(child, tree.Equal)]
        if len(equal) == len(node.children) and len({child.field for child in equal}) == 1:
            field = field_at(equal[0].field)
            if field.column != CONTENT:
                return self._equal(field, [child.value for child in equal])
        before, passes = len(self._parameters.values), self._passes
        found = [self.of(child) for child in node.children]
        conditions = [condition for condition in found if condition is not None]
        if len(conditions) < len(found):
            del self._parameters.values[before:]  # PostgreSQL refuses a parameter that no condition uses
            self._passes = passes
            return None
        return f"({' OR '.join(conditions)})"

    def _content(self, literal: str, operator: str) -> str | None:
        """Return the condition of a content that holds a literal, which has no wildcard.

        Between the wildcards at both ends the pattern has no other, so a comparison never has to go back: the work is linear in the
        content.
        """
        if len(literal) < _LITERAL_CHARS_MIN or not self._passes:
            return None
        self._passes -= 1
        found = f"{CONTENT} {operator} {self._add(f'%{literal}%')}"
        return f"({found} OR {_NOT_ASCII})" if operator == "ILIKE" else found

    def _value(self, node: tree.Equal | tree.Pattern | tree.Exists | tree.Numbers) -> str | None:
        field = None if is_root(node.field) else field_at(node.field)
        if field is None or field.column == CONTENT or isinstance(node, tree.Numbers):
            return self._content(_value_literal(node), "LIKE")
        match node:
            case tree.Equal():
                return self._equal(field, [node.value])
            case tree.Pattern():
                return self._pattern(field.column, node.parts)
            case tree.Exists():
                return f"{field.column} IS NOT NULL"

    def _equal(self, field: Field, values: Sequence[str]) -> str:
        if field.choices:
            # Constants instead of parameters: every plan then knows how rare they are, and which index holds them.
            numbers = sorted(field.choices.index(value) for value in values)
            return f"{field.column} IN ({', '.join(map(str, numbers))})"
        forms = [form for value in values for form in column_forms(value)]
        if len(forms) == 1:
            return f"{field.column} = {self._add(forms[0])}"
        return f"{field.column} = ANY({self._add(forms)}::text[])"

    def _pattern(self, column: str, parts: tree.Parts) -> str:
        if patterns.is_prefix(parts):
            start = patterns.beginning(parts)[:COLUMN_CHARS_MAX]
            return f"({column} >= {self._add(start)} AND {column} <= {self._add(start + _LAST)})"
        text = "".join(_LIKE_WILD[part] if isinstance(part, tree.Wild) else part.translate(_LIKE) for part in parts)
        # A column holds the beginning of a longer value.
        return f"({column} LIKE {self._add(text)} OR length({column}) >= {COLUMN_CHARS_MAX})"


_LIKE_WILD = {tree.Wild.MANY: "%", tree.Wild.ONE: "_"}


def by_index(query: Query) -> bool:
    """Return whether some index, in the order of `seq`, holds what matches and little more.

    Then one plan is right for any values of the parameters.
    """
    if any(bound is not None for bound in (query.since, query.until, query.received_since, query.received_until)):
        return False
    return query.empty or any(_indexed(node) or _went_wrong(node) for node in query.conjuncts)


def _indexed(node: tree.Node) -> bool:
    return isinstance(node, tree.Equal) and field_at(node.field).column in _INDEXED


_WRONG: dict[str, set[str]] = {"severity": {Severity.ERROR, Severity.CRITICAL}, "outcome": {Outcome.FAILURE, Outcome.DENIED}}


def _went_wrong(node: tree.Node) -> bool:
    wanted = node.children if isinstance(node, tree.Or) else (node,)
    return all(isinstance(each, tree.Equal) and each.value in _WRONG.get(each.field, set()) for each in wanted)
