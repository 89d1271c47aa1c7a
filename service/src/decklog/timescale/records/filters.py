"""A `Query` as SQL over the columns of `records`.

What columns decide is decided exactly. Full text and `metadata` are only narrowed by conditions that every match
fulfils; the matcher of the domain decides them afterwards, so that Postgres never has an opinion of its own.
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
"""A record is received at most 5 minutes before it occurred, by clocks of processes that may differ; with room to spare,
a lower bound of `occurred_at` is one of `received_at` too, and partitions can be left out."""

_INDEXED = frozenset({"actor_id", "action", "resource_id", "id"})
"""Columns that an index of `records` has in front of `seq`."""
_VERBATIM = frozenset(string.ascii_letters + string.digits + " .,:;!?@#$&*()[]{}<>|+=~^'-/")
"""Characters that stand in canonical JSON as they are; others may be escaped or folded there."""
_ONLY_ONE_CASE = frozenset("abcdefghjlmnopqrtuvwxyz0123456789")
"""Lower-case letters that no character but their own capital folds to; `k`, `i` and `s` have exotic relatives."""


class Parameters:
    """Values of a statement, numbered as they come."""

    def __init__(self, *values: Any) -> None:
        self.values = list(values)

    def add(self, value: Any) -> str:
        self.values.append(value)
        return f"${len(self.values)}"


def _word_pattern(word: str) -> str:
    """A LIKE pattern that content with this word fulfils, whatever the case; doubtful characters match any one."""
    return "%" + "".join(c if c in _ONLY_ONE_CASE else "_" for c in word) + "%"


def _value_pattern(value: str) -> str | None:
    """A LIKE pattern that content with this `metadata` value fulfils, or None where JSON may spell it otherwise."""
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
            # Our own numbers, in the text: so every plan knows how rare they are, and which index holds them.
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
