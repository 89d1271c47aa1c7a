"""Translation of a `Query` to SQL conditions over the columns of `records`.

Conditions over columns are exact. For full text and `metadata` the conditions only narrow: every match satisfies them, and the
matcher of the domain must decide afterwards.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from decklog.domain.records.record import Outcome, Severity
from decklog.domain.search.fields import Kind
from decklog.domain.search.query import Filter, Query
from decklog.domain.search.terms import KEYWORD_CHARS_MAX

RECEIPT_SLACK = timedelta(hours=1)
"""`occurred_at` is at most 5 minutes after `received_at`, by clocks that may differ. So a lower bound of `occurred_at`, less this
slack, bounds `received_at` too, and partitions can be pruned."""

_INDEXED = frozenset({"actor_id", "action", "resource_id", "id"})
"""Columns in front of `seq` in an index of `records`."""
_VERBATIM = frozenset(string.ascii_letters + string.digits + " .,:;!?@#$&*()[]{}<>|+=~^'-/")
"""Characters that canonical JSON never escapes."""
_ONLY_ONE_CASE = frozenset("abcdefghjlmnopqrtuvwxyz0123456789")
"""Lower-case letters that only their own capital folds to. Other characters fold to `k`, `i` and `s` too (Kelvin sign, long s)."""


class Parameters:
    """The values of a statement, in the order of their numbers."""

    def __init__(self, *values: Any) -> None:
        self.values = list(values)

    def add(self, value: Any) -> str:
        """Add a value and return its placeholder: $1, $2, …."""
        self.values.append(value)
        return f"${len(self.values)}"


def _word_pattern(word: str) -> str:
    """Return an ILIKE pattern that any content with this word matches; characters of uncertain case match any character."""
    return "%" + "".join(c if c in _ONLY_ONE_CASE else "_" for c in word) + "%"


def _value_pattern(value: str) -> str | None:
    """Return a LIKE pattern that any content with this value matches, or None if JSON may escape a character of it."""
    return f"%{value}%" if value and set(value) <= _VERBATIM else None


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
        case Kind.KEYWORD if wanted.prefix:
            # In the order of bytes, every value with this prefix lies between it and it followed by the last code points.
            last = value + chr(0x10FFFF) * KEYWORD_CHARS_MAX
            return [f"{column} >= {add(value)}", f"{column} <= {add(last)}"] if value else []
        case Kind.KEYWORD:
            return [f"{column} = {add(value)}"]
        case Kind.CHOICE:
            return [f"{column} = {wanted.field.choices.index(value)}"]
        case Kind.CHOICES:
            # Constants instead of parameters: every plan then knows how rare they are, and which index holds them.
            numbers = sorted(wanted.field.choices.index(choice) for choice in value)
            return [f"{column} IN ({', '.join(map(str, numbers))})"]
        case Kind.NETWORK:
            return [f"{column} <<= {add(value)}::text::inet"]
        case Kind.LEAVES:
            patterns = (_value_pattern(text) for _, text in value)
            return [f"{column} LIKE {add(pattern)}" for pattern in patterns if pattern is not None]
        case Kind.WORDS:
            return [f"{column} ILIKE {add(_word_pattern(word))}" for word in value]


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
