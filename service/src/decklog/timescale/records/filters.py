"""Translation of a `Query` to SQL conditions over the columns of `records`.

Conditions over columns are exact. For full text and `metadata` the conditions only narrow: every match satisfies them, and the
matcher of the domain must decide afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from decklog.domain.records.record import Outcome, Severity
from decklog.domain.search.fields import CONTENT, Kind
from decklog.domain.search.query import Filter, Query
from decklog.domain.search.terms import COLUMN_CHARS_MAX, column_forms

RECEIPT_SLACK = timedelta(hours=1)
"""`occurred_at` is at most 5 minutes after `received_at`, by clocks that may differ. So a lower bound of `occurred_at`, less this
slack, bounds `received_at` too, and partitions can be pruned."""

_INDEXED = frozenset({"actor_id", "action", "resource_id", "id"})
"""Columns in front of `seq` in an index of `records`."""
LITERAL_CHARS_MAX = 16
"""Characters of a text that SQL looks for in the content. For each character of the content, PostgreSQL compares at most so many."""
LITERALS_MAX = 4
"""Texts that one filter looks for, each in a pass of its own over the content. The matcher compares the rest."""
_LITERAL_CHARS_MIN = 2
"""A single letter is in nearly all contents, so to look for it excludes nothing."""
_VERBATIM = re.compile(r"[A-Za-z0-9 .,:;!?@#$&*()\[\]{}<>|+=~^'/-]+")
"""Characters that canonical JSON never escapes, and that are no wildcards."""
_ONE_CASE = re.compile("[a-z0-9]+")
"""Characters that are no wildcards, and that only they and their capitals fold to within ASCII."""
_NOT_ASCII = f"length({CONTENT}) <> octet_length({CONTENT})"


class Parameters:
    """The values of a statement, in the order of their numbers."""

    def __init__(self, *values: Any) -> None:
        self.values = list(values)

    def add(self, value: Any) -> str:
        """Add a value and return its placeholder: $1, $2, …."""
        self.values.append(value)
        return f"${len(self.values)}"


def _literal(word: str) -> str:
    """Return the longest text that every content of ASCII with this word holds, if capitals count as small letters."""
    return max(_ONE_CASE.findall(word), key=len, default="")


def _patterns(literals: Iterable[str]) -> list[str]:
    """Return patterns for the longest of these texts, none of which has a wildcard.

    Between the wildcards at both ends a pattern has no other, so a comparison never has to go back: the work is linear in the content.
    """
    bounded = {literal[:LITERAL_CHARS_MAX] for literal in literals}
    longest = sorted((literal for literal in bounded if len(literal) >= _LITERAL_CHARS_MIN), key=lambda text: (-len(text), text))
    return [f"%{literal}%" for literal in longest[:LITERALS_MAX]]


def conditions(query: Query, parameters: Parameters) -> list[str]:
    """Return conditions, all of which hold for every record that matches."""
    return [condition for wanted in query.filters for condition in _conditions(wanted, parameters.add)]


def _conditions(wanted: Filter, add: Callable[[Any], str]) -> list[str]:
    """Return the conditions of one filter; `add` takes a value and returns its parameter."""
    column, value = wanted.field.column, wanted.value
    match wanted.field.kind:
        case Kind.SINCE:
            return [f"{column} >= {add(value)}", f"received_at >= {add(value - RECEIPT_SLACK)}"]
        case Kind.UNTIL:
            return [f"{column} < {add(value)}"]
        case Kind.KEYWORD if column == CONTENT:
            return _containing([value], add)
        case Kind.KEYWORD if wanted.prefix:
            # In the order of bytes, every value with this prefix lies between it and it followed by the last code points.
            # Beyond the characters that a column holds, the matcher decides.
            value = value[:COLUMN_CHARS_MAX]
            last = value + chr(0x10FFFF) * (2 * COLUMN_CHARS_MAX)
            return [f"{column} >= {add(value)}", f"{column} <= {add(last)}"] if value else []
        case Kind.KEYWORD:
            forms = column_forms(value)
            return [f"{column} = {add(forms[0])}" if len(forms) == 1 else f"{column} = ANY({add(list(forms))}::text[])"]
        case Kind.KEYWORDS:
            return _containing([value], add)
        case Kind.CHOICE:
            return [f"{column} = {wanted.field.choices.index(value)}"]
        case Kind.CHOICES:
            # Constants instead of parameters: every plan then knows how rare they are, and which index holds them.
            numbers = sorted(wanted.field.choices.index(choice) for choice in value)
            return [f"{column} IN ({', '.join(map(str, numbers))})"]
        case Kind.NETWORK:
            return [f"{column} <<= {add(value)}::text::inet"]
        case Kind.LEAVES:
            return _containing((text for _, text in value), add)
        case Kind.TEXT | Kind.WORDS:
            # Of other characters than ASCII, an accent or another form may hide a word.
            return [f"({CONTENT} ILIKE {add(pattern)} OR {_NOT_ASCII})" for pattern in _patterns(map(_literal, value))]


def _containing(values: Iterable[str], add: Callable[[Any], str]) -> list[str]:
    """Return the conditions of a content that holds these values as they are."""
    return [f"{CONTENT} LIKE {add(pattern)}" for pattern in _patterns(filter(_VERBATIM.fullmatch, values))]


def by_index(query: Query) -> bool:
    """Return whether some index, in the order of `seq`, holds what matches and little more.

    Then one plan is right for any values of the parameters.
    """
    if query.since is not None or query.until is not None:
        return False
    indexed = any(wanted.field.column in _INDEXED and not wanted.prefix for wanted in query.filters)
    return query.empty or indexed or _went_wrong(query)


def _went_wrong(query: Query) -> bool:
    severe = bool(query.severities) and set(query.severities) <= {Severity.ERROR, Severity.CRITICAL}
    return severe or query.outcome in (Outcome.FAILURE, Outcome.DENIED)
